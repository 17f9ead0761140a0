"""Whose joules: the device's energy over each reported inference, shared where several ran at once.

The rule. At every moment the power of the whole device belongs to the inferences that run at that moment, in equal
shares; while none runs it belongs to nobody. A joule is given once: an inference that is reported after its time was
settled (``SETTLE_S`` after its end) gets what of its time was given to nobody yet. Between two samples the power is
taken as even, so an inference that is much shorter than the sampling period gets the average around it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof.energy.online.running_sum import History

#: How long (s) after its end an inference's energy is settled: others that ran beside it have then been reported too.
SETTLE_S = 1.0
#: The most inferences that wait for their energy; what comes on top is counted without any.
MOST_WAITING = 20_000
#: The most separate stretches of time that are remembered as given; the oldest are then taken as one.
_MOST_STRETCHES = 4096


class Window:
    """One reported call: from ``start`` to ``end`` (monotonic s), ``count`` inferences, and what it has got so far."""

    __slots__ = ("count", "end", "joules", "key", "known_s", "start")

    def __init__(self, start: float, end: float, count: int, key: tuple[str, str, str]) -> None:
        self.start = start
        self.end = end
        self.count = count
        self.key = key
        self.joules = 0.0
        self.known_s = 0.0

    def __lt__(self, other: Window) -> bool:
        return self.end < other.end

    @property
    def is_whole(self) -> bool:
        """Whether the power was known, or its own, for all of its time but rounding."""
        return self.known_s >= 0.999 * (self.end - self.start)


class Given:
    """Stretches of time whose energy was given away, in order and without overlap."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._floor = float("-inf")  # all before it counts as given

    def add(self, start: float, end: float) -> None:
        """Mark a stretch that was not given before."""
        index = bisect_right(self._starts, start)
        if index and self._ends[index - 1] >= start:
            self._ends[index - 1] = max(end, self._ends[index - 1])
            index -= 1
        else:
            self._starts.insert(index, start)
            self._ends.insert(index, end)
        while index + 1 < len(self._starts) and self._starts[index + 1] <= self._ends[index]:
            self._ends[index] = max(self._ends[index], self._ends.pop(index + 1))
            del self._starts[index + 1]
        if len(self._starts) > _MOST_STRETCHES:
            half = _MOST_STRETCHES // 2
            self._floor = self._ends[half - 1]
            del self._starts[:half], self._ends[:half]

    def forget(self, before: float) -> None:
        """Take everything before that time as given."""
        index = bisect_right(self._ends, before)
        del self._starts[:index], self._ends[:index]
        self._floor = max(self._floor, before)

    def holds(self, time: float) -> bool:
        if time < self._floor:
            return True
        index = bisect_right(self._starts, time)
        return index > 0 and time < self._ends[index - 1]

    def edges(self, start: float, end: float) -> list[float]:
        """Where stretches begin and end between two times."""
        low, high = bisect_right(self._ends, start), bisect_right(self._starts, end)
        found = self._starts[low:high] + self._ends[low:high]
        if start < self._floor < end:
            found.append(self._floor)
        return [edge for edge in found if start < edge < end]


class Attributor:
    """Windows in, joules out. Not thread-safe: its owner locks.

    Args:
        history: The device's cumulative energy.
        settle_s: How long after its end a window is settled (s).
    """

    def __init__(self, history: History, settle_s: float = SETTLE_S) -> None:
        self._history = history
        self._settle_s = settle_s
        self._windows: list[Window] = []  # sorted by end
        self._given = Given()

    def add(self, window: Window) -> bool:
        """Take a window; False where too many wait already."""
        if len(self._windows) >= MOST_WAITING:
            return False
        insort(self._windows, window)
        return True

    def settle(self, now: float, *, all_of_them: bool = False) -> list[Window]:
        """The windows whose energy is final now.

        Args:
            now: Monotonic s.
            all_of_them: At the end: settle what there is, even if its time is not fully known.
        """
        if not self._windows:
            return []
        history = self._history
        until = min(now if all_of_them else now - self._settle_s, history.last)
        self._given.forget(history.first)
        self._share(until)
        # Without new samples (no sensor, a long gap) a window does not wait for ever.
        patience = now if all_of_them else now - self._settle_s - 10.0
        due = bisect_right(self._windows, max(until, patience), key=lambda window: window.end)
        done, self._windows = self._windows[:due], self._windows[due:]
        return done

    def _share(self, until: float) -> None:
        windows = [w for w in self._windows if w.start < until]
        if not windows:
            return
        windows.sort(key=lambda window: window.start)
        low = max(windows[0].start, self._history.first)
        if low >= until:
            return
        edges = {low, until}
        for w in windows:
            edges.update(edge for edge in (w.start, w.end) if low < edge < until)
        edges.update(self._given.edges(low, until))
        running: list[Window] = []
        position = 0
        ordered = sorted(edges)
        before = self._history.at(ordered[0])
        for a, b in pairwise(ordered):
            while position < len(windows) and windows[position].start <= a:
                running.append(windows[position])
                position += 1
            running = [w for w in running if w.end > a]
            after = self._history.at(b)
            if running and not self._given.holds(a):
                joules = (after[0] - before[0]) / len(running)
                known = max(0.0, (b - a) - (after[1] - before[1]))
                for w in running:
                    w.joules += joules
                    w.known_s += known
                self._given.add(a, b)
            before = after
