"""Workers that are forks of the test's process: the worker's code runs, but its libraries are not imported once more.

Importing a library takes longer than all that a small model is asked to do: 0.5 s for ONNX Runtime, 7 s for PyTorch's
exported programs. That a worker is started as a process of its own, by whichever Python, is tested where it is the
subject (``tests/profiler/launch``, ``tests/profiler/worker``, and wherever the command is run), and so is what it
measures of its own memory, which a fork shares with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Streams of the parent, which would write here what the parent has not written yet, if they were closed.
_KEPT: list[object] = []


class ForkedWorker:
    """Takes the place of ``subprocess.Popen`` for the process of a worker.

    Args:
        command: What would be run: Python, the worker's script and the script's arguments.
        stdin: Not used: a worker reads nothing.
        stdout: Where it prints.
        stderr: The same file.
        pass_fds: The descriptors that it gets.
        env: Its environment.
        start_new_session: Always true.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        start_new_session: bool,
    ) -> None:
        assert stdin == subprocess.DEVNULL
        assert stdout is stderr
        assert start_new_session
        self.returncode: int | None = None
        with warnings.catch_warnings():
            # The threads of libraries are not copied; the worker starts those that it needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            _work(command[1:], stdout.fileno(), pass_fds, env)

    def wait(self, timeout: float) -> int:
        """Reap the worker and return its exit status as ``Popen`` does."""
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout)
            else:
                time.sleep(0.001)
        return self.returncode


def _work(argv: Sequence[str], output: int, pass_fds: Sequence[int], env: Mapping[str, str]) -> NoReturn:
    """Make of this fork what a new interpreter would be, but for the libraries that are loaded, and run the script."""
    try:
        gc.freeze()  # the parent's files must not close descriptors here
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for number, source in enumerate((null, output, output)):
            os.dup2(source, number)
        first = 3
        for number in sorted(pass_fds):
            os.closerange(first, number)
            os.set_inheritable(number, True)
            first = number + 1
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        sys.unraisablehook = sys.__unraisablehook__
        _KEPT.extend((sys.stdout, sys.stderr))
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - as an interpreter has them
        os.environ.clear()
        os.environ.update(env)
        sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
        _load(env.get("LD_LIBRARY_PATH", ""))
        sys.argv = list(argv)
        for name in [name for name in sys.modules if name.partition(".")[0].startswith("edgeprof")]:
            del sys.modules[name]
        if torch := sys.modules.get("torch"):  # the fork has none of OpenMP's threads, and PyTorch would wait for them
            torch.set_num_threads(1)
        runpy.run_path(argv[0], run_name="__main__")
    except BaseException:  # noqa: BLE001 - as an interpreter that ends with it
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(1)


def _load(folders: str) -> None:
    """Load the libraries of these folders, where the loader of a new process would look: it reads the path only once.

    Whoever asks for one of them by the name that was linked into it (``-soname``) gets it.
    """
    for folder in filter(None, folders.split(os.pathsep)):
        for library in sorted(Path(folder).glob("*.so*")):
            ctypes.CDLL(str(library))


def _start(command: Sequence[str], **given: Any) -> ForkedWorker | subprocess.Popen[bytes]:
    """Fork for a worker of this Python; another one is a process of its own."""
    return (ForkedWorker if command[0] == sys.executable else subprocess.Popen)(command, **given)


#: What the module of workers' processes takes from ``subprocess``, with forks in place of new processes.
SUBPROCESS = SimpleNamespace(Popen=_start, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
