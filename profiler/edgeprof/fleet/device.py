"""What a device says of itself when a fleet asks, in milliseconds and without opening a sensor."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from edgeprof.sensing.device.host import describe_host
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots


def describe(roots: Roots) -> dict[str, Any]:
    """The board, which of its kind it is, and the state that a measurement depends on."""
    host = describe_host(roots)
    return {
        "board": host.board,
        "machine": machine_name(roots),
        "hostname": host.hostname,
        "fingerprint": host.fingerprint,
        "power_mode": host.power_mode,
        "governor": host.governor,
        "os": host.os,
        "cores": host.cores,
        "simulated": roots.is_simulated,
    }


def machine_name(roots: Roots) -> str | None:
    """A name of this one machine: a hash of its machine-id, which is not to be given away (machine-id(5))."""
    text = text_of(roots.root / "etc/machine-id")
    return None if not text else hashlib.sha256(b"edgeprof fleet " + text.encode()).hexdigest()[:16]


def hottest_c(roots: Roots) -> float | None:
    """The temperature of the hottest thermal zone, °C; None where no zone tells."""
    zones = listing(roots.sysfs / "class/thermal")
    readings = [number_of(zone / "temp") for zone in zones if zone.name.startswith("thermal_zone")]
    # A zone without a sensor reads as one beyond what a board survives.
    plausible = [reading / 1000 for reading in readings if reading is not None and -40_000 < reading < 150_000]
    return max(plausible, default=None)


def free_bytes(directory: Path) -> int | None:
    """The space that is left on the disk of a directory, or of the nearest one above it that exists."""
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize
