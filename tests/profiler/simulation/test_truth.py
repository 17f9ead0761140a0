"""The whole sensing chain compared with the truth: discovery, sampler and analysis on live boards."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING

import pytest

from edgeprof.energy.integrate import window_energy
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.clock import MonotonicClock
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.truth import Truth
from edgeprof.simulation.waveform import parse
from tests.profiler.virtual import VirtualTime

if TYPE_CHECKING:
    from edgeprof.sensing.clock import Clock


def measured(board: LiveBoard, clock: Clock) -> tuple[float, float, tuple[float, float]]:
    """Return the joules of the total over 2 s, three times their uncertainty, and the start and end of the time."""
    found = discover(PluginHost(only=["ina3221", "hwmon", "rapl", "pmic"]), Roots.resolve(board.directory, environ={}))
    headline = found.topology.headline
    assert {channel.provenance for channel in headline.channels} == {"simulated"}
    with Sampler(found.sensors, 100.0, found.topology.by_key(), clock=clock) as sampler:
        clock.wait(clock.now() + 2.2, threading.Event())
    end = clock.now() - 0.1
    joules = allowed = 0.0
    for channel in headline.channels:
        series = sampler.trace.series(channel.key)
        energy = window_energy(series.times, series.values, end - 2.0, end, channel, edges="interpolated")
        assert energy.joules is not None
        joules += energy.joules
        allowed += 3 * math.hypot(energy.u_filter, energy.u_sync, energy.u_resolution)
    return joules, allowed, (end - 2.0, end)


@pytest.mark.parametrize(
    ("name", "waveform"),
    [
        ("jetson-nano", "sine:3W,9W,700ms"),  # IIO, tau 0.42 s
        ("jetson-orin-nano", "square:4W,12W,100ms"),  # hwmon, tau 0.43 s
        ("jetson-agx-orin", "ramp:15W,35W,400ms"),  # the sum of three rails, steps of 380 mW
        ("jetson-thor", "square:40W,90W,800ms"),  # block averages of 50 ms
        ("raspberry-pi-5", "constant:6W"),  # twelve rails, new every 47 ms
        ("x86-rapl", "square:10W,40W,50ms"),  # counters
    ],
)
def test_edgeprofs_joules_of_a_living_board_are_the_true_ones(name: str, waveform: str, tmp_path) -> None:
    """In virtual time, in which nothing is late, the error stays within the uncertainty of the budget.

    Behind a filter, with different readings at the ends, a step counts tau times; the budget includes that.
    """
    board = LiveBoard(name, tmp_path, parse(waveform))
    with VirtualTime(board) as clock:
        joules, allowed, span = measured(board, clock)
    true = board.energy(*span)
    assert allowed < 0.02 * true
    assert joules == pytest.approx(true, rel=0, abs=allowed)
    assert Truth(tmp_path).energy(*span) == pytest.approx(true, rel=1e-6)


def test_they_are_in_real_time_too(tmp_path) -> None:
    """Other load on the machine may disturb this, so 3 % are allowed in addition to the budget."""
    with LiveBoard("jetson-orin-nano", tmp_path, parse("square:4W,12W,100ms")) as board:
        joules, allowed, span = measured(board, MonotonicClock())
        true = board.energy(*span)
    assert joules == pytest.approx(true, rel=0.03, abs=allowed)
    assert Truth(tmp_path).energy(*span) == pytest.approx(true, rel=1e-6)


def test_the_sums_of_an_earlier_play_go_when_a_new_one_begins(tmp_path) -> None:
    for _ in range(2):
        with LiveBoard("jetson-nano", tmp_path, parse("constant:3W")):
            assert not (tmp_path / "truth.json").exists()
        assert json.loads((tmp_path / "truth.json").read_text())["board"] == "jetson-nano"


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "holds no truth"), ("{}\n", "holds no truth"), ('{"schema": "edgeprof.truth/9"}\n', "unknown schema")],
)
def test_what_is_no_truth_is_told_in_one_sentence(tmp_path, text: str, says: str) -> None:
    (tmp_path / "truth.jsonl").write_text(text)
    with pytest.raises(InputError, match=says):
        Truth(tmp_path)
