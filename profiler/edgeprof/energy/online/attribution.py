"""Attribute the device's energy to the inferences that applications reported.

The rule: at every moment the power of the whole device belongs in equal shares to the inferences that run at that
moment; while none runs it belongs to nobody. Each joule is attributed once: an inference that is reported after its
time was settled (``SETTLE_S`` after its end) gets only the part of its energy that no other inference has got.

Between two readings only the sum of the energy is known, and an inference may fill only a part of that interval. The
rest of the interval is then assumed to have had the power of the quiet time beside it (``SIDE_S``), and the inferences
get the remainder, so that the pause after a short inference does not lower its power. Where no quiet time is near, the
power is assumed to be constant over the interval. For the inferences this is too low by at most the idle share of the
interval, and an inference whose energy could be too low by more than a tenth has no figure.

A sensor that repeats one value while inferences begin and end is stuck: inferences that ran meanwhile have no figure
(``frozen``, the same rule as for the windows of a benchmark).

The cost is O(n log n) for n inferences. No lock is held meanwhile, because the caller hands over a copy of the device's
recent energy.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from edgeprof.energy.online.frozen import Change, find_unanswered, least_standstill_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.energy.online.running_sum import Curve
    from edgeprof.worker.span import Span

#: How long (s) after its end an inference is settled: others that ran beside it have been reported by then.
SETTLE_S = 1.0
#: The most inferences that wait for their energy; further ones are counted without energy.
MOST_WAITING = 20_000
#: How far (s) from an interval the quiet time may lie from which the power without inferences is taken.
SIDE_S = 3.0
#: The largest share of its energy by which a figure may be too low because no quiet time is near.
_MOST_GUESSED = 0.1
#: The most separate stretches that are remembered as given; beyond this, everything before the newer half counts as
#: given.
_MOST_STRETCHES = 4096
#: For how long (s) the given part of an interval between two readings is remembered; then all of it counts as given.
_LATE_S = 60.0
#: How much of the time (s) before an inference is searched for a stuck sensor, and the number of beginnings and ends of
#: short inferences within that time by which a working sensor must have moved.
_STILL_S, _STILL_CHANGES = 60.0, 50
#: A value that repeats for less than this (s) may just mean a quiet device.
_LEAST_STILL_S = 10.0


class Share:
    """The energy that a reported call has got so far.

    Attributes:
        span: The call.
        joules: Its energy so far (J).
        known_s: For how many of its seconds the power was known.
        guessed_s: How many of its seconds could be idle time, because power was assumed constant between two readings.
    """

    __slots__ = ("guessed_s", "joules", "known_s", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.joules = 0.0
        self.known_s = 0.0
        self.guessed_s = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the power was known for its whole time, apart from rounding and a tolerated share of guesses."""
        length = self.span.seconds
        return self.known_s >= 0.999 * length and self.guessed_s <= _MOST_GUESSED * length


