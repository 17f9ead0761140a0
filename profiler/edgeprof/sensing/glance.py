"""Read every channel once: its present value, and the total of the headline.

Two rows are read shortly after one another, because the power of a counter and a load are differences of readings.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError
from edgeprof.sensing.limits import counter_rise, why_impossible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeprof.sensing.board.topology import Headline
    from edgeprof.sensing.sensor import Channel, Quantity, Sensor

    Key = tuple[str, str, Quantity]


@dataclass
class Glance:
    """The present values of channels.

    Attributes:
        values: Key → the last good value in the channel's unit; None if both readings failed or are impossible.
        rates: Key of a counter → its rise per second (W for an energy counter); None if it stood still.
    """

    values: dict[Key, float | None] = field(default_factory=dict)
    rates: dict[Key, float | None] = field(default_factory=dict)

    def watts(self, channel: Channel) -> float | None:
        """The power (W) of a power or energy channel; None if unknown."""
        return (self.rates if channel.kind == "counter" else self.values).get(channel.key)

    def total(self, headline: Headline) -> tuple[float | None, str | None]:
        """The power of the headline (W); or None and the reason, because a sum with a missing part is unknown."""
        if not headline.channels:
            return None, headline.reason
        parts = [self.watts(channel) for channel in headline.channels]
        for channel, watts in zip(headline.channels, parts, strict=True):
            if watts is None:
                what = "stood still while it was watched" if channel.kind == "counter" else "could not be read just now"
                return None, f"{channel.name} {what}"
        return math.fsum(watts for watts in parts if watts is not None), None


def glance(sensors: Iterable[Sensor], channels: Mapping[Key, Channel], seconds: float = 0.25) -> Glance:
    """Read the sensors twice.

    Args:
        sensors: Closed sensors, which are opened, read twice and closed in this thread.
        channels: The channels as annotated by the topology, with their plausible limits.
        seconds: The time between the two readings, in seconds.
    """
    sensors = list(sensors)
    first = [_read_row(sensor, opening=True) for sensor in sensors]
    time.sleep(seconds)
    seen = Glance()
    for sensor, before in zip(sensors, first, strict=True):
        after = _read_row(sensor)
        with suppress(OSError, EdgeprofError):
            sensor.close()
        for index, declared in enumerate(sensor.channels):
            channel = channels.get(declared.key, declared)
            (v0, t0), (v1, t1) = before[index], after[index]
            good = [value for value in (v1, v0) if not math.isnan(value) and why_impossible(channel, value) is None]
            seen.values[channel.key] = good[0] if good else None
            if channel.kind == "counter":
                rise = counter_rise(channel, v0, v1, t1 - t0)[0] if len(good) == 2 and t1 > t0 else math.nan
                seen.rates[channel.key] = rise / (t1 - t0) if rise > 0 else None
    return seen


def _read_row(sensor: Sensor, *, opening: bool = False) -> list[tuple[float, float]]:
    count = len(sensor.channels)
    values, times = [math.nan] * count, [math.nan] * count
    begin = time.monotonic()
    # A source that fails now has no values; the sampler and doctor report why.
    with suppress(Exception):
        if opening:
            sensor.open()
        sensor.read(values, times)
    middle = 0.5 * (begin + time.monotonic())
    return [(value, middle if math.isnan(at) else at) for value, at in zip(values, times, strict=True)]
