"""Where a worker process starts: run as a script, by its path, by any Python from 3.6 on.

The parent calls ``PYTHON main.py SOCKET LIFELINE MEMORY_LIMIT [FOLDER]`` with two inherited file descriptors, a number
of bytes (0: no limit) and, for a sandbox, the only folder in which anything may be written. edgeprof need not be
installed for that Python: a stand-in package makes ``edgeprof.worker`` and ``from edgeprof import hookimpl`` importable
from this file's folder, without pluggy or any other library of the parent's.
"""

import fcntl
import importlib
import os
import re
import resource
import select
import signal
import socket
import sys
import types
from typing import Any, Callable, Optional


def main(socket_fd: int, lifeline_fd: int, memory_limit: int, folder: str = "") -> None:
    """Answer requests until the parent sends ``close`` or ends; with ``folder``, write nowhere but there."""
    for fd in (socket_fd, lifeline_fd):
        os.set_inheritable(fd, False)  # what the model starts must not keep them open
    die_with_parent(lifeline_fd)
    _prepare_dying()
    if memory_limit:
        # Not RLIMIT_AS: it counts libraries and the address space that CUDA and arenas only reserve.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    # Line buffering, as on a terminal, so that the last lines before a crash can be shown.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above
    sys.argv = sys.argv[:1]  # an application that parses its arguments must not find ours
    stand_in(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    if folder:  # before numpy comes in, whose threads would not be confined
        from edgeprof.worker import sandbox  # noqa: PLC0415 - importable only now

        sandbox.enter([folder])

    from edgeprof.worker import standstill  # noqa: PLC0415 - importable only now
    from edgeprof.worker.handler import serve  # noqa: PLC0415 - importable only now
    from edgeprof.worker.wire import Connection  # noqa: PLC0415 - importable only now

    standstill.watch()
    serve(Connection(socket.socket(fileno=socket_fd)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # no teardown: some runtimes crash in it, after all requests have been answered


def stand_in(package: str) -> None:
    """Put a package ``edgeprof`` in place whose submodules come from ``package`` and whose own code does not run.

    An edgeprof that is installed for this Python may be of another version, or need libraries that it lacks.
    """
    module: Any = _StandIn("edgeprof")
    module.__path__ = [package]
    module.__file__ = os.path.join(package, "__init__.py")
    module.hookimpl = _hookimpl
    with open(module.__file__, encoding="utf-8") as source:
        version = re.search(r'^__version__ = "(.+)"', source.read(), re.MULTILINE)
    module.__version__ = version.group(1) if version else "unknown"
    sys.modules["edgeprof"] = module


class _StandIn(types.ModuleType):
    """A module ``edgeprof`` with what an application may use under any Python, imported when it is asked for."""

    def __getattr__(self, name: str) -> Any:
        homes = {"pipeline": "worker.pipeline", "stage": "staging", "track": "tracking"}
        home = "edgeprof." + homes[name] if name in homes else None
        if home is None:
            raise AttributeError("module 'edgeprof' has no attribute {!r} in a worker process".format(name))
        return getattr(importlib.import_module(home), name)


def _hookimpl(function: Optional[Callable[..., Any]] = None, **_: Any) -> Any:
    """Takes the place of ``edgeprof.hookimpl`` and marks nothing, because a worker looks for no hooks."""
    if function is not None:
        return function
    return _hookimpl


def die_with_parent(lifeline_fd: int) -> None:
    """Have the kernel kill this whole process group (the parent made one) when the parent's end of the lifeline closes.

    The signal comes however the parent ends and whatever the model does meanwhile, holding the interpreter lock in C
    code included. (PR_SET_PDEATHSIG would follow the parent's thread, which may end long before the process.) Source:
    fcntl(2), F_SETSIG.
    """
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline_fd], [], [], 0)[0]:  # it closed before the kernel was asked to watch
        os._exit(1)


def _prepare_dying() -> None:
    """Print a Python stack on stderr at a crash and at the parent's SIGABRT after a hang, and write no core file."""
    import faulthandler  # noqa: PLC0415 - beside its use

    faulthandler.enable(all_threads=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


if __name__ == "__main__":
    # Without this, a model's imports would find the modules in this file's folder (runtime, wire, …) by their names.
    if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5])
