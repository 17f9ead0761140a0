"""The fixtures that node_exporter, procfs and Kepler hold their readers against, with the values that they assert."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.board.headline import is_power
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = PluginHost()
#: Name of a chip, its files, and the powers (W) or energies (J) that Kepler's test asserts of it.
KEPLER_CHIPS: dict[str, tuple[dict[str, object], list[float]]] = {
    "one power": ({"name": "cpu", "power1_input": 50_000_000}, [50.0]),
    "average only": ({"name": "acpi", "power1_average": 25_000_000}, [25.0]),
    "two powers of one label": (
        {
            "name": "multi",
            "power1_input": 50_000_000,
            "power1_label": "package",
            "power2_input": 30_000_000,
            "power2_label": "package",
        },
        [30.0, 50.0],
    ),
    "volts and amperes of one label": (
        {"name": "lm25066", "in1_input": 12_000, "in1_label": "A", "curr1_input": 2_000, "curr1_label": "A"},
        [24.0],
    ),
    "PMBus's labels say which belongs to which": (
        {
            "name": "max20730",
            "in1_input": 48_000,
            "in1_label": "vin",
            "in2_input": 12_000,
            "in2_label": "vout1",
            "curr1_input": 10_000,
            "curr1_label": "iout1",
        },
        [120.0],
    ),
    "without labels nobody knows whose current it is": (
        {"name": "max20730", "in1_input": 48_000, "in2_input": 12_000, "curr1_input": 10_000},
        [],
    ),
}


def write(directory: Path, files: Mapping[str, object]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(f"{content}\n")
    return directory


def roots(tmp_path: Path) -> Roots:
    (tmp_path / "proc").mkdir(exist_ok=True)
    return Roots.resolve(tmp_path, environ={})


@pytest.mark.parametrize("name", list(KEPLER_CHIPS))
def test_keplers_chips_tell_what_kepler_asserts(name: str, tmp_path: Path) -> None:
    files, right = KEPLER_CHIPS[name]
    write(tmp_path / "class/hwmon/hwmon0", files)
    found = discover(HOST, roots(tmp_path))
    seen = glance(found.sensors, found.topology.by_key(), seconds=0)
    assert sorted(seen.watts(c) or 0.0 for c in found.topology.channels if is_power(c)) == right


def test_the_powercap_tree_of_node_exporter_and_procfs_with_its_eleventh_zone(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": ("package-0", 240_422_366_267),
        "intel-rapl:0:0": ("core", 118_821_284_256),
        "intel-rapl:a": ("package-10", 240_422_366_267),
    }
    for place, (name, energy) in zones.items():
        files = {"name": name, "energy_uj": energy, "max_energy_range_uj": 262_143_328_850}
        write(tmp_path / "class/powercap" / place, files)
    found = discover(HOST, roots(tmp_path))
    seen = glance(found.sensors, found.topology.by_key(), seconds=0)
    values = {c.name: seen.values[c.key] for c in found.topology.channels if c.quantity == "energy"}
    assert values == {
        "package-0": pytest.approx(240_422.366267),
        "core-0": pytest.approx(118_821.284256),
        "package-10": pytest.approx(240_422.366267),
    }
    # Equal values of a tree that does not move prove nothing.
    assert found.topology.headline.rail == "package-0 + package-10"


def test_the_battery_of_procfs(tmp_path: Path) -> None:
    files = {
        "type": "Battery",
        "status": "Discharging",
        "power_now": 4_830_000,
        "voltage_now": 12_229_000,
        "present": 1,
    }
    write(tmp_path / "class/power_supply/BAT0", files)
    write(tmp_path / "class/power_supply/AC", {"type": "Mains", "online": 0})
    found = discover(HOST, roots(tmp_path))
    seen = glance(found.sensors, found.topology.by_key(), seconds=0)
    assert [seen.watts(c) for c in found.topology.channels if is_power(c)] == [pytest.approx(4.83)]


def test_temperatures_and_chips_without_power_are_no_rails(tmp_path: Path) -> None:
    write(tmp_path / "class/hwmon/hwmon0", {"name": "applesmc", "fan1_input": 2000, "temp1_input": 40_000})
    write(tmp_path / "class/hwmon/hwmon1", {"name": "asus", "pwm1_enable": 2})
    write(tmp_path / "class/thermal/thermal_zone0", {"type": "x86_pkg_temp", "temp": 49_925})
    found = discover(HOST, roots(tmp_path))
    assert [c for c in found.topology.channels if is_power(c)] == []
    assert found.topology.headline.reason == "no power sensor was found"
