"""The conformance test of sensors: it checks the contract of edgeprof.sensing.sensor on a sensor of a factory."""

from __future__ import annotations

import math
import time
from array import array
from typing import TYPE_CHECKING

import psutil

from edgeprof.provenance import PROVENANCES
from edgeprof.sensing.sensor import UNITS, Channel, Sensor
from edgeprof.testing.require import require

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Rows read while looking for leaks and for counters that run backwards.
ROWS = 50
#: Pause between rows while a channel has given no value (s); in total several ticks of the kernel's clock (10 ms).
_PAUSE_S = 0.005


def check_sensor(sensor: Sensor) -> None:
    """Check a sensor against its contract by reading it.

    Its channels must be declared completely and must not change. ``open`` may be called again after ``close``, which
    may be called twice and closes every file. ``read`` fills a row with plausible values and times, opens no further
    files and does not raise. Counters do not run backwards, and channels that cannot be read are listed with a reason.
    The test takes well under a second for a sensor that is read from files.

    Args:
        sensor: A sensor of the plugin's factory, not opened yet; it may be in a directory that the test has built
            (``Roots(sys=tmp_path)``).

    Raises:
        AssertionError: the sensor does not conform; the message says why in one sentence.
    """
    require(sensor.name and sensor.name.split() == [sensor.name], "the sensor's name is empty or has spaces")
    channels = list(sensor.channels)
    require(channels or sensor.unavailable, f"{sensor.name} has no channels, available or not; return no sensor then")
    keys = [channel.key for channel in [*channels, *sensor.unavailable]]
    require(len(set(keys)) == len(keys), f"two channels have the same sensor, name and quantity: {_twin_keys(keys)}")
    for channel in channels:
        _check_channel(channel)
        require(
            channel.available, f"{channel.name} is among the channels that are read, but says that it is not available"
        )
    for channel in sensor.unavailable:
        require(not channel.available, f"{channel.name} is listed as unavailable, but says available=True")
        require(channel.reason, f"{channel.name} is unavailable without a reason")
    if not channels:
        return
    files = _open_file_count()
    for _ in range(2):  # a closed sensor can be opened again
        sensor.open()
        try:
            _check_rows(sensor, channels)
        finally:
            sensor.close()
            sensor.close()
    require(_open_file_count() <= files, f"{sensor.name} leaves {_open_file_count() - files} files open after close()")
    require([c.key for c in sensor.channels] == [c.key for c in channels], "the channels changed while it was open")


def _check_channel(channel: Channel) -> None:
    name = f"{channel.sensor}/{channel.name}"
    require(channel.name, f"a channel of {channel.sensor} has no name")
    require(channel.quantity in UNITS, f"{name}: {channel.quantity!r} is not a quantity; known: {', '.join(UNITS)}")
    require(channel.kind in ("gauge", "counter"), f"{name}: kind is {channel.kind!r}, not gauge or counter")
    require(channel.provenance in PROVENANCES, f"{name}: provenance {channel.provenance!r} is not one of {PROVENANCES}")
    require(
        channel.quantity != "energy" or channel.kind == "counter",
        f"{name}: energy is a running total, so kind='counter'",
    )
    require(channel.role in (None, "total", "part"), f"{name}: role is {channel.role!r}, not total, part or None")
    for what, value in (
        ("resolution", channel.resolution),
        ("update_interval_s", channel.update_interval_s),
        ("wrap", channel.wrap),
    ):
        require(value is None or value > 0, f"{name}: {what} is {value}; unknown is None")
    for what, value in (("gain_limit", channel.gain_limit), ("offset_limit", channel.offset_limit)):
        require(value is None or value >= 0, f"{name}: {what} is {value}; unknown is None")
    require(channel.limit_w is None or channel.limit_w > 0, f"{name}: limit_w is {channel.limit_w}; unknown is None")
    require(
        not (channel.additive and channel.parent),
        f"{name} is inside {channel.parent}, but additive",
    )
    kind = channel.filter.kind
    require(kind != "exponential" or channel.filter.tau_s, f"{name}: an exponential filter needs tau_s")
    require(kind != "block" or channel.filter.length_s, f"{name}: a block average needs length_s")
    require(channel.plausible[0] < channel.plausible[1], f"{name}: no value can be plausible in {channel.plausible}")


def _check_rows(sensor: Sensor, channels: Sequence[Channel]) -> None:
    count = len(channels)
    values, times = array("d", [math.nan] * count), array("d", [math.nan] * count)
    last = [math.nan] * count
    seen = [False] * count
    files = 0
    for row in range(ROWS if not sensor.slow else 3):
        for i in range(count):
            values[i] = times[i] = math.nan
        before = time.monotonic()
        sensor.read(values, times)
        after = time.monotonic()
        for i, channel in enumerate(channels):
            if math.isnan(values[i]):
                continue
            seen[i] = True
            _check_value(channel, values[i], last[i])
            stamp_ok = math.isnan(times[i]) or before - 1e-3 <= times[i] <= after + 1e-3
            require(
                stamp_ok, f"{channel.name} is stamped {times[i]}, outside its reading ({before} to {after}, monotonic)"
            )
            last[i] = values[i]
        if row == 0:
            files = _open_file_count()
        if not all(seen):  # a load is the difference between two readings, and needs time between them
            time.sleep(_PAUSE_S)
    require(
        _open_file_count() <= files,
        f"{sensor.name} opens files while it is read; open() must open them and read() reuse them",
    )
    missing = [channel.name for channel, values in zip(channels, seen, strict=True) if not values]
    require(not missing, f"{', '.join(missing)} gave no value in any row; list such a channel in unavailable")


def _check_value(channel: Channel, value: float, last: float) -> None:
    low, high = channel.plausible
    require(
        low <= value <= high,
        f"{channel.name} reads {value} {channel.unit}, outside its own plausible range {low} to {high}",
    )
    require(math.isfinite(value), f"{channel.name} reads {value}; a reading that failed is NaN")
    if channel.kind == "counter" and value < last:
        require(channel.wrap is not None, f"{channel.name} is a counter without wrap, but fell from {last} to {value}")
        require(last <= (channel.wrap or 0.0), f"{channel.name} read {last}, beyond its wrap of {channel.wrap}")


def _twin_keys(keys: Sequence[object]) -> str:
    return ", ".join(sorted({str(key) for key in keys if keys.count(key) > 1}))


def _open_file_count() -> int:
    return int(psutil.Process().num_fds())
