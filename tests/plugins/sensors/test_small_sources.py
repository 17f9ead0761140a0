"""Thermal zones, Jetson's nodes, the Pi 5's power chip, batteries, CPU and memory."""

from __future__ import annotations

import math
import stat
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import UnavailableError
from edgeprof.roots import Roots
from edgeprof.simulation.tree import add_power_supply, set_power
from edgeprof.testing.sensors import check_sensor
from edgeprof_plugins.sensors import jetson, pmic, power_supply, system, thermal

if TYPE_CHECKING:
    from pathlib import Path


# thermal


def test_zones_are_degrees_celsius_and_constants_are_refused(tree) -> None:
    _, roots = tree("jetson-nano")
    (sensor,) = thermal.find(roots)
    check_sensor(sensor)
    assert sensor.read_once()["CPU-therm/temperature"] == pytest.approx(38.5)
    assert {c.name: c.reason for c in sensor.unavailable} == {"PMIC-Die": "a constant, not a sensor"}


def test_a_zone_that_is_offline_or_broken_leaves_the_others_alone(tree) -> None:
    layout, roots = tree("jetson-orin-nano")
    layout.zones["gpu-thermal"].write_text("-256000\n")
    layout.zones["soc0-thermal"].unlink()
    (sensor,) = thermal.find(roots)
    assert {c.name for c in sensor.channels} == {"cpu-thermal", "tj-thermal"}
    reasons = {c.name: c.reason for c in sensor.unavailable}
    assert reasons == {"gpu-thermal": "offline: it reads -256 °C", "soc0-thermal": "temp is missing"}


def test_zones_of_the_same_type_keep_apart(tree) -> None:
    layout, roots = tree("x86-rapl")
    (layout.zones["acpitz"].parent / "type").write_text("x86_pkg_temp\n")
    names = [c.name for c in thermal.find(roots)[0].channels]
    assert len(set(names)) == len(names) == 2


def test_the_edge_tpu_tells_its_temperature(tree) -> None:
    layout, roots = tree("generic-unknown")
    place = layout.directory / "class/apex/apex_0"
    place.mkdir(parents=True)
    (place / "temp").write_text("44300\n")
    (sensor,) = thermal.find(roots)
    assert sensor.read_once()["Edge TPU apex_0/temperature"] == pytest.approx(44.3)


# jetson


def test_a_tree_named_by_a_relative_path_loses_no_gpu(tree, tmp_path, monkeypatch) -> None:
    layout, roots = tree("jetson-orin-nano")
    monkeypatch.chdir(tmp_path)
    (relative,) = jetson.find(Roots.resolve(layout.directory.name, environ={}))
    (absolute,) = jetson.find(roots)
    assert [c.location for c in relative.channels] == [c.location for c in absolute.channels]


@pytest.mark.parametrize(
    "board",
    ["jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-agx-orin"],
)
def test_gpu_load_is_found_wherever_this_jetpack_put_it(tree, board: str) -> None:
    layout, roots = tree(board)
    layout.gpu_load.write_text("370\n")
    (sensor,) = jetson.find(roots)
    check_sensor(sensor)
    row = sensor.read_once()
    assert row["gpu/utilization"] == pytest.approx(0.37)
    assert row["gpu/frequency"] == pytest.approx(306e6)


def test_thor_has_a_clock_and_no_load_file(tree) -> None:
    _, roots = tree("jetson-thor")
    row = jetson.find(roots)[0].read_once()
    assert "gpu/utilization" not in row
    assert row["gpu/frequency"] == pytest.approx(306e6)


def test_over_current_events_are_counters(tree) -> None:
    _, roots = tree("jetson-agx-orin")
    counters = {c.name: c.kind for c in jetson.find(roots)[0].channels if c.quantity == "count"}
    assert counters == {"oc1": "counter", "oc2": "counter", "oc3": "counter"}


def test_root_sees_the_clocks_of_memory_and_engines(tree) -> None:
    layout, roots = tree("jetson-orin-nano")
    for name, hertz in (("emc", 2_133_000_000), ("nvdec", 0), ("uart1", 408_000_000)):
        place = layout.directory / "kernel/debug/bpmp/debug/clk" / name
        place.mkdir(parents=True)
        (place / "rate").write_text(f"{hertz}\n")
    row = jetson.find(roots)[0].read_once()
    assert row["emc/frequency"] == pytest.approx(2.133e9)
    assert row["nvdec/frequency"] == 0
    assert "uart1/frequency" not in row


def test_other_boards_have_none_of_it(tree) -> None:
    _, roots = tree("raspberry-pi-5")
    assert jetson.find(roots) == []


# pmic


def test_the_pi_5_has_twelve_rails_of_volts_times_amperes(tree) -> None:
    layout, roots = tree("raspberry-pi-5")
    shown = set_power(layout, "VDD_CORE", 3.3)
    (sensor,) = pmic.find(roots)
    check_sensor(sensor)
    assert len(sensor.channels) == 12
    assert sensor.read_once()["VDD_CORE/power"] == pytest.approx(shown, rel=1e-6)
    assert sensor.slow


def test_rails_with_a_voltage_only_are_no_power(tree) -> None:
    _, roots = tree("raspberry-pi-5")
    names = {c.name for c in pmic.find(roots)[0].channels}
    assert not names & {"EXT5V", "BATT"}


