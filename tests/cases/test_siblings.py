"""Machines like those of public reports, and yet others: built here, each with its one right total."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from edgeprof.cli.doctor_checks import sensor_checks
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import add_hwmon, add_power_supply, link, write
from edgeprof_exporters.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeprof.simulation.tree import Layout

HOST = PluginHost()
_STEP_S = 0.005


class Machine:
    """A PC, or a board of edgeprof's own, with whatever is added; its counters move while ``playing``."""

    def __init__(self, directory: Path, board: str = "generic-unknown") -> None:
        self.layout: Layout = build(board, directory)
        self.counters: dict[Path, tuple[float, float]] = {}

    @property
    def roots(self) -> Roots:
        return Roots.resolve(self.layout.directory, environ={})

    def zone(self, place: str, name: str, watts: float, *, starts: float = 5e9) -> None:
        """A RAPL zone that counts so many watts."""
        top = self.layout.directory
        home = top / "devices/virtual/powercap" / place.partition(":")[0] / place
        for file, text in (("name", name), ("energy_uj", str(int(starts))), ("max_energy_range_uj", "262143328850")):
            write(home / file, text)
        link(top / "class/powercap" / place, home)
        self.counters[home / "energy_uj"] = (starts, watts)

    def chip(self, name: str, device: str, **files: object) -> Path:
        """An hwmon chip."""
        return add_hwmon(self.layout, name, files, device=device)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Move the counters while the block runs."""
        stop = threading.Event()
        begin = time.monotonic()

        def play() -> None:
            while not stop.wait(_STEP_S):
                passed = time.monotonic() - begin
                for path, (starts, watts) in self.counters.items():
                    descriptor = os.open(path, os.O_WRONLY)
                    os.pwrite(descriptor, b"%-15d\n" % int(starts + watts * passed * 1e6), 0)
                    os.close(descriptor)

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Right(NamedTuple):
    """What is right: the total and its channels, what rails may come to together, and words that must be said."""

    watts: float | None
    rail: str | None
    most: float
    words: str = ""


def rail_files(watts: float, number: int, label: str | None, volts: float = 5.0) -> dict[str, object]:
    files: dict[str, object] = {
        f"in{number}_input": round(volts * 1e3),
        f"curr{number}_input": round(watts / volts * 1e3),
        f"in{number}_enable": 1,
        f"shunt{number}_resistor": 5000,
    }
    return files if label is None else files | {f"in{number}_label": label}


def three_monitors(order: tuple[int, ...]) -> Callable[[Path], tuple[Machine, Right]]:
    """An Orin Nano's own INA3221 and two more on its header, found in any order."""

    def make(directory: Path) -> tuple[Machine, Right]:
        machine = Machine(directory)
        tree = directory / "firmware/devicetree/base"
        write(tree / "compatible", "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0")
        write(tree / "model", "NVIDIA Jetson Orin Nano Developer Kit")
        common = {"samples": 512, "update_interval": 1}
        labels = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
        chips = [
            ("platform/bus@0/c240000.i2c/i2c-1/1-0040", [(9.0, labels[0]), (3.0, labels[1]), (2.0, labels[2])]),
            ("platform/bus@0/c250000.i2c/i2c-7/7-0040", [(1.0, None), (1.5, None), (0.5, None)]),
            ("platform/bus@0/c250000.i2c/i2c-7/7-0041", [(4.0, "VDD_IN"), (4.0, "VDD_SOC"), (1.0, "motor")]),
        ]
        for index in order:
            place, rails = chips[index]
            files: dict[str, object] = dict(common)
            for number, (watts, label) in enumerate(rails, 1):
                files |= rail_files(watts, number, label)
            machine.chip("ina3221", place, **files)
        return machine, Right(9.0, "VDD_IN", 9.0 + 16.0)

    return make


