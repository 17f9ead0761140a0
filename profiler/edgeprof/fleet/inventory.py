"""The inventory: the devices that Prometheus scrapes and a fleet measures, in one TOML file."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import toml_files, units
from edgeprof.errors import InputError, printable, unknown
from edgeprof.fleet import protocol
from edgeprof.results import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The exporter's default port (edgeprof_exporters.configuration.DEFAULT_PORT; a test compares the two).
DEFAULT_PORT = 28283
#: A name is a label's value, a row's title and a word of ``--on``, where commas separate names.
_LONGEST_NAME = 100
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?")
#: A destination for ssh: a host, user@host, an alias of its configuration or ssh://…; never an option.
_DESTINATION = re.compile(r"(ssh://)?\w[\w.@:%\[\]-]*")
#: The address of a scheduler. Only TLS: a plain connection would let anybody run programs on every host.
_SCHEDULER = re.compile(r"tls://(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}")
_OWNERS_NAME = re.compile(protocol.MCU_NAME)
_PUBLIC_KEY = re.compile(r"[\w@.-]+ [A-Za-z0-9+/]+=*( [^\n]*)?")
#: Labels that Prometheus or edgeprof sets.
_TAKEN = ("job", "instance", "le", "quantile")
_KEYS = (
    "name",
    "address",
    "labels",
    "ssh",
    "kind",
    "board",
    "machine",
    "power_mode",
    "rest",
    "start_below",
    "signed_by",
    "mcu",
    "meter",
)


@dataclass(frozen=True)
class Engine:
    """The table ``[engine]``: the cluster whose hosts hold the devices.

    Attributes:
        scheduler: The address of the scheduler, as ``tls://server.example:8786``.
        certificates: The folder with this machine's certificate, its key and the authority (``tls.Certificates``).
        compress: Whether hosts make the variants of a study; otherwise the machine that runs the command does.
    """

    scheduler: str
    certificates: Path
    compress: bool = False


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: Its unique name, which is also its label ``instance``.
        host: Its address on the network.
        port: The port of its exporter.
        labels: Further labels of all its series.
        ssh: The destination for ``ssh``: a host, ``user@host``, or a name in the user's ssh configuration.
        kind: A word that the owner chooses, to select several devices together (``--on kind:pi5``).
        board: The expected board, which was recorded when the device was added.
        machine: The expected machine (``device.machine_name``).
        power_mode: The power mode in which it is measured; None for any.
        rest_s: How long it rests between two jobs, seconds.
        start_below_c: A job begins only below this temperature (°C).
        signed_by: The public key that signs its results, such as ``ssh-ed25519 AAAA…``; None if they need no signature.
        mcu: A microcontroller: its serial port on the machine that measures it, with ``@9600`` for another speed; or,
            with ``ssh``, the name that the owner of that board gave it in the door's configuration. None for a board.
        meter: The meter at a microcontroller's supply, as after ``--sensor``; None without one.
    """

    name: str
    host: str
    port: int = DEFAULT_PORT
    labels: dict[str, str] = field(default_factory=dict)
    ssh: str = ""
    kind: str | None = None
    board: str | None = None
    machine: str | None = None
    power_mode: str | None = None
    rest_s: float = 0.0
    start_below_c: float | None = None
    signed_by: str | None = None
    mcu: str | None = None
    meter: str | None = None

    @property
    def port_place(self) -> tuple[str, str] | None:
        """Where a microcontroller's port is: the board ("" for the machine that measures) and the port there."""
        if self.mcu is None:
            return None
        return (self.ssh, self.mcu) if self.ssh else ("", os.path.realpath(self.mcu.partition("@")[0]))

    @property
    def address(self) -> str:
        """``host:port`` of its exporter."""
        return f"{self.host}:{self.port}"


def load(path: Path) -> list[Device]:
    """Read the devices of an inventory file (TOML).

    Raises:
        InputError: The file cannot be read, or an entry is not valid; the message names the device.
    """
    try:
        table = toml_files.read(path)
    except InputError as error:
        reason = error.message.removeprefix(f"cannot read {path}: ").removeprefix(f"{path} ")
        raise InputError(f"{path} cannot be read as an inventory: {reason}", remedy=error.remedy) from None
    return _devices(path, table)


def _devices(path: Path, table: dict[str, Any]) -> list[Device]:
    """Return the devices in an inventory's content.

    Raises:
        InputError: See ``load``.
    """
    _check_keys(path, "", table, ("port", "labels", "engine", "devices"))
    port = _port(path, "port", table.get("port", DEFAULT_PORT))
    shared = _labels(path, "[labels]", table.get("labels", {}))
    entries = table.get("devices")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} names no devices", remedy='Each begins with [[devices]] and has name = "…".')
    devices = [_device(path, index, entry, port, shared) for index, entry in enumerate(entries, start=1)]
    _check_ports(path, devices)
    for what, values, why in (
        ("name", [d.name for d in devices], "Their series would be mixed."),
        ("address", [d.address for d in devices if d.mcu is None], "Their series would be mixed."),
        ("machine", [d.machine for d in devices if d.machine], "One device would be measured under two names."),
    ):
        for value in values:
            if values.count(value) > 1:
                who = [d.name for d in devices if getattr(d, what) == value and (d.mcu is None or what != "address")]
                both = f" ({' and '.join(who[:2])})" if what != "name" else ""
                raise InputError(f"{path}: two devices have the {what} {value}{both}", remedy=why)
    return devices


