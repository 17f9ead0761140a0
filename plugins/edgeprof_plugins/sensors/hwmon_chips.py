"""Data on well-known hwmon chips: what each of their powers covers, and which powers contain others.

Sources: Documentation/hwmon/{acpi_power_meter,corsair-psu,pmbus,fam15h_power,ibmpowernv}.rst; the drivers amdgpu
(amdgpu_pm.c), xe_hwmon.c, i915_hwmon.c, macsmc-hwmon.c, acpi_power_meter.c; amd/amd_energy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


class Fact(NamedTuple):
    """The meaning of a label of a chip.

    Attributes:
        label: Pattern that the whole label must match; case is ignored.
        scope: What the power covers.
        role: ``total`` if the power covers its whole scope by itself.
        inside: Pattern of the label, on the same chip, of the power that contains it.
        additive: Whether it may be added to the machine's other additive powers.
    """

    label: str
    scope: str = "unknown"
    role: str | None = None
    inside: str | None = None
    additive: bool = False


#: Pattern of the chip's name → the meanings of its labels; the first that matches counts.
_CHIPS: dict[str, tuple[Fact, ...]] = {
    r"macsmc.*": (
        Fact("Total System Power", "board", "total"),
        Fact("AC Input Power", "wall"),
        Fact(".*", "system", inside="Total System Power"),
    ),
    r"corsairpsu": (Fact("power total", "board", "total"), Fact(r"power \+.*", "system", inside="power total")),
    r"ibmpowernv|occ": (Fact("System", "board", "total"), Fact(".*", inside="System")),
    r"amd_energy|zenergy": (
        Fact(r"Esocket\d+", "package", additive=True),
        Fact(r"Ecore\d+", "cpu", inside=r"Esocket\d+"),
    ),
    r"fam15h_power": (Fact(".*", "package", additive=True),),
    r"xe|i915": (Fact("pkg", "gpu", inside="card", additive=True), Fact(".*", "gpu", additive=True)),
    r"nouveau": (Fact(".*", "gpu", additive=True),),
}
#: Labels of supplies and converters on PMBus, for any name of the chip: input power and output power.
_PMBUS = (Fact(r"pin\d*", "unknown"), Fact(r"pout\d*", "unknown", inside=r"pin\d*"))
#: PCI classes (the first byte) of devices whose single power is that of the whole card.
_PCI_CLASSES = {"0x03": "gpu", "0x12": "accelerator"}
#: PCI vendors whose display controller is the console of a board (ASPEED, Matrox) or of a virtual machine.
_CONSOLES = {"0x1a03", "0x102b", "0x1234", "0x1af4", "0x15ad", "0x1b36", "0x1013", "0x80ee", "0x1414"}
#: Words in the names of ACPI power meters that mean the whole machine, the strongest first.
_WHOLE = (r"total", r"system|platform|chassis|server|node", r"input|supply")
#: The name of a meter of one socket, as on NVIDIA's Grace, and words of the meters that contain others of a socket.
_SOCKET = re.compile(r"\bsocket\s*(\d+)", re.IGNORECASE)
_SOCKET_WHOLE = (r"\bmodule\b", r"\b(grace|package|total)\b")
_METER_SCOPES = ((r"cpu|processor", "package"), (r"mem|dimm|dram", "memory"), (r"gpu", "gpu"))


class Card(NamedTuple):
    """A graphics card or an accelerator on the PCI bus."""

    place: str
    scope: str
    title: str


def silent_cards(sysfs: Path, telling: Collection[str]) -> list[Card]:
    """List the cards whose power no hwmon chip measures; a processor's own graphics are part of its package.

    Args:
        sysfs: The root of /sys.
        telling: Places of the chips that measure power.
    """
    cards = []
    for device in listing(sysfs / "bus/pci/devices"):
        scope = _PCI_CLASSES.get((text_of(device / "class") or "")[:4])
        vendor = text_of(device / "vendor") or ""
        integrated = vendor == "0x8086" and device.name.endswith(":00:02.0")
        apu = vendor == "0x1002" and not list((device / "hwmon").glob("hwmon*/power1_cap"))
        if scope is None or vendor in _CONSOLES or integrated or apu or device.name in telling:
            continue
        driver = (device / "driver").resolve().name if (device / "driver").exists() else "no driver"
        cards.append(Card(device.name, scope, f"{driver} {device.name}"))
    return cards


def relations(chip: str, device: Path, labels: Sequence[str]) -> list[dict[str, Any]]:
    """For each label of a chip, its known facts as fields of a Channel; ``inside`` is a position in the list.

    Args:
        chip: The chip's name.
        device: The device's directory.
        labels: Labels of its powers, or of its energies.
    """
    block = next((facts for name, facts in _CHIPS.items() if re.fullmatch(name, chip)), _PMBUS)
    result: list[dict[str, Any]] = []
    for label in labels:
        fact = next((fact for fact in block if _label_fits(fact.label, label)), None)
        if fact is None:
            scope = _PCI_CLASSES.get((text_of(device / "class") or "")[:4])
            result.append({"scope": scope, "additive": True} if scope and len(labels) == 1 else {"additive": False})
            continue
        inside = _containing_label(fact, label, labels)
        result.append(
            {
                "scope": fact.scope,
                "role": fact.role,
                "additive": fact.additive and inside is None,
                **({"inside": inside} if inside is not None else {}),
            }
        )
    return result


def _containing_label(fact: Fact, label: str, labels: Sequence[str]) -> int | None:
    """The position of the label that contains this one; of several sockets, the one that the core belongs to."""
    around = [i for i, other in enumerate(labels) if fact.inside and _label_fits(fact.inside, other) and other != label]
    if len(around) < 2:
        return around[0] if around else None
    alike = sum(_label_fits(fact.label, other) for other in labels)
    number = re.search(r"\d+$", label)
    return around[min(len(around) - 1, int(number[0]) * len(around) // alike)] if number else None


def _label_fits(pattern: str, label: str) -> bool:
    return re.fullmatch(pattern, label, re.IGNORECASE) is not None


def amdgpu(path: Path, label: str) -> dict[str, Any]:
    """Find out whether an amdgpu is a card or an APU, whose power includes that of the CPU cores.

    Only an APU has the voltage of a northbridge, or a slow and a fast limit. Otherwise only a card has a power cap.
    """
    is_apu = text_of(path / "in1_label") == "vddnb" or label.lower() in {"slowppt", "fastppt"}
    if is_apu:
        place = {"chip": "cpu 0", "input": None}
        return {"scope": "package", "additive": True, "note": "an APU: the power includes its CPU cores", **place}
    cap = number_of(path / "power1_cap_max", 1e-6) or number_of(path / "power1_cap", 1e-6)
    if cap is None:
        return {"scope": "gpu", "additive": False, "note": "for an APU, the power includes the CPU cores"}
    return {"scope": "gpu", "additive": True, "limit_w": 3 * cap or None}


def acpi_meters(names: Sequence[str]) -> list[dict[str, Any]]:
    """Find out what each ACPI power meter of a machine covers, from the names that its maker gave them.

    A single meter measures the whole machine. Of several meters, one measures the whole machine if its name says so
    more strongly than any other; the others are then inside it. If the names do not say it, no meter is taken for the
    whole.
    """
    if len(names) == 1:
        return [{"scope": "board", "role": "total", "additive": False}]
    sockets = [match[1] if (match := _SOCKET.search(name)) else None for name in names]
    if None not in sockets:
        return _socket_meters(names, sockets)
    ranks = [next((i for i, words in enumerate(_WHOLE) if re.search(words, name.lower())), None) for name in names]
    best = min((rank for rank in ranks if rank is not None), default=None)
    whole = ranks.index(best) if best is not None and ranks.count(best) == 1 else None
    facts: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        scope = next((scope for words, scope in _METER_SCOPES if re.search(words, name.lower())), "unknown")
        if index == whole:
            facts.append({"scope": "board", "role": "total", "additive": False})
        elif whole is not None:
            facts.append({"scope": scope, "additive": False, "inside": whole})
        else:
            note = "the names of this machine's power meters do not say which one contains the others"
            facts.append({"scope": "unknown", "additive": False, "note": note})
    return facts


def _socket_meters(names: Sequence[str], sockets: Sequence[str | None]) -> list[dict[str, Any]]:
    """Relate the meters of each socket: the module contains the processor, and the processor contains its parts."""
    ranks = [
        next((rank for rank, words in enumerate(_SOCKET_WHOLE) if re.search(words, name, re.IGNORECASE)), len(names))
        for name in names
    ]
    facts: list[dict[str, Any]] = []
    for index, (name, socket) in enumerate(zip(names, sockets, strict=True)):
        around = [i for i, other in enumerate(sockets) if other == socket and ranks[i] < ranks[index]]
        scope = next((scope for words, scope in _METER_SCOPES if re.search(words, name.lower())), "unknown")
        if around:
            facts.append({"scope": scope, "additive": False, "inside": max(around, key=lambda i: ranks[i])})
        elif ranks[index] == 0:
            facts.append({"scope": "module", "role": "total", "additive": True})
        elif ranks[index] == 1:
            facts.append({"scope": "package", "additive": True})
        else:
            note = "the names of this socket's power meters do not say which one contains the others"
            facts.append({"scope": scope, "additive": False, "note": note})
    return facts
