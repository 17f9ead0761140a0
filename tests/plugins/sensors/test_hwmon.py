"""hwmon chips: µW, what is a rail and what only looks like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.tree import add_hwmon, link, set_power, write
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


def facts(roots: Roots) -> dict[str, tuple[str, str | None, str | None, bool | None]]:
    return {name: (c.scope, c.role, c.parent, c.additive) for (name, _), (c, _) in found(roots).items()}


def test_acpi_meters_have_their_files_below_their_device_and_their_names_in_oem_info(tree) -> None:
    layout, roots = tree("generic-unknown")
    for index, (oem, watts) in enumerate({"CPU Power": 40, "Total Power": 92, "Memory": 12}.items()):
        device = layout.directory / f"devices/LNXSYSTM:00/ACPI000D:0{index}"
        write(device / "name", "power_meter")
        write(device / "power1_average", str(watts * 1_000_000))
        write(device / "power1_oem_info", oem)
        write(device / "power1_accuracy", "95.0%")
        write(device / "power1_average_interval", "1000")
        (device / f"hwmon/hwmon{50 + index}").mkdir(parents=True)
        link(device / f"hwmon/hwmon{50 + index}/device", device)
        link(layout.directory / f"class/hwmon/hwmon{50 + index}", device / f"hwmon/hwmon{50 + index}")
    names = facts(roots)
    assert len(names) == 3
    total = next(name for name in names if "Total Power" in name)
    assert names[total] == ("board", "total", None, False)
    assert {fact[2] for name, fact in names.items() if name != total} == {total}


def test_acpi_meters_that_nobody_named_are_no_total(tree) -> None:
    layout, roots = tree("generic-unknown")
    for index in range(2):
        files = {"power1_average": 50_000_000, "power1_average_interval": 1000}
        add_hwmon(layout, "power_meter", files, device=f"LNXSYSTM:00/ACPI000D:0{index}")
    assert {fact[:2] for fact in facts(roots).values()} == {("unknown", None)}


def test_an_apu_is_the_package_and_a_card_is_a_card(tree) -> None:
    layout, roots = tree("generic-unknown")
    power = {"power1_average": 15_000_000, "power1_label": "PPT"}
    apu = {**power, "in1_label": "vddnb", "in1_input": 800}
    add_hwmon(layout, "amdgpu", apu, device="pci0/0000:c1:00.0")
    add_hwmon(layout, "amdgpu", {**power, "power1_cap": 300_000_000}, device="pci0/0000:03:00.0")
    assert facts(roots) == {
        "amdgpu@0000:c1:00.0 PPT": ("package", None, None, True),
        "amdgpu@0000:03:00.0 PPT": ("gpu", None, None, True),
    }


def test_an_intel_cards_package_is_inside_the_card(tree) -> None:
    layout, roots = tree("generic-unknown")
    files = {"energy1_input": 9_000_000, "energy1_label": "card", "energy2_input": 5_000_000, "energy2_label": "pkg"}
    add_hwmon(layout, "xe", files, device="pci0/0000:03:00.0")
    assert facts(roots) == {"xe card": ("gpu", None, None, True), "xe pkg": ("gpu", None, "xe card", False)}


def test_cores_are_inside_their_own_socket(tree) -> None:
    layout, roots = tree("generic-unknown")
    labels = [*(f"Ecore{n:03}" for n in range(4)), "Esocket0", "Esocket1"]
    files: dict[str, object] = {}
    for number, label in enumerate(labels, 1):
        files |= {f"energy{number}_label": label, f"energy{number}_input": number * 10**6}
    add_hwmon(layout, "amd_energy", files)
    parents = {name.split()[1]: fact[2] for name, fact in facts(roots).items()}
    assert parents["Ecore000"] == parents["Ecore001"] == "amd_energy Esocket0"
    assert parents["Ecore002"] == parents["Ecore003"] == "amd_energy Esocket1"


def test_a_card_that_tells_no_power_is_listed_with_the_reason(tree) -> None:
    layout, roots = tree("x86-rapl")
    cards = {
        "0000:00:02.0": ("0x8086", "0x030000"),
        "0000:01:00.0": ("0x10de", "0x030200"),
        "0000:02:00.0": ("0x1a03", "0x030000"),
        "0000:04:00.0": ("0x1e60", "0x120000"),
    }
    for place, (vendor, kind) in cards.items():
        write(layout.directory / "bus/pci/devices" / place / "vendor", vendor)
        write(layout.directory / "bus/pci/devices" / place / "class", kind)
    silent = [c for s in hwmon.find(roots) for c in s.unavailable]
    assert {(c.chip, c.scope) for c in silent} == {("pci 0000:01:00.0", "gpu"), ("pci 0000:04:00.0", "accelerator")}
    assert {c.reason for c in silent} == {"its driver does not report power"}
