"""Whether this process stood still for a while: stopped by a signal, or the whole machine suspended.

A call that was stopped in the middle is no slow call, and a window with one says nothing of the model. Python 3.6
grammar. Source: signal(7) (SIGCONT is delivered to a handler when a stopped process goes on), clock_gettime(2)
(CLOCK_BOOTTIME counts the time in suspend, CLOCK_MONOTONIC does not).
"""

import signal
import threading
import time
from typing import Any, Optional

#: Linux's number; Python has the name from 3.7 on.
_CLOCK_BOOTTIME = 7
#: The two clocks are read one after the other: a smaller difference is no suspend.
_LEAST_SUSPEND_S = 0.05

_CONTINUED = [0]


def watch() -> None:
    """Count from now on how often this process goes on after a stop; for the main thread, once."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCONT) is signal.SIG_DFL:
        signal.signal(signal.SIGCONT, _count)
        signal.siginterrupt(signal.SIGCONT, False)


class Mark:
    """A moment, from which a standstill is looked for."""

    def __init__(self) -> None:
        self._continued = _CONTINUED[0]
        self._suspended_s = _suspended_s()

    def standstill(self) -> Optional[str]:
        """What has happened since: ``was stopped by a signal``, ``was suspended for 3.2 s``; None: nothing."""
        suspended_s = _suspended_s() - self._suspended_s
        if suspended_s > _LEAST_SUSPEND_S:
            return "was suspended for {:.1f} s".format(suspended_s)
        return "was stopped by a signal" if _CONTINUED[0] != self._continued else None


def _count(_number: int, _frame: Any) -> None:
    _CONTINUED[0] += 1


def _suspended_s() -> float:
    """Seconds that the machine has spent in suspend since it was started."""
    try:
        return time.clock_gettime(_CLOCK_BOOTTIME) - time.monotonic()
    except OSError:
        return 0.0
