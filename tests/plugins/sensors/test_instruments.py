"""Joulescope, PPK2 and jtop against fakes of their libraries, whose calls are checked against the real ones."""

from __future__ import annotations

import inspect
import threading
import time

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.roots import Roots
from edgeprof_plugins.sensors import joulescope, jtop, ppk2


class FakeDriver:
    """pyjoulescope_driver.Driver with one JS220 that draws 2 W."""

    def __init__(self, devices=("u/js220/002557",), *, silent: bool = False) -> None:
        self.devices, self.silent = devices, silent
        self.topics: dict[str, object] = {}
        self.opened: list[str] = []
        self._stop = threading.Event()

    def device_paths(self, timeout=None):
        return list(self.devices)

    def open(self, device_prefix, mode=None, timeout=None):
        if device_prefix in self.opened:
            raise RuntimeError("in use")
        self.opened.append(device_prefix)

    def publish(self, topic, value, timeout=None):
        self.topics[topic] = value

    def subscribe(self, topic, flags, fn, timeout=None):
        assert flags == "pub"
        self._stop.clear()
        if not self.silent:
            threading.Thread(target=self._say, args=(topic, fn), daemon=True).start()

    def _say(self, topic, fn):
        joules = 0.0
        while not self._stop.wait(0.01):
            joules += 0.02
            value = {
                "time": {"samples": {"value": [0, 1]}},
                "signals": {
                    name: {"avg": {"value": number, "units": unit}}
                    for name, number, unit in (("power", 2.0, "W"), ("voltage", 5.0, "V"), ("current", 0.4, "A"))
                },
                "accumulators": {"energy": {"value": joules, "units": "J"}},
            }
            fn(topic, value)

    def unsubscribe(self, topic, fn, timeout=None):
        self._stop.set()

    def close(self, device_prefix, timeout=None):
        self.opened.remove(device_prefix)


def test_a_joulescope_gives_joules_and_watts_and_can_be_opened_again() -> None:
    driver = FakeDriver()
    (sensor,) = joulescope.instruments(driver, "board")
    for _ in range(2):
        row = sensor.read_once()
        assert row["js220/power"] == 2.0
        assert row["js220/voltage"] == 5.0
        assert row["js220/energy"] > 0
    assert driver.opened == []
    assert driver.topics["u/js220/002557/s/stats/scnt"] == 50_000
    assert [c.role for c in sensor.channels if c.quantity in {"energy", "power"}] == ["total", "total"]


def test_a_joulescope_that_is_taken_silent_or_absent_is_said() -> None:
    driver = FakeDriver()
    driver.open("u/js220/002557")
    (sensor,) = joulescope.instruments(driver, "board")
    with pytest.raises(UnavailableError, match="in use"):
        sensor.open()
    with pytest.raises(UnavailableError, match="no Joulescope"):
        joulescope.instruments(FakeDriver(devices=()), "board")
    assert joulescope.find(Roots()) == []  # it is asked only when it is named
    with pytest.raises(InputError, match="covers"):
        joulescope.find(Roots(), ["kitchen"])


def test_a_silent_joulescope_is_an_error_and_not_a_zero(monkeypatch) -> None:
    monkeypatch.setattr(joulescope, "_FIRST_S", 0.05)
    (sensor,) = joulescope.instruments(FakeDriver(silent=True), "board")
    with pytest.raises(UnavailableError, match="sent nothing"):
        sensor.open()


def test_the_joulescope_library_has_these_calls() -> None:
    """Its Driver is compiled and tells no signatures: names and documented parameters are what can be checked."""
    library = pytest.importorskip("pyjoulescope_driver")
    for name in ("device_paths", "open", "publish", "subscribe", "unsubscribe", "close"):
        documented = getattr(library.Driver, name).__doc__
        for parameter in list(inspect.signature(getattr(FakeDriver, name)).parameters)[1:]:
            assert f":param {parameter}:" in documented or parameter in {"value", "topic"}, (name, parameter)
    driver = library.Driver()
    try:
        assert [d for d in driver.device_paths() if "js220" in d] == []
    finally:
        driver.finalize()


