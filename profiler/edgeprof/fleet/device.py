"""A device's description of itself for a fleet, made in milliseconds and without opening a sensor."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from edgeprof.errors import WrongDeviceError
from edgeprof.sensing.device.circumstances import circumstances
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.fleet.protocol import Expected
    from edgeprof.roots import Roots


def describe(roots: Roots) -> dict[str, Any]:
    """Return the board, the name of this machine, and the state that affects a measurement."""
    facts = circumstances(roots)
    return {
        "board": facts.board,
        "machine": machine_name(roots),
        "hostname": facts.hostname,
        "fingerprint": facts.fingerprint(),
        "power_mode": facts.power_mode,
        "governor": facts.governor,
        "os": facts.os,
        "cores": facts.cores,
        "simulated": roots.is_simulated,
    }


def machine_name(roots: Roots) -> str | None:
    """Return a unique name of this machine: a hash of its machine-id, which itself is confidential (machine-id(5))."""
    text = text_of(roots.root / "etc/machine-id")
    return None if not text else hashlib.sha256(b"edgeprof fleet " + text.encode()).hexdigest()[:16]


def hottest_c(roots: Roots) -> float | None:
    """Return the temperature of the hottest thermal zone, °C; None if no zone has a reading."""
    zones = listing(roots.sysfs / "class/thermal")
    readings = [number_of(zone / "temp") for zone in zones if zone.name.startswith("thermal_zone")]
    # A zone without a sensor gives a temperature that no board survives.
    plausible = [reading / 1000 for reading in readings if reading is not None and -40_000 < reading < 150_000]
    return max(plausible, default=None)


def free_bytes(directory: Path) -> int | None:
    """Return the free bytes on the disk of a directory, or of its nearest existing parent; None if unknown."""
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def check_expected(expected: Expected, description: dict[str, Any]) -> None:
    """Check that this device matches the inventory.

    Raises:
        WrongDeviceError: The board, the machine or the power mode differs from the inventory.
    """
    for name, title in (("board", "a"), ("machine", "the machine")):
        wanted, here = getattr(expected, name), description[name]
        if wanted is not None and wanted != here:
            raise WrongDeviceError(
                f"this is {title} {here}, and the inventory says {wanted}",
                remedy="Is it another device at this address? If it was replaced on purpose, take its block out of the "
                "inventory and add it again: edgeprof fleet add.",
            )
    mode = description["power_mode"]
    if expected.power_mode is not None and expected.power_mode != mode:
        raise WrongDeviceError(
            f"the device is in the power mode {mode or 'unknown'}, and the inventory says {expected.power_mode}",
            remedy="Set it there (nvpmodel -m …), or mend power_mode in the inventory.",
        )
