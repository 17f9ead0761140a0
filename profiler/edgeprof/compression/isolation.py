"""Run compressors and the user's code in a child process, so that a crash or a hang affects only one variant.

The process is a fork: it has the plugins and the data of its parent, and nothing needs to be serialised for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import multiprocessing
import os
import re
import signal
import sys
import sysconfig
import tempfile
import traceback
import warnings
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from edgeprof.compression import answers
from edgeprof.compression.progress import report, shown_by
from edgeprof.errors import EdgeprofError, InputError, VariantError
from edgeprof.reasons import Code
from edgeprof.worker import sandbox
from edgeprof.worker.main import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")

#: Receives the name of the user's code that begins to run, and None when it has ended.
_WATCH: ContextVar[Callable[[str | None], None] | None] = ContextVar("edgeprof_user_code_watch", default=None)


def apart(work: Callable[[], T], *, label: str, limit_s: float, folder: Path | None = None) -> T:
    """Run ``work()`` in a child process, and return its result; its progress is reported in this process.

    Args:
        work: A function whose result consists of plain values and edgeprof's records (``answers``). What it prints
            goes to stderr, because stdout belongs to the command.
        label: The name of what is being made, for messages.
        limit_s: The time limit of each block of ``user_code``, seconds; the rest has no limit.
        folder: The only folder in which ``work`` may write with ``--sandbox``; by default a temporary one.

    Raises:
        EdgeprofError: ``work`` raised it.
        VariantError: The process died (``crashed``), or the user's code did not end (``timeout``).
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    lifeline = os.pipe()
    running: str | None = None
    with contextlib.ExitStack() as stack:
        dump = stack.enter_context(tempfile.TemporaryFile())
        if sandbox.is_asked_for() and folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeprof-sandbox-")))
        given = {"label": label, "limit_s": limit_s, "lifeline": lifeline, "dump": dump, "folder": folder}
        child = context.Process(target=_run_child, args=(work, ours, theirs), kwargs=given)
        with warnings.catch_warnings():
            # A fork does not copy the threads of libraries; the child itself starts those that it needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        theirs.close()
        os.close(lifeline[0])
        try:
            while True:
                kind, content = answers.receive_answer(ours)
                if kind == "progress":
                    report(*content)
                elif kind == "running":
                    running = content
                elif kind == "raised":
                    raise content
                else:
                    answer: T = content
                    return answer
        except answers.AnswerError as error:
            raise VariantError(
                f"{running or label} broke the connection to its process: what came is no answer ({error})",
                code=Code.CRASHED,
            ) from None
        except EOFError:
            _kill_child(child)
            dump.seek(0)
            words = dump.read().decode("utf-8", "replace")
            raise _death_error(running, label, child.exitcode or 0, words, limit_s) from None
        finally:
            _kill_child(child)
            ours.close()
            os.close(lifeline[1])


