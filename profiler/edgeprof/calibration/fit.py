"""The line between a sensor and a meter, and the time constant of a filter from the steps it showed. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Times 1.96, the half-width of 95 % of a normal distribution.
_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Level:
    """One load level, held.

    Attributes:
        sensor_w: Mean power by the sensor, W.
        meter_w: Mean power by the meter over the same time, W.
        u_w: Standard uncertainty of the one against the other, from how their difference scattered, W. That the load
            itself moves does not count: both saw it.
    """

    sensor_w: float
    meter_w: float
    u_w: float


def level(sensor: Sequence[float], meter: Sequence[float], gain: float) -> Level:
    """A level from the powers (W) that both sides gave in each part of the hold, at about this gain between them."""
    n = len(sensor)
    differences = [m - gain * s for s, m in zip(sensor, meter, strict=True)]
    return Level(math.fsum(sensor) / n, math.fsum(meter) / n, statistics.stdev(differences) / math.sqrt(n))


@dataclass(frozen=True)
class Line:
    """meter = gain × sensor + offset.

    Attributes:
        u_gain: Standard uncertainty, widened so that twice it covers 95 % at the few degrees of freedom there are.
        u_offset_w: Likewise, W.
        covariance_w: Of both, W.
        reduced_chi2: Sum of squared weighted residuals over degrees of freedom: far above 1, the scatter within the
            levels does not explain that between them, and the uncertainties were widened by its root.
    """

    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    reduced_chi2: float

    def at(self, watts: float) -> float:
        return self.gain * watts + self.offset_w


def line(levels: Sequence[Level]) -> Line:
    """The straight line through the levels, and the covariance of its gain and offset.

    Least squares weighted by 1/u². The covariance is the larger of what the levels' own scatter gives and of what
    their scatter about the line does: reduced χ² (Birge's ratio) times (t(0.975, n − 2)/1.96)² for its few degrees of
    freedom.

    Raises:
        ValueError: fewer than three levels, or all at one power.
    """
    if len(levels) < 3:
        raise ValueError(f"{len(levels)} levels are too few for a line and its uncertainty")
    x, y = [level.sensor_w for level in levels], [level.meter_w for level in levels]
    # A level whose difference happened not to scatter is not thereby exact, and must not rule the others.
    floor = max(0.3 * statistics.median(level.u_w for level in levels), 1e-6 * (max(y) - min(y)), 1e-12)
    w = [1 / max(level.u_w, floor) ** 2 for level in levels]
    total = math.fsum(w)
    mean_x = math.fsum(a * b for a, b in zip(w, x, strict=True)) / total
    mean_y = math.fsum(a * b for a, b in zip(w, y, strict=True)) / total
    sxx = math.fsum(a * (b - mean_x) ** 2 for a, b in zip(w, x, strict=True))
    if not sxx > 1e-9 * total * max(map(abs, x)) ** 2:
        raise ValueError("all levels are at one power, so that gain and offset cannot be told apart")
    gain = math.fsum(a * (b - mean_x) * (c - mean_y) for a, b, c in zip(w, x, y, strict=True)) / sxx
    offset = mean_y - gain * mean_x
    nu = len(levels) - 2
    chi2 = math.fsum(a * (c - gain * b - offset) ** 2 for a, b, c in zip(w, x, y, strict=True)) / nu
    widened = max(1.0, chi2 * (t_quantile(0.975, nu) / _NORMAL_975) ** 2)
    return Line(
        gain=gain,
        offset_w=offset,
        u_gain=math.sqrt(widened / sxx),
        u_offset_w=math.sqrt(widened * (1 / total + mean_x**2 / sxx)),
        covariance_w=-widened * mean_x / sxx,
        reduced_chi2=chi2,
    )


@dataclass(frozen=True)
class TimeConstant:
    """What steps showed of a filter.

    Attributes:
        tau_s: Median over the steps, s.
        u_s: Its standard uncertainty, s.
        steps: How many were usable.
    """

    tau_s: float
    u_s: float
    steps: int


def time_constant(steps: Sequence[tuple[Sequence[float], Sequence[float]]], resolution: float) -> TimeConstant | None:
    """The time constant of an exponential filter from readings after steps of its input.

    Each step is fitted alone, y = a + b·exp(−t/τ) over all its readings: a and b by least squares for each τ, τ by
    golden section on a logarithmic scale. Where the step began does not matter, it is within b.

    Args:
        steps: For each: times (s) and values of the readings after it, until well after it has settled.
        resolution: The sensor's step; jumps below 8 of it are no use.

    Returns:
        None where fewer than three steps are usable.
    """
    time_constants = [tau for times, values in steps if (tau := _decay_time_s(times, values, resolution)) is not None]
    if len(time_constants) < 3:
        return None
    middle = statistics.median(time_constants)
    spread = 1.4826 * statistics.median(abs(tau - middle) for tau in time_constants)
    # Of a median of n: 1.2533·σ/√n; never below what a hundredth of τ claims.
    u = max(1.2533 * max(spread, statistics.stdev(time_constants) / 2) / math.sqrt(len(time_constants)), 0.01 * middle)
    return TimeConstant(middle, u, len(time_constants))


def _decay_time_s(times: Sequence[float], values: Sequence[float], resolution: float) -> float | None:
    rows = [(t - times[0], v) for t, v in zip(times, values, strict=True) if math.isfinite(v)]
    if len(rows) < 10:
        return None
    span = rows[-1][0]
    if abs(rows[0][1] - rows[-1][1]) < 8 * max(resolution, 0.0) or rows[0][1] == rows[-1][1]:
        return None
    low, high = math.log(span / len(rows) / 2), math.log(span)
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = _squared_misfit(rows, math.exp(a)), _squared_misfit(rows, math.exp(b))
    for _ in range(40):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = _squared_misfit(rows, math.exp(a))
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = _squared_misfit(rows, math.exp(b))
    tau = math.exp((low + high) / 2)
    # Not settled, or over before the second reading: the span says nothing of it.
    return tau if tau < span / 2.5 else None


def _squared_misfit(rows: Sequence[tuple[float, float]], tau: float) -> float:
    """The sum of squares that is left with the best a and b."""
    n = len(rows)
    e = [math.exp(-t / tau) for t, _ in rows]
    y = [v for _, v in rows]
    me, my = math.fsum(e) / n, math.fsum(y) / n
    see = math.fsum((a - me) ** 2 for a in e)
    sey = math.fsum((a - me) * (b - my) for a, b in zip(e, y, strict=True))
    syy = math.fsum((b - my) ** 2 for b in y)
    return syy - (sey**2 / see if see > 0 else 0.0)
