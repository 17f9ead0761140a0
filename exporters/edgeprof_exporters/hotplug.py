"""Detect sensors' hardware that comes or goes, by checks cheap enough to run every few seconds.

A look is compared with the one before: where they differ, a chip came, went, or came back under another number, and
the sensors are looked for anew. Of values only the states of batteries and chargers are read.
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
#: What says how a supply feeds the machine: a battery's power is the machine's only while it discharges.
_STATES = ("status", "online", "present")
#: Folders of which the entries' names say enough.
_NAMES = ("bus/i2c/devices", "class/thermal", "class/devfreq", "class/apex", "class/drm")
#: Devices that meters and accelerators are reached by.
_DEVICES = ("ttyUSB", "ttyACM", "nvidia", "i2c-", "apex_", "vcio")

#: For so long (s) a sensor that was lost is looked for with each look at the hardware, even where that shows no change;
#: then after pauses (s) that grow from the first to the second.
_EAGER_S, _SHORTEST_RESCAN_S, _LONGEST_RESCAN_S = 120.0, 30.0, 600.0

Look = tuple[tuple[object, ...], ...]


def look(roots: Roots) -> Look:
    """Return a snapshot of the hardware; two snapshots are equal if nothing came or went in between."""
    seen: list[tuple[object, ...]] = []
    for folder in _CHIPS:
        for name in _listing(roots.sysfs / folder):
            path = os.path.join(roots.sysfs, folder, name)  # noqa: PTH118 - every few seconds, for ever
            with suppress(OSError):
                # The inode changes where a driver was bound anew; the files where a channel came or went.
                seen.append((folder, name, os.stat(path).st_ino, *_listing(path)))  # noqa: PTH116
    seen += [(name, *_states(roots.sysfs / _SUPPLIES / name)) for name in _listing(roots.sysfs / _SUPPLIES)]
    seen += [(folder, *_listing(roots.sysfs / folder)) for folder in _NAMES]
    seen.append(("dev", *(name for name in _listing(roots.dev) if name.startswith(_DEVICES))))
    return tuple(seen)


class Hardware:
    """When sensors are to be looked for anew."""

    def __init__(self) -> None:
        self._look: Look = ()
        self._lost_since: float | None = None
        self._pause_s, self._next = _SHORTEST_RESCAN_S, 0.0

    def has_changed(self, roots: Roots) -> bool:
        """Whether hardware came or went since the last call."""
        before, self._look = self._look, look(roots)
        return before != self._look

    def is_search_due(self, now: float, *, is_whole: bool) -> bool:
        """Whether to look for sensors although no hardware came: a driver may answer again without a trace.

        Args:
            now: Monotonic s.
            is_whole: Whether every sensor that was ever read is read, and the whole device is measured.
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


def _states(supply: Path) -> list[str | None]:
    return [text_of(supply / state) for state in _STATES]


def _listing(path: str | os.PathLike[str]) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return []
