"""The idle power, measured before and after the work, with an uncertainty for its drift in between."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.integrate import window_energy
from edgeprof.energy.uncertainty import RECTANGULAR, Component
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.worker.span import Span

#: Samples of power are correlated; the means of ten batches nearly are not (a simulated 95 % interval covers 94.5 to 92
#: % for autocorrelations up to 0.9). Source: the method of batch means, Law and Kelton.
BATCHES = 10
#: A drift beyond this share of the idle power is reported, and the idle power then follows a straight line.
DRIFT = 0.05


@dataclass(frozen=True)
class Idle:
    """One stretch without work.

    Attributes:
        middle_s: Its middle, in seconds of CLOCK_MONOTONIC.
        power: The mean power, in watts.
        u: The standard uncertainty of the mean (W), from batch means.
        nu: The degrees of freedom of that uncertainty.
        parts: For each channel: its watts, the standard uncertainty of its level from the sensor's step (W), and its
            derivative by the filter's time constant (W/s).
    """

    middle_s: float
    power: float
    u: float
    nu: float
    parts: Sequence[tuple[float, float, float]] = ()


def measure_idle(headline: Sequence[ChannelSeries], span: Span) -> Idle | None:
    """Measure the mean power of a stretch without work; None where a channel has no readings there.

    Args:
        headline: The channels whose sum is the total.
        span: The stretch.
    """
    start, end = span.start_s, span.end_s
    if end <= start:
        return None
    whole = _mean_power(headline, start, end, steady=True)
    if whole is None:
        return None
    power, u_reading, parts = whole
    for batches in (BATCHES, 5, 2):  # some of ten batches may have no reading of a slow sensor
        edges = np.linspace(start, end, batches + 1)
        batch_powers = [_mean_power(headline, float(a), float(b)) for a, b in itertools.pairwise(edges)]
        means = [batch[0] for batch in batch_powers if batch is not None]
        if len(means) == batches:
            spread = float(np.var(means, ddof=1)) / batches
            # The batches also scatter because each of them contains only a few steps of the sensor. That is no scatter
            # of the idle power, because the energy that one batch loses at its edge is gained by the next; so it is
            # subtracted.
            known = math.fsum(batch[1] ** 2 for batch in batch_powers if batch is not None) / batches**2
            u = math.hypot(math.sqrt(max(0.0, spread - known)), u_reading)
            return Idle((start + end) / 2, float(power), u, batches - 1, parts)
    return Idle((start + end) / 2, float(power), u_reading, math.inf, parts)


def _mean_power(
    headline: Sequence[ChannelSeries], start: float, end: float, *, steady: bool = False
) -> tuple[float, float, list[tuple[float, float, float]]] | None:
    """The mean power (W), its standard uncertainty from the readings alone, and the part of each channel
    (``Idle.parts``).
    """
    total, squares, length = 0.0, 0.0, end - start
    parts = []
    for series in headline:
        energy = window_energy(
            series.times, series.values, start, end, series.channel, steady_power=steady, judges_level=steady
        )
        if energy.joules is None or "few_samples" in energy.problems:
            return None
        total += energy.joules
        # The error of the level, which is the same throughout, is counted in the parts and not here.
        squares += max(0.0, energy.u_resolution**2 - energy.u_level**2) + energy.u_filter**2
        if steady or series.channel.quantity == "energy":
            squares += energy.u_sync**2
        parts.append((energy.joules / length, energy.u_level / length, energy.tau_slope_w / length))
    return total / length, math.sqrt(squares) / length, parts


@dataclass(frozen=True)
class Baseline:
    """The idle power over time: the mean of all idles, or a straight line between them where it drifts.

    Attributes:
        idles: At least one, in order of time.
    """

    idles: Sequence[Idle]

    @property
    def mean(self) -> float:
        """The mean of all idle powers, in watts."""
        return math.fsum(i.power for i in self.idles) / len(self.idles)

    @property
    def range(self) -> float:
        """The difference between the highest and the lowest idle power, in watts."""
        powers = [i.power for i in self.idles]
        return max(powers) - min(powers)

    @property
    def drifts(self) -> bool:
        """Whether the idle power drifts by more than ``DRIFT``."""
        return len(self.idles) > 1 and self.range > DRIFT * abs(self.mean)

    def power_at(self, time_s: float) -> float:
        """The idle power (W) at a time."""
        if not self.drifts:
            return self.mean
        return float(np.interp(time_s, [i.middle_s for i in self.idles], [i.power for i in self.idles]))

    def parts(self) -> list[tuple[float, float, float]]:
        """The mean of ``Idle.parts`` for each channel: idles at one level share the same rounding error, which adds
        linearly.
        """
        count = len(self.idles)
        return [
            (math.fsum(part[0] for part in column) / count, math.fsum(part[1] for part in column) / count,
             math.fsum(part[2] for part in column) / count)
            for column in zip(*(idle.parts for idle in self.idles), strict=True)
        ]  # fmt: skip

    def components(self) -> list[Component]:
        """Standard uncertainties (W) of each idle measurement, and of the unobserved drift between them."""
        count = len(self.idles)
        parts = [Component("idle", i.u / count, i.nu) for i in self.idles]
        # Between two idles the power lies anywhere between them: rectangular (GUM 4.3.7). Only the part of their
        # difference that their own uncertainties do not explain counts.
        beyond = math.sqrt(max(0.0, self.range**2 - math.fsum(i.u**2 for i in self.idles)))
        return [*parts, Component("idle", beyond / 2 * RECTANGULAR)]

    def drift_reason(self) -> schema.Reason | None:
        """The reason ``idle_drift``; None where the idle power does not drift."""
        if not self.drifts:
            return None
        first, last = self.idles[0].power, self.idles[-1].power
        return schema.Reason(
            Code.IDLE_DRIFT,
            f"the idle power went from {first:.3g} W to {last:.3g} W, more than {100 * DRIFT:.0f} %: the net energy"
            " follows a straight line between them",
            "Let the device settle first, or use longer idles: --idle S.",
        )
