"""The present power of rails, and the joules between two marks, compared with boards whose truth is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.energy.online.watch import Watch
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.board.topology import arrange, identify_board
from edgeprof.sensing.discover import Discovery
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from pathlib import Path


class Steps(Sensor):
    """A rail with predefined readings and times."""

    name = "steps"

    def __init__(self, readings: list[tuple[float, float]], **facts: Any) -> None:
        self._readings = iter(readings)
        described = {"quantity": "power", "role": "total", "scope": "board", "plausible": (0.0, 100.0), **facts}
        self._channels = (Channel("steps", "IN", **described),)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self._channels

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, values: Any, times: Any) -> None:
        times[0], values[0] = next(self._readings, (math.nan, math.nan))


def watch_of(sensor: Sensor, tmp_path: Path) -> Watch:
    """A watch of one source, which the test reads itself: no sampler is started."""
    topology = arrange(identify_board(Roots(sysfs=tmp_path, procfs=tmp_path, root=tmp_path)), list(sensor.channels))
    return Watch(Discovery([sensor], topology, [], []))


def read(watch: Watch, times: int) -> None:
    (probe,) = watch._sampler._probes
    for _ in range(times):
        probe.sensor.read([math.nan], [math.nan])


def test_the_joules_since_a_mark_are_the_powers_integral_with_its_limits_of_error(tmp_path: Path) -> None:
    readings = [(0.1 * n, 5.0) for n in range(41)]
    watch = watch_of(Steps(readings, gain_limit=0.01, offset_limit=0.02), tmp_path)
    read(watch, 11)
    watch.mark()
    read(watch, 20)
    marked = watch.marked()
    assert marked.seconds == pytest.approx(2.0)
    assert marked.joules == pytest.approx(10.0)
    gain, offset, ends = 0.1 / math.sqrt(3), 0.04 / math.sqrt(3), 5.0 * 0.1 / math.sqrt(6)
    assert marked.expanded_uncertainty == pytest.approx(2 * math.sqrt(gain**2 + offset**2 + ends**2))
    assert watch.total().joules == pytest.approx(15.0)
    assert watch.total().watts == 5.0


def test_a_counter_tells_joules_and_watts_by_its_rise(tmp_path: Path) -> None:
    readings = [(0.5 * n, 100.0 + 4.0 * n) for n in range(9)]
    watch = watch_of(Steps(readings, quantity="energy", kind="counter", plausible=(0.0, math.inf)), tmp_path)
    read(watch, 1)
    watch.mark()
    read(watch, 8)
    assert watch.marked().joules == pytest.approx(32.0)
    assert watch.total().watts == pytest.approx(8.0)


def test_a_sensor_that_states_no_limit_of_error_gives_no_uncertainty(tmp_path: Path) -> None:
    watch = watch_of(Steps([(0.1 * n, 5.0) for n in range(9)]), tmp_path)
    read(watch, 1)
    watch.mark()
    read(watch, 5)
    assert watch.marked().joules == pytest.approx(2.5)
    assert watch.marked().expanded_uncertainty is None


def test_a_reading_that_cannot_be_is_no_joule(tmp_path: Path) -> None:
    watch = watch_of(Steps([(0.0, 5.0), (0.1, 5.0), (0.2, 9e9), (0.3, 5.0)]), tmp_path)
    read(watch, 4)
    assert watch.total().joules == pytest.approx(1.5)


def test_where_nothing_measures_a_total_there_are_no_joules_and_not_zero(tmp_path: Path) -> None:
    sensor = Steps([(0.0, 40.0)], quantity="temperature", role=None, scope="unknown")
    watch = watch_of(sensor, tmp_path)
    watch.mark()
    assert watch.total() is None
    assert watch.marked().joules is None


def test_every_rail_of_a_virtual_board_is_there(tmp_path: Path) -> None:
    from edgeprof.sensing.discover import discover
    from edgeprof.simulation.layouts import build

    build("jetson-orin-nano", tmp_path / "board")
    watch = Watch(discover(PluginHost.from_environment(), Roots.resolve(tmp_path / "board")))
    watch.start()
    try:
        assert {rail.channel.name for rail in watch.rails()} >= {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
        assert watch.total().channel.name == "VDD_IN"
    finally:
        watch.stop()
