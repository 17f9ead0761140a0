"""The load of other programs while a model ran: the processor time of the machine minus that of this run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edgeprof.reasons import Code
from edgeprof.results.schema import Reason
from edgeprof.sensing.device.host import COMPETING, processor_seconds

if TYPE_CHECKING:
    from edgeprof.roots import Roots

#: The kernel counts in ticks of 10 ms; less than this (s) cannot be distinguished from rounding.
_RESOLUTION_S = 0.05


@dataclass(frozen=True)
class _Reading:
    busy_s: float
    all_s: float
    ours_s: float


@dataclass
class ForeignLoad:
    """The processor seconds that other programs took during the windows of one variant.

    Attributes:
        taken_s: Processor seconds of other programs.
        offered_s: Elapsed seconds, summed over all cores; 0 if nothing could be read.
    """

    taken_s: float = 0.0
    offered_s: float = 0.0
    _start: _Reading | None = field(default=None, repr=False)

    @property
    def share(self) -> float | None:
        """The share of all processors, 0 to 1; None if unknown."""
        return self.taken_s / self.offered_s if self.offered_s > 0 else None

    def begin(self, roots: Roots) -> None:
        """Start counting."""
        self._start = _read_counters(roots)

    def end(self, roots: Roots) -> None:
        """Add the processor time since ``begin``."""
        start, stop = self._start, _read_counters(roots)
        if start is None or stop is None:
            return
        self.taken_s += max(0.0, (stop.busy_s - start.busy_s) - (stop.ours_s - start.ours_s))
        self.offered_s += stop.all_s - start.all_s

    def reason(self) -> Reason | None:
        """Return the reason that other programs disturbed the windows; None if they used at most 5 % of all cores."""
        if self.share is None or self.share <= COMPETING or self.taken_s <= _RESOLUTION_S:
            return None
        return Reason(
            code=Code.COMPETING_LOAD,
            message=f"other programs were busy: they used {100 * self.share:.0f} % of the processors",
            remedy="Stop them and measure again: latency and energy both contain their work.",
        )


def _read_counters(roots: Roots) -> _Reading | None:
    """Read the counters; None for a captured or simulated /proc, which does not describe this machine's processes."""
    seconds = processor_seconds(roots) if roots.procfs == Path("/proc") else None
    return None if seconds is None else _Reading(*seconds, _seconds_used(os.getpid()))


def _seconds_used(pid: int) -> float:
    """Return the processor seconds of a process and its living descendants, among them the worker and the sampler.

    Only the kernel's lists of children are read, because reading every process of the machine would disturb the quiet
    time next to a window.
    """
    try:
        times = psutil.Process(pid).cpu_times()
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (psutil.Error, OSError):  # it has just ended
        return 0.0
    return times.user + times.system + sum(_seconds_used(int(child)) for children in lists for child in children)
