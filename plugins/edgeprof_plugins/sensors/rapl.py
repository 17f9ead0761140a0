"""RAPL: energy counters of Intel and AMD processors, by the powercap tree.

``/sys/class/powercap/intel-rapl:P[:S]/{name,energy_uj,max_energy_range_uj}`` (the name is the same on AMD). Unit: µJ.
Refresh: about 1 ms. Wraps at ``max_energy_range_uj`` (often 2^32 × 61 µJ: 67 min at 65 W).
Nesting: core and uncore are inside their package; dram is beside it; psys is around all (what it covers is up to the
maker of the machine, mostly everything behind its power input). AMD has package and core only.
Traps: ``energy_uj`` is readable by root only since Linux 5.10 (PLATYPUS, CVE-2020-8694), and should never be made
readable by everybody; ``intel-rapl-mmio`` shows package 0 a second time; virtual machines have none.
Sources: Documentation/power/powercap/powercap.rst, drivers/powercap/intel_rapl_common.c; Intel SDM vol. 3, 15.10.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.sensing.files import FileSensor, NumberFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "rapl"
#: What lets one group read the counters, and nobody else; ``edgeprof doctor`` offers to write it.
UDEV_RULE = (
    'SUBSYSTEM=="powercap", ACTION=="add", KERNEL=="intel-rapl:*", '
    "RUN+=\"/bin/sh -c 'chgrp edgeprof /sys%p/energy_uj && chmod 0440 /sys%p/energy_uj'\"\n"
)
REMEDY = "Run as root, or let one group read it: sudo edgeprof doctor --fix-udev"
#: The usual energy unit (2^-14 J); servers' dram counts in 15.3 µJ.
_STEP_J = 2.0**-14
#: A model, not a shunt: 3 to 5 % against meters on Haswell and later (Khan et al., RAPL in Action, 2018).
_GAIN_LIMIT = 0.05
_SCOPES = {"package": "package", "core": "cpu", "uncore": "gpu", "dram": "memory", "psys": "board"}


def find(roots: Roots) -> list[Sensor]:
    """The one RAPL sensor, empty-handed but with reasons where its counters may not be read; none without powercap."""
    readable: list[tuple[Channel, NumberFile]] = []
    refused: list[Channel] = []
    for zone in listing(roots.sysfs / "class/powercap"):
        # intel-rapl-mmio:0 is the same package by another door.
        match = re.fullmatch(r"intel-rapl:(\d+)(?::(\d+))?", zone.name)
        kind = text_of(zone / "name") if match else None
        if match is None or kind is None:
            continue
        channel = _channel(zone, kind, match[1], roots)
        if channel.available:
            readable.append((channel, NumberFile(zone / "energy_uj", 1e-6)))
        else:
            refused.append(channel)
    if not readable and not refused:
        return []
    return [FileSensor(NAME, [c for c, _ in readable], [f for _, f in readable], refused)]


def _channel(zone: Path, kind: str, socket: str, roots: Roots) -> Channel:
    domain = kind.split("-", 1)[0]
    nested = zone.name.count(":") > 1
    name = f"{kind}-{_package(zone, socket)}" if nested else kind
    problem = trouble(zone / "energy_uj")
    reason, remedy = problem or (None, None)
    if reason is not None and "not readable by this user" in reason:
        reason, remedy = f"{zone / 'energy_uj'} is readable by root only", REMEDY
    wrap = number_of(zone / "max_energy_range_uj", 1e-6)
    return Channel(
        NAME,
        name,
        "energy",
        kind="counter",
        scope=_SCOPES.get(domain, "unknown"),
        role="total" if domain == "psys" else "part",
        parent=f"package-{_package(zone, socket)}" if domain in {"core", "uncore"} and nested else None,
        provenance=provenance(roots, "counter"),
        resolution=_STEP_J,
        gain_limit=_GAIN_LIMIT,
        update_interval_s=1e-3,
        wrap=wrap,
        plausible=(0.0, wrap or float("inf")),
        location=zone.name,
        note="what psys covers is up to the maker of the machine" if domain == "psys" else "",
        available=reason is None,
        reason=reason,
        remedy=remedy,
    )


def _package(zone: Path, socket: str) -> str:
    """The package's number, as its own name says it (zones are counted in another order where a socket is absent)."""
    parent = text_of(zone.parent / f"intel-rapl:{socket}" / "name") or ""
    return parent.removeprefix("package-") if parent.startswith("package-") else socket


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
