"""Any other hwmon chip that tells power or energy, and a few temperatures: INA219/226/238/260 hats, amdgpu, i915, xe …

``/sys/class/hwmon/hwmonN/``: ``powerN_input`` and ``powerN_average`` µW, ``energyN_input`` µJ (64 bits, extended by the
driver), ``inN_input`` mV, ``currN_input`` mA, ``tempN_input`` m°C; names in ``*_label``, for the INA2xx in the chip's
own ``label`` (Thor's INA238: ``VIN``).
Refresh: ``update_interval`` ms where the driver has it; INA238: 16 averages × 1052 µs × 3 conversions, 50 ms.
Traps: powers are in µW, other than everything beside them; of ``input`` and ``average`` a chip has one or both; an
APU's amdgpu power is the whole chip with its CPU cores; ``ucsi_source_psy`` shows what was negotiated and measures
nothing; batteries and INA3221 have sources of their own and are left out here; thermal zones show up here again.
Sources: Documentation/hwmon/sysfs-interface.rst, ina2xx.rst, ina238.rst, amdgpu's power documentation.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.sensing.files import FileSensor, NumberFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.sensor import INSTANTANEOUS, Channel, Filter, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "hwmon"
#: Chips with a source of their own, or that measure nothing.
_ELSEWHERE = re.compile(r"ina3221.*|ucsi_.*|soctherm_oc|pwm.*|rpi_volt|BAT\d*|AC\d*|ACAD|ADP\d*")
#: Chips of which one temperature says enough: the whole package, and not each of 64 cores.
_PACKAGE_LABELS = {"coretemp": re.compile(r"Package id \d+"), "k10temp": re.compile(r"Tctl|Tdie")}
_MOST_TEMPERATURES = 3
#: The INA family: shunt step (V), power step in current steps × V, gain limit of the part beside ±1 % of the shunt.
_INA = {
    "ina219": (10e-6, 20.0, 0.005),
    "ina226": (2.5e-6, 25.0, 0.001),
    "ina230": (2.5e-6, 25.0, 0.003),
    "ina231": (2.5e-6, 25.0, 0.003),
    "ina260": (None, None, 0.0015),
}
#: INA238 as its driver sets it (SBOSA20): power step at the fixed 20 mΩ (W), block average (s).
_INA238_STEP_W, _INA238_SHUNT_OHM, _INA238_BLOCK_S = 2e-4, 0.020, 16 * 1052e-6 * 3


@dataclass(frozen=True)
class _Chip:
    path: Path
    name: str
    title: str
    place: str
    source: str


class PairSensor(FileSensor):
    """Power from a chip that tells only volts and amperes: pairs of files, multiplied."""

    def __init__(self, channels: Sequence[Channel], pairs: Sequence[tuple[NumberFile, NumberFile]]) -> None:
        super().__init__(NAME, channels, [file for pair in pairs for file in pair])
        self._pairs = tuple(pairs)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        for index, (volts, amperes) in enumerate(self._pairs):
            before = time.monotonic()
            values[index] = volts.number() * amperes.number()
            times[index] = 0.5 * (before + time.monotonic())


def find(roots: Roots) -> list[Sensor]:
    """One sensor for each chip's powers, energies and temperatures."""
    names = [text_of(path / "name") or "" for path in listing(roots.sysfs / "class/hwmon")]
    zones = {
        (text_of(zone / "type") or "").replace("-", "_")
        for zone in listing(roots.sysfs / "class/thermal")
        if zone.name.startswith("thermal_zone")
    }
    sensors: list[Sensor] = []
    taken: set[str] = set()
    for path, name in zip(listing(roots.sysfs / "class/hwmon"), names, strict=True):
        device = (path / "device").resolve()
        if not name or _ELSEWHERE.fullmatch(name) or (device / "online").exists() or (device / "capacity").exists():
            continue
        place = device.name if (path / "device").exists() else path.name
        title = name if names.count(name) == 1 else f"{name}@{place}"
        chip = _Chip(path, name, title, place, provenance(roots))
        sensors += _power_sensors(chip, taken)
        if name not in zones:
            sensors += _temperatures(chip)
    return sensors


def _power_sensors(chip: _Chip, taken: set[str]) -> list[Sensor]:
    channels: list[Channel] = []
    files: list[NumberFile] = []
    refused: list[Channel] = []
    for node, channel in _candidates(chip):
        unique = channel if channel.name not in taken else replace(channel, name=f"{channel.name}@{chip.place}")
        problem = trouble(node)
        if problem is not None:
            refused.append(replace(unique, available=False, reason=problem[0], remedy=problem[1]))
            continue
        channels.append(unique)
        files.append(NumberFile(node, 1e-6))
    taken |= {channel.name for channel in channels}
    if channels or refused:
        return [FileSensor(NAME, channels, files, refused)]
    return _pairs(chip, taken)