def place(error: BaseException | None) -> str:
    """Return `` (FILE, line N)``, the innermost line of an error's stack outside libraries and edgeprof, or ""."""
    stack = [] if error is None else reversed(traceback.extract_tb(error.__traceback__))
    return _frame_place((frame.filename, frame.lineno or 0) for frame in stack)


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Run the user's code; any exception, including that of ``sys.exit``, becomes one sentence with its line.

    Args:
        what: The user's name for the model.

    Raises:
        InputError: The code raised an exception.
    """
    watch = _WATCH.get()
    if watch is not None:
        watch(what)
    try:
        yield
    except EdgeprofError:
        raise
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        raise InputError(f"{what} failed: {message}{place(error)}") from error
    finally:
        if watch is not None:
            watch(None)


def _run_child(
    work: Callable[[], Any],
    parents: Connection,
    pipe: Connection,
    *,
    label: str,
    limit_s: float,
    lifeline: tuple[int, int],
    dump: IO[bytes],
    folder: Path | None,
) -> None:
    os.setpgrp()
    parents.close()
    os.close(lifeline[1])
    die_with_parent(lifeline[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives Ctrl-C too, and decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()
    os.dup2(2, 1)
    # The parent's streams may have a descriptor of their own, which a sandbox closes.
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - lives as long as the process
    faulthandler.enable(dump, all_threads=False)
    # A timer is used instead of faulthandler.dump_traceback_later, whose thread is not copied by the fork: if the
    # parent uses it, the call in the child would wait for that thread forever.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, file=dump, chain=True)  # writes the stacks, then ends the process
    if "torch" in sys.modules:  # the fork did not copy OpenMP's threads, and torch would wait for them
        sys.modules["torch"].set_num_threads(1)

    def watch(what: str | None) -> None:
        answers.send_answer(pipe, "running", what)
        signal.setitimer(signal.ITIMER_REAL, 0.0 if what is None else limit_s)

    _WATCH.set(watch)
    if sandbox.is_asked_for():
        assert folder is not None
        _close_writable({pipe.fileno(), dump.fileno()})
        sandbox.enter([os.fspath(folder)])
        tempfile.tempdir = os.environ["TMPDIR"] = os.environ["XDG_CACHE_HOME"] = os.fspath(folder)
    with shown_by(lambda text, done: answers.send_answer(pipe, "progress", (text, done))):
        try:
            kind, content = "made", work()
        except SystemExit as error:
            kind, content = "raised", VariantError(f"{label} ended with sys.exit({error.code}){place(error)}")
        except Exception as error:  # noqa: BLE001 - the parent raises it
            kind, content = "raised", error
        answers.send_answer(pipe, kind, content)


def _close_writable(excepted: Container[int]) -> None:
    """Close inherited descriptors that would bypass the sandbox because they can be written: store, locks, sockets.

    Args:
        excepted: Descriptors that stay open, in addition to stdout and stderr.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number in (int(entry.name) for entry in list(Path("/proc/self/fd").iterdir())):
        with contextlib.suppress(OSError):  # the descriptor of the listed folder is already closed
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            if number > 2 and number not in excepted and mode != os.O_RDONLY:
                os.close(number)


def _kill_child(child: BaseProcess) -> None:
    """Kill the child and all processes that it started, and reap it; a child that has ended keeps its exit status."""
    assert child.pid is not None
    if child.exitcode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()  # the child may not have made its process group yet
    child.join()


def _death_error(running: str | None, label: str, status: int, words: str, limit_s: float) -> VariantError:
    what, where = running or label, _frame_place(_stack_frames(words))
    if status == -signal.SIGALRM:
        return VariantError(
            f"{what} did not end within {limit_s:g} s{where}",
            remedy="If it is only slow, allow it more with --timeout S.",
            code=Code.TIMEOUT,
        )
    if status == -signal.SIGKILL:
        return VariantError(
            f"{what} was killed by SIGKILL, perhaps for want of memory",
            remedy="Look at: dmesg | grep -i oom",
            code=Code.CRASHED,
        )
    if status < 0:
        return VariantError(f"{what} crashed with {signal.Signals(-status).name}{where}", code=Code.CRASHED)
    return VariantError(f"{what} ended its process with exit status {status}", code=Code.CRASHED)


def _stack_frames(words: str) -> list[tuple[str, int]]:
    """Return the stack in a dump of faulthandler, innermost frame first."""
    return [(path, int(line)) for path, line in re.findall(r'^  File "(.+)", line (\d+) in ', words, re.MULTILINE)]


def _frame_place(frames: Iterable[tuple[str, int]]) -> str:
    ours = [
        path for name in ("edgeprof", "edgeprof_plugins") for path in getattr(sys.modules.get(name), "__path__", ())
    ]
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for path, line in frames:
        if not path.startswith(("<", *libraries, *ours)):
            return f" ({path}, line {line})"
    return ""
