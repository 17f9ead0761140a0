"""Sources are asked one at a time, and a source that fails does not affect the others."""

from __future__ import annotations

import json
import math
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from edgeprof import hookimpl
from edgeprof.energy.online.rails import Preview
from edgeprof.errors import InputError, UnavailableError
from edgeprof.installation import install_command
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.sensing.board.evidence import Looks
    from edgeprof.sensing.board.topology import Topology


class Meter(Sensor):
    """A sensor with one power channel, whose value a test sets."""

    name = "meter"

    def __init__(self, value: float | Exception, **facts: object) -> None:
        self._value = value
        self._channel = Channel("meter", "input", "power", **facts)  # type: ignore[arg-type]

    @property
    def channels(self) -> Sequence[Channel]:
        return (self._channel,)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        if isinstance(self._value, Exception):
            raise self._value
        values[0] = self._value


@pytest.fixture(autouse=True)
def no_boards_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots.resolve(build("jetson-orin-nano", tmp_path / "sys").directory, environ={})


def host(**factories: object) -> PluginHost:
    made = PluginHost()
    module = ModuleType("extra")

    @hookimpl
    def register_sensors(register) -> None:
        for name, factory in factories.items():
            register(name, factory)

    module.register_sensors = register_sensors  # type: ignore[attr-defined]
    made.register(module, PluginInfo("extra", "extra", "1"))
    return made


def test_a_source_that_crashes_is_named_and_the_rest_is_found(roots: Roots) -> None:
    def crash(_: Roots) -> list[Sensor]:
        raise ZeroDivisionError("oh")

    found = discover(host(bad=crash), roots)
    assert [(f.source, f.reason) for f in found.failures] == [("bad", "ZeroDivisionError: oh")]
    assert found.topology.headline.rail == "VDD_IN"


def test_a_source_that_leaves_the_process_does_not_take_it_along(roots: Roots) -> None:
    def leave(_: Roots) -> list[Sensor]:
        raise SystemExit(9)

    found = discover(host(bad=leave), roots)
    assert [(f.source, f.reason) for f in found.failures] == [("bad", "SystemExit: 9")]


def test_a_source_that_is_missing_something_says_what_to_do(roots: Roots) -> None:
    def absent(_: Roots) -> list[Sensor]:
        raise UnavailableError("no library", remedy="pip install it")

    (failure,) = discover(host(bad=absent), roots).failures
    assert (failure.reason, failure.remedy) == ("no library", install_command(["it"]))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "a reading failed"),
        (1e6, "it reads 1e+06 W, outside -500 to 500"),
        (OSError("gone"), "OSError: gone"),
    ],
)
def test_a_channel_counts_only_after_a_plausible_value(roots: Roots, value: float | Exception, reason: str) -> None:
    found = discover(host(wattmeter=lambda _: [Meter(value, plausible=(-math.inf, 500.0))]), roots)
    (channel,) = [c for c in found.unavailable if c.sensor == "meter"]
    assert channel.reason == reason
    assert not any(sensor.name == "meter" for sensor in found.sensors)


def test_a_meter_at_the_wall_is_the_headline_of_an_unknown_machine(tmp_path: Path) -> None:
    layout = build("generic-unknown", tmp_path / "sys")
    wall = host(wattmeter=lambda _: [Meter(12.0, scope="wall", role="total")])
    headline = discover(wall, Roots.resolve(layout.directory, environ={})).topology.headline
    assert (headline.rail, headline.covers) == ("input", "wall")


def test_only_asks_only_those(roots: Roots) -> None:
    found = discover(PluginHost(), roots, only=["thermal"])
    assert {channel.sensor for channel in found.topology.channels} == {"thermal"}
    assert found.topology.headline.channels == ()


class Counter(Meter):
    """A counter that rises by one joule at each reading."""

    readings = 0

    def __init__(self) -> None:
        self._channel = Channel("counter", "input", "energy", kind="counter", update_interval_s=0.001)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        self.readings += 1
        values[0] = float(self.readings)


def test_a_preview_comes_before_counters_are_read_again(roots: Roots) -> None:
    counter, previews = Counter(), []

    def preview(topology: Topology, looks: Looks) -> None:
        previews.append((counter.readings, Preview(topology, dict(looks))))

    discovery = discover(host(counter=lambda _: [counter], gauge=lambda _: [Meter(5.0)]), roots, preview=preview)
    ((readings, shown),) = previews
    assert readings == 1 < counter.readings
    assert shown.topology.by_key().keys() == discovery.topology.by_key().keys()
    watts = {(rail.channel.sensor, rail.channel.name): rail.watts for rail in shown.rails()}
    assert watts["counter", "input"] is None  # the power of a counter is the difference of two readings
    assert watts["meter", "input"] == 5.0
    assert shown.marked().joules is None


def test_an_unknown_source_offers_the_nearest(roots: Roots) -> None:
    with pytest.raises(InputError) as caught:
        discover(PluginHost(), roots, only=["ina322"])
    assert str(caught.value.remedy).startswith("Did you mean ina3221?")


def test_nothing_of_a_virtual_board_is_called_measured(roots: Roots) -> None:
    (roots.sysfs / SIMULATION_MARKER).write_text(json.dumps({"board": "jetson-orin-nano"}))
    found = discover(host(wattmeter=lambda _: [Meter(1.0)]), roots)
    assert {channel.provenance for channel in found.topology.channels} == {"simulated"}


def test_sensors_are_handed_over_closed_and_can_be_read(roots: Roots) -> None:
    (ina,) = [sensor for sensor in discover(PluginHost(), roots).sensors if sensor.name == "ina3221"]
    assert ina.read_once()["VDD_IN/power"] == pytest.approx(4.6)
