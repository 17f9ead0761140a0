"""One inventory of devices, and from it what Prometheus scrapes (file_sd)."""

from __future__ import annotations

import difflib
import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import InputError
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Where the daemon listens unless told otherwise (edgeprof_exporters.configuration.DEFAULT_PORT; a test compares).
DEFAULT_PORT = 28283
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?")
#: Labels that Prometheus or this file gives.
_TAKEN = ("job", "instance", "le", "quantile")


class Device(NamedTuple):
    """One device.

    Attributes:
        name: Its label ``instance``.
        address: ``host:port``.
        labels: Further labels of all its series.
    """

    name: str
    address: str
    labels: dict[str, str]


def load(path: Path) -> list[Device]:
    """The devices of an inventory file (TOML).

    Raises:
        InputError: it cannot be read, or says something that cannot be meant; the message names the device.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be read as an inventory: {reason}") from None
    _check_keys(path, "", table, ("port", "labels", "devices"))
    port = _read_port(path, "port", table.get("port", DEFAULT_PORT))
    shared = _read_labels(path, "[labels]", table.get("labels", {}))
    entries = table.get("devices")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} names no devices", remedy='Each begins with [[devices]] and has name = "…".')
    devices = [_read_device(path, index, entry, port, shared) for index, entry in enumerate(entries, start=1)]
    for what, values in (("name", [d.name for d in devices]), ("address", [d.address for d in devices])):
        for value in values:
            if values.count(value) > 1:
                raise InputError(f"{path}: two devices have the {what} {value}", remedy="Their series would be mixed.")
    return devices


def targets(devices: list[Device]) -> str:
    """What Prometheus' file_sd reads: one group for each device."""
    groups = [{"targets": [d.address], "labels": {"instance": d.name, **d.labels}} for d in devices]
    return json.dumps(groups, indent=2, ensure_ascii=False) + "\n"


def write(path: Path, text: str) -> None:
    """Replace a file at once: Prometheus watches it and must never see half of it.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o644)  # Prometheus runs as another user
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _read_device(path: Path, index: int, entry: dict[str, Any], port: int, shared: dict[str, str]) -> Device:
    name = entry.get("name")
    where = f"device {name}" if isinstance(name, str) and name else f"device {index}"
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path}: {where} has no name", remedy='It becomes the label instance: name = "camera-7".')
    _check_keys(path, f"{where}: ", entry, ("name", "address", "labels"))
    address = entry.get("address", name)
    match = _HOST.fullmatch(address) if isinstance(address, str) else None
    if match is None:
        raise InputError(
            f"{path}: {where} has the address {address!r}, which is none",
            remedy="As in 192.0.2.17, camera-7.example:28283 or [2001:db8::17]:28283, without http://.",
        )
    number = _read_port(path, where, int(match["port"]) if match["port"] else port)
    labels = shared | _read_labels(path, where, entry.get("labels", {}))
    return Device(name, f"{match['host']}:{number}", labels)


def _read_port(path: Path, where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise InputError(f"{path}: {where}: {value!r} is no port (1 to 65535)")
    return value


def _read_labels(path: Path, where: str, table: object) -> dict[str, str]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: {where}: labels should be a table, as {{ site = 'hall-3' }}")
    for label, value in table.items():
        if not _LABEL.fullmatch(label) or label.startswith("__"):
            raise InputError(f"{path}: {where}: {label!r} is no label name", remedy="Letters, digits and _ only.")
        if label in _TAKEN or label.startswith("edgeprof"):
            raise InputError(f"{path}: {where}: the label {label} is given by Prometheus or edgeprof")
        if not isinstance(value, str):
            raise InputError(f"{path}: {where}: the label {label} should be a text", remedy=f'{label} = "{value}"')
    return dict(table)


def _check_keys(path: Path, where: str, table: dict[str, Any], valid: tuple[str, ...]) -> None:
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise InputError(f"{path}: {where}nothing is called {key}", remedy=f"{hint}Known: {', '.join(valid)}.")
