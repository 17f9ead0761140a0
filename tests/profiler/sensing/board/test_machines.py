"""Random machines: neither the total nor the sum of the additive channels exceeds the machine's power."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import Roots
from edgeprof.sensing.board.files import Board
from edgeprof.sensing.board.headline import is_power
from edgeprof.sensing.board.topology import arrange
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import add_hwmon, add_power_supply, write
from edgeprof_plugins.sensors import hwmon, power_supply, rapl

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.sensing.sensor import Channel
    from edgeprof.simulation.tree import Layout

#: The power of each part of the machine (W); the rest is its mainboard, disks and fans.
SOCKET_W, MEMORY_W, CARD_W, REST_W = (41.0, 37.0), 3.0, 120.0, 30.0
TIMES = (0.0, 0.1, 0.2, 0.3)


def add_zone(layout: Layout, place: str, name: str) -> None:
    for file, text in (("name", name), ("energy_uj", "5000000000"), ("max_energy_range_uj", "262143328850")):
        write(layout.directory / "class/powercap" / place / file, text)


class Machine:
    """A PC with a random choice of sensors, of which the power of every channel is known."""

    def __init__(self, rng: random.Random, directory: Path) -> None:
        self.layout = layout = build("generic-unknown", directory)
        self.sockets = rng.choice([1, 2])
        self.card, self.battery = rng.random() < 0.5, rng.random() < 0.4
        self.watts = math.fsum(SOCKET_W[: self.sockets]) + MEMORY_W * self.sockets + REST_W + CARD_W * self.card
        self.power: dict[str, float] = {}
        for add in (self._rapl, self._amd_energy, self._apu, self._supply, self._meter, self._pmbus):
            if rng.random() < 0.5:
                add(rng)
        if self.card:
            files = {"power1_average": 1, "power1_label": "PPT", "power1_cap": 300_000_000}
            add_hwmon(layout, "amdgpu", files, device="pci0/0000:03:00.0")
        if self.battery:
            files = {"type": "Battery", "status": "Discharging", "power_now": 1, "present": 1}
            add_power_supply(layout, "BAT0", files)

    def _rapl(self, rng: random.Random) -> None:
        dram, psys = rng.random() < 0.5, rng.random() < 0.3
        for socket in range(self.sockets):
            add_zone(self.layout, f"intel-rapl:{socket}", f"package-{socket}")
            add_zone(self.layout, f"intel-rapl:{socket}:0", "core")
            if dram:
                add_zone(self.layout, f"intel-rapl:{socket}:1", "dram")
        if psys:
            add_zone(self.layout, f"intel-rapl:{self.sockets}", "psys")
        if rng.random() < 0.5:
            add_zone(self.layout, "intel-rapl-mmio:0", "package-0")

    def _amd_energy(self, _rng: random.Random) -> None:
        files: dict[str, object] = {}
        labels = [*(f"Ecore{n:03}" for n in range(4)), *(f"Esocket{n}" for n in range(self.sockets))]
        for number, label in enumerate(labels, 1):
            files |= {f"energy{number}_label": label, f"energy{number}_input": 10**9}
        add_hwmon(self.layout, "amd_energy", files)

    def _apu(self, _rng: random.Random) -> None:
        if self.sockets == 1:
            files = {"power1_average": 1, "power1_label": "PPT", "in1_label": "vddnb", "in1_input": 800}
            add_hwmon(self.layout, "amdgpu", files, device="pci0/0000:c1:00.0")

    def _supply(self, _rng: random.Random) -> None:
        files = {"power1_input": 1, "power1_label": "power total", "power2_input": 1, "power2_label": "power +12v"}
        add_hwmon(self.layout, "corsairpsu", files, device="platform/corsair")

    def _meter(self, _rng: random.Random) -> None:
        add_hwmon(self.layout, "power_meter", {"power1_average": 1}, device="acpi/ACPI000D:00")

    def _pmbus(self, _rng: random.Random) -> None:
        files = {"power1_input": 1, "power1_label": "pin", "power2_input": 1, "power2_label": "pout1"}
        add_hwmon(self.layout, "pmbus", files, device="i2c-3/3-0058")

    def shows(self, channel: Channel) -> float:
        """Return the power that a channel shows for this machine (W)."""
        name, number = channel.name, int("".join(filter(str.isdigit, channel.name[-1:])) or 0)
        if "Ecore" in name:
            return 2.0
        if name.startswith("core"):
            return 20.0
        if name.startswith("package") or "Esocket" in name:
            return SOCKET_W[number]
        if "c1:00.0" in channel.location:
            return SOCKET_W[0]
        if name.startswith("dram"):
            return MEMORY_W
        if "03:00.0" in channel.location:
            return CARD_W
        if name == "psys":
            return self.watts - CARD_W * self.card
        return self.watts * (0.9 if "pout" in name or "+12v" in name else 1.0)


@pytest.mark.parametrize("seed", range(60))
def test_what_may_be_added_up_is_never_more_than_the_machine_draws(seed: int, tmp_path: Path) -> None:
    machine = Machine(random.Random(seed), tmp_path / "sys")
    roots = Roots.resolve(machine.layout.directory, environ={})
    sensors = [*rapl.find(roots), *hwmon.find(roots), *power_supply.find(roots)]
    channels = [c for sensor in sensors for c in sensor.channels if is_power(c)]
    looks = {
        c.key: [(t, 1000.0 * index + machine.shows(c) * t if c.kind == "counter" else machine.shows(c)) for t in TIMES]
        for index, c in enumerate(channels)
    }
    topology = arrange(Board("unknown", "a PC", model="a PC"), channels, looks=looks)
    shown = {c.key: machine.shows(c) for c in channels}
    added = math.fsum(shown[key] for key, container in topology.containers.items() if container is None)
    assert added <= machine.watts * (1 + 1e-9)
    total = math.fsum(shown[c.key] for c in topology.headline.channels)
    assert total <= machine.watts * (1 + 1e-9)
    whole = [c for c in channels if c.role == "total" and c.scope == "board"]
    sockets = [c for c in channels if c.scope == "package"]
    if len({c.name for c in whole}) == 1 or sockets:
        assert total >= math.fsum(SOCKET_W[: machine.sockets])
    if sockets and machine.card and not whole:
        assert total >= math.fsum(SOCKET_W[: machine.sockets]) + CARD_W