def _check_ports(path: Path, devices: Sequence[Device]) -> None:
    """
    Raises:
        InputError: Two devices are on one port.
    """
    ports: dict[tuple[str, str], str] = {}
    for device in devices:
        if device.port_place is None:
            continue
        other = ports.setdefault(device.port_place, device.name)
        if other != device.name:
            raise InputError(
                f"{path}: {other} and {device.name} are both on the port {device.mcu}",
                remedy="One device would be measured under two names. ls -l /dev/serial/by-id shows each one's own.",
            )


def load_engine(path: Path) -> Engine | None:
    """Read the table ``[engine]`` of an inventory; None without one, so that this machine reaches the devices itself.

    Raises:
        InputError: The file cannot be read, or the table is not valid.
    """
    entry = toml_files.read(path).get("engine")
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InputError(
            f"{path}: engine should be a table", remedy='[engine]\nscheduler = "tls://server.example:8786"'
        )
    _check_keys(path, "[engine]: ", entry, ("scheduler", "certificates", "compress"))
    scheduler = _text(path, "[engine]", entry, "scheduler")
    if scheduler is None or not _SCHEDULER.fullmatch(scheduler):
        raise InputError(
            f"{path}: [engine]: scheduler = {scheduler!r} is no address of a scheduler with TLS",
            remedy='As in scheduler = "tls://server.example:8786".',
        )
    compress = entry.get("compress", False)
    if not isinstance(compress, bool):
        raise InputError(f"{path}: [engine]: compress = {compress!r} is neither true nor false")
    folder = Path(_text(path, "[engine]", entry, "certificates") or "/etc/edgeprof/fleet").expanduser()
    return Engine(scheduler, path.absolute().parent / folder, compress)


def choose(devices: Sequence[Device], wanted: Iterable[str], path: Path) -> list[Device]:
    """Return the devices that ``--on`` names, in the inventory's order; all devices if it names none.

    Args:
        devices: The inventory.
        wanted: Names of devices, ``kind:NAME``, or several of these with commas between.
        path: The inventory's file, for messages.

    Raises:
        InputError: A name or a kind is not in the inventory, or two devices have the same ssh destination.
    """
    words = [word.strip() for text in wanted for word in text.split(",") if word.strip()]
    if not words:
        return _reached_apart(devices, path)
    chosen: set[str] = set()
    for word in words:
        prefix, colon, kind = word.partition(":")
        of_kind = {device.name for device in devices if colon and prefix == "kind" and device.kind == kind}
        named = {device.name for device in devices if device.name == word}
        if not of_kind | named:
            names = [device.name for device in devices]
            raise unknown(f"device of {path}", word, [*names, *{f"kind:{d.kind}" for d in devices if d.kind}])
        chosen |= of_kind | named
    return _reached_apart([device for device in devices if device.name in chosen], path)


def _reached_apart(devices: Sequence[Device], path: Path) -> list[Device]:
    """Check that each device has its own ssh destination, and return the devices.

    Raises:
        InputError: Two devices have the same ssh destination.
    """
    names: dict[str, str] = {}
    for device in devices:
        if device.mcu is not None:
            continue  # its board is another device, or this machine
        other = names.setdefault(device.ssh, device.name)
        if other != device.name:
            raise InputError(
                f"{path}: {other} and {device.name} are both reached by ssh {device.ssh}",
                remedy='One device would be measured under two names. Give each its own: ssh = "user@host".',
            )
    return list(devices)


def parse_device(
    name: str, address: str, ssh: str | None = None, kind: str | None = None, power_mode: str | None = None
) -> Device:
    """Make a device from texts of the command line.

    Raises:
        InputError: A text is not valid.
    """
    given = {"name": name, "address": address, "ssh": ssh, "kind": kind, "power_mode": power_mode}
    entry = {key: value for key, value in given.items() if value is not None}
    return _device(Path("edgeprof fleet add"), 1, entry, DEFAULT_PORT, {})


def add(path: Path, device: Device) -> None:
    """Add a device to the inventory file, which is created if absent; its present content is kept.

    Raises:
        InputError: See ``with_device``.
    """
    files.write(path, with_device(path, device))


def with_device(path: Path, device: Device) -> str:
    """Return the text of an inventory with a device added, after checking the whole text.

    Raises:
        InputError: The inventory cannot be read or written, or the device conflicts with another.
    """
    text = toml_files.read_text(path) if path.exists() else ""
    block = [f"name = {_quoted(device.name)}", f"address = {_quoted(device.address)}"]
    if device.ssh != device.host:
        block.append(f"ssh = {_quoted(device.ssh)}")
    for key in ("kind", "board", "machine", "power_mode"):
        value = getattr(device, key)
        if value is not None:
            block.append(f"{key} = {_quoted(value)}")
    whole = "\n".join([*([text.rstrip("\n"), ""] if text else []), "[[devices]]", *block, ""])
    files.check_writable(path)
    _devices(path, toml_files.parse(whole, path))
    return whole