class Given:
    """Stretches of time whose energy was given away, in order and without overlap."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._floor = float("-inf")  # everything before this time counts as given
        #: Start of an interval between two readings → its end and the joules that were given, where not all were.
        self._parts: dict[float, tuple[float, float]] = {}

    def add(self, start: float, end: float) -> None:
        """Mark a stretch as given."""
        index = bisect_right(self._starts, start)
        if index and self._ends[index - 1] >= start:
            self._ends[index - 1] = max(end, self._ends[index - 1])
            index -= 1
        else:
            self._starts.insert(index, start)
            self._ends.insert(index, end)
        last = index + 1
        while last < len(self._starts) and self._starts[last] <= self._ends[index]:
            last += 1
        self._ends[index] = max(self._ends[index], self._ends[last - 1])
        del self._starts[index + 1 : last], self._ends[index + 1 : last]
        if len(self._starts) > _MOST_STRETCHES:
            half = _MOST_STRETCHES // 2
            self._floor = self._ends[half - 1]
            del self._starts[:half], self._ends[:half]

    def add_part(self, start: float, end: float, joules: float) -> None:
        """Remember how many joules of an interval between two readings were given."""
        self._parts[start] = (end, joules + (self.part(start) or 0.0))

    def part(self, start: float) -> float | None:
        """The joules given to inferences so far from the interval that begins at ``start``; None if it is forgotten."""
        return self._parts[start][1] if start in self._parts else None

    def close_parts(self, before: float) -> None:
        """Count partly given intervals that end before a time as given as a whole."""
        closed = [(start, end) for start, (end, _) in self._parts.items() if end < before or start < self._floor]
        for start, end in closed:
            del self._parts[start]
            self.add(start, end)

    def forget(self, before: float) -> None:
        """Count everything before a time as given."""
        index = bisect_right(self._ends, before)
        del self._starts[:index], self._ends[:index]
        self._floor = max(self._floor, before)

    def stretches(self, start: float, end: float) -> list[tuple[float, float]]:
        """The given stretches between two times, cut to these times."""
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        inside = [
            (max(a, start), min(b, end)) for a, b in zip(self._starts[low:high], self._ends[low:high], strict=True)
        ]
        if start < self._floor:
            floor = min(self._floor, end)
            inside = [(start, floor), *((max(a, floor), b) for a, b in inside if b > floor)]
        return inside


class Attributor:
    """Takes spans and returns their joules. It is not thread-safe: its owner must lock it.

    Args:
        settle_s: How long (s) after its end a span is settled.
    """

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._shares: list[Share] = []
        self._given = Given()

    def __len__(self) -> int:
        """How many spans wait for their energy."""
        return len(self._shares)

    @property
    def earliest(self) -> float:
        """The earliest time (monotonic s) whose energy ``settle`` needs; infinity if no span waits."""
        return min((share.span.start_s for share in self._shares), default=float("inf")) - _STILL_S - SIDE_S

    def extend(self, spans: Iterable[Span]) -> None:
        """Take the spans of reported calls, in any order."""
        self._shares.extend(map(Share, spans))

    def settle(self, curve: Curve, now: float, *, all_of_them: bool = False) -> list[Share]:
        """Return the spans whose energy is final now, and forget them.

        Args:
            curve: The device's energy from ``earliest`` on, as far as it is known.
            now: The present time (monotonic s).
            all_of_them: Settle all spans, even if the energy of their time is not fully known; for the end.
        """
        if not self._shares:
            return []
        ready = now if all_of_them else now - self._settle_s
        # Intervals between two readings are attributed as a whole, once a delayed sensor has shown all of them.
        known = bisect_right(curve.times, ready)
        # Inferences that run later may not have been reported yet, so later time cannot be taken as quiet.
        curve = curve._replace(times=curve.times[:known], joules=curve.joules[:known], gaps=curve.gaps[:known])
        until = curve.times[known - 1] if known else float("-inf")
        if not all_of_them and curve.lag_s:
            known = bisect_right(curve.times, until - curve.lag_s)
            until = curve.times[known - 1] if known else float("-inf")
        self._given.forget(curve.first)
        if known > 1:
            self._share(curve, until)
        # Without new samples (no sensor, a long gap) a span must not wait for ever.
        patience = now if all_of_them else ready - 10.0 - curve.lag_s
        final = max(until, patience)
        done = [share for share in self._shares if share.span.end_s <= final]
        self._shares = [share for share in self._shares if share.span.end_s > final]
        return done

    def _share(self, curve: Curve, until: float) -> None:
        """Attribute the energy of the time up to ``until``, which is the time of a reading."""
        shares = [share for share in self._shares if share.span.start_s < until and share.span.end_s > curve.times[0]]
        if not shares:
            return
        first = bisect_right(curve.times, min(share.span.start_s for share in shares)) - 1
        low = curve.times[max(first, 0)]
        given = self._given.stretches(low, until)
        segments = _Segments(shares, given, curve.times, low, until)
        powers = _Powers(curve, segments, self._given, self._busy_at(curve), self._frozen_times(curve))
        joules, known, guessed = powers.running_sums()
        place = segments.place
        for share in shares:
            a, b = place[max(share.span.start_s, low)], place[min(share.span.end_s, until)]
            share.joules += joules[b] - joules[a]
            share.known_s += known[b] - known[a]
            share.guessed_s += guessed[b] - guessed[a]
        for start, end in segments.stretches_given_now():
            self._given.add(start, end)
        for part in powers.parts():
            self._given.add_part(*part)
        self._given.close_parts(until - _LATE_S)

    def _frozen_times(self, curve: Curve) -> tuple[float, float]:
        """The time in which the power repeated one value although inferences began and ended; (0, 0) if never."""
        spans = [(share.span.start_s, share.span.end_s) for share in self._shares]
        changes = _busy_changes(sorted([*spans, *self._given.stretches(curve.times[0], curve.times[-1])]), curve.tau_s)
        steps = zip(pairwise(curve.times), pairwise(curve.joules), strict=True)
        watts = [float(f"{(e1 - e0) / (t1 - t0):.9g}") for (t0, t1), (e0, e1) in steps]
        least_s = max(_LEAST_STILL_S, least_standstill_s(curve.tau_s, None))
        return find_unanswered(curve.times[: len(watts)], watts, changes, least_s) or (0.0, 0.0)

    def _busy_at(self, curve: Curve) -> list[bool]:
        """For each interval of the curve, whether a reported inference overlaps it."""
        times = curve.times
        change = [0] * (len(times) + 1)
        spans = [(share.span.start_s, share.span.end_s) for share in self._shares]
        for start, end in [*spans, *self._given.stretches(times[0], times[-1])]:
            change[max(0, bisect_right(times, start) - 1)] += 1
            change[max(0, min(bisect_left(times, end), len(times)))] -= 1
        busy, running = [], 0
        for step in change[: len(times) - 1]:
            running += step
            busy.append(running > 0)
        return busy


class _Segments:
    """The time from ``low`` to ``until`` cut wherever a share, a given stretch or an interval begins or ends.

    Attributes:
        cuts: The times (s) at which it is cut, in order.
        place: Cut → its index.
        running: For each segment, how many spans run in it and may get its energy; 0 where it was given before.
        is_given: For each segment, whether it was given before.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        given: Sequence[tuple[float, float]],
        times: Sequence[float],
        low: float,
        until: float,
    ) -> None:
        change: dict[float, int] = {}
        for share in shares:
            start, end = max(share.span.start_s, low), min(share.span.end_s, until)
            change[start] = change.get(start, 0) + 1
            change[end] = change.get(end, 0) - 1
        begins = {start for start, _ in given}
        ends = {end for _, end in given}
        between = times[bisect_left(times, low) : bisect_right(times, until)]
        self.cuts = sorted({low, until, *change, *begins, *ends, *between})
        self.place = {cut: index for index, cut in enumerate(self.cuts)}
        self.running: list[int] = []
        self.is_given: list[bool] = []
        running, is_given = 0, False
        for cut in self.cuts[:-1]:
            running += change.get(cut, 0)
            is_given = (is_given and cut not in ends) or cut in begins
            self.is_given.append(is_given)
            self.running.append(0 if is_given else running)

    def stretches_given_now(self) -> list[tuple[float, float]]:
        """The stretches whose energy spans get now, with neighbours joined."""
        joined: list[tuple[float, float]] = []
        for (a, b), running in zip(pairwise(self.cuts), self.running, strict=True):
            if running and joined and joined[-1][1] == a:
                joined[-1] = (joined[-1][0], b)
            elif running:
                joined.append((a, b))
        return joined