def test_a_report_that_breaks_off_leaves_unknowns_and_not_zeros(tree) -> None:
    layout, roots = tree("raspberry-pi-5")
    (sensor,) = pmic.find(roots)
    text = layout.root / "vcgencmd/pmic_read_adc"
    text.write_text("\n".join(text.read_text().splitlines()[:14]))  # twelve currents, two voltages
    row = sensor.read_once()
    assert row["3V7_WL_SW/power"] is not None
    assert row["VDD_CORE/power"] is None


def test_vcgencmd_that_refuses_says_how_to_be_let_in(tree) -> None:
    layout, roots = tree("raspberry-pi-5")
    (layout.root / "vcgencmd/pmic_read_adc").write_text("VCHI initialization failed\n")
    with pytest.raises(UnavailableError) as caught:
        pmic.find(roots)
    assert "usermod -aG video" in str(caught.value.remedy)


def test_on_a_live_pi_5_the_program_is_called(tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, _ = tree("raspberry-pi-5")
    program = tmp_path / "bin/vcgencmd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && cat {layout.root}/vcgencmd/pmic_read_adc\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    class Live(Roots):
        @property
        def is_live(self) -> bool:
            return True

    (sensor,) = pmic.find(Live(sysfs=layout.directory, procfs=layout.procfs, root=layout.root))
    assert sensor.read_once()["HDMI/power"] == pytest.approx(5.112 * 0.012, rel=0.1)


# batteries


BATTERY = {"type": "Battery", "status": "Discharging", "voltage_now": 11_400_000}


def test_a_discharging_battery_shows_watts_whatever_the_drivers_sign(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_power_supply(layout, "BAT0", {**BATTERY, "current_now": -1_000_000})
    (sensor,) = power_supply.find(roots)
    check_sensor(sensor)
    assert sensor.read_once()["BAT0/power"] == pytest.approx(11.4)


def test_power_now_is_preferred(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_power_supply(layout, "BAT0", {**BATTERY, "current_now": 1, "power_now": 9_000_000})
    assert power_supply.find(roots)[0].read_once()["BAT0/power"] == pytest.approx(9.0)


def test_a_battery_on_external_power_says_nothing_of_the_machine(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_power_supply(layout, "BAT0", {**BATTERY, "status": "Charging", "current_now": 1_000_000})
    (sensor,) = power_supply.find(roots)
    assert not sensor.channels
    assert "plugged in" in str(sensor.unavailable[0].reason)


def test_plugging_in_during_a_run_makes_the_reading_unknown(tree) -> None:
    layout, roots = tree("x86-rapl")
    place = add_power_supply(layout, "BAT0", {**BATTERY, "current_now": 1_000_000})
    (sensor,) = power_supply.find(roots)
    (place / "status").write_text("Charging\n")
    assert sensor.read_once()["BAT0/power"] is None


def test_a_negotiated_usb_c_supply_is_refused_and_a_mouse_is_ignored(tree) -> None:
    layout, roots = tree("x86-rapl")
    add_power_supply(
        layout, "ucsi-source-psy-USBC000:001", {"type": "USB", "voltage_now": 20_000_000, "current_now": 3}
    )
    add_power_supply(layout, "hidpp_battery_0", {**BATTERY, "scope": "Device", "current_now": 1})
    (sensor,) = power_supply.find(roots)
    assert "negotiated" in str(sensor.unavailable[0].reason)


# system


def test_load_is_the_share_of_busy_ticks_between_two_readings(tree) -> None:
    layout, roots = tree("generic-unknown")
    (sensor,) = system.find(roots)
    values, times = [math.nan] * len(sensor.channels), [math.nan] * len(sensor.channels)
    sensor.open()
    sensor.read(values, times)
    assert math.isnan(values[0])  # one reading tells nothing, and nothing is not 0
    (layout.procfs / "stat").write_text("cpu  8100 0 4000 68200 100 0 0 0 0 0\n")  # + 100 busy, 200 idle, 100 iowait
    sensor.read(values, times)
    assert values[0] == pytest.approx(0.25)
    sensor.read(values, times)
    assert values[0] == pytest.approx(0.25)  # within a tick the last ratio stands
    sensor.close()


def test_memory_in_use_is_total_minus_available(tree) -> None:
    _, roots = tree("jetson-orin-nano")
    assert system.find(roots)[0].read_once()["ram/memory"] == 2 * 2**30


def test_one_clock_for_each_kind_of_core(tree) -> None:
    layout, roots = tree("generic-unknown")
    for core in range(4, 8):
        place = layout.directory / f"devices/system/cpu/cpu{core}/cpufreq"
        (place / "scaling_max_freq").write_text("2400000\n")
        (place / "scaling_cur_freq").write_text("2400000\n")
    row = system.find(roots)[0].read_once()
    clocks = {name: hertz for name, hertz in row.items() if name.endswith("frequency")}
    assert clocks == {"cpu0/frequency": pytest.approx(1.5104e9), "cpu4/frequency": pytest.approx(2.4e9)}


def test_garbage_in_proc_is_unknown(tree) -> None:
    layout, roots = tree("generic-unknown")
    (layout.procfs / "stat").write_text("cpu  what\n")
    (layout.procfs / "meminfo").write_text("nothing\n")
    row = system.find(roots)[0].read_once()
    assert row["cpu/utilization"] is None
    assert row["ram/memory"] is None
