"""Run any command to its end and tell when it ran, how it ended, and what CPU and memory it took."""

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
from typing import TYPE_CHECKING

import psutil

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_POLL_S = 0.05


@dataclass(frozen=True)
class CommandRun:
    """One run of a command.

    Attributes:
        start_s: When it was started, CLOCK_MONOTONIC.
        end_s: When it had ended.
        exit_code: As a shell tells it: 128 + n for signal n.
        peak_rss: Bytes resident at once in the whole process tree, at its highest; None where it was too short to see.
        cpu_s: User and system CPU seconds of the command and the children it waited for.
    """

    start_s: float
    end_s: float
    exit_code: int
    peak_rss: int | None
    cpu_s: float


def require_command(name: str) -> None:
    """Look for a command before the time of an idle is spent on it.

    Raises:
        InputError: there is no such command, or it cannot be executed.
    """
    if shutil.which(name) is None:
        why = "it is no program" if os.path.exists(name) else "there is no such program"  # noqa: PTH110 - a shell's word, not a path of ours
        raise InputError(f"cannot run {name}: {why}", remedy="edgeprof run -- CMD [ARG …], as in a shell.")


def run_command(argv: Sequence[str]) -> CommandRun:
    """Run ``argv`` with this process's stdin, stdout and stderr, and wait.

    An interrupt goes to the command, which decides what to do with it; this process waits for its end.

    Raises:
        InputError: there is no such command, or it cannot be executed.
    """
    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with _signals_left_to_the_command() as started:
        start = time.monotonic()
        try:
            process = started(subprocess.Popen(list(argv)))
        except OSError as error:
            raise InputError(
                f"cannot run {argv[0]}: {error.strerror}", remedy="edgeprof run -- CMD [ARG …], as in a shell."
            ) from None
        memory = _TreeMemory(process.pid)
        code = process.wait()
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


@contextlib.contextmanager
def _signals_left_to_the_command() -> Iterator[Callable[[subprocess.Popen[bytes]], subprocess.Popen[bytes]]]:
    """Yields what must be told of the command once it runs.

    A terminal's signals reach the command by themselves. SIGTERM comes to this process alone and is passed on, also one
    that comes while the command is being started.
    """
    running: list[subprocess.Popen[bytes]] = []
    asked = False

    def end(_number: int, _frame: object) -> None:
        nonlocal asked
        asked = True
        for process in running:
            process.terminate()

    def started(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        running.append(process)
        if asked:
            process.terminate()
        return process

    handlers = {signal.SIGINT: _ignore, signal.SIGQUIT: _ignore, signal.SIGTERM: end}
    previous = [(number, signal.signal(number, handler)) for number, handler in handlers.items()]
    try:
        yield started
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def _ignore(_number: int, _frame: object) -> None:
    """A handler, not SIG_IGN: an ignored signal would stay ignored in the command."""


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
    """VmHWM of a living process, bytes; None where it is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123 - its own process, never a captured tree
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None
