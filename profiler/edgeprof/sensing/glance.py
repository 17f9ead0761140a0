"""One look at every channel: what it reads now, and what the headline comes to.

Two rows are read a moment apart, since a counter's power and a load are differences between readings.
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
    """What was seen.

    Attributes:
        values: Key → last good value in the channel's unit; None where both readings failed or cannot be true.
        rates: Key of a counter → its rise per second (W for an energy counter); None where it stood still.
    """

    values: dict[Key, float | None] = field(default_factory=dict)
    rates: dict[Key, float | None] = field(default_factory=dict)

    def watts(self, channel: Channel) -> float | None:
        """The power that a power or energy channel shows."""
        return (self.rates if channel.kind == "counter" else self.values).get(channel.key)

    def total(self, headline: Headline) -> tuple[float | None, str | None]:
        """The headline's watts, or None and why: a missing part makes the sum unknown, not smaller."""
        if not headline.channels:
            return None, headline.reason
        parts = [self.watts(channel) for channel in headline.channels]
        for channel, watts in zip(headline.channels, parts, strict=True):
            if watts is None:
                what = "stood still while it was watched" if channel.kind == "counter" else "could not be read just now"
                return None, f"{channel.name} {what}"
        return math.fsum(watts for watts in parts if watts is not None), None


def glance(sensors: Iterable[Sensor], channels: Mapping[Key, Channel], seconds: float = 0.25) -> Glance:
    """Look twice.

    Args:
        sensors: Closed; they are opened, read twice and closed in this thread.
        channels: As the topology knows them, for what is plausible.
        seconds: Time between the two readings.
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
    # A source that breaks down now shows no values; what broke is the sampler's and doctor's to tell.
    with suppress(Exception):
        if opening:
            sensor.open()
        sensor.read(values, times)
    middle = 0.5 * (begin + time.monotonic())
    return [(value, middle if math.isnan(at) else at) for value, at in zip(values, times, strict=True)]
