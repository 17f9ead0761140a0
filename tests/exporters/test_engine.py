"""What is a rail and what is not, and how the engine tells that all is not well."""

from __future__ import annotations

import math
import time

import pytest

from edgeprof.sensing.board.topology import Board, arrange
from edgeprof.sensing.discover import Discovery
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof_exporters import engine as module
from edgeprof_exporters import views
from edgeprof_exporters.engine import Engine, Tap


class Fixed(Sensor):
    """Reads the same values over and over, or what it is told to."""

    def __init__(self, *rows: tuple[Channel, float]) -> None:
        self.name = rows[0][0].sensor
        self._channels = [channel for channel, _ in rows]
        self.row = [value for _, value in rows]
        self.raises: Exception | None = None

    @property
    def channels(self) -> list[Channel]:
        return self._channels

    def read(self, values, times) -> None:
        if self.raises is not None:
            raise self.raises
        values[:] = type(values)("d", self.row)


def rapl(name: str, **facts) -> Channel:
    return Channel("rapl", name, "energy", kind="counter", provenance="counter", role="part", wrap=1e5, **facts)


PACKAGE, CORE, DRAM = (
    rapl("package-0", scope="package"),
    rapl("core-0", parent="package-0"),
    rapl("dram-0", scope="memory"),
)
GPU_J = Channel("nvml", "gpu0", "energy", kind="counter", provenance="counter", scope="gpu", role="part")
GPU_W = Channel("nvml", "gpu0", "power", scope="gpu", role="part")
PSYS = rapl("psys", scope="board")


def found(*sensors: Sensor) -> Discovery:
    channels = [channel for sensor in sensors for channel in sensor.channels]
    topology = arrange(Board("unknown", "a PC", model="a PC"), channels)
    return Discovery(list(sensors), topology, [], [])


@pytest.fixture
def engine():
    made = Engine(rate_hz=50.0)
    yield made
    made.stop()


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parts_of_a_rail_are_never_among_those_that_may_be_added(engine: Engine) -> None:
    engine.start(found(Fixed((PACKAGE, 10.0), (CORE, 5.0), (DRAM, 1.0)), Fixed((GPU_J, 7.0), (GPU_W, 30.0))))
    until(lambda: engine.ready)
    shown = views.power(engine)
    names = [labels[0] for labels, _ in shown["edgeprof_rail_energy_joules_total"]]
    assert sorted(names) == ["dram-0", "gpu0", "package-0"]  # each once, the GPU by its counter
    assert [labels[:2] for labels, _ in shown["edgeprof_subrail_energy_joules_total"]] == [("core-0", "package-0")]
    (device,) = shown["edgeprof_device_energy_joules_total"]
    assert device[0] == ("rapl+nvml", "counter")
    until(lambda: "edgeprof_rail_power_watts" in views.power(engine))
    watts = {labels[0]: value for labels, value in views.power(engine)["edgeprof_rail_power_watts"]}
    assert watts["gpu0"] == 30.0  # by its own reading


def test_what_stands_for_the_whole_device_is_no_rail(engine: Engine) -> None:
    whole = Channel("rapl", "psys", "energy", kind="counter", provenance="counter", scope="board", role="total")
    engine.start(found(Fixed((whole, 10.0), (PACKAGE, 5.0))))
    until(lambda: engine.ready)
    shown = views.power(engine)
    assert [labels[0] for labels, _ in shown["edgeprof_rail_energy_joules_total"]] == ["package-0"]
    assert len(shown["edgeprof_device_energy_joules_total"]) == 1


def test_a_value_that_cannot_be_is_neither_integrated_nor_shown(engine: Engine) -> None:
    channel = Channel("fake", "VIN", "power", plausible=(0.0, 50.0), role="total", scope="board")
    sensor = Fixed((channel, 5.0))
    engine.start(found(sensor))
    until(lambda: engine.ready)
    for value in (1e6, math.nan, math.inf, -7.0):
        sensor.row = [value]
        time.sleep(0.1)
    (device,) = views.power(engine)["edgeprof_device_power_watts"]
    assert device[1] == 5.0


def test_missing_readings_are_counted_and_no_count_ever_falls(engine: Engine) -> None:
    sensor = Fixed((GPU_W, 5.0))
    discovery = found(sensor)
    engine.start(discovery)
    until(lambda: engine.counts().get("nvml", (0, 0))[0] > 5)
    sensor.raises = OSError("gone")
    until(lambda: engine.counts()["nvml"][1] > 2)
    seen = engine.counts()["nvml"]
    sensor.raises = None
    engine.start(discovery)  # a reload counts on
    for _ in range(50):
        now = engine.counts()["nvml"]
        assert now[0] >= seen[0]
        assert now[1] >= seen[1]
        seen = now
        time.sleep(0.005)


def test_it_is_stuck_when_no_sensor_is_read_and_not_when_one_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.3)
    good, bad = Fixed((GPU_W, 5.0)), Fixed((PACKAGE, 5.0))
    engine.start(found(good, bad))
    until(lambda: all(math.isfinite(tap.last_read) for tap in engine.taps))
    bad.raises = OSError("gone")
    time.sleep(0.5)
    assert engine.stuck(time.monotonic()) is None
    good.raises = OSError("gone too")
    until(lambda: engine.stuck(time.monotonic()) is not None)
    good.raises = None
    until(lambda: engine.stuck(time.monotonic()) is None)
    engine.stop()
    assert engine.stuck(time.monotonic()) == "the sampler does not run"


def test_a_step_of_the_wall_clock_moves_no_joule(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.start(found(Fixed((GPU_W, 10.0))))
    until(lambda: engine.ready)
    begun, joules = time.monotonic(), engine.rails[0].meter.joules
    monkeypatch.setattr(time, "time", lambda: 0.0)
    time.sleep(0.5)
    grown = engine.rails[0].meter.joules - joules
    assert grown == pytest.approx(10.0 * (time.monotonic() - begun), abs=2.0)
    assert engine.gaps(time.monotonic()) == {"nvml": 0.0}


def test_a_tap_hands_on_what_the_sensor_is() -> None:
    sensor = Fixed((GPU_W, 5.0))
    tap = Tap(sensor, Engine(), {})
    assert (tap.name, tap.slow, list(tap.channels), list(tap.unavailable)) == ("nvml", False, [GPU_W], [])


def test_a_total_that_stands_still_while_its_parts_rise_is_noticed(engine: Engine) -> None:
    whole = Channel("rapl", "psys", "energy", kind="counter", provenance="counter", scope="board", role="total")
    sensor = Fixed((whole, 10.0), (PACKAGE, 5.0))
    engine.start(found(sensor))
    until(lambda: engine.ready)
    assert not engine.is_standing_still()
    sensor.row = [10.0, 9.0]
    joules = {meter.channel.name: meter for meter in engine._meters.values()}
    until(lambda: joules["package-0"].joules > 1.0)
    assert engine.is_standing_still()
    sensor.row = [17.0, 12.0]
    until(lambda: joules["psys"].joules > 1.0 and joules["package-0"].joules > 5.0)
    assert not engine.is_standing_still()
