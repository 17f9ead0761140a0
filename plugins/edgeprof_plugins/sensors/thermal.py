"""Temperatures of thermal zones and of the Coral Edge TPU.

``/sys/class/thermal/thermal_zoneN/{type,temp}`` and ``/sys/class/apex/apex_N/temp`` (out-of-tree gasket driver; only
PCIe and M.2, the USB stick has none). Unit: m°C. Refresh: on reading, or by the driver's polling of about 1 s.
Traps: a zone whose unit is powered off answers EAGAIN or EINVAL (Orin's cv0..2, Thor's gpu); JetPack 4's ``PMIC-Die``
is a constant 100 °C; −256 °C and other impossible values mean offline; ``tj-thermal`` is the largest of the others and
not a sensor; x86's ``acpitz`` is a value of the firmware that may be wrong. A zone that fails does not affect others.
Sources: Documentation/driver-api/thermal/sysfs-api.rst; jetson_stats core/temperature.py; Coral's documentation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.sensing.file_sensor import FileSensor
from edgeprof.sensing.files import NumberFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "thermal"
_PLAUSIBLE = (-55.0, 150.0)
_NOTES = {"tj-thermal": "the largest of the other zones", "acpitz": "a value of the firmware"}
_SCOPES = (("cpu", "cpu"), ("x86_pkg", "cpu"), ("gpu", "gpu"), ("soc", "soc"), ("tj", "soc"), ("tboard", "board"))


def find(roots: Roots) -> list[Sensor]:
    """Make one sensor with all zones that can be read, and the reasons why the others cannot."""
    places = [
        (text_of(zone / "type") or zone.name, zone / "temp")
        for zone in listing(roots.sysfs / "class/thermal")
        if re.fullmatch(r"thermal_zone\d+", zone.name)
    ]
    places += [(f"Edge TPU {apex.name}", apex / "temp") for apex in listing(roots.sysfs / "class/apex")]
    names = [name for name, _ in places]
    channels: list[Channel] = []
    files: list[NumberFile] = []
    refused: list[Channel] = []
    for name, path in places:
        unique = name if names.count(name) == 1 else f"{name} {path.parent.name}"
        reason = _refusal_of(name, path)
        channel = Channel(
            NAME,
            unique,
            "temperature",
            scope=_zone_scope(name),
            provenance=provenance(roots),
            plausible=_PLAUSIBLE,
            location=path.parent.name,
            note=_NOTES.get(name, ""),
            available=reason is None,
            reason=reason,
        )
        if reason is None:
            channels.append(channel)
            files.append(NumberFile(path, 1e-3))
        else:
            refused.append(channel)
    return [FileSensor(NAME, channels, files, refused)] if channels or refused else []


def _refusal_of(name: str, path: Path) -> str | None:
    if name == "PMIC-Die":
        return "a constant, not a sensor"
    problem = trouble(path)
    if problem is not None:
        return problem[0]
    celsius = number_of(path, 1e-3)
    if celsius is None or not _PLAUSIBLE[0] <= celsius <= _PLAUSIBLE[1]:
        return f"offline: it reads {celsius:g} °C" if celsius is not None else "it contains no number"
    return None


def _zone_scope(name: str) -> str:
    lower = name.lower()
    if lower.startswith("edge tpu"):
        return "accelerator"
    return next((scope for start, scope in _SCOPES if start in lower), "unknown")


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
