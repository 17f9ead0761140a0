"""The whole sensing chain against the truth: discovery, sampler and analysis on boards that live."""

from __future__ import annotations

import json
import math
import time

import pytest

from edgeprof.analysis.energy import window_energy
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.truth import Truth
from edgeprof.simulation.waveform import parse


@pytest.mark.parametrize(
    ("board", "waveform"),
    [
        ("jetson-nano", "sine:3W,9W,700ms"),  # IIO, tau 0.42 s
        ("jetson-orin-nano", "square:4W,12W,100ms"),  # hwmon, tau 0.43 s
        ("jetson-agx-orin", "ramp:15W,35W,400ms"),  # the sum of three rails, steps of 380 mW
        ("jetson-thor", "square:40W,90W,800ms"),  # block averages of 50 ms
        ("raspberry-pi-5", "constant:6W"),  # twelve rails, new every 47 ms
        ("x86-rapl", "square:10W,40W,50ms"),  # counters
    ],
)
def test_edgeprofs_joules_of_a_living_board_are_the_true_ones(board: str, waveform: str, tmp_path) -> None:
    """In real time on whatever else the machine does, so within 3 %; exact times are for tests on a clock of their own.

    Seen through a filter with ends that differ, a step counts tau-fold; the budget says so and is allowed for.
    """
    with LiveBoard(board, tmp_path, parse(waveform)) as live:
        host = PluginHost(only=["ina3221", "hwmon", "rapl", "pmic"])
        found = discover(host, Roots.resolve(tmp_path, environ={}))
        headline = found.topology.headline
        assert {channel.provenance for channel in headline.channels} == {"simulated"}
        sampler = Sampler(found.sensors, 100.0, found.topology.by_key())
        sampler.start()
        time.sleep(2.2)
        sampler.stop()
        end = time.monotonic() - 0.1
        start = end - 2.0
        joules = allowed = 0.0
        for channel in headline.channels:
            series = sampler.trace.series(channel.key)
            energy = window_energy(series.times, series.values, start, end, channel, edges="interpolated")
            assert energy.joules is not None
            joules += energy.joules
            allowed += 3 * math.hypot(energy.u_filter, energy.u_sync, energy.u_resolution)
        true = live.energy(start, end)
    assert joules == pytest.approx(true, rel=0.03, abs=allowed)
    assert Truth(tmp_path).energy(start, end) == pytest.approx(true, rel=1e-6)


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
