"""Detect hardware of sensors that comes or goes, by checks that are cheap enough to run every few seconds.

Each snapshot is compared with the one before. If they differ, a chip came, went, or came back under another number, and
the sensors are looked for again. The only values in a snapshot are the states of batteries and chargers.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeprof.sensing.files import text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots

#: Folders of /sys that have an entry for each chip, zone or supply that a sensor plugin reads.
_SUPPLIES = "class/power_supply"
_CHIPS = ("class/hwmon", "class/powercap", _SUPPLIES, "bus/iio/devices", "bus/i2c/drivers/ina3221x")
#: Files that say how a supply feeds the machine: a battery's power is that of the machine only while it discharges.
_STATES = ("status", "online", "present")
#: Folders of which the names of the entries are enough.
_NAMES = ("bus/i2c/devices", "class/thermal", "class/devfreq", "class/apex", "class/drm")
#: Beginnings of the names of devices of meters and accelerators.
_DEVICES = ("ttyUSB", "ttyACM", "nvidia", "i2c-", "apex_", "vcio")

#: A lost sensor is looked for at each check of the hardware for this long (s), even without a change; afterwards at
#: pauses (s) that grow from the shortest to the longest one.
_EAGER_S, _SHORTEST_RESCAN_S, _LONGEST_RESCAN_S = 120.0, 30.0, 600.0

Look = tuple[tuple[object, ...], ...]


def look(roots: Roots) -> Look:
    """Return a snapshot of the hardware; two snapshots are equal if nothing came or went in between."""
    seen: list[tuple[object, ...]] = []
    for folder in _CHIPS:
        for name in _visible_names(roots.sysfs / folder):
            path = os.path.join(roots.sysfs, folder, name)  # noqa: PTH118 - every few seconds, for ever
            with suppress(OSError):
                # The inode changes if a driver was bound again, the list of files if a channel came or went.
                seen.append((folder, name, os.stat(path).st_ino, *_visible_names(path)))  # noqa: PTH116
    seen += [
        (name, *_supply_states(roots.sysfs / _SUPPLIES / name)) for name in _visible_names(roots.sysfs / _SUPPLIES)
    ]
    seen += [(folder, *_visible_names(roots.sysfs / folder)) for folder in _NAMES]
    seen.append(("dev", *(name for name in _visible_names(roots.dev) if name.startswith(_DEVICES))))
    return tuple(seen)


class Hardware:
    """Decides when to look for sensors again."""

    def __init__(self) -> None:
        self._look: Look = ()
        self._lost_since: float | None = None
        self._pause_s, self._next = _SHORTEST_RESCAN_S, 0.0

    def has_changed(self, roots: Roots) -> bool:
        """Whether hardware came or went since the last call."""
        before, self._look = self._look, look(roots)
        return before != self._look

    def is_search_due(self, now: float, *, is_whole: bool) -> bool:
        """Whether to look for sensors without a change of the hardware, since a driver may recover unnoticed.

        Args:
            now: The present (monotonic s).
            is_whole: Whether every sensor that was ever read is being read, and the whole device is measured.
        """
        if is_whole:
            self._lost_since, self._pause_s, self._next = None, _SHORTEST_RESCAN_S, 0.0
            return False
        self._lost_since = now if self._lost_since is None else self._lost_since
        if now - self._lost_since < _EAGER_S:
            return True
        if now < self._next:
            return False
        self._next = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_RESCAN_S)
        return True


def _supply_states(supply: Path) -> list[str | None]:
    return [text_of(supply / state) for state in _STATES]


def _visible_names(path: str | os.PathLike[str]) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return []
