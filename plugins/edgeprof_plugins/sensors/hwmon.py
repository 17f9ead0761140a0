"""Other hwmon chips that measure power or energy, and a few temperatures: INA219/226/238/260 hats, amdgpu, i915, xe.

``/sys/class/hwmon/hwmonN/``: ``powerN_input`` and ``powerN_average`` µW, ``energyN_input`` µJ (64 bits, extended by the
driver), ``inN_input`` mV, ``currN_input`` mA, ``tempN_input`` m°C; names in ``*_label``, for the INA2xx in the chip's
own ``label`` (Thor's INA238: ``VIN``), for ACPI's power meters in ``powerN_oem_info``.
Refresh: ``update_interval`` ms if the driver has that file; INA238: 16 averages × 1052 µs × 3 conversions, 50 ms.
Traps: powers are in µW, while all other values are in thousandths; a chip has ``input``, ``average`` or both; amdgpu's
power of an APU is that of the whole chip with its CPU cores; ``ucsi_source_psy`` shows negotiated values and measures
nothing; batteries and INA3221 have their own sources and are left out here; thermal zones occur here again.
Sources: Documentation/hwmon/sysfs-interface.rst, ina2xx.rst, ina238.rst, amdgpu's power documentation.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof import hookimpl
from edgeprof.sensing.board.identity import identify_board
from edgeprof.sensing.board.placement import Origin, distinct_names, find_rails
from edgeprof.sensing.file_sensor import FileSensor
from edgeprof.sensing.files import NumberFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.limits import SENTINELS
from edgeprof.sensing.sensor import INSTANTANEOUS, Channel, Filter, Sensor
from edgeprof_plugins.sensors.hwmon_chips import Card, acpi_meters, amdgpu, relations, silent_cards

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "hwmon"
#: Chips that have their own source, or that measure nothing.
_ELSEWHERE = re.compile(r"ina3221.*|ucsi_.*|soctherm_oc|pwm.*|rpi_volt|BAT\d*|AC\d*|ACAD|ADP\d*")
#: Chips of which only the temperature of the whole package is shown, and not that of each core.
_PACKAGE_LABELS = {"coretemp": re.compile(r"Package id \d+"), "k10temp": re.compile(r"Tctl|Tdie")}
_MOST_TEMPERATURES = 3
#: The driver of ACPI's power meters.
_ACPI = "power_meter"
#: Larger limits (W) mean that the register holds no limit.
_MOST_LIMIT_W = 20_000.0
#: The INA family: shunt step (V), power step in current steps × V, and gain limit of the part, without ±1 % of the
#: shunt.
_INA = {
    "ina219": (10e-6, 20.0, 0.005),
    "ina226": (2.5e-6, 25.0, 0.001),
    "ina230": (2.5e-6, 25.0, 0.003),
    "ina231": (2.5e-6, 25.0, 0.003),
    "ina260": (None, None, 0.0015),
}
#: INA238 as its driver sets it (SBOSA20): power step at the fixed 20 mΩ (W), block average (s).
_INA238_STEP_W, _INA238_SHUNT_OHM, _INA238_BLOCK_S = 2e-4, 0.020, 16 * 1052e-6 * 3


class _Chip(NamedTuple):
    """One chip.

    Attributes:
        path: Directory of its attribute files.
        device: Directory of the device that it belongs to.
        name: The driver's name for it.
        title: The same name, with its place if several chips have that name.
        place: Name of the device, as ``1-0040`` or ``0000:03:00.0``.
        source: Provenance of its readings.
    """

    path: Path
    device: Path
    name: str
    title: str
    place: str
    source: str

    @property
    def chip(self) -> str:
        """The place in the form that channels have it."""
        if re.fullmatch(r"\d+-[0-9a-f]{4}", self.place):
            return f"i2c {self.place}"
        return f"pci {self.place}" if re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:\S+", self.place) else self.place


class _Power(NamedTuple):
    """One power or energy of a chip.

    Attributes:
        chip: The chip.
        channel: Its channel.
        nodes: The file with its value, or the files of a voltage and a current, which are multiplied.
        inside: The channel that contains it.
    """

    chip: _Chip
    channel: Channel
    nodes: tuple[Path, ...]
    inside: Channel | None = None


class PairSensor(FileSensor):
    """Power of a chip that measures only voltage and current: the product of two files for each channel."""

    def __init__(self, channels: Sequence[Channel], pairs: Sequence[tuple[NumberFile, NumberFile]]) -> None:
        super().__init__(NAME, channels, [file for pair in pairs for file in pair])
        self._pairs = tuple(pairs)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        for index, (volts, amperes) in enumerate(self._pairs):
            before = time.monotonic()
            factors = volts.number(), amperes.number()
            # The product of two registers without a reading could look like a power.
            values[index] = factors[0] * factors[1] if SENTINELS.isdisjoint(factors) else math.nan
            times[index] = 0.5 * (before + time.monotonic())


def find(roots: Roots) -> list[Sensor]:
    """Make a sensor for the powers and energies of each chip, and one for its temperatures."""
    zones = {
        (text_of(zone / "type") or "").replace("-", "_")
        for zone in listing(roots.sysfs / "class/thermal")
        if zone.name.startswith("thermal_zone")
    }
    chips = _find_chips(roots)
    powers = _distinct_names([power for chip in chips for power in _chip_powers(chip)], roots)
    sensors: list[Sensor] = []
    for chip in chips:
        sensors += _power_sensors([power for power in powers if power.chip is chip])
        if chip.name not in zones:
            sensors += _chip_temperatures(chip)
    silent = silent_cards(roots.sysfs, {power.chip.place for power in powers})
    if silent:
        sensors.append(FileSensor(NAME, [], [], [_silent_card(card) for card in silent]))
    return sensors


def _silent_card(card: Card) -> Channel:
    """A channel for a card whose power is not measured, so that a total can say that it leaves it out."""
    return Channel(
        NAME,
        card.title,
        "power",
        scope=card.scope,
        additive=False,
        location=f"pci {card.place}",
        chip=f"pci {card.place}",
        available=False,
        reason="its driver does not report power",
    )


def _find_chips(roots: Roots) -> list[_Chip]:
    paths = listing(roots.sysfs / "class/hwmon")
    names = [text_of(path / "name") or text_of(path / "device/name") or "" for path in paths]
    chips = []
    for path, name in zip(paths, names, strict=True):
        device = (path / "device").resolve()
        if not name or _ELSEWHERE.fullmatch(name) or (device / "online").exists() or (device / "capacity").exists():
            continue
        place = device.name if (path / "device").exists() else path.name
        title = name if names.count(name) == 1 else f"{name}@{place}"
        bare = not any(re.match(r"(power|energy|in|curr|temp)\d", entry.name) for entry in listing(path))
        chips.append(_Chip(device if bare else path, device, name, title, place, provenance(roots)))
    return chips


def _distinct_names(powers: list[_Power], roots: Roots) -> list[_Power]:
    """Make the names of the powers unique: a name that two chips use gets the chip's place."""
    powers = _acpi_powers(powers)
    channels = [power.channel for power in powers]
    origins = [Origin(c.name, c.chip, c.input) for c in channels]
    home = find_rails(identify_board(roots), dict(enumerate(origins)))
    names = distinct_names([c.name for c in channels], origins, keep=[i for i in range(len(channels)) if i in home])
    # An energy and a power of the same thing share a name; only channels of the same kind must have different names.
    renamed = {
        id(channel): name if _is_twin(channel, channels) else channel.name
        for channel, name in zip(channels, names, strict=True)
    }
    return [
        power._replace(
            channel=replace(
                power.channel,
                name=renamed[id(power.channel)],
                parent=None if power.inside is None else renamed.get(id(power.inside), power.inside.name),
            ),
        )
        for power in powers
    ]


