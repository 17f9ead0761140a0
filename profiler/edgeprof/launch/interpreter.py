"""Whether a Python given with ``--worker-python`` can run the worker."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from edgeprof.errors import InputError

MINIMUM = (3, 6)

_ASK = """
import platform
print(platform.python_version())
try:
    import numpy
    print(numpy.__version__)
except Exception as error:
    print("-", type(error).__name__, error)
"""


@functools.cache
def probe(python: str) -> str:
    """Ask an interpreter for its version, once per process.

    Returns:
        The path to start it by.

    Raises:
        InputError: there is no such program, it is no Python, it is too old, or it has no numpy.
    """
    path = shutil.which(str(Path(python).expanduser()))
    if path is None:
        what = "is not executable" if Path(python).exists() else "does not exist"
        raise InputError(
            f"--worker-python {python} {what}",
            remedy="Give the path of the Python that has the runtime, as --worker-python /usr/bin/python3.",
        )
    try:
        done = subprocess.run(
            [path, "-c", _ASK], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"--worker-python {python} cannot be run: {error}", remedy="Give the path of a Python interpreter."
        ) from error
    lines = done.stdout.splitlines()
    version = _version(lines[0]) if lines else None
    if done.returncode != 0 or version is None or len(lines) < 2:
        message = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise InputError(
            f"--worker-python {python} is not a Python interpreter that works: {message}",
            remedy=f"Try: {python} -c pass",
        )
    if version < MINIMUM:
        raise InputError(
            f"--worker-python {python} is Python {lines[0]}; the worker needs 3.6 or newer",
            remedy="Give a newer interpreter that has the runtime.",
        )
    if lines[1].startswith("-"):
        raise InputError(
            f"--worker-python {python} (Python {lines[0]}) cannot import numpy: {lines[1].removeprefix('- ')}",
            remedy=f"{path} -m pip install numpy   (or: sudo apt install python3-numpy)",
        )
    return path


def _version(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(part.isdigit() for part in parts) else None
