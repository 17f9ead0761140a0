"""A cache of sensors' measured characteristics, valid until the next boot, which may change drivers and settings."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgeprof.sensing.characteristic import Characteristic
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Sensor
    from edgeprof.sensing.trace import Key

FILE = "characteristics.json"
#: Increased when the content of the file, or how it is measured, changes; older files are then ignored.
_VERSION = 1


class BootCache:
    """The results of ``characterise`` by sensor, in one file of the data directory, valid until the next boot.

    The cache never fails: unreadable entries are absent, and unwritable ones are measured again next time. A tree
    without a boot id (a captured one) is not cached.

    Args:
        roots: The trees, whose ``/proc`` has the boot id. They are part of an entry's name, because a virtual board is
            not this machine.
        directory: Where the file is; by default ``EDGEPROF_DATA_DIR``, or else the platform's data directory.
    """

    def __init__(self, roots: Roots, directory: Path | None = None) -> None:
        self._directory = directory
        self._tree = os.fspath(roots.sysfs)
        self._boot: str | None = None
        with suppress(OSError):
            boot = roots.procfs / "sys" / "kernel" / "random" / "boot_id"
            self._boot = boot.read_text(encoding="ascii", errors="replace").strip() or None

    def get(self, sensor: Sensor) -> dict[Key, Characteristic] | None:
        """The characteristics of all channels of a sensor; None if any of them is missing."""
        saved = self._read().get(self._name(sensor))
        try:
            return (
                {c.key: Characteristic(**saved[f"{c.name}/{c.quantity}"]) for c in sensor.channels} if saved else None
            )
        except (KeyError, TypeError):
            return None

    def put(self, sensor: Sensor, characteristics: Mapping[Key, Characteristic]) -> None:
        """Store characteristics; the file is replaced as a whole, so that no reader sees half of it."""
        if self._boot is None:
            return
        sensors = self._read()
        sensors[self._name(sensor)] = {
            f"{name}/{quantity}": asdict(item) for (_, name, quantity), item in characteristics.items()
        }
        with suppress(OSError):
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"version": _VERSION, "boot": self._boot, "sensors": sensors})
            replace_file(path, text.encode(), mode=0o600, durable=False)  # good until the next boot only

    def _path(self) -> Path:
        if self._directory is None:
            from edgeprof.results.place import data_dir  # noqa: PLC0415 - needed only here

            self._directory = data_dir()
        return self._directory / FILE

    def _read(self) -> dict[str, dict[str, Any]]:
        if self._boot is None:
            return {}
        try:
            content = json.loads(self._path().read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or (content.get("version"), content.get("boot")) != (_VERSION, self._boot):
            return {}
        sensors = content.get("sensors")
        return sensors if isinstance(sensors, dict) else {}

    def _name(self, sensor: Sensor) -> str:
        """The name of a sensor's entry: what it reads, and where, because chips at two addresses have two entries."""
        return json.dumps([self._tree, sensor.name, [[c.name, c.quantity, c.location] for c in sensor.channels]])
