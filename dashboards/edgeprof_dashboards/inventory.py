"""Write Prometheus' scrape targets (file_sd) from the inventory of devices (``edgeprof.fleet.inventory``)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgeprof.fleet.inventory import DEFAULT_PORT, Device, load
from edgeprof.results import files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEFAULT_PORT", "Device", "load", "targets", "write"]


def targets(devices: list[Device]) -> str:
    """Return the JSON that Prometheus' file_sd reads: one group for each device that has an exporter."""
    boards = [device for device in devices if device.mcu is None]
    groups = [{"targets": [d.address], "labels": {"instance": d.name, **d.labels}} for d in boards]
    return json.dumps(groups, indent=2, ensure_ascii=False) + "\n"


def write(path: Path, text: str) -> None:
    """Replace a file atomically: Prometheus watches it and must never read a half-written one.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(path, error) from None
    files.write(path, text, mode=0o644)  # Prometheus runs as another user
