"""Find out whether this process stood still for a while: it was stopped by a signal, or the machine was suspended.

A call that was stopped in the middle looks slow without being so, and a window with such a call says nothing about the
model. Python 3.6 grammar. Source: signal(7) (SIGCONT is delivered to a handler when a stopped process goes on),
clock_gettime(2) (CLOCK_BOOTTIME counts the time in suspend, CLOCK_MONOTONIC does not).
"""

import signal
import threading
import time
from typing import Any, Optional

#: Linux's number; Python has the name from 3.7 on.
_CLOCK_BOOTTIME = 7
#: The two clocks are read one after the other, so that a difference below this (s) does not mean a suspend.
_LEAST_SUSPEND_S = 0.05

_CONTINUED = [0]


def watch() -> None:
    """Start to count how often this process continues after a stop. Call it once, in the main thread."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCONT) is signal.SIG_DFL:
        signal.signal(signal.SIGCONT, _count_continuation)
        signal.siginterrupt(signal.SIGCONT, False)


class Mark:
    """A moment in time; ``standstill`` says what happened since."""

    def __init__(self) -> None:
        self._continued = _CONTINUED[0]
        self._suspended_s = _suspended_s()

    def standstill(self) -> Optional[str]:
        """What has stopped the process since this mark was made: ``was stopped by a signal``, ``was suspended for 3.2
        s``; None if nothing has.
        """
        suspended_s = _suspended_s() - self._suspended_s
        if suspended_s > _LEAST_SUSPEND_S:
            return "was suspended for {:.1f} s".format(suspended_s)
        return "was stopped by a signal" if _CONTINUED[0] != self._continued else None


def _count_continuation(_number: int, _frame: Any) -> None:
    _CONTINUED[0] += 1


def _suspended_s() -> float:
    """Seconds that the machine has spent in suspend since it was started."""
    try:
        return time.clock_gettime(_CLOCK_BOOTTIME) - time.monotonic()
    except OSError:
        return 0.0
