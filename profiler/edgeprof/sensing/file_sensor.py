"""A sensor whose channels are files with one number each, as in sysfs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from edgeprof.sensing.files import CHECK_EVERY, NUMBER_LENGTH
from edgeprof.sensing.sensor import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from edgeprof.sensing.files import NumberFile
    from edgeprof.sensing.sensor import Channel

#: A row that took less than this (s) is read without a time-stamp for each of its values.
_QUICK_S = 2e-4


class FileSensor(Sensor):
    """A sensor whose every channel is one file with one number.

    Args:
        name: The name of the source.
        channels: The channels in the order of the row.
        files: One file for each channel.
        unavailable: Channels that exist but cannot be read.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[Channel],
        files: Sequence[NumberFile],
        unavailable: Sequence[Channel] = (),
    ) -> None:
        self.name = name
        self._channels = tuple(channels)
        self._files = tuple(files)
        self._unavailable = tuple(unavailable)
        self._is_quick = False
        self._readers: list[tuple[int, Callable[[], float]]] = [(i, f.number) for i, f in enumerate(self._files)]
        # Descriptors and scales, valid for ``_plain_rows`` more rows, with which a row is read without a call per file.
        self._plain: list[tuple[int, int, float]] = []
        self._plain_rows = self._careful_rows = 0

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self._unavailable

    def open(self) -> None:
        for file in self._files:
            file.open()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        clock = time.monotonic
        begin = before = clock()
        if self._is_quick:
            # All values have the time of the row, which the sampler writes.
            if self._careful_rows > 0 or not self._read_plain(values):
                self._careful_rows -= 1
                for index, number in self._readers:
                    values[index] = number()
            self._is_quick = clock() - begin < _QUICK_S
            return
        for index, number in self._readers:
            values[index] = number()
            after = clock()  # one time-stamp per file: the end of one read is the start of the next
            times[index] = 0.5 * (before + after)
            before = after
        self._is_quick = before - begin < _QUICK_S

    def _read_plain(self, values: MutableSequence[float]) -> bool:
        """Read a row by its descriptors, and return whether that succeeded; otherwise rows are read carefully for a
        while.
        """
        if self._plain_rows <= 0:
            self._plain = [(i, file.descriptor, file.scale) for i, file in enumerate(self._files)]
            self._plain_rows = CHECK_EVERY
        self._plain_rows -= 1
        pread = os.pread
        try:
            for index, descriptor, scale in self._plain:
                values[index] = int(pread(descriptor, NUMBER_LENGTH, 0)) * scale
        except (OSError, ValueError):
            self._plain_rows, self._careful_rows = 0, CHECK_EVERY
            return False
        return True

    def close(self) -> None:
        self._plain_rows = 0
        for file in self._files:
            file.close()
