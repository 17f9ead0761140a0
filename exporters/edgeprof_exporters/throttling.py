"""What held the device back since the daemon began: counters that grew, and states that came."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgeprof.sensing.device.throttle import Counters, read_counters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeprof.roots import Roots


class Throttling:
    """Looks every few seconds; thread-safe.

    A hardware counter's growth counts as it is; a state (a cooling device that limits a clock, an alarm) counts once
    each time that it begins, and a state between two looks that left no trace is not seen.
    """

    def __init__(self, roots: Roots, look: Callable[[Roots], Counters] = read_counters) -> None:
        self.roots = roots
        self._look = look
        self._lock = threading.Lock()
        self._events: dict[str, int] = {}
        self._states: dict[str, int] = {}
        self._before: Counters | None = None

    def look(self) -> None:
        """Look once."""
        now = self._look(self.roots)
        with self._lock:
            before, self._before = self._before, now
            for cause in (*now.counts, *now.states):
                self._events.setdefault(cause, 0)
            for cause, count in now.counts.items():
                grown = 0 if before is None else count - before.counts.get(cause, count)
                self._events[cause] += max(0, grown)
            for cause, state in now.states.items():
                was = 0 if before is None else before.states.get(cause, 0)
                self._events[cause] += state > 0 and was <= 0
            self._states = {cause: int(state > 0) for cause, state in now.states.items()}

    def seen(self) -> tuple[dict[str, int], dict[str, int]]:
        """Events by cause since the beginning, and what is so now by cause (1 or 0)."""
        with self._lock:
            return dict(self._events), dict(self._states)

    def resume(self, events: Mapping[str, int]) -> None:
        """Go on from an earlier daemon's counts.

        Raises:
            ValueError, TypeError: they are none.
        """
        saved = {str(cause): int(count) for cause, count in events.items()}
        if min(saved.values(), default=0) < 0 or not all(map(str.isprintable, saved)):
            raise ValueError("not the counts of causes")
        with self._lock:
            for cause, count in saved.items():
                self._events[cause] = self._events.get(cause, 0) + count
