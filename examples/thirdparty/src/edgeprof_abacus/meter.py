"""The abacus meter: a board's own energy counter.

``/sys/class/abacus/meter*/energy_uj`` gives the microjoules since the board was switched on, for everything behind the
power input. It is updated every 10 ms and wraps at 2^32 µJ. The file ``label`` beside it has the name of the rail.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.errors import UnavailableError
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.roots import Roots

NAME = "abacus-meter"


class Meter(Sensor):
    """One meter, one channel."""

    name = NAME

    def __init__(self, directory: Path, *, simulated: bool) -> None:
        self._path = directory / "energy_uj"
        self._file: int | None = None
        self._channels = (
            Channel(
                sensor=NAME,
                name=(directory / "label").read_text(encoding="utf-8").strip(),
                quantity="energy",
                kind="counter",
                scope="board",
                role="total",
                provenance="simulated" if simulated else "counter",
                resolution=1e-6,
                gain_limit=0.01,  # from the manufacturer: ±1 %
                update_interval_s=0.01,
                wrap=2**32 * 1e-6,
                plausible=(0.0, 2**32 * 1e-6),
                location=str(directory),
            ),
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise UnavailableError(f"{self._path} cannot be opened: {error.strerror}") from None

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:  # noqa: ARG002 - the read is quick
        # Called at the sampling rate, so it opens nothing and raises nothing. Values leave the sensor in joules.
        assert self._file is not None
        try:
            values[0] = int(os.pread(self._file, 32, 0)) * 1e-6
        except (OSError, ValueError):
            values[0] = math.nan

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def find(roots: Roots) -> list[Sensor]:
    """Return every abacus meter under these roots."""
    meters = sorted((roots.sysfs / "class" / "abacus").glob("meter*"))
    return [Meter(path, simulated=roots.is_simulated) for path in meters]


@hookimpl
def register_sensors(register):
    register(NAME, find)
