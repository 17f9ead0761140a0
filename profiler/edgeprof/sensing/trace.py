"""The sampled readings: for each sensor a list of blocks that only grows at its end, from which series are read.

A row is one call of ``Sensor.read``. Rows are stored in preallocated blocks, so that storing the millionth row costs as
much as the first, and old rows never move.
"""

from __future__ import annotations

import math
import operator
import threading
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.sensing.sensor import Channel, Quantity

    Key = tuple[str, str, Quantity]

#: Rows in a block: 5 s at 100 Hz, 4 KiB for each channel.
BLOCK_ROWS = 512

#: A source counts as slower than its sampling if its refresh interval is longer than this many sampling periods. If it
#: is shorter, nearly every reading is a new one, and two equal readings are two measurements that agree.
SLOWER = 1.2

#: How long, in refresh intervals, a gauge's reading may repeat before the repeat counts as a new reading of the same
#: value. It lies between 1, with which clock drift could keep a repeat from just before a change, and 2, with which one
#: refresh would be lost.
REPEAT = 1.5


@dataclass(frozen=True)
class Series:
    """A channel over time.

    Attributes:
        times: CLOCK_MONOTONIC seconds, strictly increasing.
        values: The channel's unit, same length; NaN where a reading failed or was refused.

    Both have the buffer protocol: ``numpy.asarray(series.times)`` copies nothing.
    """

    times: array[float]
    values: array[float]

    def __len__(self) -> int:
        return len(self.times)


class _Block:
    """Space for ``room`` rows of one sensor, with one time for each row, or one for each value (``stamped``)."""

    __slots__ = ("rows", "stamped", "times", "values")

    def __init__(self, width: int, room: int, *, stamped: bool) -> None:
        self.rows = 0
        self.stamped = stamped
        self.values = array("d", bytes(8 * room * width))
        self.times = array("d", bytes(8 * room * (width if stamped else 1)))


class Record:
    """The rows of one sensor. One thread appends, any thread may read.

    Args:
        channels: The channels of a row, in its order.
        period_s: The sampling period (s) of the sensor; it may be changed during sampling.
        keep_s: How long rows are kept (s), rounded up to whole blocks; None keeps all.
    """

    def __init__(self, channels: Sequence[Channel], period_s: float, keep_s: float | None = None) -> None:
        self.channels = tuple(channels)
        self.period_s = period_s
        self.keep_s = keep_s
        self._width = len(self.channels)
        # A short retention needs small blocks, because whole blocks are dropped.
        self._room = BLOCK_ROWS if keep_s is None else max(4, min(BLOCK_ROWS, math.ceil(keep_s / period_s)))
        self._blocks: list[_Block] = []
        self._lock = threading.Lock()

    def append(self, values: array[float], time: float, stamps: array[float] | None = None) -> None:
        """Keep one row.

        Args:
            values: One value for each channel.
            time: The time of the whole row (monotonic s).
            stamps: A time for each value, used instead of ``time`` if given.
        """
        width = self._width
        with self._lock:
            block = self._blocks[-1] if self._blocks else None
            if block is not None and block.stamped and stamps is None:
                stamps = (
                    array("d", [time]) * width
                )  # after its first time-stamps a source keeps blocks with time-stamps
            if block is None or block.rows == self._room or block.stamped is (stamps is None):
                block = _Block(width, self._room, stamped=stamps is not None)
                self._blocks.append(block)
                self._forget(time)
            row = block.rows
            block.values[row * width : (row + 1) * width] = values
            if stamps is None:
                block.times[row] = time
            else:
                block.times[row * width : (row + 1) * width] = stamps
            block.rows = row + 1  # last: a row is there only when it is whole

    def _forget(self, now: float) -> None:
        if self.keep_s is None:
            return
        while len(self._blocks) > 2 and max(_column_times(self._blocks[0], 0, self._width)) < now - self.keep_s:
            del self._blocks[0]

    def last(self) -> tuple[list[float], list[float]] | None:
        """Times (s) and values of the newest row, one of each per channel; None before the first."""
        with self._lock:
            if not self._blocks:
                return None
            block, width = self._blocks[-1], self._width
            row = block.rows - 1
            values = block.values[row * width : (row + 1) * width]
            times = block.times[row * width : (row + 1) * width] if block.stamped else [block.times[row]] * width
        return list(times), list(values)

    def column(self, index: int) -> Series:
        """Every reading of a channel, repeats included, in the order of time."""
        with self._lock:
            blocks = [(block, block.rows) for block in self._blocks]
        times, values = array("d"), array("d")
        for block, rows in blocks:
            times.extend(_column_times(block, index, self._width)[:rows])
            values.extend(block.values[index :: self._width][:rows])
        # A source with its own time-stamps repeats the last one if it has nothing new; that is the same reading.
        if all(map(operator.lt, times, memoryview(times)[1:])):
            return Series(times, values)
        return _only_later(times, values)


