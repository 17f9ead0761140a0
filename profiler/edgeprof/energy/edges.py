"""The energy of a window from what is quiet beside it.

A window begins and ends with a step of power, in phase with the first and last inference, so that what readings inside
leave out at its edges is not like the rest of it. Where nothing else runs for a few readings before and after, nothing
need be left out: the running integral G of any reading rises there along a straight line, whose slope is the power
without work; continued to the edge, the lines give G at both edges, and the window's energy is their difference. A
reading's lag, and the phase of a counter or a block average, move both lines alike and fall out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.window import WindowEnergy, level_energy, step_energy

if TYPE_CHECKING:
    from edgeprof.energy.window import Floats, Window

#: So many points of the running integral make a line at most: power beside a window is steady only for so long.
_MOST = 10
#: A kink's quadrature error: rms of h²·f·(1 − f)/2 over where it falls between two readings, per second difference.
_KINK = 0.0373
#: So many periods without a change can still be counted.
_COUNTABLE = 12


@dataclass(frozen=True)
class RunningIntegral:
    """The energy up to some times, less a constant.

    Attributes:
        t: Seconds, rising.
        joules: Same shape.
        u: Standard uncertainty of one of them (J), independent.
        u_time: Standard uncertainty of when one was reached (s): it counts by the power that flows there.
        lag_s: How much later than it happened something may show.
        y: What the energy changes by with a filter's time constant (W); None without a filter.
    """

    t: Floats
    joules: Floats
    u: float
    lag_s: float
    y: Floats | None = None
    u_time: float = 0.0


def line_of_steady_power(window: Window, integral: RunningIntegral) -> WindowEnergy | None:
    """The energy of a window throughout which the power is about steady, from the slope of its running integral.

    None where it has too few points inside.
    """
    inside = (integral.t >= window.start + integral.lag_s) & (integral.t <= window.end)
    t, g = integral.t[inside], integral.joules[inside]
    if t.size < 4 or t[-1] - t[0] < window.length / 2:
        return None
    centred = t - t.mean()
    spread = float(np.dot(centred, centred))
    power = float(np.dot(centred, g)) / spread
    u = math.hypot(integral.u, power * integral.u_time) / math.sqrt(spread) * window.length
    behind = integral.y is not None
    readings = window.v[window.inside()]
    gauge = window.channel.quantity == "power" and readings.size > 0
    return WindowEnergy(
        power * window.length,
        u_sync=0.0 if behind else u,
        u_resolution=step_energy(window, readings) if gauge else 0.0,
        u_level=level_energy(window, readings) if gauge else 0.0,
        u_filter=u if behind else 0.0,
        tau_slope_w=0.0 if integral.y is None else float(np.dot(centred, integral.y[inside])) / spread * window.length,
        samples=int(t.size),
    )


def between_quiet(window: Window, integral: RunningIntegral) -> WindowEnergy | None:
    """The window's energy, or None where too little of the integral lies in the quiet beside it."""
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
    """The running integral at an edge, from the straight line through its points on the quiet side."""
    if side < 0:
        first_s, last_s = last_s, first_s
    begin, end = np.searchsorted(integral.t, [first_s, last_s], side="left")
    chosen = slice(int(begin), int(end))
    count = chosen.stop - chosen.start
    if count > _MOST:
        chosen = slice(chosen.stop - _MOST, chosen.stop) if side < 0 else slice(chosen.start, chosen.start + _MOST)
    if count < 2:
        return None
    edge = window.start if side < 0 else window.end
    x = integral.t[chosen] - edge
    centred = x - x.mean()
    spread = float(np.dot(centred, centred))
    # The weights of a least-squares line's value at x = 0.
    weights = 1 / x.size - x.mean() * centred / spread
    g = integral.joules[chosen]
    slope = float(np.dot(centred, g)) / spread
    left = g - g.mean() - slope * centred
    scatter = math.sqrt(float(np.dot(left, left)) / (x.size - 2)) if x.size > 4 else 0.0
    return _Edge(
        joules=float(np.dot(weights, g)),
        u=max(math.hypot(integral.u, slope * integral.u_time), scatter) * math.sqrt(float(np.dot(weights, weights))),
        y=float(np.dot(weights, integral.y[chosen])) if integral.y is not None else 0.0,
        nearest_s=float(integral.t[chosen][-1 if side < 0 else 0]),
    )


def _quadrature_error_j(window: Window, part: slice) -> float:
    """Standard uncertainty (J) of trapezoids between readings of power; counters and blocks have none."""
    if window.channel.quantity == "energy" or window.channel.filter.kind == "block":
        return 0.0
    t, v = window.t[part], window.v[part]
    if t.size < 3:
        return 0.0
    apart = np.diff(t)
    tau = window.channel.filter.tau_s or 0.0
    # Between two readings the power may have jumped at any moment: rectangular over their distance, |Δv|·Δt/√12.
    jumps = math.sqrt(float(np.sum((np.diff(v) * apart) ** 2)) / 12)
    if tau <= window.interval:
        return jumps
    # A filter's reading only changes its slope there.
    bends = np.diff(np.diff(v) / apart) * (apart[1:] + apart[:-1]) / 2
    return min(jumps, _KINK * math.sqrt(float(np.sum((bends * (apart[1:] + apart[:-1]) / 2) ** 2))))