def _is_twin(channel: Channel, channels: Sequence[Channel]) -> bool:
    return sum(other.key == channel.key for other in channels) > 1


def _acpi_powers(powers: list[_Power]) -> list[_Power]:
    """The powers, in which ACPI's meters, each a separate chip, are related to each other."""
    meters = [index for index, power in enumerate(powers) if power.chip.name == _ACPI]
    facts = acpi_meters([powers[index].channel.name for index in meters])
    channels = {
        index: replace(powers[index].channel, **{k: v for k, v in fact.items() if k != "inside"})
        for index, fact in zip(meters, facts, strict=True)
    }
    result = list(powers)
    for index, fact in zip(meters, facts, strict=True):
        around = channels[meters[fact["inside"]]] if "inside" in fact else None
        result[index] = powers[index]._replace(channel=channels[index], inside=around)
    return result


def _power_sensors(powers: Sequence[_Power]) -> list[Sensor]:
    """Make one sensor for powers with one file each, and one for those with a pair of files."""
    sensors: list[Sensor] = []
    files = [power for power in powers if len(power.nodes) == 1]
    problems = [trouble(power.nodes[0]) for power in files]
    readable = [power for power, problem in zip(files, problems, strict=True) if problem is None]
    refused = [
        replace(power.channel, available=False, reason=problem[0], remedy=problem[1])
        for power, problem in zip(files, problems, strict=True)
        if problem is not None
    ]
    if files:
        channels = [power.channel for power in readable]
        sensors.append(FileSensor(NAME, channels, [NumberFile(p.nodes[0], 1e-6) for p in readable], refused))
    pairs = [power for power in powers if len(power.nodes) > 1]
    if pairs:
        nodes = [(NumberFile(p.nodes[0], 1e-3), NumberFile(p.nodes[1], 1e-3)) for p in pairs]
        sensors.append(PairSensor([power.channel for power in pairs], nodes))
    return sensors


