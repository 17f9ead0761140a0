"""A process notices that it was stopped, but not that it was busy or waited for others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from edgeprof.launch import pulse
from edgeprof.launch.pulse import Pulse
from edgeprof.worker.scenario import Scenario

PROGRAM = """
import sys, time
from edgeprof.launch.pulse import Pulse
pulse = Pulse(0.05)
print("ready", flush=True)
while not pulse.stood_still_s:
    time.sleep(0.05)
    pulse.beat()
print(pulse.stood_still_s)
"""


def test_a_process_that_was_stopped_knows_for_how_long():
    """As in a frozen cgroup, it is not told: a program without a handler of SIGCONT sees nothing of it."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGCONT)
        assert 0.5 <= float(process.stdout.readline()) <= time.monotonic() - begun


@pytest.fixture
def clock(monkeypatch):
    """Clocks that are set by hand: ``now``, ``cpu`` and ``waits``."""
    hands = {"now": 100.0, "cpu": 5.0, "waits": {"1": 10**9}}
    clocks = SimpleNamespace(monotonic=lambda: hands["now"], process_time=lambda: hands["cpu"])
    monkeypatch.setattr(pulse, "time", clocks)
    monkeypatch.setattr(pulse, "_waits_ns", lambda: dict(hands["waits"]))
    return hands


@pytest.mark.parametrize(
    ("cpu_s", "waits", "stood_still_s"),
    [
        (0.0, {"1": 10**9}, 2.75),
        (2.9, {"1": 10**9}, 0.0),
        (0.0, {"1": 4 * 10**9}, 0.0),
        (0.0, {"1": 10**9, "2": 29 * 10**8}, 0.0),
        (1.0, {}, 0.0),
    ],
    ids=["stopped", "busy", "starved", "another thread starved", "a kernel that does not tell"],
)
def test_only_time_that_nothing_explains_is_a_standstill(clock, cpu_s, waits, stood_still_s):
    heart = Pulse(0.25)
    clock.update(now=103.0, cpu=5.0 + cpu_s, waits=waits)
    assert heart.beat() == pytest.approx(stood_still_s)
    assert heart.stood_still_s == pytest.approx(stood_still_s)


def test_a_window_during_which_this_process_stood_still_is_marked(toy, monkeypatch):
    worker = toy("sleep:0.005")
    worker.load()
    worker.warm_up(0.05, 0.1)
    assert worker.window(Scenario(), 0.1).standstill is None
    real = pulse.Pulse.beat

    def beat(self):
        self._last_s -= 3.0
        return real(self)

    monkeypatch.setattr(pulse.Pulse, "beat", beat)
    assert "stood still for" in worker.window(Scenario(), 0.1).standstill
