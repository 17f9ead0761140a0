"""A thread that reads some sensors, each at its deadlines."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof.sensing.clock import Clock
    from edgeprof.sensing.reader import Probe

#: Deadlines this close together (s) are served by one wake-up.
_TOGETHER_S = 20e-6

_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NS = 1000
_NICE = -5

#: How often (in wake-ups) a lane reads its own CPU clock, which is a system call.
_CHECK_EVERY = 16


class Lane:
    """One thread and the probes that it alone reads.

    Args:
        probes: Its sensors, read in this order.
        clock: The clock of the deadlines.
        stop: Ends all lanes when it is set.
        hand_over: Takes over a closed probe whose reads are so long that they delay the others; returns whether it did.
        cpu: The CPU to run on; None leaves that to the scheduler.
    """

    def __init__(
        self,
        probes: list[Probe],
        clock: Clock,
        stop: threading.Event,
        hand_over: Callable[[Probe], bool],
        cpu: int | None,
    ) -> None:
        self.probes = probes
        self.cpu_s = 0.0
        self.started = threading.Event()  # set when each probe was tried once
        self._clock, self._stop, self._hand_over, self._cpu = clock, stop, hand_over, cpu
        names = "+".join(probe.sensor.name for probe in probes)
        # A daemon: a read that the kernel never answers must not keep the program from ending.
        self.thread = threading.Thread(target=self._run, name=f"edgeprof sampler {names}", daemon=True)

    def _run(self) -> None:
        prepare_thread(self._cpu)
        try:
            self._sample()
        finally:
            self.cpu_s = time.thread_time()
            for probe in self.probes:
                probe.close()
            self.started.set()

    def _sample(self) -> None:
        clock, stop = self._clock, self._stop
        for probe in self.probes:
            if not probe.has_begun:
                probe.begin(clock)
        # One pass for each wake-up, without unnecessary calls: this runs some hundred times a second with cold caches.
        wakes, wake = 0, min(probe.next_s for probe in self.probes)
        follow = not any(probe.leads for probe in self.probes)
        while True:
            clock.wait(wake, stop)
            if stop.is_set():
                return
            together, wake, long = wake + _TOGETHER_S, math.inf, False
            for probe in self.probes:
                if probe.next_s <= together:
                    probe.service(clock)
                    long = long or probe.is_long
                if probe.leads or follow:
                    wake = min(wake, probe.next_s)
            if not wakes % _CHECK_EVERY:
                self.started.set()
                self.cpu_s = time.thread_time()
            wakes += 1
            if long and len(self.probes) > 1:
                self._separate_long_probes()
                follow = not any(probe.leads for probe in self.probes)
                wake = min(probe.next_s for probe in self.probes)

    def _separate_long_probes(self) -> None:
        """Give each probe that delays the others a thread of its own, in which it is opened again."""
        for probe in [probe for probe in self.probes if probe.is_long]:
            if len(self.probes) > 1:
                probe.close()
                if self._hand_over(probe):
                    self.probes.remove(probe)


def prepare_thread(cpu: int | None = None) -> None:
    """Make the calling thread wake up on time, as far as the user's permissions allow; other threads are not changed.

    The timer slack is set to 1 µs instead of 50 (prctl(2)), which lowers the median lateness from about 96 to 45 µs.
    The nice value is set to −5 if that is permitted; processes that a sensor starts do not inherit it
    (SCHED_RESET_ON_FORK). The thread stays on ``cpu`` if one is given.
    """
    tid = threading.get_native_id()
    with suppress(OSError, AttributeError):  # another libc or none
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
    with suppress(OSError, AttributeError):  # not permitted
        if os.sched_getscheduler(tid) == os.SCHED_OTHER:
            os.sched_setscheduler(tid, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, tid, min(_NICE, os.getpriority(os.PRIO_PROCESS, tid)))
    if cpu is not None:
        with suppress(OSError, AttributeError, ValueError):  # no such CPU, or this process may not use it
            os.sched_setaffinity(tid, {cpu})
