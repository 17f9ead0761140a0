"""A window in which the model was stopped is marked, and measured again."""

from __future__ import annotations

import os
import signal
import threading
import time

from edgeprof.worker import standstill
from edgeprof.worker.scenario import Scenario


def test_a_window_that_was_stopped_by_a_signal_is_marked(toy):
    worker = toy("sleep:0.005")
    worker.load()
    worker.warm_up(0.05, 0.1)
    assert worker.window(Scenario(), 0.1).standstill is None

    def stop_and_go_on():
        time.sleep(0.15)
        os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(worker.pid, signal.SIGCONT)

    other = threading.Thread(target=stop_and_go_on)
    other.start()
    stopped = worker.window(Scenario(), 1.0)
    other.join()
    assert stopped.standstill == "was stopped by a signal"
    assert worker.window(Scenario(), 0.1).standstill is None


def test_a_suspend_shows_between_the_clocks(monkeypatch):
    mark = standstill.Mark()
    assert mark.standstill() is None
    real = time.clock_gettime
    monkeypatch.setattr(standstill.time, "clock_gettime", lambda clock: real(clock) + 3.2)
    assert mark.standstill() == "was suspended for 3.2 s"
