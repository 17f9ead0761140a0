"""``edgeprof doctor --bundle FILE``: collect what a bug report needs, and show it before it is written."""

from __future__ import annotations

import contextlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from edgeprof import __version__
from edgeprof.cli.options import can_ask
from edgeprof.cli.prose import say
from edgeprof.errors import InputError
from edgeprof.roots import BUNDLE_MARKER, SIMULATION_MARKER

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.capture import Tree
    from edgeprof.sensing.redaction import Kind, Redactor

SCHEMA = "edgeprof.bundle/1"
_SUFFIXES = (".tar.gz", ".tgz")
#: Commands of vcgencmd that the Raspberry Pi's firmware is asked; a tree holds each answer in a file of that name.
_VCGENCMD_QUESTIONS = ("pmic_read_adc", "get_throttled")


def run(host: PluginHost, roots: Roots, file: Path, *, yes: bool) -> None:
    """Collect the files, show them, ask, and write the archive.

    Raises:
        InputError: the file's name is not that of a .tar.gz, its folder does not exist, it cannot be written, or nobody
            can be asked.
    """
    from edgeprof.results import files

    if not file.name.endswith(_SUFFIXES):
        raise InputError(
            f"--bundle {file} is not the name of a gzipped tar", remedy=f"edgeprof doctor --bundle {file.name}.tar.gz"
        )
    if not file.absolute().parent.is_dir():
        raise InputError(f"{file.parent} is not a directory", remedy=f"mkdir -p {file.parent}")
    click.echo("looking at the sensors and the runtimes …", err=True)
    tree, redactor = collect(host, roots)
    archive = tree.archive()
    show(tree)
    click.echo(_summary(tree, redactor, len(archive)))
    if not yes and not can_ask():
        raise InputError(
            "nothing was written, because nobody can be asked", remedy=f"edgeprof doctor --bundle {file} --yes"
        )
    if not yes and not click.confirm(f"Write {file}?"):
        click.echo("nothing was written")
        return
    files.write(file, archive)
    say(f"{file} is written. It can be read on any machine: tar xf {file}, then")
    click.echo("  edgeprof sensors --sysfs-root edgeprof-bundle")


def collect(host: PluginHost, roots: Roots) -> tuple[Tree, Redactor]:
    """Build the tree of a bundle.

    Returns:
        The tree, in which names, serial numbers and addresses are replaced, and the redactor that replaced them.
    """
    from edgeprof.cli.doctor_checks import examine
    from edgeprof.cli.sensors import document
    from edgeprof.errors import EdgeprofError
    from edgeprof.sensing.capture import capture_tree, opened_paths
    from edgeprof.sensing.device.host import describe_host, preflight
    from edgeprof.sensing.discover import discover
    from edgeprof.sensing.glance import glance
    from edgeprof.sensing.redaction import Redactor, secrets_of

    manifest: dict[str, Any] = {"schema": SCHEMA, "edgeprof": __version__, "versions": _versions(host)}
    with opened_paths() as paths:
        manifest["checks"] = [check._asdict() for check in examine(host, roots)]
        try:
            describe_host(roots)
            manifest["findings"] = [reason.message for reason in preflight(roots)]
            discovery = discover(host, roots)
            manifest["sensors"] = document(discovery, glance(discovery.sensors, discovery.topology.by_key()))
        except EdgeprofError as error:
            manifest["refusal"] = {"message": error.message, "remedy": error.remedy}
    tree = capture_tree(roots, [*paths, str(roots.sysfs / SIMULATION_MARKER)])
    tree.files |= _vcgencmd_answers(roots)
    manifest["unreadable"] = tree.unreadable
    text = json.dumps(manifest, indent=1, default=str, ensure_ascii=False)
    tree.files[BUNDLE_MARKER] = text.encode("utf-8", "backslashreplace")
    redactor = Redactor(secrets_of(roots), versions=manifest["versions"].values())
    return tree.redacted(redactor), redactor


def _versions(host: PluginHost) -> dict[str, str]:
    """Versions of Python, the C library, the kernel, and every library that edgeprof uses or could use."""
    from edgeprof.cli.doctor_checks import runtime_libraries

    versions = {
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }
    for name in ("click", "msgspec", "numpy", "pluggy", "psutil", *runtime_libraries(host)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name.replace("_", "-"))
    return versions


def _vcgencmd_answers(roots: Roots) -> dict[str, bytes]:
    """The answers of a Raspberry Pi's firmware: path in a captured tree → answer; empty on every other machine."""
    import shutil
    import subprocess

    program = shutil.which("vcgencmd") if roots.is_live else None
    answers = {}
    for question in _VCGENCMD_QUESTIONS if program is not None else ():
        try:
            done = subprocess.run([str(program), question], capture_output=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        answer = done.stdout.partition(b"=")[2] if question == "get_throttled" else done.stdout
        answers[f"root/vcgencmd/{question}"] = answer
    return answers


def show(tree: Tree) -> None:
    """Print every file with its whole content, so that a person sees what will leave the machine."""
    lines = []
    for path, data in sorted(tree.files.items()):
        text = data.decode("utf-8", "replace").replace("\0", " ").rstrip()
        printable = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
        several = "\n" in printable
        indented = "\n".join(f"    {line}" for line in printable.splitlines())
        lines.append(f"{path}\n{indented}" if several else f"{path}  {printable}".rstrip())
    lines += [f"{path}  cannot be read: {reason}" for path, reason in sorted(tree.unreadable.items())]
    click.echo_via_pager("\n".join(lines) + "\n")


def _summary(tree: Tree, redactor: Redactor, size: int) -> str:
    words: dict[Kind, str] = {"name": "names", "serial": "serial numbers", "address": "addresses"}
    replaced = [f"{redactor.counts[kind]} {word}" for kind, word in words.items() if redactor.counts[kind]]
    held = f"{len(tree.files)} files, {len(tree.unreadable)} that cannot be read, {size / 1024:.0f} KiB"
    return (
        f"{held}; replaced: {', '.join(replaced) or 'nothing'}. The archive holds what is shown above and nothing else."
    )
