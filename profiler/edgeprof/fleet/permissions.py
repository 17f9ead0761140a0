"""What a device's owner allows a fleet, from the door's configuration file."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Permissions(NamedTuple):
    """The permissions that a device's owner grants, from the door's configuration file.

    Attributes:
        allow_code: Whether models that are code (pickles, TorchScript, TensorRT's plans, Python) may be measured.
        worker_python: The Python interpreter for the models; None for edgeprof's own.
        max_bytes: The most bytes of models and data that are stored on the device.
        sign_key: The file of the private key that signs results; None if they are not signed.
        keep_days: How many days a result is stored after it was last fetched.
        microcontrollers: Name → serial port of each microcontroller that a fleet may measure.
        meters: Name of a microcontroller → the meter at its supply, as after ``--sensor``.
    """

    allow_code: bool = False
    worker_python: str | None = None
    max_bytes: int = 8 << 30
    sign_key: str | None = None
    keep_days: int = 90
    microcontrollers: Mapping[str, str] = {}
    meters: Mapping[str, str] = {}

    @classmethod
    def read(cls, path: Path) -> Permissions:
        """Read the owner's file.

        Raises:
            InputError: The file cannot be read, other users may write it, or a key or a value is not valid.
        """
        from edgeprof import toml_files, units  # noqa: PLC0415 - a device without this file starts without them

        _check_owner(path)
        content = toml_files.read(path, remedy="docs/fleet.md has an example.")
        for key in content:
            if key not in cls._fields:
                raise unknown(f"key of {path}", key, cls._fields)
        kinds = {
            "allow_code": bool,
            "worker_python": str,
            "max_bytes": str,
            "sign_key": str,
            "keep_days": int,
            "microcontrollers": dict,
            "meters": dict,
        }
        for key, value in content.items():
            if not _fits(value, kinds[key]):
                examples = {
                    "allow_code": "true",
                    "worker_python": '"/usr/bin/python3"',
                    "max_bytes": '"8GiB"',
                    "sign_key": '"/etc/edgeprof/sign"',
                    "keep_days": "90",
                    "microcontrollers": '{ sensor-node = "/dev/ttyACM0" }',
                    "meters": '{ sensor-node = "ppk2:source:3.3V" }',
                }
                raise InputError(f"{path}: {key} = {value!r} does not fit", remedy=f"As in {key} = {examples[key]}")
        try:
            if "max_bytes" in content:
                content["max_bytes"] = int(units.parse(content["max_bytes"], "B"))
        except ValueError as error:
            raise InputError(f"{path}: max_bytes: {error}", remedy='As in max_bytes = "8GiB"') from None
        return cls(**content)


def _fits(value: object, kind: type) -> bool:
    """Return whether a value of the owner's file has a type: an integer is a count ≥ 1, and a table has texts."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(text, str) and text for text in value.values())
    return isinstance(value, kind)


def _check_owner(path: Path) -> None:
    """Check that only root and this user can write the file that grants permissions, and the folders above it.

    The rule is that of sshd for authorized_keys. A user who may write a folder can replace its content, unless the
    folder is sticky and another user owns the content.

    Raises:
        InputError: Another user owns one of them, or its group or others may write it.
    """
    try:
        whole = path.resolve(strict=True)
        statuses = [(place, place.stat()) for place in (whole, *whole.parents)]
    except (OSError, ValueError, RuntimeError):
        return  # reading the file raises the error with its reason
    for place, status in statuses:
        is_shared = status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
        if status.st_uid not in {0, os.geteuid()} or is_shared:
            written = path if place == whole else f"{place}, the folder above {path},"
            quoted = shlex.quote(str(place))
            raise InputError(
                f"{written} may be written by other users, who could allow themselves what its owner does not",
                remedy=f"sudo chown root {quoted} && sudo chmod go-w {quoted}",
            )