def counter_integral(window: Window) -> RunningIntegral | None:
    """The running integral of a counter, at its ticks (``window.v`` unwrapped)."""
    changed = np.flatnonzero(np.diff(window.v) > 0) + 1
    if changed.size < 4:
        return None
    seen, v = window.t[changed], window.v[changed]
    update = window.channel.update_interval_s or window.interval
    if 2 * update < window.interval:
        # It ticks between any two readings, and each is late by anything up to one tick.
        ticks, late, u_time = seen, update, update / math.sqrt(12)
    else:
        clock = own_clock(seen, float(np.median(np.diff(seen))))
        ticks, late, u_time = clock.times, clock.width, clock.u
    u = (window.channel.resolution or 0.0) / math.sqrt(12)
    return RunningIntegral(ticks, v, u, lag_s=late, u_time=u_time)


def momentary_integral(window: Window) -> RunningIntegral | None:
    """The running integral of readings that stand for their moment."""
    if window.t.size < 3:
        return None
    u = (window.channel.resolution or 0.0) * window.interval / math.sqrt(12)
    update = window.channel.update_interval_s or 0.0
    if update > 0.75 * window.interval:
        # The source says something new less often than it is read, and holds it: a straight line to the next change,
        # of which repeats were left out, would begin too early. Where a value held, its energy is known in between.
        total = np.concatenate(([0.0], np.cumsum(window.v[:-1] * np.diff(window.t))))
        t = np.union1d(window.t, np.arange(window.t[0], window.t[-1], update / 2))
        # Points in between are no readings of their own; what was converted before an edge may show a whole refresh
        # and a conversion later.
        u *= math.sqrt(t.size / window.t.size)
        return RunningIntegral(t, np.interp(t, window.t, total), u, lag_s=1.5 * update)
    return RunningIntegral(window.t, _cumulative_trapezoids(window), u, lag_s=update)


def filter_integral(window: Window, tau: float) -> RunningIntegral | None:
    """The running integral of an exponential filter's input: ∫y dt + τ·y."""
    if window.t.size < 3:
        return None
    u = tau * (window.channel.resolution or 0.0) / math.sqrt(12)
    lag = window.channel.update_interval_s or 0.0
    return RunningIntegral(window.t, _cumulative_trapezoids(window) + tau * window.v, u, lag_s=lag, y=window.v)


def _cumulative_trapezoids(window: Window) -> Floats:
    steps = np.diff(window.t) * (window.v[1:] + window.v[:-1]) / 2
    return np.concatenate(([0.0], np.cumsum(steps)))


def block_integral(window: Window, length: float) -> RunningIntegral | None:
    """The running integral of averages over blocks that follow one another.

    A reading that changed at tᵢ is the mean of the block that ended there, and of those that followed until the block
    before the next change: from change to change flow v₀·(Δt − T) + v₁·T.
    """
    changes = np.diff(window.v) != 0
    changed = np.flatnonzero(changes) + 1
    if changed.size < 4:
        return None
    # The blocks' own length as their clock has it, which may be a tenth off the declared one.
    clock = own_clock(window.t[changed], window.channel.update_interval_s or length)
    ends, block = clock.times, clock.period
    v = window.v[changed]
    apart = np.diff(ends)
    own_widths = np.minimum(block, apart)
    at_changes = np.concatenate(([0.0], np.cumsum(v[:-1] * (apart - own_widths) + v[1:] * own_widths)))
    # A reading that repeats says that the power has gone on; before the first change it had been on for as long.
    t = window.t.copy()
    t[changed] = ends
    since = np.maximum(np.cumsum(changes, dtype=int) - 1, 0)
    since = np.concatenate(([0], since))
    total = at_changes[since] + v[since] * (t - ends[since])
    early = slice(0, int(changed[0]))
    total[early] = -v[0] * block - window.v[0] * (ends[0] - block - t[early])
    rising = np.concatenate(([True], np.diff(np.maximum.accumulate(t)) > 0))
    # An end that is seen too late moves energy from one block to its neighbour, by what they differ:
    # most where the window begins and ends.
    u = float(np.abs(np.diff(v)).max()) * clock.u
    return RunningIntegral(t[rising], total[rising], u, lag_s=clock.width)


@dataclass(frozen=True)
class Clock:
    """When a source changed, by its own clock.

    Attributes:
        times: Seconds.
        width: Within which each was seen late, s.
        u: Standard uncertainty of one time, s.
        period: Of the clock, s.
    """

    times: Floats
    width: float
    u: float
    period: float


def own_clock(seen: Floats, period: float) -> Clock:
    """When a source with a regular clock changed, from when its changes were seen.

    Each was seen late by anything up to the time between two reads; a straight line through their numbers has that of
    their mean only, which all share.

    Args:
        seen: Seconds, rising.
        period: About how often it changes, s.

    Returns:
        The times that were seen, where the clock is not regular.
    """
    period = _refined_period(seen, period)
    numbers = np.round(np.diff(seen) / period)
    # A count over a long time without a change is a guess: what lies beyond stands on a line of its own.
    parts = np.concatenate(([0], np.cumsum((numbers < 1) | (numbers > _COUNTABLE))))
    count = np.concatenate(([0.0], np.cumsum(numbers)))
    sizes = np.bincount(parts)
    # Least squares: one slope for all parts.
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
    # Late by half of that on average.
    times = count * period + offsets[parts] - width / 2
    return Clock(times, width, width / math.sqrt(3 * sizes.mean()), period)


def _refined_period(seen: Floats, period: float) -> float:
    """A clock's period from its changes: first from those one period apart, then from all that can be counted."""
    apart = np.diff(seen)
    for most in (1.5, 3.5, _COUNTABLE + 0.5):
        numbers = np.round(apart / period)
        near = (numbers >= 1) & (numbers < most)
        if np.count_nonzero(near) > 3:
            period = float(apart[near].sum() / numbers[near].sum())
    return period
