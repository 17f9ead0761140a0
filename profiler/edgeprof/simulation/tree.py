"""A board's tree of files: the paths of its changing files, and the values that the real parts would write there."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.simulation.board_specs import BoardSpec

#: Bus voltage step of an INA3221 (V), its shunt voltage step (V) and that register's largest value (SBOS576, 8.6.2).
INA3221_BUS_STEP, INA3221_SHUNT_STEP, INA3221_MAX_CODE = 8e-3, 40e-6, 4095


@dataclass(frozen=True)
class RailFiles:
    """The files of one rail.

    Attributes:
        name: The rail, such as ``VDD_IN``; a RAPL domain has its zone's name, a PMIC rail its prefix.
        kind: ``ina3221`` (mV, mA), ``ina3221x`` (mV, mA, mW and the pair), ``ina238`` (mV, mA, µW), ``rapl`` (µJ) or
            ``pmic`` (two lines of one text file).
        directory: The chip's or zone's directory.
        channel: The driver's number: from 1 in hwmon, from 0 in IIO.
        volts: Voltage (V) that ``set_power`` assumes if none is given.
        shunt_ohm: Shunt, Ω.
        samples: Averages; the filter's time constant is ``samples`` × ``cycle_s`` (SBOS576, 7.4.1).
        cycle_s: Seconds from one conversion of this rail to the next.
        idle_w: Power at idle (W), for a simulation.
        busy_w: Power under full load (W), for a simulation.
        inside: The rail that contains this one.
        voltage: File with mV.
        current: File with mA.
        power: File with mW (IIO) or µW (ina238).
        pair: IIO's ``ui_input``: "mV mA".
        energy: RAPL's µJ.
        text: The PMIC's text file, shared by its rails.
        wrap_j: Joules after which ``energy`` starts again at 0.
    """

    name: str
    kind: str
    directory: Path
    channel: int = 0
    volts: float = 0.0
    shunt_ohm: float | None = None
    samples: int = 1
    cycle_s: float = 0.0
    idle_w: float = 0.0
    busy_w: float = 0.0
    inside: str | None = None
    voltage: Path | None = None
    current: Path | None = None
    power: Path | None = None
    pair: Path | None = None
    energy: Path | None = None
    text: Path | None = None
    wrap_j: float | None = None


@dataclass
class Layout:
    """A tree and its changing files.

    Attributes:
        board: The name given to ``build``.
        directory: The tree's top directory, for ``--sysfs-root``.
        spec: The board's specification.
        rails: Power and energy files by rail.
        totals: The rails that add up to the board's total; empty if no sensor measures a total.
        zones: Thermal zones: type → file of m°C.
        gpu_load: File of GPU load in tenths of a percent.
        gpu_frequency: File of the GPU's clock in Hz.
        cpu_frequency: Files of the cores' clocks in kHz.
    """

    board: str
    directory: Path
    spec: BoardSpec
    rails: dict[str, RailFiles] = field(default_factory=dict)
    totals: tuple[str, ...] = ()
    zones: dict[str, Path] = field(default_factory=dict)
    gpu_load: Path | None = None
    gpu_frequency: Path | None = None
    cpu_frequency: list[Path] = field(default_factory=list)

    @property
    def procfs(self) -> Path:
        return self.directory / "proc"

    @property
    def root(self) -> Path:
        return self.directory / "root"


def set_power(layout: Layout, rail: str, watts: float, volts: float | None = None) -> float:
    """Write the values that the real part would show for a power.

    Args:
        layout: The tree.
        rail: The rail's name.
        watts: True power, W; may be negative.
        volts: Bus voltage, V; by default the rail's nominal voltage.

    Returns:
        The power (W) in the files, after the part's quantisation and clipping.

    Raises:
        ValueError: The rail has only an energy counter (``set_energy``).
    """
    files = layout.rails[rail]
    if files.energy is not None:
        raise ValueError(f"{rail} of {layout.board} is an energy counter: use set_energy")
    volts = files.volts if volts is None else volts
    amperes = watts / volts
    if files.kind == "pmic":
        return _set_pmic(files, volts, amperes)
    assert files.voltage is not None
    assert files.current is not None
    assert files.shunt_ohm is not None
    if files.kind == "ina238":
        # Bus LSB 3.125 mV; current LSB 1 mA and power LSB 0.2 mW at the driver's fixed 20 mΩ (drivers/hwmon/ina238.c).
        scale = 0.020 / files.shunt_ohm
        millivolts = round(volts * 1e3 / 3.125) * 3.125
        milliamperes = round(amperes * 1e3 / scale) * scale
        microwatts = round(abs(watts) / (2e-4 * scale)) * 200 * scale
        write(files.voltage, str(int(millivolts)))
        write(files.current, str(round(milliamperes)))
        assert files.power is not None
        write(files.power, str(round(microwatts)))
        return microwatts * 1e-6
    code = round(amperes * files.shunt_ohm / INA3221_SHUNT_STEP)
    code = max(-INA3221_MAX_CODE - 1, min(INA3221_MAX_CODE, code))
    millivolts = int(round(volts / INA3221_BUS_STEP) * INA3221_BUS_STEP * 1e3 + 0.5)
    milliamperes = round(code * INA3221_SHUNT_STEP * 1e3 / files.shunt_ohm)
    write(files.voltage, str(millivolts))
    write(files.current, str(milliamperes))
    milliwatts = millivolts * milliamperes / 1e3
    if files.power is not None and files.pair is not None:
        write(files.pair, f"{millivolts} {milliamperes}")
        write(files.power, str(int(milliwatts)))
    return milliwatts * 1e-3


def set_energy(layout: Layout, rail: str, joules: float) -> None:
    """Write a RAPL zone's counter (J since an arbitrary start), wrapped and in whole µJ like the real one."""
    files = layout.rails[rail]
    if files.energy is None or files.wrap_j is None:
        raise ValueError(f"{rail} of {layout.board} has no energy counter: use set_power")
    write(files.energy, str(int(joules * 1e6) % round(files.wrap_j * 1e6)))


