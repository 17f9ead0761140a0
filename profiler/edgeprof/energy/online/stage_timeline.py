"""When each stage of a program ran: each moment of a thread counts for the innermost stage that ran in it.

Standard library only: the daemon and ``edgeprof.record`` use it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence


class Ran(NamedTuple):
    """A stretch in which a stage ran, in seconds of CLOCK_MONOTONIC; ``thread`` identifies a thread of a process."""

    key: Hashable
    start_s: float
    end_s: float
    thread: Hashable = None


class _Steps:
    """The integral of a step function: for how many seconds something ran until a given time."""

    __slots__ = ("_integrals", "_levels", "_times")

    def __init__(self) -> None:
        self._times, self._integrals, self._levels = [-math.inf], [0.0], [0]

    def extend(self, stretches: Iterable[tuple[float, float]]) -> None:
        """Add stretches, none of which begins before those that were added earlier end."""
        for time, change in sorted([(a, 1) for a, _ in stretches] + [(b, -1) for _, b in stretches]):
            self._integrals.append(self.until(time))
            self._times.append(time)
            self._levels.append(self._levels[-1] + change)

    def until(self, time: float) -> float:
        """The seconds up to a time, which must not be earlier than the last ``forget``."""
        index = bisect_right(self._times, time) - 1
        level = self._levels[index]
        return self._integrals[index] + (level * (time - self._times[index]) if level else 0.0)

    def decayed(self, start: float, end: float, tau_s: float) -> float:
        """The output of an exponential filter at ``end`` for the time since ``start``: ∫ e^(−(end−u)/τ) du/τ."""
        index = bisect_right(self._times, start) - 1
        total, since = 0.0, start
        while True:
            index += 1
            until = min(self._times[index], end) if index < len(self._times) else end
            level = self._levels[index - 1]
            if level:
                total += level * (math.exp((until - end) / tau_s) - math.exp((since - end) / tau_s))
            since = until
            if until >= end:
                return total

    def forget(self, before: float) -> None:
        """Drop what is needed only for times before ``before``."""
        index = bisect_right(self._times, before) - 1
        if index > 256:
            del self._times[:index], self._integrals[:index], self._levels[:index]


class Timeline:
    """When each stage ran; each moment of a thread counts for the innermost stage only.

    Attributes:
        keys: The stages, in the order in which they were first seen.
        own_s: Stage → the seconds in which it was the innermost stage.
        stretches: Stage → the number of stretches that these seconds consist of.
        shared_s: Stage → its part of these seconds where stages of several threads ran at once: each gets an equal
            part.
        late_s: Seconds of stages that were reported after their time was settled, and are missing from the others.
    """

    def __init__(self) -> None:
        self.keys: list[Hashable] = []
        self.own_s: dict[Hashable, float] = {}
        self.stretches: dict[Hashable, int] = {}
        self.shared_s: dict[Hashable, float] = {}
        self.late_s = 0.0
        self._steps: dict[Hashable, _Steps] = {}
        self._pending: list[Ran] = []
        self._settled_s = -math.inf

    def add(self, ran: Iterable[Ran]) -> None:
        """Add stretches in any order."""
        self._pending.extend(ran)

    def advance(self, until_s: float) -> None:
        """Settle the time up to ``until_s``; stretches of it that are added later count as late."""
        ready: list[Ran] = []
        waiting: list[Ran] = []
        for ran in self._pending:
            start_s = max(ran.start_s, self._settled_s)
            self.late_s += min(start_s, ran.end_s) - ran.start_s if start_s > ran.start_s else 0.0
            if start_s < min(ran.end_s, until_s):
                ready.append(ran._replace(start_s=start_s, end_s=min(ran.end_s, until_s)))
            if ran.end_s > until_s:
                waiting.append(ran._replace(start_s=max(start_s, until_s)))
        self._pending, self._settled_s = waiting, max(self._settled_s, until_s)
        by_key = _own_stretches(ready)
        for key, stretches in by_key.items():
            if key not in self._steps:
                self.keys.append(key)
                self._steps[key] = _Steps()
            self._steps[key].extend(stretches)
            self.own_s[key] = self.own_s.get(key, 0.0) + math.fsum(b - a for a, b in stretches)
            self.stretches[key] = self.stretches.get(key, 0) + len(stretches)
        for key, seconds in _shared_seconds(by_key).items():
            self.shared_s[key] = self.shared_s.get(key, 0.0) + seconds

    def seconds(self, key: Hashable, until_s: float) -> float:
        """For how many seconds a stage ran until a time, summed over threads."""
        return self._steps[key].until(until_s)

    def decayed(self, key: Hashable, start_s: float, end_s: float, tau_s: float) -> float:
        """The output of an exponential filter at ``end_s`` for the stage's occupancy since ``start_s``."""
        return self._steps[key].decayed(start_s, end_s, tau_s)

    def forget(self, before_s: float) -> None:
        """Drop what is needed only for times before ``before_s``."""
        for steps in self._steps.values():
            steps.forget(before_s)


def _own_stretches(ran: Sequence[Ran]) -> dict[Hashable, list[tuple[float, float]]]:
    """Stage → the stretches in which it was the innermost one of its thread."""
    threads: dict[Hashable, list[Ran]] = {}
    for stretch in ran:
        threads.setdefault(stretch.thread, []).append(stretch)
    by_key: dict[Hashable, list[tuple[float, float]]] = {}
    for stretches in threads.values():
        stretches.sort(key=lambda stretch: (stretch.start_s, -stretch.end_s))
        stack: list[Ran] = []
        since_s = 0.0

        def close_until(time_s: float, since_s: float, stack: list[Ran] = stack) -> float:
            while stack and stack[-1].end_s <= time_s:
                inner = stack.pop()
                if inner.end_s > since_s:
                    by_key.setdefault(inner.key, []).append((since_s, inner.end_s))
                    since_s = inner.end_s
            return since_s

        for stretch in stretches:
            since_s = close_until(stretch.start_s, since_s)
            if stack and stretch.start_s > since_s:
                by_key.setdefault(stack[-1].key, []).append((since_s, stretch.start_s))
            since_s = stretch.start_s
            stack.append(stretch)
        close_until(math.inf, since_s)
    return by_key


def _shared_seconds(by_key: Mapping[Hashable, Sequence[tuple[float, float]]]) -> dict[Hashable, float]:
    """Stage → its seconds, each moment divided by the number of stretches that run then."""
    events = sorted(
        event
        for key, stretches in by_key.items()
        for a, b in stretches
        for event in ((a, 1, id(key), key), (b, -1, id(key), key))
    )
    shared: dict[Hashable, float] = {}
    running: dict[Hashable, int] = {}
    before_s, total = 0.0, 0
    for time_s, change, _, key in events:
        if total:
            for active, count in running.items():
                shared[active] = shared.get(active, 0.0) + count * (time_s - before_s) / total
        running[key] = running.get(key, 0) + change
        if not running[key]:
            del running[key]
        before_s, total = time_s, total + change
    return shared
