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
    from edgeprof.worker.span import Span

#: How long (s) after its end an inference's energy is settled: others that ran beside it have then been reported too.
SETTLE_S = 1.0
#: The most inferences that wait for their energy; what comes on top is counted without any.
MOST_WAITING = 20_000
#: The most separate stretches of time that are remembered as given; the oldest are then taken as one.
_MOST_STRETCHES = 4096


class Share:
    """What a reported call has got of the device's energy so far.

    Attributes:
        span: The call.
        joules: What it has got.
        known_s: For how many of its seconds the power was known.
    """

    __slots__ = ("joules", "known_s", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.joules = 0.0
        self.known_s = 0.0

    def __lt__(self, other: Share) -> bool:
        return self.span.end_s < other.span.end_s

    @property
    def is_whole(self) -> bool:
        """Whether the power was known, or its own, for all of its time but rounding."""
        return self.known_s >= 0.999 * self.span.seconds


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
    """Spans in, joules out. Not thread-safe: its owner locks.

    Args:
        history: The device's cumulative energy.
        settle_s: How long after its end a span is settled (s).
    """

    def __init__(self, history: History, settle_s: float = SETTLE_S) -> None:
        self._history = history
        self._settle_s = settle_s
        self._waiting: list[Share] = []  # sorted by end
        self._given = Given()

    def add(self, span: Span) -> bool:
        """Take the span of a reported call; False where too many wait already."""
        if len(self._waiting) >= MOST_WAITING:
            return False
        insort(self._waiting, Share(span))
        return True

    def settle(self, now: float, *, all_of_them: bool = False) -> list[Share]:
        """The shares of the spans whose energy is final now.

        Args:
            now: Monotonic s.
            all_of_them: At the end: settle what there is, even if its time is not fully known.
        """
        if not self._waiting:
            return []
        history = self._history
        until = min(now if all_of_them else now - self._settle_s, history.last)
        self._given.forget(history.first)
        self._share(until)
        # Without new samples (no sensor, a long gap) a span does not wait for ever.
        patience = now if all_of_them else now - self._settle_s - 10.0
        due = bisect_right(self._waiting, max(until, patience), key=lambda share: share.span.end_s)
        done, self._waiting = self._waiting[:due], self._waiting[due:]
        return done

    def _share(self, until: float) -> None:
        shares = [share for share in self._waiting if share.span.start_s < until]
        if not shares:
            return
        shares.sort(key=lambda share: share.span.start_s)
        low = max(shares[0].span.start_s, self._history.first)
        if low >= until:
            return
        edges = {low, until}
        for share in shares:
            edges.update(edge for edge in (share.span.start_s, share.span.end_s) if low < edge < until)
        edges.update(self._given.edges(low, until))
        running: list[Share] = []
        position = 0
        ordered = sorted(edges)
        before = self._history.at(ordered[0])
        for a, b in pairwise(ordered):
            while position < len(shares) and shares[position].span.start_s <= a:
                running.append(shares[position])
                position += 1
            running = [share for share in running if share.span.end_s > a]
            after = self._history.at(b)
            if running and not self._given.holds(a):
                joules = (after[0] - before[0]) / len(running)
                known = max(0.0, (b - a) - (after[1] - before[1]))
                for share in running:
                    share.joules += joules
                    share.known_s += known
                self._given.add(a, b)
            before = after