def _quoted(text: str) -> str:
    """Quote a text for TOML, whose basic strings have the same escapes as JSON."""
    import json  # noqa: PLC0415 - needed only to add a device

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _device(path: Path, index: int, entry: dict[str, Any], port: int, shared: dict[str, str]) -> Device:
    name = entry.get("name")
    where = f"device {name[:_LONGEST_NAME]}" if isinstance(name, str) and name else f"device {index}"
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path}: {where} has no name", remedy='It becomes the label instance: name = "camera-7".')
    if len(name) > _LONGEST_NAME or name != name.strip() or name != printable(name) or set(name) & set("\t\n,"):
        raise InputError(
            f"{path}: device {index} has the name {name[:40]!r}, which cannot be used",
            remedy=f"Use at most {_LONGEST_NAME} characters, no comma or control character, and no space at the ends.",
        )
    _check_keys(path, f"{where}: ", entry, _KEYS)
    address = entry.get("address", name)
    match = _HOST.fullmatch(address) if isinstance(address, str) else None
    if match is None:
        raise InputError(
            f"{path}: {where} has the address {address!r}, which is none",
            remedy="As in 192.0.2.17, camera-7.example:28283 or [2001:db8::17]:28283, without http://.",
        )
    mcu, meter = _microcontroller(path, where, entry)
    destination = _text(path, where, entry, "ssh") or ("" if mcu else match["host"].strip("[]"))
    if destination and not _DESTINATION.fullmatch(destination):
        raise InputError(
            f"{path}: {where}: ssh = {destination!r} is nothing that ssh could reach",
            remedy='As in ssh = "bench@192.0.2.17", or a Host of your ~/.ssh/config.',
        )
    signed_by = _text(path, where, entry, "signed_by")
    if signed_by is not None and not _PUBLIC_KEY.fullmatch(signed_by):
        raise InputError(
            f"{path}: {where}: signed_by is no public key of OpenSSH", remedy='As in signed_by = "ssh-ed25519 AAAA…".'
        )
    return Device(
        name,
        match["host"],
        _port(path, where, int(match["port"]) if match["port"] else port),
        shared | _labels(path, where, entry.get("labels", {})),
        ssh=destination,
        kind=_text(path, where, entry, "kind"),
        board=_text(path, where, entry, "board"),
        machine=_text(path, where, entry, "machine"),
        power_mode=_text(path, where, entry, "power_mode"),
        rest_s=_quantity(path, where, entry, "rest") or 0.0,
        start_below_c=_quantity(path, where, entry, "start_below"),
        signed_by=signed_by,
        mcu=mcu,
        meter=meter,
    )


def _microcontroller(path: Path, where: str, entry: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the port and the meter of a microcontroller; None for each that is absent."""
    mcu, meter = _text(path, where, entry, "mcu"), _text(path, where, entry, "meter")
    if mcu is None:
        if meter is not None:
            raise InputError(f"{path}: {where}: meter is for microcontrollers", remedy='Add mcu = "/dev/ttyACM0".')
        return None, None
    if "ssh" not in entry:
        if not mcu.startswith("/"):
            raise InputError(
                f"{path}: {where}: mcu = {mcu!r} is no port of this machine",
                remedy='As in mcu = "/dev/serial/by-id/usb-…"; behind a board, add its ssh = "user@host".',
            )
        return mcu, meter
    if not _OWNERS_NAME.fullmatch(mcu):
        raise InputError(
            f"{path}: {where}: mcu = {mcu!r} is no name of a microcontroller behind {entry['ssh']}",
            remedy="Give the name that the door's configuration on that board has for it, under [microcontrollers].",
        )
    if meter is not None:
        raise InputError(
            f"{path}: {where}: the meter of a microcontroller behind a board is set on that board",
            remedy="Take meter out, and name it in the door's configuration there, under [meters].",
        )
    return mcu, meter


def _text(path: Path, where: str, entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise InputError(f"{path}: {where}: {key} should be a text", remedy=f'{key} = "{value}"')
    return value


#: Key of a quantity → its unit, its range, and an example.
_QUANTITIES = {"rest": ("s", 0.0, 3600.0, "60s"), "start_below": ("C", -40.0, 125.0, "45C")}


def _quantity(path: Path, where: str, entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    unit, low, high, example = _QUANTITIES[key]
    try:
        number = units.parse(value.replace("°", ""), unit) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise InputError(
            f"{path}: {where}: {key} = {value!r} does not fit",
            remedy=f'From {low:g}{unit} to {high:g}{unit}, as in {key} = "{example}".',
        )
    return number


def _port(path: Path, where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise InputError(f"{path}: {where}: {value!r} is no port (1 to 65535)")
    return value


def _labels(path: Path, where: str, table: object) -> dict[str, str]:
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
