"""From a meter's clock to ours: its lines say when they were measured, and come later, each by another delay."""

from __future__ import annotations

import math

#: The quickest line of so many seconds tells how the meter's clock and ours lie: a slow drift of either is followed.
_SHIFT_S = 15.0


class Shift:
    """The least delay that was seen lately; it is taken for the difference of the clocks."""

    def __init__(self) -> None:
        self._least = self._before = math.inf
        self._since_s = self._last_s = -math.inf

    def place(self, stated_s: float, now: float) -> float:
        """When a line was measured, by our clock (s)."""
        if stated_s < self._last_s:
            self.__init__()  # type: ignore[misc]  # the meter's clock was set back: begin anew
        self._last_s = stated_s
        if now - self._since_s > _SHIFT_S:
            self._before, self._least, self._since_s = self._least, math.inf, now
        self._least = min(self._least, now - stated_s)
        return min(now, stated_s + min(self._least, self._before))
