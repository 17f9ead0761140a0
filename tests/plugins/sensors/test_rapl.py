"""RAPL: all zones, their nesting, their wrap, and a remedy where root keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import Roots
from edgeprof.simulation.layouts import RAPL_RANGE_UJ
from edgeprof.simulation.tree import set_energy
from edgeprof.testing.sensors import check_sensor
from edgeprof_plugins.sensors import rapl

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.sensing.sensor import Channel, Sensor


def by_name(sensor: Sensor) -> dict[str, Channel]:
    return {channel.name: channel for channel in sensor.channels}


def test_core_and_uncore_are_inside_their_package_and_dram_is_beside_it(tree) -> None:
    _, roots = tree("x86-rapl", packages=2)
    (sensor,) = rapl.find(roots)
    parents = {name: channel.parent for name, channel in by_name(sensor).items()}
    assert parents == {
        "package-0": None,
        "core-0": "package-0",
        "uncore-0": "package-0",
        "dram-0": None,
        "package-1": None,
        "core-1": "package-1",
        "uncore-1": "package-1",
        "dram-1": None,
    }
    check_sensor(sensor)


def test_memory_is_an_estimate_and_a_package_a_counter(tmp_path: Path) -> None:
    """On a real machine; a virtual one's are simulated."""
    roots = Roots(sysfs=tmp_path)
    add_zone(roots, "intel-rapl:0", "package-0", 5_000_000)
    add_zone(roots, "intel-rapl:0:0", "dram", 3_000_000)
    channels = by_name(rapl.find(roots)[0])
    assert (channels["package-0"].provenance, channels["dram-0"].provenance) == ("counter", "estimated")
    assert channels["dram-0"].gain_limit == 0.3


def test_psys_is_a_total_of_the_board(tree) -> None:
    _, roots = tree("x86-rapl", rapl=("psys", "package", "core"))
    psys = by_name(rapl.find(roots)[0])["psys"]
    assert (psys.role, psys.scope) == ("total", "board")


def test_zones_of_one_name_in_one_interface_are_counters_of_their_own(tmp_path: Path) -> None:
    roots = Roots(sysfs=tmp_path)
    for number, name in enumerate(["package-0", "package-1", "psys", "psys"]):
        add_zone(roots, f"intel-rapl:{number}", name, 5_000_000 + number)
    add_zone(roots, "intel-rapl-mmio:0", "package-0", 5_000_000)
    assert list(by_name(rapl.find(roots)[0])) == ["package-0", "package-1", "psys", "psys-1"]


def test_the_second_view_of_the_package_is_not_counted_again(tree) -> None:
    _, roots = tree("x86-rapl", mmio=True)
    names = [channel.name for channel in rapl.find(roots)[0].channels]
    assert names.count("package-0") == 1


def test_counters_are_joules_with_their_wrap(tree) -> None:
    layout, roots = tree("x86-rapl")
    set_energy(layout, "package-0", 12.5)
    (sensor,) = rapl.find(roots)
    assert sensor.read_once()["package-0/energy"] == pytest.approx(12.5)
    channel = by_name(sensor)["package-0"]
    assert channel.kind == "counter"
    assert channel.provenance == "counter"
    assert channel.wrap == pytest.approx(RAPL_RANGE_UJ * 1e-6)


def test_a_counter_that_belongs_to_root_is_named_with_its_remedy(tree, deny) -> None:
    _, roots = tree("x86-rapl")
    deny("energy_uj")
    (sensor,) = rapl.find(roots)
    assert not sensor.channels
    assert {channel.name for channel in sensor.unavailable} == {"package-0", "core-0", "uncore-0", "dram-0"}
    for channel in sensor.unavailable:
        assert str(channel.reason).endswith("is readable by root only")
        assert "--fix-udev" in str(channel.remedy)


def test_the_udev_rule_opens_the_counter_to_a_group_and_never_to_everybody() -> None:
    assert "chgrp edgeprof" in rapl.UDEV_RULE
    assert "0440" in rapl.UDEV_RULE


def test_a_zone_that_fails_leaves_the_others_alone(tree) -> None:
    _, roots = tree("x86-rapl", unreadable=["dram-0"])
    (sensor,) = rapl.find(roots)
    assert "package-0" in by_name(sensor)
    assert [channel.name for channel in sensor.unavailable] == ["dram-0"]


def test_a_machine_without_powercap_has_no_such_sensor(tree) -> None:
    _, roots = tree("generic-unknown")
    assert rapl.find(roots) == []


def add_zone(roots, place: str, name: str, energy: int = 5_000_000_000) -> None:
    directory = roots.sysfs / "class/powercap" / place
    directory.mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": energy, "max_energy_range_uj": RAPL_RANGE_UJ}.items():
        (directory / file).write_text(f"{text}\n")


def test_zones_of_every_form_that_the_kernel_gives(tree) -> None:
    _, roots = tree("generic-unknown")
    for place, name in {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl:0:a": "mystery",
        "intel-rapl:a": "package-1-die-1",
        "intel-rapl:a:0": "core",
        "intel-rapl:b": "psys",
        "intel-rapl:c": "psys-1",
        "intel-rapl:1f": "soc-thing",
    }.items():
        add_zone(roots, place, name)
    (sensor,) = rapl.find(roots)
    facts = {c.name: (c.scope, c.role, c.parent, c.additive) for c in sensor.channels}
    assert facts == {
        "package-0": ("package", "part", None, True),
        "dram-0": ("memory", "part", None, True),
        "mystery-0": ("unknown", "part", "package-0", False),
        "package-1-die-1": ("package", "part", None, True),
        "core-1-die-1": ("cpu", "part", "package-1-die-1", False),
        "psys": ("board", "total", None, False),
        "psys-1": ("board", "total", None, False),
        "soc-thing": ("unknown", "part", None, False),
    }


def test_the_mmio_interface_counts_where_the_msr_never_did(tree) -> None:
    _, roots = tree("generic-unknown")
    add_zone(roots, "intel-rapl:0", "package-0", 0)
    add_zone(roots, "intel-rapl-mmio:0", "package-0", 7_000_000)
    add_zone(roots, "intel-rapl-mmio:0:0", "dram", 3_000_000)
    (sensor,) = rapl.find(roots)
    assert {c.name: c.location for c in sensor.channels} == {
        "package-0": "intel-rapl-mmio:0",
        "dram-0": "intel-rapl-mmio:0:0",
    }


def test_a_container_that_hides_powercap_is_told_as_such(tree) -> None:
    _, roots = tree("generic-unknown")
    (roots.sysfs / "class/powercap").mkdir()
    (roots.sysfs / "class/powercap/intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    (sensor,) = rapl.find(roots)
    (hidden,) = sensor.unavailable
    assert "hidden" in str(hidden.reason)
    assert "docker run -v" in str(hidden.remedy)
