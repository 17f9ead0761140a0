"""A virtual board whose power follows a mark that a toy runtime writes."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from edgeprof.simulation.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The power falls only after the mark has been absent for this long (s): between two calls it is absent for some
#: microseconds, and for longer if the processor is busy with other work.
_HOLD_S = 0.04


class Marked(Source):
    """The power is that of the phase that the mark names.

    Args:
        path: The file whose first byte is the mark.
        watts: Mark → power (W); ``-`` is the power when nothing runs.
    """

    def __init__(self, path: Path, watts: Mapping[str, float]) -> None:
        self._path, self._watts = path, watts
        self._seen_s = -math.inf
        self._knots: list[tuple[float, float, float]] = []  # since when, joules until then, watts

    def begin(self, time: float) -> None:
        self._knots = [(time, 0.0, self._watts["-"])]

    def advance(self, time: float) -> bool:
        mark = self._path.read_bytes()[:1].decode() if self._path.exists() else "-"
        watts = self._knots[-1][2]
        if mark in self._watts and mark != "-":
            self._seen_s, watts = time, self._watts[mark]
        elif time - self._seen_s > _HOLD_S:
            watts = self._watts["-"]
        changed = watts != self._knots[-1][2]
        if changed:
            self._knots.append((time, self.integral(time), watts))
        return changed

    def _knot(self, time: float) -> tuple[float, float, float]:
        return self._knots[max(0, bisect_right(self._knots, (time, math.inf, math.inf)) - 1)]

    def level(self, time: float) -> float:
        return self._knot(time)[2]

    def integral(self, time: float) -> float:
        since_s, joules, watts = self._knot(time)
        return joules + watts * (time - since_s)
