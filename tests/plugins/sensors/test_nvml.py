"""NVML: a call counts by its value; what a power reading is an average of is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgeprof.errors import UnavailableError
from edgeprof.installation import install_command
from edgeprof.roots import Roots
from edgeprof.testing.sensors import check_sensor
from edgeprof_plugins.sensors import nvml


class NotSupportedError(Exception):
    def __str__(self) -> str:
        return "Not Supported"


class Driver:
    """The functions of pynvml that the sensor calls, for one GPU; those in ``lacks`` are not supported."""

    def __init__(
        self, model: str = "NVIDIA GeForce RTX 3060", architecture: int = 7, lacks: tuple[str, ...] = ()
    ) -> None:
        self.model, self.architecture, self.lacks = model, architecture, lacks
        self.milliwatts, self.millijoules = 170_500, 1_000_000
        self.fields = {185: 160_000, 186: 171_000}

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetName": lambda _: self.model,
            "nvmlDeviceGetEnforcedPowerLimit": lambda _: 170_000,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
            "nvmlDeviceGetPowerUsage": lambda _: self.milliwatts,
            "nvmlDeviceGetArchitecture": lambda _: self.architecture,
            "nvmlDeviceGetFieldValues": self._field,
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37),
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=2**30),
            "nvmlDeviceGetTemperature": lambda _, __: 51,
            "nvmlDeviceGetClockInfo": lambda _, __: 1410,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x4 | 0x20,
        }
        if name in self.lacks:

            def refuse(*_: Any) -> Any:
                raise NotSupportedError

            return refuse
        return answers[name]

    def _energy(self, _: Any) -> int:
        self.millijoules += 5
        return self.millijoules

    def _field(self, _: Any, numbers: list[int]) -> list[Any]:
        (number,) = numbers
        found = self.fields.get(number)
        return [SimpleNamespace(nvmlReturn=0 if found else 3, value=SimpleNamespace(uiVal=found or 0))]


def channels(driver: Driver) -> dict[str, Any]:
    return {c.quantity: c for c in nvml.gpu(driver, object(), "gpu0").channels}


def test_everything_is_in_si_units() -> None:
    sensor = nvml.gpu(Driver(), object(), "gpu0")
    check_sensor(sensor)
    row = sensor.read_once()
    assert row["gpu0/power"] == pytest.approx(171.0)
    assert row["gpu0/energy"] == pytest.approx(1000.0, abs=2)
    assert row["gpu0/utilization"] == pytest.approx(0.37)
    assert row["gpu0/frequency"] == pytest.approx(1.41e9)
    assert row["gpu0/count"] == 1  # a power cap is no slowdown by heat
    assert row["gpu0-throttle-reasons/count"] == 0x4 | 0x20


def test_the_energy_counter_is_a_counter() -> None:
    channel = channels(Driver())["energy"]
    assert (channel.kind, channel.provenance) == ("counter", "counter")


@pytest.mark.parametrize(
    ("fields", "architecture", "model", "kind", "watts"),
    [
        ({186: 171_000, 185: 160_000}, 8, "NVIDIA L4", "instantaneous", 171.0),
        ({185: 160_000}, 8, "NVIDIA L4", "block", 160.0),
        ({}, 8, "NVIDIA L4", "block", 170.5),
        ({}, 7, "NVIDIA A100-SXM4-40GB", "instantaneous", 170.5),
        ({}, 6, "Tesla T4", "instantaneous", 170.5),
        ({186: 0xFFFFFFFF}, 8, "NVIDIA L4", "block", 170.5),
    ],
)
def test_instant_and_average_power_are_told_apart(
    fields: dict[int, int], architecture: int, model: str, kind: str, watts: float
) -> None:
    driver = Driver(model, architecture)
    driver.fields = fields
    sensor = nvml.gpu(driver, object(), "gpu0")
    power = channels(driver)["power"]
    assert power.filter.kind == kind
    assert power.filter.length_s == (1.0 if kind == "block" else None)
    assert sensor.read_once()["gpu0/power"] == pytest.approx(watts)


def test_a_sensor_that_looks_only_part_of_the_time_says_so() -> None:
    assert "25 of every 100 ms" in channels(Driver("NVIDIA H200", 9))["energy"].note


@pytest.mark.parametrize(
    ("model", "expected"), [("NVIDIA H200", True), ("NVIDIA A100-SXM4-40GB", True), ("NVIDIA GeForce RTX 3060", False)]
)
def test_power_and_energy_of_a_part_time_sensor_carry_its_look_and_period(model: str, expected: bool) -> None:
    channels = {c.quantity: c for c in nvml.gpu(Driver(model), None, "gpu0").channels}
    for quantity in ("power", "energy"):
        part = channels[quantity].part_time
        assert (part is not None) == expected
        if part is not None:
            assert (part.look_s, part.period_s) == (0.025, 0.1)


def test_a_jetsons_nvml_that_supports_nothing_offers_nothing() -> None:
    driver = Driver(
        "Orin (nvgpu)",
        lacks=(
            "nvmlDeviceGetTotalEnergyConsumption",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetClockInfo",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            "nvmlDeviceGetEnforcedPowerLimit",
        ),
    )
    sensor = nvml.gpu(driver, object(), "gpu0")
    assert not sensor.channels
    assert {c.reason for c in sensor.unavailable} == {"Not Supported"}


def test_a_reading_far_above_the_boards_limit_is_refused() -> None:
    driver = Driver()
    driver.fields = {}
    driver.milliwatts = 4_000_000
    sensor = nvml.gpu(driver, object(), "gpu0")
    (refused,) = sensor.unavailable
    assert refused.quantity == "power"
    assert "is impossible" in str(refused.reason)


def test_a_call_that_fails_in_the_middle_of_a_run_is_unknown_and_the_others_go_on() -> None:
    driver = Driver()
    sensor = nvml.gpu(driver, object(), "gpu0")
    driver.lacks = ("nvmlDeviceGetTemperature",)
    row = sensor.read_once()
    assert row["gpu0/temperature"] is None
    assert row["gpu0/power"] is not None


def test_a_captured_tree_has_no_gpu_of_this_machine(tmp_path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert nvml.find(Roots(sysfs=tmp_path, dev=tmp_path)) == []
    assert nvml.find(Roots(dev=tmp_path / "nowhere")) == []


def test_a_driver_that_does_not_start_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml = pytest.importorskip("pynvml", reason="pip install 'edgeprof[nvidia]'")

    def broken() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", broken)
    (tmp_path / "nvidiactl").touch()
    with pytest.raises(UnavailableError, match="does not start"):
        nvml.find(Roots(dev=tmp_path))


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pynvml", None)
    (tmp_path / "nvidiactl").touch()
    with pytest.raises(UnavailableError) as caught:
        nvml.find(Roots(dev=tmp_path))
    assert caught.value.remedy == install_command(["edgeprof[nvidia]"])