class _Powers:
    """The power of the inferences in each interval between two readings."""

    def __init__(
        self,
        curve: Curve,
        segments: _Segments,
        given: Given,
        busy: Sequence[bool],
        frozen: tuple[float, float],
    ) -> None:
        self._curve, self._segments, self._given = curve, segments, given
        times = curve.times
        self._energy = [b - a for a, b in pairwise(curve.joules)]
        self._whole = [
            gap == before and not frozen[0] <= time <= frozen[1]
            for (before, gap), time in zip(pairwise(curve.gaps), times, strict=False)
        ]
        self._first = bisect_right(times, segments.cuts[0]) - 1
        #: For each segment, the index of its interval.
        self._interval: list[int] = []
        self._free_s: dict[int, float] = {}
        self._given_s: dict[int, float] = {}
        index = self._first
        for position, (a, b) in enumerate(pairwise(segments.cuts)):
            while times[index + 1] <= a:
                index += 1
            self._interval.append(index)
            if segments.running[position]:
                self._free_s[index] = self._free_s.get(index, 0.0) + b - a
            elif segments.is_given[position]:
                self._given_s[index] = self._given_s.get(index, 0.0) + b - a
        self._late = _late_intervals(curve, busy)
        self._quiet_joules, self._quiet_s = [0.0], [0.0]
        for i, energy in enumerate(self._energy):
            is_quiet = self._whole[i] and not busy[i] and i not in self._late
            self._quiet_joules.append(self._quiet_joules[-1] + (energy if is_quiet else 0.0))
            self._quiet_s.append(self._quiet_s[-1] + (times[i + 1] - times[i] if is_quiet else 0.0))
        for late, source in self._late.items():
            if self._whole[late] and (quiet_w := self._quiet_watts(late)) is not None:
                self._energy[source] += self._energy[late] - quiet_w * (times[late + 1] - times[late])
        self._watts = {i: self._busy_watts(i) for i in self._free_s}

    def running_sums(self) -> tuple[list[float], list[float], list[float]]:
        """At each cut, for an inference that runs all the time: its joules, known and guessed seconds so far."""
        joules, known, guessed = [0.0], [0.0], [0.0]
        for position, (a, b) in enumerate(pairwise(self._segments.cuts)):
            running, index = self._segments.running[position], self._interval[position]
            length = b - a if running and self._whole[index] else 0.0
            watts, guess = self._watts.get(index, (0.0, 0.0))
            joules.append(joules[-1] + (watts * length / running if length else 0.0))
            known.append(known[-1] + length)
            guessed.append(guessed[-1] + length * guess)
        return joules, known, guessed

    def parts(self) -> list[tuple[float, float, float]]:
        """Start, end and the joules given now of each interval of which only a part was given."""
        times = self._curve.times
        return [
            (times[i], times[i + 1], self._watts[i][0] * free_s)
            for i, free_s in self._free_s.items()
            if self._whole[i] and free_s + self._given_s.get(i, 0.0) < (times[i + 1] - times[i]) * (1 - 1e-9)
        ]

    def _busy_watts(self, i: int) -> tuple[float, float]:
        """The power of the busy time of an interval that was not given before, and by what share it may be too low."""
        start, end = self._curve.times[i], self._curve.times[i + 1]
        free_s, given_s = self._free_s[i], self._given_s.get(i, 0.0)
        part = self._given.part(start)
        if given_s and part is None:  # it is no longer known how much of it was given
            return self._energy[i] / (end - start), 1.0
        remaining_j = self._energy[i] - (part or 0.0)
        idle_s = end - start - free_s - given_s
        if idle_s <= 1e-9 * (end - start):
            return remaining_j / free_s, 0.0
        quiet_w = self._quiet_watts(i)
        if quiet_w is None:
            return remaining_j / (free_s + idle_s), idle_s / (free_s + idle_s)
        return (remaining_j - quiet_w * idle_s) / free_s, 0.0

    def _quiet_watts(self, i: int) -> float | None:
        """The power without inferences, before an interval or else after it; None where no quiet time is near."""
        times = self._curve.times
        before = bisect_left(times, times[i] - SIDE_S), i
        after = i + 1, bisect_right(times, times[i + 1] + SIDE_S) - 1
        for low, high in (before, after):
            seconds = self._quiet_s[high] - self._quiet_s[low]
            if seconds >= 0.5 * (times[i + 1] - times[i]):
                return (self._quiet_joules[high] - self._quiet_joules[low]) / seconds
        return None


