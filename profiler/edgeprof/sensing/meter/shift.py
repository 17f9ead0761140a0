"""Convert a meter's times to this machine's clock; its lines arrive with varying delays after they were measured."""

from __future__ import annotations

import math

#: The least delay within this many seconds gives the difference of the clocks, which follows a slow drift.
_SHIFT_S = 15.0


class Shift:
    """The difference of two clocks, estimated by the least delay seen lately (as in NTP's clock filter)."""

    def __init__(self) -> None:
        self._least = self._before = math.inf
        self._since_s = self._last_s = -math.inf

    def place(self, stated_s: float, now: float) -> float:
        """When a line was measured, in seconds of this machine's clock."""
        if stated_s < self._last_s:
            self.__init__()  # type: ignore[misc]  # the meter's clock was set back: begin anew
        self._last_s = stated_s
        if now - self._since_s > _SHIFT_S:
            self._before, self._least, self._since_s = self._least, math.inf, now
        self._least = min(self._least, now - stated_s)
        return min(now, stated_s + min(self._least, self._before))