class FakeKit:
    """ppk2_api.PPK2_API that measures 100 mA."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.data = b"1234"

    def get_modifiers(self):
        self.calls.append("get_modifiers")

    def set_source_voltage(self, mV):  # noqa: N803 - the library's name
        self.calls.append(("set_source_voltage", mV))

    def use_ampere_meter(self):
        self.calls.append("use_ampere_meter")

    def use_source_meter(self):
        self.calls.append("use_source_meter")

    def toggle_DUT_power(self, state):  # noqa: N802 - the library's name
        self.calls.append(("toggle_DUT_power", state))

    def start_measuring(self):
        self.calls.append("start_measuring")

    def stop_measuring(self):
        self.calls.append("stop_measuring")

    def get_data(self):
        return self.data

    def get_samples(self, buf):
        return [1e5] * len(buf), []


def test_a_ppk2_adds_up_joules_of_the_voltage_that_it_was_told() -> None:
    kit = FakeKit()
    sensor = ppk2.Ppk2(kit, "source", 3.3, "/dev/ttyACM0")
    sensor.open()
    values, times = [0.0, 0.0], [0.0, 0.0]
    sensor.read(values, times)
    first = values[0], times[0]
    time.sleep(0.3)
    sensor.read(values, times)
    sensor.close()
    assert values[1] == pytest.approx(0.33)
    assert (values[0] - first[0]) == pytest.approx(0.33 * (times[0] - first[1]))
    assert ("set_source_voltage", 3300) in kit.calls
    assert kit.calls.index("use_source_meter") < kit.calls.index("start_measuring") < kit.calls.index("stop_measuring")


def test_a_ppk2_that_is_unplugged_says_so(monkeypatch) -> None:
    monkeypatch.setattr(ppk2, "_SILENT_S", 0.15)
    kit = FakeKit()
    sensor = ppk2.Ppk2(kit, "ampere", 5.0, "/dev/ttyACM0")
    sensor.open()
    kit.data = b""
    time.sleep(0.3)
    with pytest.raises(UnavailableError, match="sent nothing"):
        sensor.read([0.0, 0.0], [0.0, 0.0])
    sensor.close()


@pytest.mark.parametrize(
    "address", ["", "5V", "source", "source:9V", "source:0.1", "ampere:V", "ampere:1.2.3", "ampere:5V@tty"]
)
def test_a_ppk2_needs_its_mode_and_voltage(address: str) -> None:
    with pytest.raises(InputError, match="a mode and a voltage"):
        ppk2.parse(address)


def test_the_ppk2_library_has_these_calls() -> None:
    library = pytest.importorskip("ppk2_api.ppk2_api").PPK2_API
    for name, fake in inspect.getmembers(FakeKit, inspect.isfunction):
        if name != "__init__":
            assert list(inspect.signature(getattr(library, name)).parameters) == list(
                inspect.signature(fake).parameters
            )
    assert "kwargs" in inspect.signature(library).parameters
    assert library.list_devices() == []
    assert ppk2.parse("ampere:5V@/dev/ttyACM1") == ("ampere", 5.0, "/dev/ttyACM1")
    with pytest.raises(UnavailableError, match="no PPK2"):
        ppk2.find(Roots(), ["source:3.3V"])


class FakeJtop:
    """jtop.jtop of an Orin Nano."""

    running = True

    def __init__(self, interval=1.0) -> None:
        self.interval = interval

    def start(self):
        if not self.running:
            raise RuntimeError("The jtop.service is not active")

    def ok(self, spin=False):
        assert spin  # else it waits
        return self.running

    @property
    def power(self):
        rail = {"volt": 5000, "curr": 800, "power": 4000, "avg": 3900, "online": True}
        return {
            "rail": {"VDD_CPU_GPU_CV": rail, "VDD_SOC": rail | {"online": False}},
            "tot": rail | {"name": "VDD_IN", "power": 9000},
        }

    def close(self):
        pass


def test_jtop_gives_its_rails_and_its_total_rail_in_watts(monkeypatch) -> None:
    (sensor,) = jtop.service(FakeJtop)
    row = sensor.read_once()
    assert row == {"VDD_IN/power": 9.0, "VDD_CPU_GPU_CV/power": 4.0, "VDD_SOC/power": None}
    monkeypatch.setattr(FakeJtop, "running", False)
    with pytest.raises(UnavailableError, match="not active"):
        jtop.service(FakeJtop)


def test_a_total_that_jtop_only_summed_up_is_no_rail(monkeypatch) -> None:
    rail = {"volt": 5000, "curr": 800, "power": 4000, "avg": 3900, "online": True}
    summed = {"rail": {"VDD_GPU_SOC": rail}, "tot": {"power": 4000, "avg": 3900}}
    monkeypatch.setattr(FakeJtop, "power", property(lambda _self: summed))
    (sensor,) = jtop.service(FakeJtop)
    assert sensor.read_once() == {"VDD_GPU_SOC/power": 4.0}


def test_the_jtop_library_has_these_calls() -> None:
    library = pytest.importorskip("jtop").jtop
    for name in ("start", "close", "ok"):
        assert list(inspect.signature(getattr(library, name)).parameters) == list(
            inspect.signature(getattr(FakeJtop, name)).parameters
        )
    assert isinstance(library.power, property)
    assert "interval" in inspect.signature(library).parameters
