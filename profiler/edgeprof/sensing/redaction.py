"""Remove texts that identify a person or a device from texts and paths: names, serial numbers, addresses.

Each removed text is replaced by a placeholder of the same kind, and by the same one everywhere, so that two files that
named the same device still name the same one.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import pwd
import re
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprof.sensing.files import listing, text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edgeprof.roots import Roots

Kind = Literal["name", "serial", "address"]

#: Names that are on many machines and therefore name nobody; among them are words of the kernel's own files, which
#: have to stay readable where a user has such a name.
GENERIC = frozenset(
    {
        "admin",
        "administrator",
        "arch",
        "board",
        "clear",
        "core",
        "cpu",
        "current",
        "debian",
        "default",
        "device",
        "edge",
    }
    | {"edgeprof", "energy", "fedora", "gpu", "host", "jetson", "label", "linaro", "linux", "localdomain", "localhost"}
    | {"model", "name", "nano", "nobody", "none", "nvidia", "orin", "pi", "pi4", "pi5", "power", "raspberry", "root"}
    | {
        "raspberrypi",
        "rpi",
        "runner",
        "sensor",
        "soc",
        "system",
        "tegra",
        "tegra-ubuntu",
        "temp",
        "test",
        "thor",
        "type",
    }
    | {"ubuntu", "uevent", "user", "vagrant", "voltage", "xavier"}
)
#: Files whose whole content identifies a device.
_SECRET_FILE = re.compile(r"(?i)serial|uuid|unique_?id|wwid|machine-id|boot_id|asset_tag|hostname|^address$|ecid")
#: Lines of longer files that identify a device.
_SECRET_LINE = re.compile(r"(?im)^([^:=\n]*(?:serial|uuid|unique_?id|wwid)[^:=\n]*[:=][ \t]*)(\S[^\n]*)$")
_MAC = re.compile(r"(?i)(?<![0-9a-f])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4,18}[0-9a-f]{2}(?![0-9a-f])")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IPV6 = re.compile(r"(?i)(?<![\w:.])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:]+(?![\w:])")
_HOME = re.compile(r"(/home/|/Users/)([^/\s:'\"]+)")
#: A short number is taken to be a reading, and not a serial number that must be replaced in other files.
_READING = re.compile(r"\s*-?\d{0,7}(\.\d+)?\s*")
_SHORTEST_SERIAL = 4
#: Shorter names stay in paths: a user may be called ``max``, and so may parts of the kernel's file names.
_SHORTEST_NAME_IN_PATH = 4


def is_secret_file(name: str) -> bool:
    """Whether the whole content of a file of this name identifies a device, as in ``serial_number`` or ``address``."""
    return _SECRET_FILE.search(name) is not None


class Redactor:
    """Replaces names, serial numbers and addresses.

    Args:
        secrets: Text → its kind; the texts are replaced wherever they occur, except those in ``GENERIC``.
        versions: Texts that look like addresses but are versions, such as ``10.3.0.26``.

    Attributes:
        counts: How many different texts of each kind were replaced.
    """

    def __init__(self, secrets: Mapping[str, Kind], versions: Collection[str] = ()) -> None:
        self._placeholders: dict[str, str] = {}
        self._versions = frozenset(versions)
        self.counts: Counter[Kind] = Counter()
        self._kinds = {text.lower(): kind for text, kind in secrets.items() if text.lower() not in GENERIC}
        self._known = _compile_pattern(self._kinds)
        in_paths = {t: k for t, k in self._kinds.items() if k != "name" or len(t) >= _SHORTEST_NAME_IN_PATH}
        self._known_in_paths = _compile_pattern(in_paths)

    def content(self, name: str, data: bytes) -> bytes:
        """Return a file's content redacted; it is replaced as a whole if the file's name is that of a secret file."""
        text = data.decode("utf-8", "surrogateescape")
        if is_secret_file(name):
            word = text.strip("\0\n\t ")
            return text.replace(word, self._placeholder(word, "serial")).encode("utf-8", "surrogateescape")
        return self.text(text).encode("utf-8", "surrogateescape")

    def text(self, text: str) -> str:
        """Return ``text`` without names, serial numbers and addresses."""
        if _READING.fullmatch(text):
            return text
        text = _SECRET_LINE.sub(lambda m: m[1] + self._placeholder(m[2].strip("\0 \t"), "serial"), text)
        text = self._without_known(text, self._known)
        text = _HOME.sub(lambda m: m[1] + self._placeholder(m[2], "name"), text)
        text = _MAIL.sub(lambda m: self._placeholder(m[0], "address"), text)
        return self._without_addresses(text)

    def path(self, path: str) -> str:
        """Return a path of a tree with names, serial numbers and addresses replaced in each of its parts."""
        parts = (self._without_known(part, self._known_in_paths) for part in path.split("/"))
        return "/".join(map(self._without_addresses, parts))

    def _without_known(self, text: str, known: re.Pattern[str] | None) -> str:
        if known is None or _READING.fullmatch(text):
            return text
        return known.sub(lambda m: self._placeholder(m[0], self._kinds[m[0].lower()]), text)

    def _without_addresses(self, text: str) -> str:
        text = _UUID.sub(lambda m: self._placeholder(m[0], "serial"), text)
        text = _MAC.sub(lambda m: self._placeholder(m[0], "address"), text)
        text = _IPV4.sub(self._ip, text)
        return _IPV6.sub(self._ip, text)

    def _ip(self, match: re.Match[str]) -> str:
        if match[0] in self._versions:
            return match[0]
        try:
            ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]  # the time of day, a place on a bus
        return self._placeholder(match[0], "address")

    def _placeholder(self, text: str, kind: Kind) -> str:
        key = text.lower()
        if not key or key in self._placeholders.values():
            return text
        if key not in self._placeholders:
            self.counts[kind] += 1
            number = self.counts[kind]
            placeholder = f"{kind}{number}"
            if _MAC.fullmatch(text):  # programs that expect an address find one of the range for documentation
                placeholder = f"00{{0}}00{{0}}5e{{0}}00{{0}}53{{0}}{number % 256:02x}".format(
                    "-" if "-" in text else ":"
                )
            self._placeholders[key] = placeholder
        return self._placeholders[key]


def _compile_pattern(kinds: Mapping[str, Kind]) -> re.Pattern[str] | None:
    """A pattern that finds these texts, the longest first; None if there are none.

    A serial number is also found inside longer words; a name, which may be short, only as a whole word.
    """
    longest_first = sorted(kinds, key=len, reverse=True)
    serials = [re.escape(text) for text in longest_first if kinds[text] != "name"]
    names = [f"(?<![^\\W_]){re.escape(text)}(?![^\\W_])" for text in longest_first if kinds[text] == "name"]
    return re.compile("(?i)" + "|".join([*serials, *names])) if kinds else None


def secrets_of(roots: Roots) -> dict[str, Kind]:
    """The texts that identify this machine, its users, and the board below these roots."""
    secrets: dict[str, Kind] = {}
    for name in (*_names_here(), *_names_below(roots)):
        # A name with its domain, without it, and its single parts.
        secrets |= dict.fromkeys((name, name.split(".")[0], *re.split(r"[\s,]+", name)), "name")
    for path in _serial_files(roots):
        serial = (text_of(path) or "").strip("\0\n\t ")
        if len(serial) >= _SHORTEST_SERIAL and serial.strip("0") and not _READING.fullmatch(serial):
            secrets[serial] = "serial"
    for line in _SECRET_LINE.findall(text_of(roots.procfs / "cpuinfo") or ""):
        if len(line[1].strip()) >= _SHORTEST_SERIAL:
            secrets[line[1].strip()] = "serial"
    for device in listing(roots.sysfs / "class/net"):
        address = text_of(device / "address")
        if address and address.strip("0:"):
            secrets |= {address: "address", address.replace(":", ""): "address"}
    return {text: kind for text, kind in secrets.items() if len(text) > 1}


def _names_here() -> list[str]:
    names = [socket.gethostname(), os.environ.get("SUDO_USER", ""), Path.home().name]
    with contextlib.suppress(KeyError, OSError):  # a user without a name, as in many containers
        names.append(getpass.getuser())
    names += [word for user in pwd.getpwall() if 1000 <= user.pw_uid < 65534 for word in (user.pw_name, user.pw_gecos)]
    return [name for name in names if name]


def _names_below(roots: Roots) -> list[str]:
    names = [text_of(roots.procfs / "sys/kernel/hostname"), text_of(roots.root / "etc/hostname")]
    for line in (text_of(roots.root / "etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 4 and fields[2].isdecimal() and 1000 <= int(fields[2]) < 65534:
            names += [fields[0], fields[4]]
    names += [path.name for path in listing(roots.root / "home")]
    return [name for name in names if name]


def _serial_files(roots: Roots) -> list[Path]:
    devices = [*listing(roots.sysfs / "class/power_supply"), *listing(roots.sysfs / "class/drm")]
    places = [
        roots.sysfs / "class/dmi/id",
        roots.sysfs / "devices/virtual/dmi/id",
        roots.sysfs / "devices/soc0",
        roots.sysfs / "firmware/devicetree/base",
        roots.procfs / "device-tree",
        roots.procfs / "sys/kernel/random",
        roots.root / "etc",
        *devices,
        *(device / "device" for device in devices),
    ]
    return [path for place in places for path in listing(place) if is_secret_file(path.name) and path.is_file()]
