"""What sensors read while a known load ran: powers, rises and delays, with their intervals. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeprof.calibration.pattern import SETTLED
from edgeprof.energy.counters import unwrap
from edgeprof.energy.integrate import window_energy
from edgeprof.energy.uncertainty import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.calibration.pattern import Plan, Played, Pulse
    from edgeprof.energy.window import Floats
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key, Series


class Readings(Protocol):
    """The sampled readings, as ``sensing.trace.Trace`` has them."""

    def series(self, key: Key) -> Series:
        """A channel's readings without those that only repeat the one before."""

    def readings(self, key: Key) -> Series:
        """A channel's readings as they were read."""

    def period_s(self, key: Key) -> float:
        """The period (s) that a channel is read at."""


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % interval, infinite for fewer than two values."""

    value: float
    half: float

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.half


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and its 95 % interval by Student's t (GUM G.3)."""
    good = [value for value in values if math.isfinite(value)]
    if not good:
        return Interval(math.nan, math.inf)
    mean = math.fsum(good) / len(good)
    if len(good) < 2:
        return Interval(mean, math.inf)
    variance = math.fsum((value - mean) ** 2 for value in good) / (len(good) - 1)
    return Interval(mean, t_quantile(0.975, len(good) - 1) * math.sqrt(variance / len(good)))


@dataclass(frozen=True)
class Observed:
    """The data from which verdicts are made.

    Attributes:
        topology: The board with its headline, from which joules are quoted.
        channels: The sampled channels of power and of counted energy.
        trace: Their readings, which are complete.
        plan: The planned load.
        played: The load that was really played.
    """

    topology: Topology
    channels: Sequence[Channel]
    trace: Readings
    plan: Plan
    played: Played
    _changes: dict[Key, Series] = field(default_factory=dict, init=False, repr=False, compare=False)
    _readings: dict[Key, tuple[Floats, Floats]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def headline(self) -> list[Channel]:
        """The sampled channels of the headline."""
        chosen = {channel.key for channel in self.topology.headline.channels}
        return [channel for channel in self.channels if channel.key in chosen]

    def series(self, channel: Channel) -> Series:
        """A channel's readings without those that only repeat the one before."""
        if channel.key not in self._changes:
            self._changes[channel.key] = self.trace.series(channel.key)
        return self._changes[channel.key]

    def joules(self, channel: Channel, start_s: float, end_s: float) -> float:
        """The energy (J) from one quiet moment to another; NaN if the readings do not determine it."""
        series = self.series(channel)
        energy = window_energy(series.times, series.values, start_s, end_s, channel, edges="interpolated")
        return math.nan if energy.joules is None else energy.joules

    def power(self, channel: Channel, hold: tuple[float, float]) -> float:
        """The mean power (W) in a hold; NaN if the readings do not determine it."""
        start, end = hold
        if channel.kind == "counter" or channel.filter.kind == "exponential":  # whose tail is not over yet
            return self.joules(channel, start, end) / (end - start)
        _, values = self.within(channel, start, end)
        return float(values.mean()) if values.size else math.nan

    def within(self, channel: Channel, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Times (s) and values of all good readings between two moments, counters unwrapped."""
        if channel.key not in self._readings:
            series = self.trace.readings(channel.key)
            self._readings[channel.key] = np.asarray(series.times), np.asarray(series.values)
        t, v = self._readings[channel.key]
        part = (t >= start_s) & (t <= end_s) & np.isfinite(v)
        if channel.kind == "counter" and np.any(part):
            return t[part], unwrap(t[part], v[part], channel)[0]
        return t[part], v[part]

    def rises(self, channel: Channel) -> list[float]:
        """By how much (W) the power of each step was above that of the idle after it."""
        pairs = zip(self.played.ons(), self.played.offs(), strict=True)
        return [self.power(channel, on) - self.power(channel, off) for on, off in pairs]

    def rise(self, channel: Channel) -> Interval:
        """The mean of ``rises`` with its interval, which includes a rounding error that does not average out."""
        mean_rise = interval(self.rises(channel))
        step = (channel.resolution or 0.0) if channel.quantity == "power" else 0.0
        return Interval(mean_rise.value, math.hypot(mean_rise.half, step / math.sqrt(3)))

    def level(self, channels: Sequence[Channel], hold: tuple[float, float]) -> float:
        """The summed power (W) of channels in a hold; NaN if one of them is unknown."""
        return math.fsum(self.power(channel, hold) for channel in channels)

    def delays(self, channel: Channel) -> list[float]:
        """The delay (s) with which the fall after each step was shown: the area under the fall divided by its height.

        For any linear sensor this is the first moment of its impulse response, the mean age of what a reading shows: τ
        of an exponential filter, half the length of a block, and for a counter the age of its count.
        """
        return [self._delay(channel, step) for step in self.played.steps]

    def _delay(self, channel: Channel, step: Pulse) -> float:
        on, off = (
            self.power(channel, hold) for hold in (self.settled_before(step.off_s), self.settled_before(step.end_s))
        )
        if not abs(on - off) > 0:
            return math.nan
        t, v = self.within(channel, step.off_s, step.end_s)
        if t.size < 4:
            return math.nan
        length = float(t[-1] - t[0])
        if channel.kind == "counter":
            return (float(v[-1] - v[0]) - off * length) / (on - off)
        area = float(np.dot(np.diff(t), v[:-1])) - off * length  # a reading stands until the next
        return area / (on - off) + float(t[0]) - step.off_s

    def settled_before(self, end_s: float) -> tuple[float, float]:
        """The settled last part of the hold that ends at ``end_s``."""
        return end_s - SETTLED * self.plan.hold_s, end_s

    def work_cost(self, pulse: Pulse) -> float:
        """The joules beyond idle that the headline shows for each loop of work; NaN if unknown."""
        before, after = self.settled_before(pulse.start_s), self.settled_before(pulse.end_s)
        start, end = before[0], pulse.end_s
        idle = (self.level(self.headline, before) + self.level(self.headline, after)) / 2
        joules = math.fsum(self.joules(channel, start, end) for channel in self.headline)
        return (joules - idle * (end - start)) / pulse.loops if pulse.loops > 0 else math.nan
