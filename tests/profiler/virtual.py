"""A virtual board in virtual time: half a minute of measuring takes a second, whatever else the machine does."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof.simulation.live import LiveBoard

#: A time far from this machine's own monotonic time, so that time-stamps of the real clock are recognised as foreign.
START_S = 1e8
#: The sampler serves deadlines that are this close together (s) with one wake-up.
_TOGETHER_S = 20e-6


class VirtualTime:
    """A ``Clock`` for a sampler and one other thread, which is the one that creates it.

    Time advances only while that thread waits, from deadline to deadline of the sampler's lanes. At each deadline, the
    board is stepped before the lanes read it; the next deadline comes when all lanes wait again.

    Args:
        board: A board that was not started; this clock steps it.
        watch: Called with each new time, after the board was stepped.
    """

    def __init__(self, board: LiveBoard, watch: Callable[[float], None] = lambda _now: None) -> None:
        self._board, self._watch = board, watch
        self._time = START_S
        self._owner = threading.get_ident()
        self._guard = threading.Lock()
        self._deadlines: dict[int, float] = {}  # the deadlines of the lanes that wait
        self._reading: set[int] = set()  # the lanes that do not
        # A thread waits by taking its lock twice, and another ends that by releasing it: a condition variable wakes
        # each thread twice for every one of ten thousands of deadlines.
        self._turns: dict[int, threading.Lock] = {}
        self._all_wait = threading.Lock()
        self._all_wait.acquire()
        self._owner_waits = False

    def __enter__(self) -> VirtualTime:  # noqa: PYI034 - Self is not in typing before 3.11
        self._board.begin(self._time)
        return self

    def __exit__(self, *_: object) -> None:
        self._board.finish(self._time)
        self._board.stop()

    def now(self) -> float:
        return self._time

    def wait(self, deadline: float, stop: threading.Event) -> None:
        if threading.get_ident() == self._owner:
            self._move_to(deadline)
        else:
            self._wait_for_turn(deadline, stop)

    def _move_to(self, end: float) -> None:
        while True:
            with self._guard:
                self._owner_waits = bool(self._reading)
            if self._owner_waits:
                assert self._all_wait.acquire(timeout=60), "a lane's read does not come back"
            with self._guard:
                self._step(min(end, *self._deadlines.values(), math.inf))
                due = [lane for lane, deadline in self._deadlines.items() if deadline <= self._time + _TOGETHER_S]
                for lane in due:
                    del self._deadlines[lane]
                    self._reading.add(lane)
                    self._turns[lane].release()
            if self._time >= end and not due:
                return

    def _step(self, now: float) -> None:
        if now > self._time:
            self._time = now
            self._board.step(now)
            self._watch(now)

    def _wait_for_turn(self, deadline: float, stop: threading.Event) -> None:
        lane = threading.get_ident()
        with self._guard:
            if deadline <= self._time:
                self._reading.add(lane)  # its first reading; start() waits for it while time stands still
                return
            turn = self._turns[lane] = threading.Lock()
            turn.acquire()
            self._reading.discard(lane)
            self._deadlines[lane] = deadline
            if self._owner_waits and not self._reading:
                self._owner_waits = False
                self._all_wait.release()
        while not turn.acquire(timeout=0.02):  # the sampler's stop is an event of its own
            if stop.is_set():
                break
        with self._guard:
            self._deadlines.pop(lane, None)
