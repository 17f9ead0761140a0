"""Watch the rails of a machine: their power, the joules since the watch began, and the joules since a mark."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from edgeprof.energy.online.rails import Marked, RailReading, is_electric, power_rails, sum_of_headline
from edgeprof.energy.online.running_sum import Meter
from edgeprof.sensing.limits import why_impossible
from edgeprof.sensing.sampler import Sampler
from edgeprof.sensing.sensor import WrappedSensor

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence

    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.sensor import Channel, Quantity, Sensor

    Key = tuple[str, str, Quantity]

#: For how long (s) the sampler keeps readings: only the newest ones are needed.
_KEEP_S = 2.0
#: A limit of error is the half-width of a rectangular distribution (GUM 4.3.7).
_UNIFORM = 1 / math.sqrt(3)
_COVERAGE_FACTOR = 2.0


class Watch:
    """Samples every source that was discovered, and adds up the energy of each power rail.

    Args:
        discovery: The sources and the topology.
        rate_hz: Readings per second; slower sources are read less often.
    """

    def __init__(self, discovery: Discovery, rate_hz: float = 10.0) -> None:
        self.topology = discovery.topology
        known = self.topology.by_key()
        #: One meter for each rail: of its counter where it has one, otherwise of its power.
        self._meters = {channel.key: Meter(channel) for channel in power_rails(self.topology)}
        self._lock = threading.Lock()
        self._period_s = 1 / rate_hz
        self._marks: dict[Key, tuple[float, float]] = {}
        sensors = [_Tapped(sensor, self._meters, self._lock) for sensor in discovery.sensors]
        self._sampler = Sampler(sensors, rate_hz, known, keep_s=_KEEP_S)

    def start(self) -> None:
        """Start sampling, and set the first mark."""
        self._sampler.start()
        self.mark()

    def stop(self) -> None:
        """Stop sampling."""
        self._sampler.stop()

    def rails(self) -> list[RailReading]:
        """The readings of all rails, in the topology's order."""
        now = time.monotonic()
        with self._lock:
            return [RailReading(m.channel, m.watts, m.shown(now), m.gap(now)) for m in self._meters.values()]

    def total(self) -> RailReading | None:
        """The sum of the headline; None if nothing measures a total. Its watts are None while a part has no reading."""
        return sum_of_headline(self.topology, self.rails())

    def others(self) -> list[tuple[Channel, float]]:
        """The newest readings of temperatures, clocks, loads, memory and all other channels that are no power."""
        latest = self._sampler.latest()
        return [
            (channel, latest[channel.key][1])
            for channel in self.topology.channels
            if not is_electric(channel) and math.isfinite(latest.get(channel.key, (math.nan, math.nan))[1])
        ]

    def mark(self) -> None:
        """Set a mark; ``marked`` returns the energy since then."""
        with self._lock:
            self._marks = {key: (m.time, m.joules) for key, m in self._meters.items() if m.time is not None}

    def marked(self) -> Marked:
        """The energy of the headline since the last mark."""
        seconds = joules = variance = 0.0
        stated = True
        if not self.topology.headline.channels:
            return Marked(0.0, None, None)
        with self._lock:
            for channel in self.topology.headline.channels:
                meter, begun = self._meters.get(channel.key), self._marks.get(channel.key)
                if meter is None or begun is None or meter.time is None:
                    return Marked(0.0, None, None)
                elapsed, energy = meter.time - begun[0], meter.joules - begun[1]
                seconds, joules = max(seconds, elapsed), joules + energy
                stated = stated and (channel.gain_limit is not None or channel.calibration is not None)
                variance += _sensor_variance(channel, energy, elapsed) + self._ends_variance(channel, energy, elapsed)
        return Marked(seconds, joules, _COVERAGE_FACTOR * math.sqrt(variance) if stated else None)

    def _ends_variance(self, channel: Channel, joules: float, seconds: float) -> float:
        """The variance (J²) from the two ends, each of which lies anywhere between two readings (GUM 4.3.7)."""
        interval = max(self._period_s, channel.update_interval_s or 0.0)
        end = joules / seconds * interval / math.sqrt(12) if seconds > 0 else 0.0
        return 2 * end**2


def _sensor_variance(channel: Channel, joules: float, seconds: float) -> float:
    """The variance (J²) of gain and offset, from the calibration or else from the stated limits (GUM 5.2.2)."""
    line = channel.calibration
    if line is not None:
        covariance = 2 * line.covariance_w * joules * seconds
        return max(0.0, (line.u_gain * joules) ** 2 + (line.u_offset_w * seconds) ** 2 + covariance)
    gain = (channel.gain_limit or 0.0) * joules * _UNIFORM
    offset = (channel.offset_limit or 0.0) * seconds * _UNIFORM
    return gain**2 + offset**2


class _Tapped(WrappedSensor):
    """A sensor whose power readings go to the meters as they are read."""

    def __init__(self, sensor: Sensor, meters: Mapping[Key, Meter], lock: threading.Lock) -> None:
        super().__init__(sensor)
        self._lock = lock
        self._metered = [
            (index, meters[channel.key]) for index, channel in enumerate(sensor.channels) if channel.key in meters
        ]

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        self.wrapped.read(values, times)
        middle = 0.5 * (before + time.monotonic())
        with self._lock:
            for index, meter in self._metered:
                value = values[index]
                if math.isfinite(value) and why_impossible(meter.channel, value) is None:
                    meter.add(middle if math.isnan(times[index]) else times[index], value)
