"""hwmon chips: µW, what is a rail and what only looks like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.tree import add_hwmon, set_power
from edgeprof.testing.sensors import check_sensor
from edgeprof_plugins.sensors import hwmon

if TYPE_CHECKING:
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Channel


def found(roots: Roots) -> dict[tuple[str, str], tuple[Channel, float | None]]:
    result = {}
    for sensor in hwmon.find(roots):
        check_sensor(sensor)
        row = sensor.read_once()
        result.update({(c.name, c.quantity): (c, row[f"{c.name}/{c.quantity}"]) for c in sensor.channels})
    return result


def test_thors_input_monitor_is_called_by_the_chips_own_label_and_reads_microwatts(tree) -> None:
    layout, roots = tree("jetson-thor")
    shown = set_power(layout, "VIN", 66.5)
    channel, value = found(roots)["VIN", "power"]
    assert value == pytest.approx(shown) == pytest.approx(66.5)
    assert channel.filter.kind == "block"
    assert channel.filter.length_s == pytest.approx(0.0505, abs=1e-4)


def test_the_ina3221_is_left_to_its_own_source(tree) -> None:
    _, roots = tree("jetson-orin-nano")
    assert found(roots) == {}


def test_a_hat_with_an_ina226_reads_power_with_its_step_and_average(tree) -> None:
    layout, roots = tree("raspberry-pi-4")
    files = {"power1_input": 5_125_000, "curr1_input": 1000, "in1_input": 5125, "in0_input": 2}
    add_hwmon(layout, "ina226", {**files, "shunt_resistor": 2000, "update_interval": 36})
    channel, value = found(roots)["ina226", "power"]
    assert value == pytest.approx(5.125)
    assert channel.resolution == pytest.approx(2.5e-6 / 2e-3 * 25)
    assert channel.filter.length_s == pytest.approx(0.036)


def test_volts_and_amperes_without_power_are_multiplied(tree) -> None:
    layout, roots = tree("generic-unknown")
    add_hwmon(layout, "lm25066", {"in1_input": 12000, "in1_label": "MAIN", "curr1_input": 1500, "curr1_label": "MAIN"})
    assert found(roots)["MAIN", "power"][1] == pytest.approx(18.0)


def test_volts_and_amperes_of_different_things_are_not_multiplied(tree) -> None:
    layout, roots = tree("generic-unknown")
    add_hwmon(layout, "pmbus", {"in1_input": 12000, "in1_label": "vin", "curr1_input": 1500, "curr1_label": "iout1"})
    assert found(roots) == {}


def test_what_usb_c_negotiated_is_no_measurement(tree) -> None:
    layout, roots = tree("generic-unknown")
    add_hwmon(layout, "ucsi_source_psy_USBC000:001", {"in0_input": 20000, "curr1_input": 3000, "in1_input": 20000})
    assert found(roots) == {}


def test_amdgpu_with_only_an_average_is_read_and_its_apu_trap_is_told(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_hwmon(layout, "amdgpu", {"power1_average": 15_000_000, "power1_label": "PPT"}, device="pci0/0000:c1:00.0")
    channel, value = found(roots)["amdgpu PPT", "power"]
    assert value == pytest.approx(15.0)
    assert channel.scope == "gpu"
    assert "APU" in channel.note


def test_a_discrete_intel_gpu_is_an_energy_counter(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_hwmon(layout, "i915", {"energy1_input": 123_456_789}, device="pci0/0000:03:00.0")
    channel, value = found(roots)["i915", "energy"]
    assert value == pytest.approx(123.456789)
    assert (channel.kind, channel.provenance) == ("counter", "counter")


def test_two_chips_of_the_same_kind_keep_apart(tree) -> None:
    layout, roots = tree("generic-unknown")
    for address in ("40", "41"):
        add_hwmon(layout, "ina219", {"power1_input": 1_000_000}, device=f"i2c-1/1-00{address}")
    assert {name for name, _ in found(roots)} == {"ina219@1-0040", "ina219@1-0041"}


def test_two_chips_with_the_same_label_keep_apart(tree) -> None:
    layout, roots = tree("generic-unknown")
    for address in ("40", "41"):
        add_hwmon(layout, "ina219", {"power1_input": 1_000_000, "label": "VBUS"}, device=f"i2c-1/1-00{address}")
    assert {name for name, _ in found(roots)} == {"VBUS@1-0040", "VBUS@1-0041"}


def test_of_many_cores_only_the_package_temperature_is_taken(tree) -> None:
    layout, roots = tree("x86-rapl")
    cores = {f"temp{n}_input": 40_000 for n in range(2, 66)} | {f"temp{n}_label": f"Core {n - 2}" for n in range(2, 66)}
    add_hwmon(layout, "coretemp", {"temp1_input": 51_000, "temp1_label": "Package id 0", **cores})
    assert {name for name, _ in found(roots)} == {"coretemp Package id 0"}


def test_a_thermal_zone_that_shows_up_here_again_is_not_read_twice(tree) -> None:
    layout, roots = tree("raspberry-pi-4")
    add_hwmon(layout, "cpu_thermal", {"temp1_input": 46_700})
    assert found(roots) == {}


def test_a_power_file_that_fails_is_named(tree) -> None:
    _, roots = tree("jetson-thor", unreadable=["VIN"])
    (channel,) = [c for s in hwmon.find(roots) for c in s.unavailable]
    assert channel.name == "VIN"
    assert "fails" in str(channel.reason)
