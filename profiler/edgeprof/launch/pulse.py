"""Notice that this process stood still while it waited: it was stopped, or its cgroup was frozen (``docker pause``).

The freezer of cgroups sends no signal, so that a worker cannot notice it (``worker.standstill``). But it stops all
processes of a container at once, and this process wakes up regularly while a worker is busy: where it slept for longer
than it asked to, and neither ran nor waited for a CPU meanwhile, it stood still, and the worker with it.

Sources: the Linux kernel's cgroup-v1/freezer-subsystem.rst and scheduler/sched-stats.rst (/proc/PID/schedstat).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

#: A shorter standstill (s) is not told apart from a thread that waits for the interpreter's lock, or for a page.
_LEAST_S = 0.5


class Pulse:
    """Moments at which this process certainly ran.

    Args:
        period_s: The longest time that this process sleeps by itself between two beats, seconds.

    Attributes:
        stood_still_s: The sum of all standstills so far, seconds.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self.stood_still_s = 0.0
        self._last_s, self._last_cpu_s, self._last_waits = time.monotonic(), time.process_time(), _waits_ns()

    def beat(self) -> float:
        """Return for how long this process stood still since the last beat, seconds; 0.0 if it did not."""
        now_s, cpu_s, waits = time.monotonic(), time.process_time(), _waits_ns()
        waited_s = sum(wait - self._last_waits.get(thread, 0) for thread, wait in waits.items()) / 1e9
        still_s = now_s - self._last_s - self._period_s - (cpu_s - self._last_cpu_s) - waited_s
        self._last_s, self._last_cpu_s, self._last_waits = now_s, cpu_s, waits
        if still_s < _LEAST_S or not waits:
            return 0.0
        self.stood_still_s += still_s
        return still_s


def _waits_ns() -> dict[str, int]:
    """Thread of this process → nanoseconds for which it has waited for a CPU; empty where the kernel does not tell."""
    waits = {}
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            waits[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return waits
