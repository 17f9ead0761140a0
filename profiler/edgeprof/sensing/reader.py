"""The sampling of one sensor: its deadlines, its rows, its failures and its missed readings."""

from __future__ import annotations

import math
import sys
from array import array
from dataclasses import dataclass
from math import isfinite
from operator import le
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError
from edgeprof.sensing.limits import SENTINELS, plausible_bounds
from edgeprof.sensing.trace import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.sensing.clock import Clock
    from edgeprof.sensing.sensor import Channel, Sensor
    from edgeprof.sensing.trace import Key

#: A read that takes longer (s) delays the others in its lane too much; three in a row give it a lane of its own.
LONG_READ_S = 0.005
_LONG_READS = 3
#: A single read of this length (s) suffices: a driver that blocks, such as the ina3221's of kernel 5.10 (up to 430 ms).
_BLOCKING_READ_S = 0.05

#: The share of its period that reading may take; this many reads in a row that take more lengthen the period.
_FULL = 0.8
_OVERRUNS = 5

#: Readings per refresh interval of a quick source that is slower than the sampling rate: its ticks are then known to
#: a quarter of the interval, and a counter's window energy with them. A slow source is read once per interval.
READS_PER_REFRESH = 4

#: Quantities that follow a burst. A sensor with none of them (temperatures, load, memory) is read at CONTEXT_RATE_HZ.
_FAST = frozenset({"power", "energy", "voltage", "current"})
CONTEXT_RATE_HZ = 10.0

#: The usual largest delay of a reading (s), and the share of a short period that is reserved for it.
_LATE_S, _LATEST = 2e-4, 0.25

#: The longest time (s) between two attempts at a source that fails; and how many failures in a row reopen it.
BACK_OFF_S = 1.0
_REOPEN_AFTER = 3

#: The largest finite number: infinity is never a reading.
_MAX = sys.float_info.max

#: A time-stamp of a source that is older than this (s) when it is read comes from another clock.
_OLDEST_STAMP_S = 60.0


@dataclass(frozen=True)
class ChannelStats:
    """How well one channel was sampled. Every deadline is either a sample or missed.

    Attributes:
        key: ``(sensor, name, quantity)``.
        rate_hz: Readings per second between the first and the last; None with fewer than two.
        samples: Readings that succeeded.
        missed: Deadlines without a good reading: it was late, not tried after failures, failed, or refused.
        max_gap_s: The longest time between two readings that succeeded (s); None with fewer than two.
        failed: How many of ``missed`` were read and failed, or were refused as impossible.
        reason: Why some or all readings failed, one sentence; None if none failed.
    """

    key: Key
    rate_hz: float | None
    samples: int
    missed: int
    max_gap_s: float | None
    failed: int = 0
    reason: str | None = None


#: No value below this is a sentinel value.
_NO_SENTINEL = min(abs(value) for value in SENTINELS)

#: The sampling rate (Hz) if none is asked for and a slower one would not suffice.
DEFAULT_RATE_HZ = 100.0
#: Readings per time constant of an exponential filter if no rate is asked for. Straight lines then follow the filter's
#: output to (1/10)²/12 of a change, which is less than the step of any chip, and four readings, from which an edge is
#: taken, lie well within one time constant.
READS_PER_TAU = 10
#: The longest interval (s) to which the filter of a channel may slow down its reading.
_LONGEST_FOR_FILTER_S = 0.1


def read_interval(channel: Channel, rate_hz: float | None = None) -> float:
    """How often to read one channel (s).

    Args:
        channel: The annotated channel.
        rate_hz: The requested rate; None leaves it to the channel's filter.
    """
    base_s = 1 / (rate_hz or DEFAULT_RATE_HZ)
    wanted = (channel.update_interval_s or 0.0) / READS_PER_REFRESH
    tau = channel.filter.tau_s if channel.filter.kind == "exponential" else None
    if rate_hz is None and tau:
        wanted = max(wanted, min(tau / READS_PER_TAU, _LONGEST_FOR_FILTER_S))
    return max(1, math.floor(wanted / base_s + 1e-6)) * base_s