def _chip_powers(chip: _Chip) -> list[_Power]:
    """The powers and energies of a chip, else the products of its voltages and currents."""
    inputs = [*_of_kind(chip, "power"), *_of_kind(chip, "energy")]
    return inputs or _volt_ampere_pairs(chip)


def _of_kind(chip: _Chip, kind: str) -> list[_Power]:
    numbers = _input_numbers(chip.path, rf"{kind}(\d+)_(?:input|average)")
    labels = [text_of(chip.path / f"{kind}{number}_label") or "" for number in numbers]
    facts = relations(chip.name, chip.device, labels)
    powers = [
        _best_power(chip, kind, number, alone=len(numbers) == 1, facts=fact)
        for number, fact in zip(numbers, facts, strict=True)
    ]
    return [
        power if "inside" not in fact else power._replace(inside=powers[fact["inside"]].channel)
        for power, fact in zip(powers, facts, strict=True)
    ]


def _best_power(chip: _Chip, kind: str, number: int, *, alone: bool, facts: dict[str, Any]) -> _Power:
    """One power or energy, from the best of the files that show it."""
    node, average = chip.path / f"{kind}{number}_input", chip.path / f"{kind}{number}_average"
    averaged = average.exists() and (not node.exists() or trouble(node) is not None)
    node = average if averaged else node
    name = _input_label(chip, f"{kind}{number}", alone=alone)
    base = Channel(NAME, name, "power")
    if kind == "energy":
        base = Channel(
            NAME, name, "energy", kind="counter", plausible=(0.0, math.inf), resolution=1e-6, gain_limit=0.05
        )
    base = replace(
        base,
        chip=chip.chip,
        input=number,
        label=text_of(chip.path / f"{kind}{number}_label") or text_of(chip.path / "label"),
        limit_w=_power_limit(chip.path, number),
        **{key: value for key, value in facts.items() if key != "inside"},
    )
    socket = re.fullmatch(r"Esocket(\d+)", base.label or "")
    if socket:
        base = replace(base, chip=f"cpu {socket[1]}", input=None)  # a socket is not a chip with inputs
    return _Power(chip, _annotated_channel(chip, base, node, averaged), (node,))


def _power_limit(path: Path, number: int) -> float | None:
    """The largest plausible power (W), from its limits, with a margin for the time before they act; None if unknown."""
    limits = [number_of(path / f"power{number}_{what}", 1e-6) or 0.0 for what in ("rated_max", "cap_max", "max")]
    return 3 * max(limits) if 0 < max(limits) < _MOST_LIMIT_W else None


