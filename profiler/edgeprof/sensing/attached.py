"""What hangs on this machine just now: cheap to look at, and different after a hotplug, a late driver or a charger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.sensing.files import listing, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots

#: Directories of sysfs in which power sensors appear.
_PLACES = ("class/hwmon", "class/powercap", "class/power_supply", "class/devfreq", "bus/i2c/drivers/ina3221x")
#: What decides whether a supply's reading is the machine's.
_STATES = ("status", "online", "present")


def attached(roots: Roots) -> tuple[tuple[str, ...], ...]:
    """The devices that may tell power, each with its place, and how the machine is fed."""
    return tuple(
        (place, path.name, str(path.resolve()), *_states(place, path))
        for place in _PLACES
        for path in listing(roots.sysfs / place)
    )


def _states(place: str, path: Path) -> tuple[str, ...]:
    return tuple(text_of(path / name) or "" for name in _STATES) if place == "class/power_supply" else ()