def _candidates(chip: _Chip) -> list[tuple[Path, Channel]]:
    """The chip's power and energy files: of several that show the same, the one that says most."""
    found = []
    numbers = _numbers(chip.path, r"power(\d+)_(?:input|average)")
    for number in numbers:
        node = chip.path / f"power{number}_input"
        averaged = not node.exists() or (trouble(node) is not None and (chip.path / f"power{number}_average").exists())
        node = chip.path / f"power{number}_average" if averaged else node
        label = _label(chip, f"power{number}", alone=len(numbers) == 1)
        found.append((node, _annotated(chip, Channel(NAME, label, "power"), node, averaged)))
    energies = _numbers(chip.path, r"energy(\d+)_input")
    for number in energies:
        node = chip.path / f"energy{number}_input"
        label = _label(chip, f"energy{number}", alone=len(energies) == 1)
        counter = Channel(NAME, label, "energy", kind="counter", plausible=(0.0, math.inf), resolution=1e-6)
        found.append((node, _annotated(chip, replace(counter, gain_limit=0.05), node, averaged=False)))
    return found


def _annotated(chip: _Chip, channel: Channel, node: Path, averaged: bool) -> Channel:
    counts = channel.quantity == "energy"
    channel = replace(
        channel,
        location=f"{chip.name} {chip.place} {node.name}",
        provenance="simulated" if chip.source == "simulated" else "counter" if counts else "measured",
        update_interval_s=number_of(chip.path / "update_interval", 1e-3),
    )
    if chip.name in {"amdgpu", "i915", "xe"}:
        note = "of an APU this is the whole chip with its CPU cores" if chip.name == "amdgpu" else ""
        interval = number_of(node.with_name(f"{node.name}_interval"), 1e-3) if averaged else None
        block = Filter("block", length_s=interval) if interval else INSTANTANEOUS
        return replace(channel, scope="gpu", gain_limit=0.05, note=note, filter=block)
    if channel.quantity == "power" and chip.name in {"ina237", "ina238", "sq52206"}:
        shunt = number_of(chip.path / "shunt_resistor", 1e-6)
        return replace(
            channel,
            resolution=_INA238_STEP_W * _INA238_SHUNT_OHM / shunt if shunt else None,
            gain_limit=math.hypot(0.001, 0.01),
            update_interval_s=_INA238_BLOCK_S,
            filter=Filter("block", length_s=_INA238_BLOCK_S),
        )
    if channel.quantity == "power" and chip.name in _INA:
        shunt = number_of(chip.path / "shunt_resistor", 1e-6)
        step_v, per_ampere, gain = _INA[chip.name]
        resolution = step_v / shunt * per_ampere if step_v and per_ampere and shunt else None
        interval = channel.update_interval_s
        block = Filter("block", length_s=interval) if interval else INSTANTANEOUS
        return replace(channel, resolution=resolution, gain_limit=math.hypot(gain, 0.01), filter=block)
    return channel


def _pairs(chip: _Chip, taken: set[str]) -> list[Sensor]:
    channels = []
    pairs = []
    for number in _numbers(chip.path, r"curr(\d+)_input"):
        volts, amperes = chip.path / f"in{number}_input", chip.path / f"curr{number}_input"
        labels = text_of(chip.path / f"in{number}_label"), text_of(chip.path / f"curr{number}_label")
        if not volts.exists() or (all(labels) and labels[0] != labels[1]) or trouble(volts) or trouble(amperes):
            continue
        name = labels[0] or labels[1] or f"{chip.title} channel {number}"
        name = name if name not in taken else f"{name}@{chip.place}"
        taken.add(name)
        source = "simulated" if chip.source == "simulated" else "measured"
        channels.append(
            Channel(
                NAME,
                name,
                "power",
                provenance=source,  # type: ignore[arg-type]  # a str that is one of Provenance
                update_interval_s=number_of(chip.path / "update_interval", 1e-3),
                location=f"{chip.name} {chip.place} in{number} × curr{number}",
            )
        )
        pairs.append((NumberFile(volts, 1e-3), NumberFile(amperes, 1e-3)))
    return [PairSensor(channels, pairs)] if channels else []


def _temperatures(chip: _Chip) -> list[Sensor]:
    channels: list[Channel] = []
    files: list[NumberFile] = []
    numbers = _numbers(chip.path, r"temp(\d+)_input")
    wanted = _PACKAGE_LABELS.get(chip.name)
    for number in numbers:
        node, label = chip.path / f"temp{number}_input", text_of(chip.path / f"temp{number}_label")
        if (wanted is not None and not wanted.fullmatch(label or "")) or len(channels) == _MOST_TEMPERATURES:
            continue
        if trouble(node) is not None:
            continue
        name = f"{chip.title} {label}" if label else chip.title if len(numbers) == 1 else f"{chip.title} temp{number}"
        channels.append(
            Channel(
                NAME,
                name,
                "temperature",
                scope="gpu" if chip.name in {"amdgpu", "xe"} else "cpu" if wanted else "unknown",
                provenance="simulated" if chip.source == "simulated" else "measured",
                plausible=(-55.0, 150.0),
                location=f"{chip.name} {chip.place} {node.name}",
            )
        )
        files.append(NumberFile(node, 1e-3))
    return [FileSensor(NAME, channels, files)] if channels else []


def _numbers(path: Path, pattern: str) -> list[int]:
    matches = (re.fullmatch(pattern, entry.name) for entry in listing(path))
    return sorted({int(match[1]) for match in matches if match})


def _label(chip: _Chip, node: str, *, alone: bool) -> str:
    label = text_of(chip.path / f"{node}_label")
    whole = text_of(chip.path / "label")
    if whole and alone:
        return whole
    if label:
        return f"{whole or chip.title} {label}"
    return (whole or chip.title) if alone else f"{whole or chip.title} {node}"


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
