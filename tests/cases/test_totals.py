"""Machines of public reports: each has one right total, and what may be added up adds up to no more than it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from edgeprof.plugins import PluginHost
from edgeprof.sensing.board.headline import is_power
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance
from tests.cases.trees import Case, needs_cases

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.glance import Glance

pytestmark = needs_cases
HOST = PluginHost()


class Right(NamedTuple):
    """What is right for a case.

    Attributes:
        watts: The total, W; None where there is none.
        rail: Its channels.
        most: What the rails that may be added up may come to, W; None: no more than ``watts``.
        reason: What the reason or what is left out must say.
    """

    watts: float | None
    rail: str | None
    most: float | None = None
    reason: str = ""


RIGHT = {
    "01-threadripper-mirrored-dies": Right(68.0, "package-0-die-0"),
    "02-rapl-msr-and-mmio": Right(9.61, "psys"),
    "03-rapl-mmio-only": Right(9.0, "package-0"),
    "05-psys-stands-still": Right(48.0, "package-0 + dram-0"),
    "07-four-sockets-dram": Right(
        229.2, "package-0 + package-1 + package-2 + package-3 + dram-0 + dram-1 + dram-2 + dram-3"
    ),
    "10-laptop-battery-mouse": Right(4.0, "package-0", 8.4, "BAT0"),
    "11-two-batteries-no-rapl": Right(None, None, 6.2, "only BAT0 tells what the machine draws"),
    "13-pc-amd-dgpu": Right(295.0, "package-0 + amdgpu PPT"),
    "15-acpi-power-meter": Right(92.0, "power_meter"),
    "15c-acpi-power-meter-sentinel": Right(None, None, 0.0, "a register without a reading"),
    "17-asahi-macsmc": Right(7.12, "macsmc_hwmon Total System Power"),
    "18-corsair-psu-and-pmbus": Right(250.0, "corsairpsu power total", 310.0, "pmbus pin"),
    "19-amd-energy": Right(60.0, "amd_energy Esocket0"),
    "20-orin-nano-carrier-ina226": Right(9.0, "VDD_IN", 13.2, "ina226"),
    "21-igx-orin": Right(11.6, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", reason="CVB_ATX"),
    "23-agx-orin-nc-empty": Right(9.75, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
    "24-thor-third-party-carrier": Right(
        16.12, "VDD_GPU + VDD_CPU_SOC_MSS + VIN_SYS_5V0", reason="not the usual total"
    ),
    "25-thor-devkit-ucsi": Right(38.2, "VIN"),
    "28-pi4-ina219-hat": Right(None, None, 3.24, "has no power monitor of its own; ina219 is there"),
    "29-rk3588-no-sensors": Right(None, None, 0.0, "no power sensor was found"),
    "31-docker-masked-powercap": Right(None, None, 0.0, "powercap is hidden"),
    "32-orin-nano-plus-ina3221-breakout": Right(9.0, "VDD_IN", reason="7-0040 channel 1"),
    "33-same-label-twice": Right(None, None, 80.0),
    "34-xavier-nx-jetpack4": Right(5.952, "VDD_IN"),
    "40-rapl-reset": Right(10.0, "package-0"),
    "43-rapl-steps-back": Right(10.0, "package-0"),
    "46-no-max-energy-range": Right(10.0, "package-0"),
    "50-unplug-after-start": Right(None, None, 0.0, "BAT0"),
}


def looked_at(case: Case) -> tuple[Discovery, Glance]:
    with case.playing():
        found = discover(HOST, case.roots)
        return found, glance(found.sensors, found.topology.by_key())


@pytest.mark.parametrize("name", list(RIGHT))
def test_the_total_is_the_machines_and_the_rails_add_up_to_no_more(name: str, tmp_path: Path) -> None:
    right = RIGHT[name]
    found, seen = looked_at(Case(name, tmp_path))
    headline = found.topology.headline
    watts, reason = seen.total(headline)
    assert headline.rail == right.rail
    if right.watts is None:
        assert watts is None
    else:
        assert watts == pytest.approx(right.watts, rel=0.1)  # the player's clock is a busy machine's
    assert right.reason in " ".join(filter(None, (reason, headline.reason, headline.excludes, headline.note)))
    containers = found.topology.containers
    added = sum(seen.watts(c) or 0.0 for c in found.topology.channels if containers.get(c.key, "no rail") is None)
    most = right.most if right.most is not None else right.watts or 0.0
    assert added <= most * 1.1


@pytest.mark.parametrize("name", list(RIGHT))
def test_no_two_channels_share_a_key_and_every_refusal_has_its_reason(name: str, tmp_path: Path) -> None:
    found = discover(HOST, Case(name, tmp_path).roots)
    keys = [channel.key for channel in found.topology.channels]
    assert len(keys) == len(set(keys))
    assert all(channel.reason for channel in found.unavailable)
    assert found.failures == []


def test_both_readings_of_one_label_are_there(tmp_path: Path) -> None:
    found, seen = looked_at(Case("33-same-label-twice", tmp_path))
    assert sorted(seen.watts(c) or 0.0 for c in found.topology.channels if is_power(c)) == [30.0, 50.0]


def test_a_stock_xavier_nx_of_jetpack_4_is_one(tmp_path: Path) -> None:
    topology = discover(HOST, Case("34-xavier-nx-jetpack4", tmp_path).roots).topology
    assert topology.board.id == "jetson-xavier-nx"
    assert {c.name: c.parent for c in topology.parts} == {"VDD_CPU_GPU_CV": "VDD_IN", "VDD_SOC": "VDD_IN"}


def test_a_counter_that_stands_still_is_refused_with_the_reason(tmp_path: Path) -> None:
    found, _ = looked_at(Case("05-psys-stands-still", tmp_path))
    assert {c.name: c.reason for c in found.unavailable} == {"psys": "it stands still while package-0 rises"}


def test_a_second_die_that_shows_the_first_ones_counter_is_refused_with_the_reason(tmp_path: Path) -> None:
    found, _ = looked_at(Case("01-threadripper-mirrored-dies", tmp_path))
    (refused,) = found.unavailable
    assert refused.reason == "it is the same meter as package-0-die-0: both show one counter"
