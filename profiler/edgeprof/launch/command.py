"""Run any command to its end, and return its times, exit code, CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_POLL_S = 0.05


@dataclass(frozen=True)
class CommandRun:
    """One run of a command.

    Attributes:
        start_s: When it was started, in seconds of CLOCK_MONOTONIC.
        end_s: When it had ended, likewise.
        exit_code: The exit code as a shell gives it: 128 + n for signal n.
        peak_rss: The most resident bytes of the whole process tree at once; None if the run was too short to see.
        cpu_s: User and system CPU seconds of the command and the children it waited for.
    """

    start_s: float
    end_s: float
    exit_code: int
    peak_rss: int | None
    cpu_s: float


def require_command(name: str) -> None:
    """Check that a command exists, before time is spent on an idle.

    Raises:
        InputError: there is no such command, or it cannot be executed.
    """
    if shutil.which(name) is None:
        why = "it is no program" if os.path.exists(name) else "there is no such program"  # noqa: PTH110 - a shell's word, not a path of ours
        raise InputError(f"cannot run {name}: {why}", remedy="edgeprof run -- CMD [ARG …], as in a shell.")


def run_command(
    argv: Sequence[str], relay: SignalRelay | None = None, stdout: int | None = None, stderr: int | None = None
) -> CommandRun:
    """Run ``argv`` with this process's stdin, stdout and stderr, and wait.

    A signal goes to the command, which decides what to do with it; this process waits for its end.

    Args:
        argv: The command.
        relay: A relay of signals that lasts longer than this run.
        stdout: A descriptor in place of this process's stdout.
        stderr: A descriptor in place of this process's stderr.

    Raises:
        InputError: there is no such command, or it cannot be executed.
    """
    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with contextlib.ExitStack() as stack:
        relay = relay or stack.enter_context(SignalRelay())
        start = time.monotonic()
        try:
            process = relay.start(argv, stdout, stderr)
        except OSError as error:
            raise InputError(
                f"cannot run {argv[0]}: {error.strerror}", remedy="edgeprof run -- CMD [ARG …], as in a shell."
            ) from None
        memory = _TreeMemory(process.pid)
        code = process.wait()
        relay.stop()
        end = time.monotonic()
    memory.stop()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return CommandRun(
        start_s=start,
        end_s=end,
        exit_code=128 - code if code < 0 else code,
        peak_rss=memory.peak or None,
        cpu_s=used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime,
    )


class SignalRelay:
    r"""Passes signals on to a command and outlives them, so that its figures are kept; use it as a context manager.

    A terminal's own signals (Ctrl-C, Ctrl-\) reach the command by themselves. All others that can be caught come to
    this process alone and are passed on, also one that comes while the command is being started. While no command runs,
    those that would end this process set ``ended`` instead; one that is ignored stays so, as nohup means it.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._waiting: list[int] = []
        self._previous: list[tuple[int, Any]] = []

    def __enter__(self) -> SignalRelay:  # noqa: PYI034 - Self is not in the typing of 3.10
        if threading.current_thread() is threading.main_thread():
            for number in sorted(signal.valid_signals() - _NOT_PASSED_ON):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous.append((number, signal.signal(number, self._hear)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous:
            signal.signal(number, handler)

    def start(
        self, argv: Sequence[str], stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the command that signals go to; ``stdout`` and ``stderr`` are descriptors in place of this process's.

        Raises:
            OSError: it cannot be started.
        """
        self._starting = True
        try:
            self._running = subprocess.Popen(list(argv), stdout=stdout, stderr=stderr)
        finally:
            self._starting = False
        for number in self._waiting:
            self._running.send_signal(number)
        return self._running

    def stop(self) -> None:
        """The command is over: signals are for this process again."""
        self._running = None

    def _hear(self, number: int, _frame: object) -> None:
        if self._running is None and not self._starting:
            if number in _ENDING:
                self.ended.set()
        elif number in (signal.SIGINT, signal.SIGQUIT):
            return  # the command has heard it; a handler, for an ignored signal would stay ignored in the command
        elif self._running is None:
            self._waiting.append(number)
        else:
            with contextlib.suppress(OSError):
                self._running.send_signal(number)


#: Signals that cannot be caught, that concern this process (children, memory, faults), or that the terminal sends to
#: the whole group.
_NOT_PASSED_ON = frozenset(
    {
        signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
        signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU, signal.SIGPROF,
        signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGWINCH,
    }
)  # fmt: skip
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


class _TreeMemory:
    """The highest sum of resident memory over a process and its descendants, polled at 20 Hz.

    ``ru_maxrss`` will not do: it starts from the launcher's own size, and knows the largest process, not their sum. A
    process's own high-water mark (VmHWM) catches what falls between two polls.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._root = pid
        self._thread = threading.Thread(target=self._watch, name="edgeprof-memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error, OSError):
                root = psutil.Process(self._root)
                family = [root, *root.children(recursive=True)]
                sizes = []
                for member in family:
                    with contextlib.suppress(psutil.Error, OSError):
                        sizes.append(member.memory_info().rss)
                self.peak = max(self.peak, sum(sizes), high_water(self._root) or 0)
            if self._stop.wait(_POLL_S):
                return


def high_water(pid: int) -> int | None:
    """VmHWM of a living process, in bytes; None if it has ended or may not be read."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123 - its own process, never a captured tree
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None
