"""The sources of a virtual board's power: a script, or the load of this machine.

A source is one number over time, the level, with its exact integral. Each rail's power is ``base + gain × level``, so
that rails which contain others stay consistent with them.
"""

from __future__ import annotations

import bisect
import os
import random
from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING, Any

from edgeprof.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeprof.simulation.waveform import Waveform


class Source(ABC):
    """One level over time; times are those of the monotonic clock, s."""

    @abstractmethod
    def begin(self, time: float) -> None:
        """The board is switched on."""

    def advance(self, time: float) -> bool:  # noqa: ARG002 - a script has nothing to look at
        """Update the level to the present ``time``, and return whether it jumps now. Called often, by one thread."""
        return False

    @abstractmethod
    def level(self, time: float) -> float:
        """Return the level at ``time``."""

    @abstractmethod
    def integral(self, time: float) -> float:
        """Return the integral of the level from ``begin`` to ``time``."""

    def steady(self, start: float, end: float) -> float | None:  # noqa: ARG002 - a script has no cheap answer
        """Return the level if it is constant from ``start`` to ``end`` and that is cheap to determine; else None."""
        return None

    def describe(self) -> dict[str, Any] | None:
        """Return a description from which the integral can be computed (a waveform); None if it must be recorded."""
        return None


class Script(Source):
    """A waveform, whose watts are the level."""

    def __init__(self, waveform: Waveform) -> None:
        self.waveform = waveform
        self._start = 0.0

    def begin(self, time: float) -> None:
        self._start = time

    def level(self, time: float) -> float:
        return self.waveform.power(max(0.0, time - self._start))

    def integral(self, time: float) -> float:
        return self.waveform.energy(max(0.0, time - self._start))

    def steady(self, start: float, end: float) -> float | None:
        return self.waveform.flat(max(0.0, start - self._start), max(0.0, end - self._start))

    def describe(self) -> dict[str, Any]:
        return self.waveform.describe()


class Load(Source):
    """The share of the CPU that is busy (0 to 1), plus noise, constant from one reading to the next.

    The level after a reading is the load before it, which is then known, so that the integral is exact. The board's
    power therefore lags behind the load by ``interval_s``.

    Args:
        busy: A function of the time (s) that returns the CPU seconds used so far, over all cores.
        cores: The number of busy cores for a level of 1.
        noise: Standard deviation of the noise that is added to the level at each reading; the sum is never below 0.
        seed: The seed of the noise.
        interval_s: Time between readings, s. /proc counts in steps of 10 ms per core, so a short interval is coarse.
    """

    def __init__(
        self,
        busy: Callable[[float], float],
        *,
        cores: int,
        noise: float = 0.01,
        seed: int = 0,
        interval_s: float = 0.04,
    ) -> None:
        self._busy, self._cores, self._noise, self.interval_s = busy, cores, noise, interval_s
        self._random = random.Random(seed)  # noqa: S311 - noise of a resistor, not a secret
        # Knots of the integral: the level is constant from each knot to the next, and after the last one.
        self._times, self._integrals, self._levels = array("d"), array("d"), array("d")
        self._looked = 0.0

    def begin(self, time: float) -> None:
        self._looked = self._busy(time)
        self._knot(time, 0.0, 0.0)

    def advance(self, time: float) -> bool:
        elapsed = time - self._times[-1]
        if elapsed < self.interval_s:
            return False
        busy = self._busy(time)
        load = (busy - self._looked) / elapsed / self._cores
        self._looked = busy
        self._knot(time, self.integral(time), min(max(load, 0.0), 1.0))
        return True

    def _knot(self, time: float, integral: float, load: float) -> None:
        # In this order, so that a reader in another thread that sees a time also finds its integral and level.
        self._levels.append(max(0.0, load + self._random.gauss(0.0, self._noise)))
        self._integrals.append(integral)
        self._times.append(time)

    def _index(self, time: float) -> int:
        last = len(self._times) - 1
        return last if time >= self._times[last] else max(bisect.bisect_right(self._times, time) - 1, 0)

    def level(self, time: float) -> float:
        return self._levels[self._index(time)]

    def integral(self, time: float) -> float:
        index = self._index(time)
        return self._integrals[index] + max(0.0, time - self._times[index]) * self._levels[index]

    def steady(self, start: float, end: float) -> float | None:
        index = self._index(start)
        return self._levels[index] if index == self._index(end) else None


def machine_busy(procfs: Path) -> Callable[[float], float]:
    """Return a function for the CPU seconds that all cores together were busy since boot, from ``<procfs>/stat``.

    Raises:
        UnavailableError: The file cannot be read.
    """
    path = procfs / "stat"
    try:
        path.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Play a waveform instead: --waveform constant:5W",
        ) from None
    tick = 1 / os.sysconf("SC_CLK_TCK")

    def busy(_time: float) -> float:
        # user nice system idle iowait irq softirq steal (guest time is inside user)
        with path.open("rb", buffering=0) as file:
            fields = [int(field) for field in file.read(256).split(b"\n", 1)[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4] - sum(fields[7:8])) * tick

    return busy


def tree_busy(procfs: Path, pid: int, rescan_s: float = 0.5) -> Callable[[float], float]:
    """Return a function for the CPU seconds of a process and its descendants, including ended ones that were reaped.

    Raises:
        UnavailableError: There is no such process.
    """
    if not (procfs / str(pid)).is_dir():
        raise UnavailableError(f"there is no process {pid}", remedy="Give the id of a running one.")
    tick = 1 / os.sysconf("SC_CLK_TCK")
    family: set[int] = {pid}
    scanned = -rescan_s
    highest = 0.0

    def fields(member: int | str) -> list[bytes] | None:
        try:
            text = (procfs / str(member) / "stat").read_bytes()
        except OSError:
            return None
        return text.rpartition(b")")[2].split()  # the name before it may contain any character

    def busy(time: float) -> float:
        nonlocal scanned, highest
        if time - scanned >= rescan_s:
            scanned = time
            parents = {int(n): int(f[1]) for n in os.listdir(procfs) if n.isdigit() and (f := fields(n))}  # noqa: PTH208 - cheaper
            family.clear()
            family.add(pid)
            fresh = {pid}
            while fresh:
                fresh = {child for child, parent in parents.items() if parent in fresh} - family
                family.update(fresh)
        # utime, stime, and those of reaped children
        stat_fields = [values for member in family if (values := fields(member))]
        # A child that has just ended is in no sum until its parent reaps it; the total must not decrease until then.
        highest = max(highest, sum(int(value) for values in stat_fields for value in values[11:15]) * tick)
        return highest

    return busy