def _busy_changes(spans: Sequence[tuple[float, float]], tau_s: float) -> list[Change]:
    """The beginnings and ends of busy time, and by when each must have changed the power.

    A long busy or idle time must show soon; short ones, which may fall between two readings, after many of them.
    """
    edges: list[float] = []
    for start, end in spans:
        if edges and start <= edges[-1]:
            edges[-1] = max(edges[-1], end)
        else:
            edges += [start, end]
    shows_s = least_standstill_s(tau_s, None)
    lengths = [b - a for a, b in pairwise(edges)]
    changes = [
        Change(at, at + shows_s)
        for at, before, after in zip(edges[1:], lengths, lengths[1:], strict=False)
        if min(before, after) >= shows_s  # shorter ones may fall between two readings
    ]
    many = zip(edges, edges[_STILL_CHANGES:], strict=False)
    return changes + [Change(at, max(last, at + _STILL_S - SIDE_S)) for at, last in many]


def _late_intervals(curve: Curve, busy: Sequence[bool]) -> dict[int, int]:
    """Interval without inferences → the last busy interval before it, whose energy a delayed sensor may show there."""
    late: dict[int, int] = {}
    if not curve.lag_s:
        return late
    last: int | None = None
    for i, is_busy in enumerate(busy):
        if is_busy:
            last = i
        elif last is not None and curve.times[i] < curve.times[last + 1] + curve.lag_s:
            late[i] = last
    return late
