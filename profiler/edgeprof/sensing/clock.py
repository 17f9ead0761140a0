"""The sampler's monotonic clock with deadlines, which tests replace by one that they advance themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

#: The longest single sleep (s), and so the longest that ``stop`` waits for a lane that has nothing to do.
_SLICE_S = 0.05


class Clock(Protocol):
    """The interface of a clock."""

    def now(self) -> float:
        """The time in seconds, which never goes back."""
        ...

    def wait(self, deadline: float, stop: threading.Event) -> None:
        """Return at ``deadline``, or soon after ``stop`` is set."""
        ...


class MonotonicClock:
    """CLOCK_MONOTONIC. The wall clock is not used, because NTP may step it during a run."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, deadline: float, stop: threading.Event) -> None:
        # time.sleep and not stop.wait: before Python 3.11 a timed wait on a lock follows the wall clock, and its
        # wake-up is later by the lock's hand-over. Long waits are divided into slices, so that ``stop`` is noticed.
        left = deadline - time.monotonic()
        while left > _SLICE_S:
            time.sleep(_SLICE_S)
            if stop.is_set():
                return
            left = deadline - time.monotonic()
        if left > 0:
            time.sleep(left)