def period_for(sensor: Sensor, channels: list[Channel], rate_hz: float | None) -> float:
    """How often to read a sensor (s): a whole multiple of the sampling period, so that one wake-up serves several.

    It is the refresh interval of its quickest power, energy, voltage or current channel; if unknown, every period.
    """
    base_s = 1 / (rate_hz or DEFAULT_RATE_HZ)
    there = [c for c in channels if c.available]
    quick = [c for c in there if c.quantity in _FAST]
    intervals = [c.update_interval_s for c in quick or there]
    known = [i for i in intervals if i is not None]
    wanted = base_s
    if known and len(known) == len(intervals):
        wanted = min(known) if sensor.slow else min(read_interval(channel, rate_hz) for channel in quick or there)
    if not quick:
        wanted = max(wanted, 1 / CONTEXT_RATE_HZ)
    return max(1, math.floor(wanted / base_s + 1e-6)) * base_s


class Probe:
    """A sensor and the state of its sampling. Only one lane uses it at a time.

    Args:
        sensor: A sensor that is not open yet.
        channels: The topology's annotated channels by key; the sensor's own where there is none.
        rate_hz: The sampling rate (Hz); None: the rate at which the channels have new values.
        keep_s: How long (s) rows are kept; None keeps all.
        phase: Returns where in its period each reading falls, from 0 to 1; None: at its beginning.
    """

    def __init__(
        self,
        sensor: Sensor,
        channels: Mapping[Key, Channel] | None,
        rate_hz: float | None,
        keep_s: float | None,
        phase: Callable[[], float] | None = None,
    ) -> None:
        self.sensor = sensor
        self.base_s = 1 / (rate_hz or DEFAULT_RATE_HZ)
        annotated = channels or {}
        self.channels = [annotated.get(channel.key, channel) for channel in sensor.channels]
        self.period_s = period_for(sensor, self.channels, rate_hz)
        #: Whether its deadlines wake its lane; slow context sensors are read along with others.
        self.leads = any(channel.quantity in _FAST and channel.available for channel in self.channels)
        self._phase = phase if self.leads else None
        self.record = Record(self.channels, self.period_s, keep_s)
        self.reason: str | None = None  # why the sensor as a whole fails, or failed last
        self.is_open = False
        self.is_long = False  # its reads take so long that they disturb others

        width = len(self.channels)
        self._nan = array("d", [math.nan] * width)
        self._nan_bytes = self._nan.tobytes()
        self._values, self._stamps = array("d", self._nan), array("d", self._nan)
        limits = [plausible_bounds(channel) for channel in self.channels]
        self._lows = array("d", [max(low, -_MAX) for low, _ in limits])
        self._highs = array("d", [min(high, _MAX) for _, high in limits])
        self._low, self._high = max(self._lows, default=0.0), min(self._highs, default=0.0)
        self._bounded = any(math.isfinite(limit) for pair in limits for limit in pair)
        self._samples, self._failed, self._refused = [0] * width, [0] * width, [0] * width
        self._first, self._last = array("d", self._nan), array("d", self._nan)
        self._gap = array("d", [0.0] * width)
        self._smooth = False  # the last row was good throughout; _rows, _row_time and _row_gap then hold for all
        self._rows, self._row_time, self._row_gap = 0, 0.0, 0.0

        self.next_s = -math.inf  # the monotonic time to read at next
        self._origin = -math.inf  # the first deadline
        self._due = 0  # the first deadline that is not accounted for
        self._wake = 0  # the deadline to read at next; later than _due while backing off
        self._counted = 0  # deadlines accounted for, over all origins
        self._in_a_row = 0
        self._long = 0  # long reads in a row
        self._overruns: list[float] = []  # the durations (s) of the last reads, if each of them overran the period

    def begin(self, clock: Clock) -> None:
        """Open the sensor in the thread that will read it; if that fails, it is tried again later."""
        try:
            self.sensor.open()
            self.is_open = True
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            self.reason = _error_sentence(error)
        self._origin = self.next_s = clock.now()

    @property
    def has_begun(self) -> bool:
        return self._origin > -math.inf

    def close(self) -> None:
        """Close the sensor; an exception that it raises becomes the probe's reason and goes no further."""
        self.is_open = False
        try:
            self.sensor.close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            self.reason = self.reason or _error_sentence(error)

    def service(self, clock: Clock) -> None:
        """Read one row at the deadline that is due; deadlines that have passed count as missed and are not made up.

        This runs with cold caches, once in 10 ms, where each line costs several times what it does in a loop.
        """
        before = clock.now()
        origin, period = self._origin, self.period_s
        # A reading that is late by more than a period has missed its deadline.
        deadline = self._wake + max(0, int((before - self.next_s) / period + 1e-6))
        self._counted += deadline + 1 - self._due
        self._due = self._wake = deadline + 1

        values, stamps, nan = self._values, self._stamps, self._nan
        values[:] = nan
        stamps[:] = nan
        try:
            if not self.is_open:
                self.sensor.open()
                self.is_open = True
                before = clock.now()
            self.sensor.read(values, stamps)
            after = clock.now()
            if len(values) != len(nan) or len(stamps) != len(nan):
                values, stamps = self._discard_row("its read() changed the length of the row")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; the others go on
            after = clock.now()
            values, stamps = self._discard_row(_error_sentence(error))
        if self._keep_row(values, stamps, before, after):
            self._in_a_row = 0
        else:
            self._back_off()
        if self._phase is None:
            # Deadlines that passed during the read are missed: the next reading is at the next deadline.
            self._wake = max(self._wake, int((after - origin) / period + 1e-6) + 1)
            self.next_s = origin + self._wake * period
        else:
            self._draw_next_time(after)
        took = after - before
        if took > LONG_READ_S or self._long or self._overruns:
            self._notice_duration(took, after)

    def _draw_next_time(self, now: float) -> None:
        """Draw the time of the next reading within its period, or within the rest of the period.

        The end of the period is left out, so that a reading that comes a little late is still within its own.
        """
        assert self._phase is not None
        period = self.period_s
        passed = (now - self._origin) / period
        last = 1 - min(_LATEST, _LATE_S / period)
        if passed > self._wake + 0.8 * last:
            self._wake = int(passed) + 1
        first = max(0.0, passed - self._wake)
        self.next_s = self._origin + (self._wake + first + (last - first) * self._phase()) * period

    def _discard_row(self, reason: str) -> tuple[array[float], array[float]]:
        """Make new rows, because the sensor may have filled the old ones partly, lengthened them or kept them."""
        self.reason = reason
        self._values, self._stamps = array("d", self._nan), array("d", self._nan)
        return self._values, self._stamps

    def _keep_row(self, values: array[float], stamps: array[float], before: float, after: float) -> bool:
        """Check and store the row; return whether any of its values is good.

        Nearly every row is good throughout. That is checked by functions in C, and such rows are counted as a whole,
        because a Python loop over the channels would cost more than reading them.
        """
        middle = (before + after) / 2
        stamped = stamps.tobytes() != self._nan_bytes and any(map(isfinite, stamps))
        usual = not stamped or (before <= min(stamps) and max(stamps) <= after and isfinite(sum(stamps)))
        if usual and isfinite(sum(values)) and (not self._bounded or self._is_within_limits(values)):
            if self._smooth:
                self._row_gap = max(self._row_gap, middle - self._row_time)
                self._rows += 1
            else:
                self._count_each(values, [middle] * len(values))
                self._smooth = True
            self._row_time = middle
            self.record.append(values, middle, stamps if stamped else None)
            return True
        if self._smooth:
            self._last[:] = array("d", [self._row_time] * len(values))
            self._smooth = False
        for index, stamp in enumerate(stamps):
            if not before - _OLDEST_STAMP_S <= stamp <= after:  # NaN: the source leaves it to us
                stamps[index] = middle
        good = self._count_each(values, stamps)
        self.record.append(values, middle, stamps if stamped else None)
        return good

    def _is_within_limits(self, values: array[float]) -> bool:
        low, high = min(values), max(values)
        # Values within the narrowest limits of all channels are within the limits of each.
        within = (self._low <= low and high <= self._high) or (
            all(map(le, self._lows, values)) and all(map(le, values, self._highs))
        )
        return within and ((low > -_NO_SENTINEL and high < _NO_SENTINEL) or SENTINELS.isdisjoint(values))

    def _count_each(self, values: array[float], times: Sequence[float]) -> bool:
        """Count a row value by value, and replace refused values by NaN; return whether any is good."""
        any_good = False
        for index, (value, time) in enumerate(zip(values, times, strict=True)):
            if self._lows[index] <= value <= self._highs[index] and value not in SENTINELS:
                any_good = True
                self._count_reading(index, time)
            else:
                self._failed[index] += 1
                self._refused[index] += not math.isnan(value)
                values[index] = math.nan
        return any_good

    def _count_reading(self, index: int, time: float) -> None:
        if math.isnan(self._first[index]):
            self._first[index] = time
        else:
            self._gap[index] = max(self._gap[index], time - self._last[index])
        self._samples[index] += 1
        self._last[index] = time

    def _back_off(self) -> None:
        """Wait 0, 1, 3, 7 … periods after failures, at most ``BACK_OFF_S``; reopen a source that fails repeatedly."""
        self._in_a_row += 1
        longest = max(0, math.ceil(BACK_OFF_S / self.period_s) - 1)
        self._wake = self._due + min(2 ** min(self._in_a_row - 1, 30) - 1, longest)
        if self.is_open and self._in_a_row >= _REOPEN_AFTER:
            self.close()

    def _notice_duration(self, took: float, now: float) -> None:
        """Note reads that are too long for a shared thread, or for the period."""
        self._long = self._long + 1 if took > LONG_READ_S else 0
        self.is_long = self.is_long or took > _BLOCKING_READ_S or self._long >= _LONG_READS
        # A source that always needs longer than its period gets a longer one, so that later misses are not caused by
        # the source itself. A single stall of the machine does not count.
        self._overruns = [*self._overruns, took] if took > _FULL * self.period_s else []
        if len(self._overruns) >= _OVERRUNS:
            needed = sorted(self._overruns)[len(self._overruns) // 2] / _FULL
            self.period_s = self.record.period_s = math.ceil(needed / self.base_s) * self.base_s
            self._origin = self.next_s = now + self.period_s
            self._due = self._wake = 0
            self._overruns = []

    def settle(self, now: float) -> None:
        """Account for the deadlines that passed up to ``now``, at the end."""
        if not self.has_begun:
            return
        passed = math.floor((now - self._origin) / self.period_s + 1e-6) + 1
        if passed > self._due:
            self._counted += passed - self._due
            self._due = passed

    def stats(self) -> list[ChannelStats]:
        """The statistics of each available channel."""
        return [self._channel_stats(index) for index, channel in enumerate(self.channels) if channel.available]

    def _channel_stats(self, index: int) -> ChannelStats:
        samples, failed = self._samples[index] + self._rows, self._failed[index]
        span = (self._row_time if self._smooth else self._last[index]) - self._first[index]
        several = samples > 1 and span > 0
        return ChannelStats(
            key=self.channels[index].key,
            rate_hz=(samples - 1) / span if several else None,
            samples=samples,
            missed=max(0, self._counted - samples),
            max_gap_s=max(self._gap[index], self._row_gap) if several else None,
            failed=failed,
            reason=self._failure_text(index) if failed else None,
        )

    def _failure_text(self, index: int) -> str:
        channel, failed, refused = self.channels[index], self._failed[index], self._refused[index]
        total = self._samples[index] + self._rows + failed
        share = f"all {total}" if failed == total else f"{failed} of {total}"
        if refused == failed:
            low, high = plausible_bounds(channel)
            return f"{share} readings were outside {low:g} to {high:g} {channel.unit} and refused"
        reason = f": {self.reason}" if self.reason else ""
        return f"{share} readings failed{reason}"


def _error_sentence(error: BaseException) -> str:
    if isinstance(error, EdgeprofError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
