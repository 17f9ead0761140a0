"""Fit the line between a sensor and a meter, and the time constant of a filter from steps of load. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The 0.975 quantile of the normal distribution.
_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Level:
    """The mean powers of both sides while one load level was held.

    Attributes:
        sensor_w: The mean power by the sensor, in W.
        meter_w: The mean power by the meter over the same time, in W.
        u_w: The standard uncertainty of their difference, from its scatter, in W. Fluctuations of the load do not
            count, because both sides saw them.
    """

    sensor_w: float
    meter_w: float
    u_w: float


def level(sensor: Sequence[float], meter: Sequence[float], gain: float) -> Level:
    """Make a level from the powers (W) of both sides in each part of the hold; ``gain`` is their approximate ratio."""
    n = len(sensor)
    # Comparing the difference, and not each side, removes what the load itself did (type A, GUM 4.2.3).
    differences = [m - gain * s for s, m in zip(sensor, meter, strict=True)]
    return Level(math.fsum(sensor) / n, math.fsum(meter) / n, statistics.stdev(differences) / math.sqrt(n))


@dataclass(frozen=True)
class Line:
    """The line meter = gain × sensor + offset.

    Attributes:
        gain: Watts of the meter per watt of the sensor.
        offset_w: The offset, in W.
        u_gain: The standard uncertainty of the gain, widened so that twice it covers 95 % at few degrees of freedom.
        u_offset_w: The standard uncertainty of the offset, widened likewise, in W.
        covariance_w: The covariance of gain and offset, in W.
        reduced_chi2: The weighted sum of squared residuals over the degrees of freedom. Far above 1 the scatter within
            the levels does not explain that between them, and the uncertainties are widened by its root.
    """

    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    reduced_chi2: float

    def at(self, watts: float) -> float:
        """The power by the meter (W) for a power by the sensor (W)."""
        return self.gain * watts + self.offset_w


def line(levels: Sequence[Level]) -> Line:
    """Fit a straight line through the levels, with the covariance of its gain and offset.

    The fit is least squares weighted by 1/u². The variances are the larger of two: those from the scatter within the
    levels, and those from the scatter of the levels about the line. The latter is the reduced χ² (Birge's ratio) times
    (t(0.975, n − 2)/1.96)², which allows for the few degrees of freedom (GUM G.3). GUM H.3 has an example of such a
    line.

    Raises:
        ValueError: fewer than three levels, or all at one power.
    """
    if len(levels) < 3:
        raise ValueError(f"{len(levels)} levels are too few for a line and its uncertainty")
    x, y = [level.sensor_w for level in levels], [level.meter_w for level in levels]
    # A level whose difference scattered little by chance must not dominate the others, so u has a lower limit.
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
    """The time constant of a filter, fitted to steps.

    Attributes:
        tau_s: The median over the steps, in seconds.
        u_s: Its standard uncertainty, in seconds.
        steps: How many steps were usable.
    """

    tau_s: float
    u_s: float
    steps: int


def time_constant(steps: Sequence[tuple[Sequence[float], Sequence[float]]], resolution: float) -> TimeConstant | None:
    """Fit the time constant of an exponential filter to readings after steps of its input.

    Each step is fitted by itself with y = a + b·exp(−t/τ) over all its readings: a and b by least squares for each τ,
    and τ by golden section on a logarithmic scale. The exact time of the step does not matter, because it only changes
    b.

    Args:
        steps: For each step the times (s) and values of the readings after it, until well after it has settled.
        resolution: The sensor's step, in W; jumps of less than 8 steps are not used.

    Returns:
        None where fewer than three steps are usable.
    """
    time_constants = [tau for times, values in steps if (tau := _decay_time_s(times, values, resolution)) is not None]
    if len(time_constants) < 3:
        return None
    middle = statistics.median(time_constants)
    spread = 1.4826 * statistics.median(abs(tau - middle) for tau in time_constants)
    # The standard error of a median is 1.2533·σ/√n (√(π/2)); 1.4826 · the median absolute deviation estimates σ. The
    # result is at least 1 % of τ.
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
    # A longer time constant has not settled within the span and is not determined by it.
    return tau if tau < span / 2.5 else None


def _squared_misfit(rows: Sequence[tuple[float, float]], tau: float) -> float:
    """The sum of squared residuals of the best a and b for a time constant."""
    n = len(rows)
    e = [math.exp(-t / tau) for t, _ in rows]
    y = [v for _, v in rows]
    me, my = math.fsum(e) / n, math.fsum(y) / n
    see = math.fsum((a - me) ** 2 for a in e)
    sey = math.fsum((a - me) * (b - my) for a, b in zip(e, y, strict=True))
    syy = math.fsum((b - my) ** 2 for b in y)
    return syy - (sey**2 / see if see > 0 else 0.0)
