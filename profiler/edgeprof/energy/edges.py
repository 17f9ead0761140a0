"""The energy of a window whose edges are taken from the quiet time beside it.

A window begins and ends with a step of power, in phase with its first and last inference. The parts at its edges that
no reading inside covers are therefore unlike the rest of the window. Where nothing else runs for a few readings before
and after the window, no part needs to be left out: the running integral G of the readings rises there along a straight
line, whose slope is the power without work. Extrapolated to the edges, the two lines give G at both edges, and the
energy of the window is their difference. The delay of readings, and the phase of a counter or of a block average, shift
both lines by the same time and cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.window import WindowEnergy, level_energy, step_energy

if TYPE_CHECKING:
    from edgeprof.energy.window import Floats, Window

#: The most points of the running integral in one line: the power beside a window is steady only for a short time.
_MOST_POINTS = 10
#: The standard deviation of the error of a trapezoid at a kink, as a factor of h² and of the change of slope: that of
#: f·(1 − f)/2 for a kink at a uniformly distributed fraction f of the interval h, √(1/120 − 1/144). The mean error
#: cancels, because the changes of slope between two quiet stretches add up to zero.
_KINK_ERROR = 0.0373
#: The most periods of a clock without a change in which its ticks can still be counted.
_COUNTABLE_PERIODS = 12


@dataclass(frozen=True)
class RunningIntegral:
    """The running integral of a channel's power: its energy up to certain times, plus an unknown constant.

    Attributes:
        t: The times in seconds, rising, shape ``(n,)``.
        joules: The energy up to each time, same shape.
        u: Standard uncertainty of each value (J), independent of the others.
        u_time: Standard uncertainty of each time (s); multiplied by the power there, it is an uncertainty in joules.
        lag_s: The longest delay (s) after which an event shows in the readings.
        y: The derivative of the energy by the filter's time constant (W), same shape; None without a filter.
    """

    t: Floats
    joules: Floats
    u: float
    lag_s: float
    y: Floats | None = None
    u_time: float = 0.0


def line_of_steady_power(window: Window, integral: RunningIntegral) -> WindowEnergy | None:
    """The energy of a window of nearly constant power, from the slope of its running integral.

    A least-squares line uses all readings, so that its slope is better known than the difference of the two ends.

    Returns:
        The energy; None where too few points lie inside.
    """
    inside = (integral.t >= window.start + integral.lag_s) & (integral.t <= window.end)
    t, g = integral.t[inside], integral.joules[inside]
    if t.size < 4 or t[-1] - t[0] < window.length / 2:
        return None
    centred = t - t.mean()
    spread = float(np.dot(centred, centred))
    power = float(np.dot(centred, g)) / spread
    u = math.hypot(integral.u, power * integral.u_time) / math.sqrt(spread) * window.length
    is_filtered = integral.y is not None
    readings = window.v[window.inside()]
    gauge = window.channel.quantity == "power" and readings.size > 0
    return WindowEnergy(
        power * window.length,
        u_sync=0.0 if is_filtered else u,
        u_resolution=step_energy(window, readings) if gauge else 0.0,
        u_level=level_energy(window, readings) if gauge else 0.0,
        u_filter=u if is_filtered else 0.0,
        tau_slope_w=0.0 if integral.y is None else float(np.dot(centred, integral.y[inside])) / spread * window.length,
        samples=int(t.size),
    )


def between_quiet(window: Window, integral: RunningIntegral) -> WindowEnergy | None:
    """The energy of a window between two extrapolated lines; None where the quiet time has too few points."""
    before = _edge_by_line(window, integral, window.start, window.start - window.quiet[0] + integral.lag_s, -1)
    after = _edge_by_line(window, integral, window.end + integral.lag_s, window.end + window.quiet[1], +1)
    if before is None or after is None:
        return None
    inside = window.v[window.inside()]
    if window.channel.quantity == "energy" or inside.size == 0:
        u_level = u_resolution = 0.0
    else:
        u_level, u_resolution = level_energy(window, inside), step_energy(window, inside)
    u_edges = math.hypot(before.u, after.u)
    first, last = np.searchsorted(window.t, [before.nearest_s, after.nearest_s])
    u_between = _quadrature_error_j(window, slice(int(first), int(last) + 1))
    is_filtered = integral.y is not None
    return WindowEnergy(
        after.joules - before.joules,
        u_sync=u_between if is_filtered else math.hypot(u_edges, u_between),
        u_resolution=u_resolution,
        u_level=u_level,
        u_filter=u_edges if is_filtered else 0.0,
        tau_slope_w=after.y - before.y,
        samples=int(inside.size),
    )


@dataclass(frozen=True)
class _Edge:
    joules: float
    u: float
    y: float
    nearest_s: float


def _edge_by_line(window: Window, integral: RunningIntegral, first_s: float, last_s: float, side: int) -> _Edge | None:
    """The running integral at an edge of the window, from a straight line through its points on the quiet side.

    Args:
        window: The window.
        integral: Its running integral.
        first_s: The end of the quiet stretch that is nearer to the window, in seconds.
        last_s: The other end of the quiet stretch, in seconds.
        side: -1 for the stretch before the window, +1 for the one after it.
    """
    if side < 0:
        first_s, last_s = last_s, first_s
    begin, end = np.searchsorted(integral.t, [first_s, last_s], side="left")
    chosen = slice(int(begin), int(end))
    count = chosen.stop - chosen.start
    if count > _MOST_POINTS:
        nearest = slice(chosen.stop - _MOST_POINTS, chosen.stop), slice(chosen.start, chosen.start + _MOST_POINTS)
        chosen = nearest[0] if side < 0 else nearest[1]
    if count < 2:
        return None
    edge = window.start if side < 0 else window.end
    x = integral.t[chosen] - edge
    centred = x - x.mean()
    spread = float(np.dot(centred, centred))
    # The value of a least-squares line at x = 0 is a weighted sum of the points; these are the weights.
    weights = 1 / x.size - x.mean() * centred / spread
    g = integral.joules[chosen]
    slope = float(np.dot(centred, g)) / spread
    residuals = g - g.mean() - slope * centred
    # Two parameters were fitted; with very few points left the scatter would itself be too uncertain to use.
    scatter = math.sqrt(float(np.dot(residuals, residuals)) / (x.size - 2)) if x.size > 4 else 0.0
    return _Edge(
        joules=float(np.dot(weights, g)),
        u=max(math.hypot(integral.u, slope * integral.u_time), scatter) * math.sqrt(float(np.dot(weights, weights))),
        y=float(np.dot(weights, integral.y[chosen])) if integral.y is not None else 0.0,
        nearest_s=float(integral.t[chosen][-1 if side < 0 else 0]),
    )


def _quadrature_error_j(window: Window, part: slice) -> float:
    """Standard uncertainty (J) of the trapezoids between readings of power; counters and block averages have none."""
    if window.channel.quantity == "energy" or window.channel.filter.kind == "block":
        return 0.0
    t, v = window.t[part], window.v[part]
    if t.size < 3:
        return 0.0
    apart = np.diff(t)
    tau = window.channel.filter.tau_s or 0.0
    # Between two readings the power may have jumped at any moment: a rectangular error of full width |Δv|·Δt, whose
    # standard uncertainty is |Δv|·Δt/√12 (GUM 4.3.7).
    jumps = math.sqrt(float(np.sum((np.diff(v) * apart) ** 2)) / 12)
    if tau <= window.interval:
        return jumps
    # A filter's reading cannot jump: where the power jumps, only its slope changes.
    bends = np.diff(np.diff(v) / apart) * (apart[1:] + apart[:-1]) / 2
    return min(jumps, _KINK_ERROR * math.sqrt(float(np.sum((bends * (apart[1:] + apart[:-1]) / 2) ** 2))))


def counter_integral(window: Window) -> RunningIntegral | None:
    """The running integral of a counter at its ticks; ``window.v`` is unwrapped. None for fewer than four ticks."""
    changed = np.flatnonzero(np.diff(window.v) > 0) + 1
    if changed.size < 4:
        return None
    seen, v = window.t[changed], window.v[changed]
    update = window.channel.update_interval_s or window.interval
    if 2 * update < window.interval:
        # The counter ticks between any two readings, and each reading is up to one tick old.
        ticks, late, u_time = seen, update, update / math.sqrt(12)
    else:
        clock = own_clock(seen, float(np.median(np.diff(seen))))
        ticks, late, u_time = clock.times, clock.width, clock.u
    u = (window.channel.resolution or 0.0) / math.sqrt(12)
    return RunningIntegral(ticks, v, u, lag_s=late, u_time=u_time)


def momentary_integral(window: Window) -> RunningIntegral | None:
    """The running integral of momentary readings; None for fewer than three."""
    if window.t.size < 3:
        return None
    u = (window.channel.resolution or 0.0) * window.interval / math.sqrt(12)
    update = window.channel.update_interval_s or 0.0
    if update > 0.75 * window.interval:
        # The source is refreshed less often than it is read, and holds its value. Repeated readings were left out, so
        # that a straight line to the next change would leave the old value too early. Instead, the value is held until
        # the next change, and points of the integral are added in between.
        total = np.concatenate(([0.0], np.cumsum(window.v[:-1] * np.diff(window.t))))
        t = np.union1d(window.t, np.arange(window.t[0], window.t[-1], update / 2))
        # The added points are no independent readings, hence the factor. What was converted before an edge may show a
        # refresh and a conversion (half a refresh) later, hence the lag.
        u *= math.sqrt(t.size / window.t.size)
        return RunningIntegral(t, np.interp(t, window.t, total), u, lag_s=1.5 * update)
    return RunningIntegral(window.t, _cumulative_trapezoids(window), u, lag_s=update)


def filter_integral(window: Window, tau: float) -> RunningIntegral | None:
    """The running integral of an exponential filter's input: ∫y dt + τ·y, because the input is x = y + τ·dy/dt.

    None for fewer than three readings.
    """
    if window.t.size < 3:
        return None
    u = tau * (window.channel.resolution or 0.0) / math.sqrt(12)
    lag = window.channel.update_interval_s or 0.0
    return RunningIntegral(window.t, _cumulative_trapezoids(window) + tau * window.v, u, lag_s=lag, y=window.v)


def _cumulative_trapezoids(window: Window) -> Floats:
    steps = np.diff(window.t) * (window.v[1:] + window.v[:-1]) / 2
    return np.concatenate(([0.0], np.cumsum(steps)))


def block_integral(window: Window, length: float) -> RunningIntegral | None:
    """The running integral of averages over consecutive blocks of ``length`` seconds; None for too few changes.

    A reading that changed at tᵢ is the mean of the block of length T that ended there, and of all blocks until the one
    before the next change. From one change to the next, Δt later, the energy is therefore v₀·(Δt − T) + v₁·T.
    """
    changes = np.diff(window.v) != 0
    changed = np.flatnonzero(changes) + 1
    if changed.size < 4:
        return None
    # The length of the blocks follows the chip's own clock, which may differ from the declared one by a tenth.
    clock = own_clock(window.t[changed], window.channel.update_interval_s or length)
    ends, block = clock.times, clock.period
    v = window.v[changed]
    apart = np.diff(ends)
    own_widths = np.minimum(block, apart)
    at_changes = np.concatenate(([0.0], np.cumsum(v[:-1] * (apart - own_widths) + v[1:] * own_widths)))
    # A repeated reading means that the power did not change; before the first change it did not change either.
    t = window.t.copy()
    t[changed] = ends
    since = np.maximum(np.cumsum(changes, dtype=int) - 1, 0)
    since = np.concatenate(([0], since))
    total = at_changes[since] + v[since] * (t - ends[since])
    early = slice(0, int(changed[0]))
    total[early] = -v[0] * block - window.v[0] * (ends[0] - block - t[early])
    rising = np.concatenate(([True], np.diff(np.maximum.accumulate(t)) > 0))
    # If the end of a block is taken too late, energy moves from one block to its neighbour in proportion to the
    # difference of their powers, which is largest where the window begins and ends.
    u = float(np.abs(np.diff(v)).max()) * clock.u
    return RunningIntegral(t[rising], total[rising], u, lag_s=clock.width)


@dataclass(frozen=True)
class Clock:
    """The times at which a source changed, by its own clock.

    Attributes:
        times: The times in seconds, shape ``(n,)``.
        width: The longest delay with which a change was seen, in seconds.
        u: Standard uncertainty of one time, in seconds.
        period: The period of the clock, in seconds.
    """

    times: Floats
    width: float
    u: float
    period: float


def own_clock(seen: Floats, period: float) -> Clock:
    """The times at which a source with a regular clock changed, from the times at which its changes were seen.

    Each change was seen with a delay of up to one reading interval. The changes are numbered by the period, and a
    straight line through (number, time) averages the delays, so that one common delay remains, which is half the width.

    Args:
        seen: The times at which changes were seen, in seconds, rising.
        period: Roughly how often the source changes, in seconds.

    Returns:
        The times by the fitted clock; the times as they were seen where the clock is not regular.
    """
    period = _refined_period(seen, period)
    numbers = np.round(np.diff(seen) / period)
    # After a long time without a change the number of periods is uncertain, so a new line begins there.
    parts = np.concatenate(([0], np.cumsum((numbers < 1) | (numbers > _COUNTABLE_PERIODS))))
    count = np.concatenate(([0.0], np.cumsum(numbers)))
    sizes = np.bincount(parts)
    # Least squares with one common slope (the period) and an offset for each part: centring within the parts removes
    # the offsets.
    centred = count - (np.bincount(parts, count) / sizes)[parts]
    spread = float(np.dot(centred, centred))
    period = float(np.dot(centred, seen)) / spread if spread > 0 else period
    phase = seen - count * period
    offsets = np.bincount(parts, phase) / sizes
    late = phase - offsets[parts]
    degrees = max(1, late.size - sizes.size)
    width = math.sqrt(12 * float(np.dot(late, late)) / degrees)
    if sizes.size > late.size / 2 or width > 0.7 * period:
        width = min(period, float(np.median(np.diff(seen))))
        return Clock(seen, width, width / math.sqrt(12), period)
    # The fitted line runs through the mean delay, half the width, which is taken off.
    times = count * period + offsets[parts] - width / 2
    return Clock(times, width, width / math.sqrt(3 * sizes.mean()), period)


def _refined_period(seen: Floats, period: float) -> float:
    """Refine a clock's period: first from changes that are one period apart, then from all that can be counted."""
    apart = np.diff(seen)
    for most in (1.5, 3.5, _COUNTABLE_PERIODS + 0.5):
        numbers = np.round(apart / period)
        near = (numbers >= 1) & (numbers < most)
        if np.count_nonzero(near) > 3:
            period = float(apart[near].sum() / numbers[near].sum())
    return period
