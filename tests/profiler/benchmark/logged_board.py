"""A virtual board whose power follows a log of time-stamped events, which the stages of a pipeline write."""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

from edgeprof.simulation.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: One event: seconds of CLOCK_MONOTONIC, and what begins.
EVENT = struct.Struct("=dc")


class Logged(Source):
    """The power at a time is that of the newest event before it.

    Args:
        path: The log, to which ``EVENT`` records are appended in order of time.
        watts: Event → power (W); ``-`` is the power when nothing runs.
    """

    def __init__(self, path: Path, watts: Mapping[str, float]) -> None:
        self._path, self._watts = path, watts
        self._read = 0
        self._times: list[float] = []
        self._knots: list[tuple[float, float]] = []  # joules until then, watts from then on

    def begin(self, time: float) -> None:
        self._times, self._knots = [time], [(0.0, self._watts["-"])]

    def advance(self, time: float) -> bool:
        if not self._path.exists():
            return False
        with self._path.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        whole = len(data) // EVENT.size * EVENT.size
        self._read += whole
        for at, mark in EVENT.iter_unpack(data[:whole]):
            since, (joules, watts) = self._times[-1], self._knots[-1]
            self._times.append(max(at, since))
            self._knots.append((joules + watts * (max(at, since) - since), self._watts[mark.decode()]))
        return whole > 0

    def _knot(self, time: float) -> int:
        return max(0, bisect_right(self._times, time) - 1)

    def level(self, time: float) -> float:
        return self._knots[self._knot(time)][1]

    def integral(self, time: float) -> float:
        knot = self._knot(time)
        joules, watts = self._knots[knot]
        return joules + watts * (time - self._times[knot])