def four_dies(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    for die in range(4):
        machine.zone(f"intel-rapl:{die}", f"package-0-die-{die}", 90.0)
        machine.zone(f"intel-rapl:{die}:0", "core", 5.0 + die)
    return machine, Right(90.0, "package-0-die-0", 90.0)


def twelve_packages(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    for number in range(12):
        machine.zone(f"intel-rapl:{number:x}", f"package-{number}", 10.0 + number, starts=1e9 * (number + 1))
    rails = " + ".join(f"package-{number}" for number in range(12))
    return machine, Right(186.0, rails, 186.0)


def two_platforms(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl:0", "package-0", 30.0)
    machine.zone("intel-rapl:1", "package-1", 28.0, starts=6e9)
    machine.zone("intel-rapl:2", "psys", 50.0, starts=7e9)
    machine.zone("intel-rapl:3", "psys-1", 45.0, starts=8e9)
    return machine, Right(95.0, "psys + psys-1", 95.0)


def mmio_alone_with_memory(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl-mmio:0", "package-0", 11.0)
    machine.zone("intel-rapl-mmio:0:0", "dram", 2.0, starts=6e9)
    return machine, Right(13.0, "package-0 + dram-0", 13.0)


def nested_acpi_meters(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    for number, (name, watts) in enumerate((("CPU Power", 80), ("Total System Power", 200), ("Memory Power", 20))):
        machine.chip(
            "power_meter", f"LNXSYSTM:00/ACPI000D:0{number}", power1_average=watts * 10**6, power1_oem_info=name
        )
    return machine, Right(200.0, "power_meter@ACPI000D:01 Total System Power", 200.0)


def grace_sockets(directory: Path) -> tuple[Machine, Right]:
    """NVIDIA's Grace names its meters by socket: the module is around the processor, and that around its parts."""
    machine = Machine(directory)
    watts = {"Module": (400, 380), "Grace": (250, 240), "CPU": (180, 170), "SysIO": (40, 38)}
    meters = [(f"{name} Power Socket {n}", value) for name, pair in watts.items() for n, value in enumerate(pair)]
    for number, (name, value) in enumerate(meters):
        machine.chip(
            "power_meter", f"LNXSYSTM:00/ACPI000D:0{number}", power1_average=value * 10**6, power1_oem_info=name
        )
    rail = "power_meter@ACPI000D:00 Module Power Socket 0 + power_meter@ACPI000D:01 Module Power Socket 1"
    return machine, Right(780.0, rail, 780.0)


def package_below_its_cores(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl:0", "package-0", 5.0)
    machine.zone("intel-rapl:0:0", "core", 14.0, starts=8e9)
    return machine, Right(None, None, 14.0, "while core-0 inside of it shows")


def two_supplies(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    for address in ("0058", "0059"):
        machine.chip(
            "pmbus", f"pci0000:00/i2c-3/3-{address}",
            power1_input=150_000_000, power1_label="pin", power2_input=138_000_000, power2_label="pout1",
            in1_input=230_000, in1_label="vin", curr1_input=652, curr1_label="iin",
        )  # fmt: skip
    return machine, Right(None, None, 300.0)


def epyc_by_amd_energy(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    files: dict[str, object] = {}
    labels = [*(f"Ecore{n:03}" for n in range(8)), "Esocket0", "Esocket1"]
    for number, label in enumerate(labels, 1):
        files |= {f"energy{number}_label": label, f"energy{number}_input": 10**9 * number}
    place = machine.chip("amd_energy", "platform/amd_energy.0", **files)
    for number, label in enumerate(labels, 1):
        machine.counters[place / f"energy{number}_input"] = (1e9 * number, 60.0 if "socket" in label else 5.0)
    return machine, Right(120.0, "amd_energy Esocket0 + amd_energy Esocket1", 120.0)


def meter_that_shows_nothing(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl:0", "package-0", 12.0)
    machine.chip("power_meter", "LNXSYSTM:00/ACPI000D:00", power1_average=0)
    return machine, Right(12.0, "package-0", 12.0, "power_meter: it shows 0 W")


def meter_that_shows_nothing_alone(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.chip("power_meter", "LNXSYSTM:00/ACPI000D:00", power1_average=0)
    return machine, Right(None, None, 0.0, "it shows 0 W")


def package_that_stands_still(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl:0", "package-0", 0.0)
    machine.zone("intel-rapl:0:0", "dram", 3.0, starts=6e9)
    return machine, Right(None, None, 3.0, "package-0 cannot be read: it stands still while dram-0 rises")


SENTINELS = {
    "power1_input": (0xFFFFFFFF, 0x7FFFFFFF, -0x80000000, 0xFFFFFFFF * 1000, 0xFFFFFFFFFFFFFFFF, -0x80000000 * 1000),
    "energy1_input": (0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF),
    "temp1_input": (0x7FFFFFFF, -0x80000000, 0xFFFFFFFF),
}


def charging_laptop(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    add_power_supply(machine.layout, "AC", {"type": "Mains", "online": 1})
    add_power_supply(
        machine.layout, "BAT0", {"type": "Battery", "status": "Charging", "power_now": 20_000_000, "present": 1}
    )
    return machine, Right(None, None, 0.0, "BAT0")


def without_proc(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    machine.zone("intel-rapl:0", "package-0", 12.0)
    for path in sorted((directory / "proc").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (directory / "proc").rmdir()
    return machine, Right(12.0, "package-0", 12.0)


def masked_powercap(directory: Path) -> tuple[Machine, Right]:
    machine = Machine(directory)
    for name in ("intel-rapl", "intel-rapl:0", "intel-rapl:0:0"):
        link(directory / "class/powercap" / name, directory / "devices/virtual/powercap/intel-rapl" / name)
    (directory / "devices/virtual/powercap").mkdir(parents=True)
    return machine, Right(None, None, 0.0, "powercap is hidden")


MACHINES: dict[str, Callable[[Path], tuple[Machine, Right]]] = {
    **{f"three_monitors{order}": three_monitors(order) for order in itertools.permutations(range(3))},
    **{
        make.__name__: make
        for make in (
            four_dies, twelve_packages, two_platforms, mmio_alone_with_memory, nested_acpi_meters, grace_sockets,
            package_below_its_cores, two_supplies,
            epyc_by_amd_energy, meter_that_shows_nothing, meter_that_shows_nothing_alone, package_that_stands_still,
            charging_laptop, without_proc, masked_powercap,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(MACHINES))
def test_sensors_doctor_and_exporter_say_the_same_of_a_machine(name: str, tmp_path: Path) -> None:
    machine, right = MACHINES[name](tmp_path / "sys")
    with machine.playing():
        found = discover(HOST, machine.roots)
        seen = glance(found.sensors, found.topology.by_key(), seconds=0.3)
        headline = found.topology.headline
        watts, reason = seen.total(headline)
        checks = {check.detail for check in sensor_checks(found)}
        engine = Engine(rate_hz=20.0)
        try:
            if found.sensors:
                engine.start(found)
            exported = engine.total
            counted = None if exported is None else sorted(m.channel.name for m in exported.meters)
        finally:
            engine.stop()
    assert headline.rail == right.rail
    assert watts is None if right.watts is None else watts == pytest.approx(right.watts, rel=0.3)
    refused = [f"{c.name}: {c.reason}" for c in found.unavailable]
    said = " ".join(filter(None, (reason, headline.reason, headline.excludes, headline.note, *refused)))
    assert right.words in said
    assert any(right.rail in detail for detail in checks) if right.rail else True
    assert counted == (sorted(right.rail.split(" + ")) if right.rail else None)
    containers = found.topology.containers
    added = math.fsum(seen.watts(c) or 0.0 for c in found.topology.channels if containers.get(c.key, "-") is None)
    assert added <= right.most * 1.15


@pytest.mark.parametrize(("file", "value"), [(file, value) for file, values in SENTINELS.items() for value in values])
def test_what_a_register_without_a_reading_says_is_refused_in_every_unit(file: str, value: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "sys")
    kind = file.rstrip("_input").rstrip("1")
    machine.chip("ina226" if kind == "power" else "chip", "i2c-3/3-0045", **{file: value, f"{kind}1_label": "odd"})
    found = discover(HOST, machine.roots)
    assert [c.name for c in found.topology.channels if c.available and "odd" in c.name] == []


@pytest.mark.parametrize(("volts", "amperes"), [(0xFFFFFFFF, 1000), (5000, 0x7FFFFFFF), (0x7FFFFFFF, 0x7FFFFFFF)])
def test_a_product_of_a_sentinel_is_one(volts: int, amperes: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "sys", "jetson-orin-nano")
    for place in (machine.layout.directory / "class/hwmon").iterdir():
        if (place / "name").read_text().strip() == "ina3221":
            write(place / "in1_input", str(volts))
            write(place / "curr1_input", str(amperes))
    found = discover(HOST, machine.roots)
    assert found.topology.headline.rail is None
    assert "VDD_IN" in (found.topology.headline.reason or "")
