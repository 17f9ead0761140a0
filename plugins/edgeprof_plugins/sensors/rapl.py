"""RAPL: energy counters of Intel and AMD processors, in the powercap tree.

``/sys/class/powercap/intel-rapl:P[:S]/{name,energy_uj,max_energy_range_uj}`` (the name is the same on AMD). Unit: µJ.
The numbers P and S are hexadecimal and count zones, not sockets; the file ``name`` says what a zone is. Refresh: about
1 ms. Wraps at ``max_energy_range_uj`` (often 2^32 × 61 µJ: 67 min at 65 W). Nesting: core and uncore are inside their
package; dram is outside of it; psys contains all (what it covers is decided by the maker of the machine, mostly
everything behind its power input). AMD has only package and core. A zone with another name is listed and never added.
Traps: since Linux 5.10 only root may read ``energy_uj`` (PLATYPUS, CVE-2020-8694), and it should never be opened to
everybody; ``intel-rapl-mmio`` shows package 0 a second time, or is the only interface if the MSR is locked; two dies of
a Threadripper show the same counter; psys may exist and never move; containers hide the tree; virtual machines have
none. Sources: Documentation/power/powercap/powercap.rst, drivers/powercap/{powercap_sys,intel_rapl_common}.c; Intel
SDM, vol. 3, 15.10.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from edgeprof import hookimpl
from edgeprof.sensing.file_sensor import FileSensor
from edgeprof.sensing.files import NumberFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "rapl"
#: The rule that lets one group, and nobody else, read the counters; ``edgeprof doctor`` offers to install it.
UDEV_RULE = (
    'SUBSYSTEM=="powercap", ACTION=="add", KERNEL=="intel-rapl:*", '
    "RUN+=\"/bin/sh -c 'chgrp edgeprof /sys%p/energy_uj && chmod 0440 /sys%p/energy_uj'\"\n"
)
REMEDY = "Run as root, or let one group read it: sudo edgeprof doctor --fix-udev"
_ZONE = re.compile(r"(intel-rapl(?:-[a-z]+)?):([0-9a-f]+)(?::([0-9a-f]+))?")
#: The usual energy unit (2^-14 J); the dram counters of servers have a unit of 15.3 µJ.
_STEP_J = 2.0**-14
#: Gain error of the model behind the counters: 3 to 5 % against meters on Haswell and later (Khan et al., RAPL in
#: Action, 2018).
_GAIN_LIMIT = 0.05
#: The energy of memory is modelled from the activity of its controller. Compared with shunt amplifiers on the modules
#: it has an offset of 0.5 to 2.2 W and a slope below 1 (Broadwell-EP −10 to +33 %, Ice Lake-SP +8 to +157 %;
#: lukalt/icpe-2024-rapl-validation). A processor with graphics (a client) has at most two modules.
_DRAM_GAIN_LIMIT, _DRAM_OFFSET_W, _DRAM_OFFSET_CLIENT_W = 0.3, 2.0, 0.5
_SCOPES = {"package": "package", "core": "cpu", "uncore": "gpu", "dram": "memory", "psys": "board"}
#: Largest plausible power of a processor as a multiple of its rated power, and smallest such limit (W).
_PEAK_FACTOR, _SMALLEST_LIMIT_W = 10.0, 200.0


class _Zone(NamedTuple):
    """One zone of the tree.

    Attributes:
        path: Directory of the zone.
        domain: ``package``, ``core``, ``dram``, ``psys`` …
        name: Name of its channel, as ``package-0`` or ``core-0``.
        package: Name of the package that it belongs to; None if it belongs to none.
    """

    path: Path
    domain: str
    name: str
    package: str | None


def find(roots: Roots) -> list[Sensor]:
    """Make the RAPL sensor; counters that cannot be read are listed with the reason. Without powercap there is none."""
    zones, hidden = _find_zones(roots)
    channels: dict[str, tuple[Channel, NumberFile]] = {}
    for zone in zones:
        channel = _zone_channel(zone, roots, is_client=any(other.domain == "uncore" for other in zones))
        file = NumberFile(zone.path / "energy_uj", 1e-6)
        other = channels.get(zone.name)
        # Two interfaces may show the same counter; the second is used only if the first has no value.
        if other is None or (channel.available and not _tells_energy(*other) and _tells_energy(channel, file)):
            channels[zone.name] = channel, file
    if hidden and not channels:
        channels["package-0"] = _hidden_channel(), NumberFile(roots.sysfs / "class/powercap")
    if not channels:
        return []
    readable = [(channel, file) for channel, file in channels.values() if channel.available]
    refused = [channel for channel, _ in channels.values() if not channel.available]
    return [FileSensor(NAME, [c for c, _ in readable], [f for _, f in readable], refused)]


def _find_zones(roots: Roots) -> tuple[list[_Zone], bool]:
    """All zones, those of the MSR before those of other interfaces, and whether some zones cannot be accessed."""
    entries = [(path, match) for path in listing(roots.sysfs / "class/powercap") if (match := _match_zone(path))]
    entries.sort(key=lambda entry: (entry[1][1] != "intel-rapl", entry[1][1], _zone_order(entry[1])))
    names = {path.name: text_of(path / "name") for path, _ in entries}
    zones = []
    namesakes: Counter[tuple[str, str]] = Counter()
    for path, match in entries:
        kind = names[path.name]
        if kind is None:
            continue
        above = names.get(f"{match[1]}:{match[2]}") if match[3] is not None else None
        package = above if above is not None and above.startswith("package-") else None
        # A zone inside the package "package-0" has that package's number; psys has its own number.
        number = (above or "").removeprefix("package-") or str(int(match[2], 16))
        name = kind if match[3] is None else f"{kind}-{number}"
        # Zones of one interface are counters of their own, whatever they are called: older kernels give the psys of
        # each socket one name, newer ones call the second "psys-1".
        namesakes[match[1], name] += 1
        if (number_before := namesakes[match[1], name] - 1) > 0:
            name = f"{name}-{number_before}"
        zones.append(_Zone(path, kind.split("-", 1)[0], name, package))
    return zones, any(name is None for name in names.values())


def _match_zone(path: Path) -> re.Match[str] | None:
    return _ZONE.fullmatch(path.name)


def _zone_order(match: re.Match[str]) -> tuple[int, int]:
    return int(match[2], 16), -1 if match[3] is None else int(match[3], 16)


def _tells_energy(channel: Channel, file: NumberFile) -> bool:
    """Whether a counter can be read and is above 0."""
    value = file.number() if channel.available else 0.0
    file.close()
    return value > 0


def _zone_channel(zone: _Zone, roots: Roots, *, is_client: bool) -> Channel:
    is_memory = zone.domain == "dram"
    energy = zone.path / "energy_uj"
    reason, remedy = trouble(energy) or (None, None)
    if reason is not None and "not readable by this user" in reason:
        reason, remedy = f"{energy} is readable by root only", REMEDY
    wrap = number_of(zone.path / "max_energy_range_uj", 1e-6)
    inside = zone.package if zone.domain not in {"dram", "psys", "package"} else None
    counted = zone.domain in {"package", "dram"}
    package = zone.name if zone.domain == "package" else zone.package
    return Channel(
        NAME,
        zone.name,
        "energy",
        kind="counter",
        scope=_SCOPES.get(zone.domain, "unknown"),
        role="total" if zone.domain == "psys" else "part",
        parent=inside,
        provenance=provenance(roots, "estimated" if is_memory else "counter"),
        resolution=_STEP_J,
        gain_limit=_DRAM_GAIN_LIMIT if is_memory else _GAIN_LIMIT,
        offset_limit=(_DRAM_OFFSET_CLIENT_W if is_client else _DRAM_OFFSET_W) if is_memory else None,
        update_interval_s=1e-3,
        wrap=wrap,
        plausible=(0.0, wrap or float("inf")),
        location=zone.path.name,
        chip=f"cpu {package.removeprefix('package-')}" if package else "",
        additive=counted,
        limit_w=_rated_limit(zone) if zone.domain == "package" else None,
        note=_zone_note(zone),
        available=reason is None,
        reason=reason,
        remedy=remedy,
    )


def _zone_note(zone: _Zone) -> str:
    if zone.domain == "psys":
        return "the maker of the machine decides what psys covers; a graphics card may be outside"
    if zone.domain == "dram":
        return "an estimate of the memory's power, with errors of a watt or two and of a third"
    return "" if zone.domain in _SCOPES else "the kernel's name of the zone does not say what it covers"


def _rated_limit(zone: _Zone) -> float | None:
    """The largest plausible power of a package (W), from its rated power; None if the driver does not know that."""
    rated = [number_of(zone.path / f"constraint_{i}_max_power_uw", 1e-6) or 0.0 for i in range(3)]
    return max(_PEAK_FACTOR * max(rated), _SMALLEST_LIMIT_W) if max(rated) > 0 else None


def _hidden_channel() -> Channel:
    return Channel(
        NAME,
        "package-0",
        "energy",
        kind="counter",
        scope="package",
        role="part",
        additive=True,
        location="class/powercap",
        available=False,
        reason="powercap is hidden: this container masks /sys/devices/virtual/powercap",
        remedy="As root: docker run -v /sys/devices/virtual/powercap:/sys/devices/virtual/powercap:ro …",
    )


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
