"""Show that a runtime works here, by running its smallest model in a process of its own."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import EdgeprofError
from edgeprof.installation import fitting
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.worker.runtime import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.worker.runtime import Runtime

#: How long a library may take to be imported and to run a model of some hundred bytes: PyTorch on a busy board.
TIMEOUT_S = 90.0
#: Formats whose libraries expect another suffix than the format's name.
_SUFFIXES = {"python": ".py", "openvino": ".xml", "ncnn": ".param", "executorch": ".pte"}


class Proof(NamedTuple):
    """The result of running a runtime.

    Attributes:
        works: Whether the library was imported and, where the runtime brings a model, ran it.
        detail: What was done, or the reason why it could not be.
        remedy: What mends it, where that is known.
    """

    works: bool
    detail: str
    remedy: str | None = None


def prove(runtime: Runtime) -> Proof:
    """Import a runtime's library in a process of its own and run the runtime's smallest model there."""
    if runtime.smallest_model is None:
        return _import(runtime)
    with tempfile.TemporaryDirectory(prefix="edgeprof-proof-") as folder:
        chosen = runtime.smallest_format or runtime.formats[0]
        is_python = chosen == "python"
        path = Path(folder) / f"smallest{_SUFFIXES.get(chosen, f'.{chosen}')}"
        path.write_bytes(runtime.smallest_model)
        for suffix, content in runtime.smallest_beside.items():
            path.with_suffix(suffix).write_bytes(content)
        target = f"{path}:model" if is_python else str(path)
        options = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
        return run(runtime, target, options)


def run(runtime: Runtime, target: str, options: LoadOptions) -> Proof:
    """Load a model in a process of its own and run it there once.

    Args:
        runtime: The runtime.
        target: The model, as for ``Runtime.load``.
        options: How it is to be loaded.
    """
    try:
        with Worker(WorkerSpec.of(runtime, target, options, timeout_s=TIMEOUT_S, label=runtime.name)) as worker:
            loaded = worker.load()
    except EdgeprofError as error:
        if getattr(error, "code", None) == Code.TIMEOUT:
            return Proof(False, error.message, "Is the machine busy? If it is not, the runtime hangs: reinstall it.")
        words = f"{error.message}\n{getattr(error, 'last_words', '')}"
        return Proof(False, error.message, loader_remedy(words, runtime.libraries) or error.remedy)
    if loaded.problems:
        return Proof(False, f"it runs and answers wrongly: {loaded.problems[0][1]}")
    return Proof(True, "ran a model")


def _import(runtime: Runtime) -> Proof:
    """Import the first of a runtime's libraries that is found."""
    if not runtime.libraries:
        return Proof(True, "it brings no model to run")
    code = (
        "import importlib, importlib.util\n"
        f"found = [name for name in {list(runtime.libraries)!r} if importlib.util.find_spec(name)]\n"
        "importlib.import_module(found[0])\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Proof(False, f"its import took more than {TIMEOUT_S:.0f} s")
    if done.returncode == 0:
        return Proof(True, "imported; it brings no model to run")
    lines = done.stderr.strip().splitlines() or [f"its import ended with status {done.returncode}"]
    return Proof(False, f"it cannot be imported: {lines[-1]}", loader_remedy(done.stderr, runtime.libraries))


def loader_remedy(words: str, libraries: Sequence[str] = ()) -> str | None:
    """What mends an error of the dynamic loader or of numpy's binary interface; None where it is another error.

    Args:
        words: What the import wrote.
        libraries: The modules that were imported; where it is known which of their releases loads here, it is named.
    """
    needed = [tuple(map(int, version)) for version in re.findall(r"version [`']GLIBC_(\d+)\.(\d+)'", words)]
    if needed:
        name, here = platform.libc_ver()
        version = f"{name} {here}".strip() or "another C library"
        wanted = ".".join(map(str, max(needed)))
        return f"It was built for glibc {wanted} and this system has {version}: {_older_release(libraries)}"
    symbol = re.search(r"version [`']((?:GLIBCXX|CXXABI)_[\d.]+)' not found", words)
    if symbol:
        return f"It needs a newer libstdc++ ({symbol[1]}): install an older release of it, or upgrade the system."
    library = re.search(r"(\S+\.so[.\d]*): cannot open shared object file", words)
    if library:
        name = library[1].rsplit("/", 1)[-1]
        return f"{name} is missing: install the package that holds it, or the library anew if it is a part of that."
    if "_ARRAY_API not found" in words or "compiled using NumPy 1.x" in words:
        return "It was built for NumPy 1: pip install 'numpy<2'"
    if "wrong ELF class" in words or "Exec format error" in words:
        return f"It was built for another processor than {platform.machine()}: install the wheel of this one."
    return None


def _older_release(libraries: Sequence[str]) -> str:
    """What installs a release that loads here, or why there is none."""
    for library in libraries:
        package = library.replace("_", "-")
        requirement, reason = fitting(package)
        if reason is not None:
            return f"{reason}."
        if requirement != package:
            return f"pip install '{requirement}'"
    return "install an older release of it."
