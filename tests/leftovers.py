"""What a test may not leave behind: threads, child processes, open descriptors, changed signal handlers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long what a test has just ended may take to be gone. Nothing waits that long unless something is left.
GRACE_S = 5.0
#: Descriptors that libraries open once for the whole process, at their first use: not a test's doing.
_LIBRARIES = (
    "anon_inode:",
    "/dev/urandom",
    "/dev/null",
    "/dev/shm/",
    "/memfd:",
    "/proc/self/",
    "/sys/devices/system/cpu",
)
#: Model files stay mapped until the last interpreter that a library's own caches hold is gone.
_MAPPED = (".tflite", ".tflite (deleted)", ".pt2")
#: Threads that libraries start once for the whole process.
_LIBRARY_THREADS = ("tqdm_monitor", "pymp", "ThreadPoolExecutor", "OtelBatch", "execnet")
#: Signals whose handlers may be asked for; pytest-timeout takes SIGALRM, and gives it back where a test fails.
_SIGNALS = tuple(s for s in signal.Signals if s not in {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})


@dataclass(frozen=True)
class Leftovers:
    """What exists in this process at one moment."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    descriptors: dict[int, str]
    handlers: dict[int, object]

    @classmethod
    def now(cls) -> Leftovers:
        return cls(
            threads=frozenset(threading.enumerate()),
            children=frozenset(_children()),
            descriptors=dict(_descriptors()),
            handlers={number: signal.getsignal(number) for number in _SIGNALS},
        )

    def since(self, before: Leftovers) -> list[str]:
        """What is here and was not before, in words."""
        threads = [t for t in self.threads - before.threads if not t.name.startswith(_LIBRARY_THREADS)]
        descriptors = {
            fd: target
            for fd, target in self.descriptors.items()
            if before.descriptors.get(fd) != target
            and not target.startswith(_LIBRARIES)
            and not target.endswith(_MAPPED)
        }
        changed = [n for n, handler in self.handlers.items() if before.handlers[n] is not handler]
        return [
            *(f"thread {thread.name}" for thread in threads),
            *(f"process {_command_of(child)}" for child in self.children - before.children),
            *(f"descriptor {fd} of {target}" for fd, target in sorted(descriptors.items())),
            *(f"handler of {signal.Signals(n).name}" for n in changed),
        ]


def left_since(before: Leftovers) -> list[str]:
    """What is left, after it has had time to go."""
    if not (remaining := Leftovers.now().since(before)):
        return []
    gc.collect()  # files and sockets that only a cycle still holds; too slow to do after every test
    deadline = time.monotonic() + GRACE_S
    while (remaining := Leftovers.now().since(before)) and time.monotonic() < deadline:
        time.sleep(0.02)  # a thread or a child that was told to end has no event that everybody can wait for
    return remaining


def _children() -> set[int]:
    """Process IDs of this process's children; psutil would look through every process of the machine."""
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            children.update(map(int, (task / "children").read_text().split()))
    return children


def _descriptors() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - twice for each test, and pathlib takes thrice the time
        with contextlib.suppress(OSError):  # the listing's own descriptor, which is closed by now
            yield int(entry), os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115 - as above


def _command_of(child: int) -> str:
    try:
        process = psutil.Process(child)
        return f"{child} ({process.status()}): {' '.join(process.cmdline())[:200] or process.name()}"
    except psutil.Error:
        return f"{child}, which has ended"