def _annotated_channel(chip: _Chip, channel: Channel, node: Path, averaged: bool) -> Channel:
    counts = channel.quantity == "energy"
    channel = replace(
        channel,
        location=f"{chip.name} {chip.place} {node.name}",
        provenance="simulated" if chip.source == "simulated" else "counter" if counts else "measured",
        update_interval_s=number_of(chip.path / "update_interval", 1e-3),
    )
    interval = number_of(node.with_name(f"{node.name}_interval"), 1e-3) if averaged else None
    block = Filter("block", length_s=interval) if interval else INSTANTANEOUS
    if chip.name == "amdgpu" and not counts:
        return replace(channel, gain_limit=0.05, filter=block, **amdgpu(chip.path, channel.label or ""))
    if chip.name in {"i915", "xe"}:
        return replace(channel, gain_limit=0.05, filter=block)
    if chip.name == _ACPI:
        accuracy = re.fullmatch(r"([0-9.]+)\s*%", text_of(chip.path / f"power{channel.input}_accuracy") or "")
        limit = 1 - float(accuracy[1]) / 100 if accuracy else None
        return replace(channel, gain_limit=limit, update_interval_s=interval, filter=block)
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


def _volt_ampere_pairs(chip: _Chip) -> list[_Power]:
    """Pair voltages and currents: by their label, or by their number if all inputs have both and no label."""
    volts = {n: text_of(chip.path / f"in{n}_label") for n in _input_numbers(chip.path, r"in(\d+)_input")}
    amperes = {n: text_of(chip.path / f"curr{n}_label") for n in _input_numbers(chip.path, r"curr(\d+)_input")}
    powers = []
    for current, label in amperes.items():
        voltage = _voltage_partner(current, label, volts, amperes)
        nodes = chip.path / f"in{voltage}_input", chip.path / f"curr{current}_input"
        if voltage is None or trouble(nodes[0]) or trouble(nodes[1]):
            continue
        name = volts[voltage] if label == volts[voltage] else label and f"{chip.title} p{label[1:]}"
        channel = Channel(
            NAME,
            name or f"{chip.title} channel {current}",
            "power",
            provenance="simulated" if chip.source == "simulated" else "measured",
            update_interval_s=number_of(chip.path / "update_interval", 1e-3),
            location=f"{chip.name} {chip.place} in{voltage} × curr{current}",
            chip=chip.chip,
            input=current,
            label=label,
            additive=False,
        )
        powers.append(_Power(chip, channel, nodes))
    return powers


def _voltage_partner(
    current: int, label: str | None, volts: dict[int, str | None], amperes: dict[int, str | None]
) -> int | None:
    """The number of the voltage that belongs to a current; None if that is not certain."""
    if label is None:
        # Without any label and with one voltage for each current, in1 belongs to curr1. A further in0 is an input's.
        sure = not any(volts.values()) and set(volts) - {0} == set(amperes) - {0}
        return current if sure and current in volts else None
    if volts.get(current) in {label, None} and current in volts:
        return current if volts[current] == label or not any(volts.values()) else None
    if re.fullmatch(r"i(in|out)\d*", label):
        same = [number for number, text in volts.items() if text == f"v{label[1:]}"]
        return same[0] if len(same) == 1 else None
    return None


def _chip_temperatures(chip: _Chip) -> list[Sensor]:
    channels: list[Channel] = []
    files: list[NumberFile] = []
    numbers = _input_numbers(chip.path, r"temp(\d+)_input")
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


def _input_numbers(path: Path, pattern: str) -> list[int]:
    matches = (re.fullmatch(pattern, entry.name) for entry in listing(path))
    return sorted({int(match[1]) for match in matches if match})


def _input_label(chip: _Chip, node: str, *, alone: bool) -> str:
    label = text_of(chip.path / f"{node}_label") or text_of(chip.path / f"{node}_oem_info")
    whole = text_of(chip.path / "label")
    if whole and alone:
        return whole
    if label:
        return f"{whole or chip.title} {label}"
    return (whole or chip.title) if alone else f"{whole or chip.title} {node}"


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
