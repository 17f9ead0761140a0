"""Limits on what clients may use of the daemon: requests, turns, processor time, descriptors."""

from __future__ import annotations

import contextlib
import logging
import resource
import threading
import time

from edgeprof_exporters.logs import event

#: Descriptors that are reserved for sensors, sockets and files.
_SPARE_DESCRIPTORS = 128


class Bucket:
    """A token bucket: allows ``burst`` requests at once, and one more per interval. The methods are thread-safe."""

    def __init__(self, interval_s: float, burst: int) -> None:
        self.interval_s, self.burst = interval_s, burst
        self._tokens, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        now = time.monotonic()
        with self._lock:
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) / self.interval_s)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class LatestFirst:
    """Lets one thread through at a time; of the waiting threads, the latest one is next.

    In a flood of clients that each wait for an answer before they ask again, a new client is thus served next. In order
    of arrival it would have to wait for the whole flood, which is longer than a scraper waits.

    Args:
        most_waiting: Most threads that wait; if there are more, the oldest one is refused.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most = most_waiting
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: list[_Turn] = []

    def enter(self) -> bool:
        """Wait for a turn; return False if it is refused. After a turn ``leave`` must be called."""
        turn = _Turn()
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            self._waiting.append(turn)
            if len(self._waiting) > self._most:
                self._waiting.pop(0).end(granted=False)
        turn.decided.wait()
        return turn.is_granted

    def leave(self) -> None:
        """End the turn, and give it to the next thread."""
        with self._lock:
            if self._waiting:
                self._waiting.pop().end(granted=True)
            else:
                self._is_taken = False


class _Turn:
    def __init__(self) -> None:
        self.decided = threading.Event()
        self.is_granted = False

    def end(self, *, granted: bool) -> None:
        self.is_granted = granted
        self.decided.set()


class Budget:
    """Limits the calling thread to a share of a core.

    Args:
        share: The share, from 0 to 1.
        burst_s: Processor time that may be used at once after a pause (s).
    """

    def __init__(self, share: float, burst_s: float) -> None:
        self._share, self._burst_s = share, burst_s
        self._credit_s = burst_s
        self._at, self._used_s = time.monotonic(), time.thread_time()

    def rest(self) -> None:
        """Sleep until the used processor time is within the share."""
        now, used_s = time.monotonic(), time.thread_time()
        earned_s = self._share * (now - self._at)
        self._credit_s = min(self._burst_s, self._credit_s + earned_s) - (used_s - self._used_s)
        self._at, self._used_s = now, used_s
        if self._credit_s < 0:
            time.sleep(-self._credit_s / self._share)


def affordable_connections(most: int) -> int:
    """The number of connections, limited by that of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + _SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return most
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    affordable = max(4, min(most, soft - min(_SPARE_DESCRIPTORS, soft // 2)))
    if affordable < most:
        event(logging.WARNING, "the limit on open files allows fewer connections", limit=soft, connections=affordable)
    return affordable
