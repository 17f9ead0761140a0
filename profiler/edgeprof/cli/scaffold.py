"""Write a new plugin for ``edgeprof plugins new``: the files of templates/ with the plugin's name filled in."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

from edgeprof.errors import InputError

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: Kind of plugin → the dependencies of its distribution, as in pyproject.toml.
DEPENDENCIES = {
    "sensor": '"edgeprof"',
    "runtime": '"edgeprof"',
    "compressor": '"edgeprof", "onnx>=1.16"',
    "metric": '"edgeprof", "numpy"',
    "dataset": '"edgeprof", "numpy"',
    "reporter": '"edgeprof"',
    "exporter": '"edgeprof"',
}


def write(name: str, kind: str, directory: Path) -> list[Path]:
    """Write the files of a new plugin.

    Args:
        name: Name of the plugin: lower-case words joined by hyphens.
        kind: One of ``DEPENDENCIES``.
        directory: A folder that does not exist yet, or is empty.

    Returns:
        The paths of the files.

    Raises:
        InputError: the name is not valid, or the folder is in use or cannot be written.
    """
    if not _NAME.fullmatch(name):
        remedy = "Use lower-case letters and digits, and hyphens between words, as in my-meter."
        raise InputError(f"{name!r} cannot be the name of a plugin", remedy=remedy)
    if name in DEPENDENCIES:  # "plugins new runtime DIR" would make a sensor
        raise InputError(
            f"{name!r} is a kind of plugin, not a name",
            remedy=f"edgeprof plugins new {shlex.quote(directory.name)} {shlex.quote(str(directory))} --kind {name}",
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} already exists and is not an empty folder", remedy="Name a new folder.")
    module = "edgeprof_" + name.replace("-", "_")
    words = {
        "name": name,
        "NAME": name.upper(),
        "Class": "".join(word.capitalize() for word in name.split("-")),
        "module": module,
        "kind": kind,
        "dependencies": DEPENDENCIES[kind],
    }
    files = {
        "pyproject.toml": "common/pyproject.toml.in",
        "README.md": "common/README.md.in",
        f"src/{module}.py": f"{kind}/module.py.in",
        f"tests/test_{module.removeprefix('edgeprof_')}.py": f"{kind}/test.py.in",
    }
    written = []
    try:
        for target, template in files.items():
            path = directory / target
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written: {error.strerror}", remedy="Name a folder that you may write to."
        ) from None
    return written