def _set_pmic(files: RailFiles, volts: float, amperes: float) -> float:
    # The converter is coarse, with steps of about 0.2 mA to 1 mA by rail; small and negative currents read as 0.
    step = 0.00097585
    amperes = max(0, round(amperes / step)) * step
    assert files.text is not None
    lines = files.text.read_text().splitlines()
    for index, line in enumerate(lines):
        head, _, _ = line.partition("=")
        if head.lstrip().startswith(f"{files.name}_A "):
            lines[index] = f"{head}={amperes:.8f}A"
        elif head.lstrip().startswith(f"{files.name}_V "):
            lines[index] = f"{head}={volts:.8f}V"
    write(files.text, "\n".join(lines))
    return volts * amperes


def add_hwmon(layout: Layout, name: str, files: Mapping[str, object], device: str = "virtual") -> Path:
    """Add an hwmon chip: ``files`` (name → content) in ``devices/<device>/hwmon/hwmonN``, linked from class/hwmon."""
    number = sum(1 for _ in (layout.directory / "class/hwmon").iterdir())
    owner = layout.directory / "devices" / device
    place = owner / "hwmon" / f"hwmon{number}"
    for key, value in {"name": name, **files}.items():
        write(place / key, str(value))
    link(place / "device", owner)
    link(layout.directory / f"class/hwmon/hwmon{number}", place)
    return place


def add_power_supply(layout: Layout, name: str, files: Mapping[str, object]) -> Path:
    """Add a directory of /sys/class/power_supply (µV, µA, µW, µWh)."""
    place = layout.directory / "class/power_supply" / name
    for key, value in files.items():
        write(place / key, str(value))
    return place


def write(path: Path, text: str) -> None:
    """Write a file of one line, and create the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def link(place: Path, target: Path) -> None:
    """Make a relative link, so that the tree can be moved."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(os.path.relpath(target, place.parent))
