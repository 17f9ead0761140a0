"""The description of the host, what must agree for a comparison, and the causes of throttling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.sensing.device.host import competing_load, describe_host, preflight
from edgeprof.sensing.device.throttle import describe_difference, read_counters
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.simulation.tree import Layout


@pytest.fixture(autouse=True)
def no_boards_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))


def make(board: str, tmp_path: Path) -> tuple[Layout, Roots]:
    layout = build(board, tmp_path / "sys")
    return layout, Roots.resolve(layout.directory, environ={})


def test_a_jetson_is_described_from_its_own_files(tmp_path: Path) -> None:
    host = describe_host(make("jetson-orin-nano", tmp_path)[1])
    assert host.board == "NVIDIA Jetson Orin Nano"
    assert (host.cores, host.memory_bytes, host.kernel) == (6, 8 * 2**30, "5.15.148-tegra")
    assert (host.power_mode, host.governor, host.os) == ("25W", "schedutil", "Ubuntu 22.04.5 LTS")
    assert host.context["l4t"] == "36.4.4"
    assert host.context["max_freq_gpu"] == "306 to 625 MHz"


def test_the_fingerprint_stays_while_nothing_that_matters_changes(tmp_path: Path) -> None:
    layout, roots = make("jetson-orin-nano", tmp_path)
    before = describe_host(roots).fingerprint
    layout.zones["cpu-thermal"].write_text("70000\n")
    (layout.procfs / "loadavg").write_text("4.0 4.0 4.0 1/1 1\n")
    for path in layout.cpu_frequency:
        path.write_text("729600\n")
    assert describe_host(roots).fingerprint == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("root/var/lib/nvpmodel/status", "pmode:0002"),
        ("devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
        ("devices/system/cpu/cpu3/cpufreq/scaling_max_freq", "1190400"),
        ("root/etc/nv_tegra_release", "# R36 (release), REVISION: 4.7, GCID: 2"),
        (SIMULATION_MARKER, "{}"),
    ],
)
def test_the_fingerprint_changes_with_each_thing_that_must_agree(tmp_path: Path, file: str, text: str) -> None:
    layout, roots = make("jetson-orin-nano", tmp_path)
    before = describe_host(roots).fingerprint
    (layout.directory / file).write_text(text)
    assert describe_host(roots).fingerprint != before


def test_an_unknown_power_mode_keeps_its_number(tmp_path: Path) -> None:
    layout, roots = make("jetson-agx-orin", tmp_path)
    (layout.root / "var/lib/nvpmodel/status").write_text("pmode:0007\n")
    assert describe_host(roots).power_mode == "mode 7"


def test_arm_cores_are_named_by_their_part_numbers(tmp_path: Path) -> None:
    layout, roots = make("generic-unknown", tmp_path)
    cores = "".join(f"processor\t: {n}\nCPU part\t: {'0xd05' if n < 4 else '0xd0b'}\n\n" for n in range(8))
    (layout.procfs / "cpuinfo").write_text(cores)
    host = describe_host(roots)
    assert (host.cpu, host.cores) == ("Cortex-A55 + Cortex-A76", 8)


def test_the_machine_itself_can_be_described() -> None:
    host = describe_host(Roots())
    assert host.cores >= 1
    assert host.memory_bytes
    assert host.fingerprint.startswith("sha256:")


# throttling


def test_over_current_events_between_two_readings_are_told_and_older_ones_are_not(tmp_path: Path) -> None:
    layout, roots = make("jetson-agx-orin", tmp_path)
    (oc3,) = layout.directory.glob("class/hwmon/*/oc3_event_cnt")
    oc3.write_text("40\n")
    before = read_counters(roots)
    assert describe_difference(before, read_counters(roots)) == []
    oc3.write_text("42\n")
    assert describe_difference(before, read_counters(roots)) == ["instantaneous over-current (OC3): 2 events"]


def test_thermal_throttling_of_any_core_is_told(tmp_path: Path) -> None:
    layout, roots = make("x86-rapl", tmp_path)
    before = read_counters(roots)
    (layout.directory / "devices/system/cpu/cpu5/thermal_throttle/core_throttle_count").write_text("1\n")
    assert describe_difference(before, read_counters(roots)) == ["thermal throttling (core): 1 event"]


def test_the_pis_sticky_bits_count_only_where_they_are_new(tmp_path: Path) -> None:
    layout, roots = make("raspberry-pi-5", tmp_path)
    bits = layout.root / "vcgencmd/get_throttled"
    bits.write_text("throttled=0x50000\n")  # under-voltage and throttling, some time since boot
    before = read_counters(roots)
    assert describe_difference(before, read_counters(roots)) == []
    bits.write_text("throttled=0xd0000\n")
    assert describe_difference(before, read_counters(roots)) == ["the soft temperature limit was reached"]
    bits.write_text("throttled=0x50004\n")
    assert describe_difference(before, read_counters(roots)) == ["throttled"]
    assert [reason.code for reason in preflight(roots)] == ["throttled", "undervoltage"]


def test_the_firmwares_sysfs_node_is_understood_too(tmp_path: Path) -> None:
    layout, roots = make("raspberry-pi-4", tmp_path)
    node = layout.directory / "devices/platform/soc/soc:firmware/get_throttled"
    node.parent.mkdir(parents=True)
    node.write_text("0\n")
    before = read_counters(roots)
    node.write_text("10001\n")
    assert describe_difference(before, read_counters(roots)) == ["under-voltage"]


def test_a_clock_that_is_held_down_by_heat_is_told_and_a_fan_is_not(tmp_path: Path) -> None:
    layout, roots = make("jetson-orin-nano", tmp_path)
    for number, (kind, state) in enumerate((("pwm-fan", 3), ("cpufreq-cpu0", 0))):
        place = layout.directory / f"class/thermal/cooling_device{number}"
        place.mkdir()
        (place / "type").write_text(kind)
        (place / "cur_state").write_text(str(state))
    before = read_counters(roots)
    assert describe_difference(before, read_counters(roots)) == []
    (layout.directory / "class/thermal/cooling_device1/cur_state").write_text("2")
    assert describe_difference(before, read_counters(roots)) == ["cpufreq-cpu0 is held down by heat"]


def test_a_counter_that_vanished_or_appeared_is_no_event(tmp_path: Path) -> None:
    layout, roots = make("jetson-agx-orin", tmp_path)
    before = read_counters(roots)
    (oc1,) = layout.directory.glob("class/hwmon/*/oc1_event_cnt")
    oc1.unlink()
    without = read_counters(roots)
    assert describe_difference(before, without) == []
    oc1.write_text("9\n")
    assert describe_difference(without, read_counters(roots)) == []


def test_competing_load_is_unknown_where_the_counters_stand_still(tmp_path: Path) -> None:
    assert competing_load(make("generic-unknown", tmp_path)[1], seconds=0) is None


def test_competing_load_of_the_machine_is_a_ratio() -> None:
    busy = competing_load(Roots(), seconds=0.1)
    assert busy is not None
    assert 0 <= busy <= 1


def test_fan_and_supply_are_noted_and_forbid_no_comparison(tmp_path: Path) -> None:
    """A manual fan setting and another supply voltage may explain a difference; the load changes neither."""
    layout = build("jetson-agx-orin", tmp_path)
    (fan,) = (p for p in (tmp_path / "class/hwmon").iterdir() if (p / "name").read_text().strip() == "pwmfan")
    before = describe_host(Roots.resolve(tmp_path))
    assert before.context["supply"] == f"{max(rail.volts for rail in layout.rails.values()):.0f} V"
    (fan / "pwm1_enable").write_text("1\n")
    (fan / "pwm1").write_text("255\n")
    after = describe_host(Roots.resolve(tmp_path))
    assert after.context["fan"] == "manual, 100%"
    assert after.fingerprint == before.fingerprint