def _column_times(block: _Block, index: int, width: int) -> array[float]:
    return block.times[index::width] if block.stamped else block.times


def _only_later(times: Iterable[float], values: Iterable[float]) -> Series:
    kept_times, kept_values = array("d"), array("d")
    last = -math.inf
    for time, value in zip(times, values, strict=True):
        if time > last:
            kept_times.append(time)
            kept_values.append(value)
            last = time
    return Series(kept_times, kept_values)


def deduplicate(series: Series, channel: Channel, period_s: float) -> Series:
    """Leave out readings that only repeat the one before, if the source is known to refresh slower than it is read.

    - If the refresh is unknown, or about as quick as the sampling, nothing is left out.
    - Of a counter, the first reading of each value is kept, because its time is when the counter ticked, to within a
      sampling period.
    - Of a gauge, the first reading of each value is kept, and so is an equal one ``REPEAT`` refresh intervals after the
      last kept one: the source has then refreshed with the same value, and a steady signal is not a gap.
    - Every change, every failed reading (NaN), the first reading after it, and the last reading are always kept.

    Args:
        series: The readings.
        channel: The channel, whose ``kind`` and ``update_interval_s`` decide.
        period_s: The period (s) at which it was read.
    """
    refresh = channel.update_interval_s
    if refresh is None or refresh <= SLOWER * period_s or len(series) < 2:
        return series
    patience = math.inf if channel.kind == "counter" else REPEAT * refresh
    times, values = array("d"), array("d")
    kept_value, kept_time = math.nan, -math.inf
    for time, value in zip(series.times, series.values, strict=True):
        if value != kept_value or time - kept_time >= patience:  # a NaN differs from everything, itself included
            times.append(time)
            values.append(value)
            kept_value, kept_time = value, time
    if times[-1] != series.times[-1]:
        times.append(series.times[-1])
        values.append(series.values[-1])
    return Series(times, values)


class Trace:
    """All readings of a sampler. It may be read during sampling; a series then holds the readings until that moment.

    Args:
        records: One record for each sensor; only their available channels are used.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._where: dict[Key, tuple[Record, int]] = {}
        self.channels: list[Channel] = []
        for record in records:
            for index, channel in enumerate(record.channels):
                if channel.available and channel.key not in self._where:
                    self._where[channel.key] = (record, index)
                    self.channels.append(channel)

    def series(self, key: Key) -> Series:
        """A channel's readings without those that only repeat the one before (see ``deduplicate``).

        Raises:
            KeyError: no channel of that key was sampled.
        """
        record, index = self._where[key]
        return deduplicate(record.column(index), record.channels[index], record.period_s)

    def readings(self, key: Key) -> Series:
        """A channel's readings as they were read, repeats included.

        Raises:
            KeyError: no channel of that key was sampled.
        """
        record, index = self._where[key]
        return record.column(index)

    def readings_after(self, key: Key, last_s: float | None) -> Series:
        """Return the readings as they were read, but only those later than a time (monotonic s); all of them for None.

        Raises:
            KeyError: no channel of that key was sampled.
        """
        readings = self.readings(key)
        if last_s is None:
            return readings
        first = bisect_right(readings.times, last_s)
        return Series(readings.times[first:], readings.values[first:])

    def period_s(self, key: Key) -> float:
        """The period (s) at which a channel is read.

        Raises:
            KeyError: no channel of that key was sampled.
        """
        return self._where[key][0].period_s
