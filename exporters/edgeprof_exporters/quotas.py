"""What strangers may take of the daemon at most: requests, turns, processor time, descriptors."""

from __future__ import annotations

import contextlib
import logging
import resource
import threading
import time

from edgeprof_exporters.logs import event

#: Descriptors that connections leave to sensors, sockets and files.
_SPARE_DESCRIPTORS = 128


class Bucket:
    """So many requests at once, and one more every interval; thread-safe."""

    def __init__(self, interval_s: float, burst: int) -> None:
        self.interval_s, self.burst = interval_s, burst
        self._tokens, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there was one left."""
        now = time.monotonic()
        with self._lock:
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) / self.interval_s)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class LatestFirst:
    """Lets one thread at a time through; of the waiting threads, the latest goes first.

    In a flood, in which each waits for its answer before it asks again, whoever comes anew is thus next; in order of
    arrival it would have to wait for all of the flood, for longer than a scraper does.

    Args:
        most_waiting: Of more that wait, the oldest is sent away.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most = most_waiting
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: list[_Turn] = []

    def enter(self) -> bool:
        """Wait for a turn; False if it is not to be had. After a turn ``leave`` has to be called."""
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
        """Give the turn to the next."""
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
    """Keeps the calling thread within a part of a core.

    Args:
        share: The part.
        burst_s: Processor time (s) that may be used at once, after a time of rest.
    """

    def __init__(self, share: float, burst_s: float) -> None:
        self._share, self._burst_s = share, burst_s
        self._credit_s = burst_s
        self._at, self._used_s = time.monotonic(), time.thread_time()

    def rest(self) -> None:
        """Sleep until what was used is paid for."""
        now, used_s = time.monotonic(), time.thread_time()
        earned_s = self._share * (now - self._at)
        self._credit_s = min(self._burst_s, self._credit_s + earned_s) - (used_s - self._used_s)
        self._at, self._used_s = now, used_s
        if self._credit_s < 0:
            time.sleep(-self._credit_s / self._share)


def affordable_connections(most: int) -> int:
    """As many connections as asked for, or as the limit on descriptors allows: each needs two while it is replaced."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * most + _SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return most
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    affordable = max(4, min(most, (soft - min(_SPARE_DESCRIPTORS, soft // 2)) // 2))
    if affordable < most:
        event(logging.WARNING, "the limit on open files allows fewer connections", limit=soft, connections=affordable)
    return affordable
