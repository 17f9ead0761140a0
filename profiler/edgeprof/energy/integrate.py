"""Integrate the energy of one window from one channel's readings, whatever these readings are averages of.

Where nothing else runs beside a window, its edges are taken from the readings there (``energy.edges``). Otherwise the
readings beside an edge belong to other work, and there are two ways to treat the edges:

- ``steady`` (the default; for windows of repeated inferences and for idles): only readings from inside the window are
  used, and the parts that they leave out at the edges are taken to be like the readings next to them. This is unbiased
  for a step of power at the edge, of which interpolation between two samples loses ΔP·h/6 at each edge, where h is the
  interval of the readings (measured with a real INA3221 driver: a 500 ms burst read as 0.995 of its energy, a 100 ms
  one as 0.971).
- ``interpolated`` (for cutting a running waveform anywhere): the running integral is interpolated at the edges, so that
  adjacent windows add up exactly.

The meaning of a reading depends on the channel's ``Filter``. It is the power at its time (trapezoidal rule), or a block
average of the time before it (a step function, shifted by half the block), or an exponential average y with time
constant τ, whose input is P = y + τ·dy/dt, so that ∫P dt = ∫y dt + τ·(y(t₁) − y(t₀)). A counter is differenced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy import counters, gauges
from edgeprof.energy.edges import (
    between_quiet,
    block_integral,
    counter_integral,
    filter_integral,
    line_of_steady_power,
    momentary_integral,
)
from edgeprof.energy.window import Edges, Window, WindowEnergy, typical_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgeprof.energy.edges import RunningIntegral
    from edgeprof.energy.sag import Sag
    from edgeprof.energy.window import Floats
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

__all__ = ["ChannelSeries", "Edges", "WindowEnergy", "highest_power", "window_energy"]

#: Readings of power that are more than this many update intervals apart leave a gap, which degrades the variant.
GAP_INTERVALS = 3.0
#: How far into the quiet time beside a window readings are used, in update intervals.
_QUIET_INTERVALS = 16


@dataclass(frozen=True)
class ChannelSeries:
    """A channel and its readings.

    Attributes:
        channel: A channel of the quantity ``power`` (W) or ``energy`` (J).
        times: Seconds of CLOCK_MONOTONIC, strictly increasing, shape ``(n,)``.
        values: Values in the channel's unit, NaN where a read failed, shape ``(n,)``.
        sag: How the rail's voltage falls with its current; None where it does not, or where that is not known.
    """

    channel: Channel
    times: npt.ArrayLike
    values: npt.ArrayLike
    sag: Sag | None = None


def window_energy(
    times: npt.ArrayLike,
    values: npt.ArrayLike,
    start: float,
    end: float,
    channel: Channel,
    *,
    edges: Edges = "steady",
    quiet: tuple[float, float] = (0.0, 0.0),
    steady_power: bool = False,
    judges_level: bool = True,
) -> WindowEnergy:
    """The energy between two times, from a channel's readings.

    Args:
        times: Seconds of CLOCK_MONOTONIC, strictly increasing, shape ``(n,)``; readings around the window are useful.
        values: W or J, depending on the channel's quantity, NaN where a read failed, shape ``(n,)``. Repeated readings
            of a slow gauge should have been dropped (``Trace.series`` does); those of a counter are dropped here.
        start: The beginning of the window, in seconds.
        end: The end of the window, in seconds, after ``start``.
        channel: The channel that the values come from.
        edges: How the edges are treated; see the module.
        quiet: For how long (s) nothing runs before the window and after it. Where readings lie there, the edges are
            taken from them (``energy.edges``).
        steady_power: Whether the power is nearly constant throughout, as in an idle.
        judges_level: Whether ``u_level`` is computed; otherwise it is 0.

    Returns:
        The energy with its uncertainties; its joules are None where the readings do not determine them.

    Raises:
        ValueError: the channel is neither power nor an energy counter, the window is empty or backwards, or the
            shapes differ.
    """
    if end <= start:
        raise ValueError(f"a window from {start} to {end} s has no length")
    if channel.quantity != "power" and not _is_counter(channel):
        raise ValueError(f"{channel.name} is {channel.quantity}, neither power nor a counter of energy")
    t, v = _valid_readings(times, values)
    if _is_counter(channel):
        # Wraps are undone before anything is cut off. A window with an impossible step has no energy.
        v, broken = counters.unwrap(t, v, channel)
        problems = tuple(code for code, marks in broken.items() if counters.any_between(t, marks, start, end))
        if problems:
            return WindowEnergy(None, problems=problems)
    interval = typical_interval(t, start, end)
    if interval is None:
        return WindowEnergy(None, problems=("no_samples",))
    update = max(interval, channel.update_interval_s or 0.0)
    margin = 4 * update + 2 * (channel.filter.length_s or 0.0)
    before, after = (max(margin, min(beside, _QUIET_INTERVALS * update)) for beside in quiet)
    first, last = np.searchsorted(t, [start - before, end + after])
    # One reading beyond the margin on either side, so that a gap across an edge is recognised.
    around = slice(max(0, int(first) - 1), int(last) + 1)
    window = Window(t[around], v[around], start, end, channel, interval, quiet, judges_level)
    energy = _integrate_window(window, edges, steady_power=steady_power)
    result = _add_unseen_parts(replace(energy, max_gap_s=window.max_gap()), window)
    return _judge_gaps(result, _longest_harmless_gap(channel, update, window.length), window.length)


def _add_unseen_parts(result: WindowEnergy, window: Window) -> WindowEnergy:
    """Add to ``u_sync`` the error of a part-time sensor, which sees only a part of each period, at the window's edges.

    Such a sensor takes the power that it did not see to be equal to the power that it saw. At an edge, where the power
    jumps, the error is up to the power P times the unseen part of a period. Each edge has such a rectangular error of
    full width P·(period − look); the two together have the standard uncertainty P·(period − look)/√6 (GUM 4.3.7). A
    load in step with the sensor is always seen at the same phase; this is not covered here, but the scatter of windows
    whose starts are spread over the period shows it.
    """
    part = window.channel.part_time
    if part is None or result.joules is None:
        return result
    power = abs(result.joules) / window.length
    return replace(result, u_sync=math.hypot(result.u_sync, power * (part.period_s - part.look_s) / math.sqrt(6)))


def _is_counter(channel: Channel) -> bool:
    return channel.quantity == "energy" and channel.kind == "counter"


def _valid_readings(times: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Floats, Floats]:
    t, v = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.shape != v.shape or t.ndim != 1:
        raise ValueError(f"times {t.shape} and values {v.shape} must be one-dimensional and of one length")
    read = ~(np.isnan(v) | np.isnan(t))
    return t[read], v[read]


def _integrate_window(window: Window, edges: Edges, *, steady_power: bool) -> WindowEnergy:
    if steady_power or (edges == "steady" and min(window.quiet) > 0):
        integral = _running_integral(window)
        way = line_of_steady_power if steady_power else between_quiet
        result = None if integral is None else way(window, integral)
        if result is not None:
            return result
    shape = window.channel.filter
    if _is_counter(window.channel):
        return counters.counter_energy(window, edges)
    if shape.kind == "exponential" and shape.tau_s:
        return gauges.energy_behind_filter(window, shape.tau_s, edges)
    if shape.kind == "block":
        return gauges.energy_of_blocks(
            window, shape.length_s or window.channel.update_interval_s or window.interval, edges
        )
    return gauges.energy_of_momentary(window, edges)


def _running_integral(window: Window) -> RunningIntegral | None:
    shape = window.channel.filter
    if _is_counter(window.channel):
        return counter_integral(window)
    if shape.kind == "exponential" and shape.tau_s:
        return filter_integral(window, shape.tau_s)
    if shape.kind == "block":
        length = shape.length_s or window.channel.update_interval_s or window.interval
        update = window.channel.update_interval_s or window.interval
        # Blocks that overlap have no ends at which the energy is known.
        return block_integral(window, length) if length <= 1.5 * update else None
    return momentary_integral(window)


def _longest_harmless_gap(channel: Channel, update: float, length: float) -> float:
    """The longest stretch without a reading (s) whose error is negligible."""
    if _is_counter(channel):
        # A counter goes on counting between readings; energy is lost only at an edge without a reading nearby.
        return max(GAP_INTERVALS * update, length / 4)
    tau = channel.filter.tau_s if channel.filter.kind == "exponential" else None
    if tau and tau > 4 * (channel.update_interval_s or 0.0):
        # The readings of an exponential filter follow its curve: a trapezoid over τ/2 misses (1/2)²/12 of the change
        # there (the remainder of the trapezoidal rule). Longer gaps are not excused by a low reading rate.
        return max(tau / 2, GAP_INTERVALS * min(update, tau / 8))
    return GAP_INTERVALS * update


def _judge_gaps(result: WindowEnergy, tolerated: float, length: float) -> WindowEnergy:
    gap = result.max_gap_s or 0.0
    if result.joules is None or gap <= tolerated:
        return result
    # With more than half of the window unseen, the rest is no measurement of the window.
    joules = None if gap > length / 2 else result.joules
    return replace(result, joules=joules, problems=(*result.problems, "gaps"))


def highest_power(headline: Sequence[ChannelSeries], windows: Sequence[Span]) -> float | None:
    """The highest reading of the headline's sum inside the windows (W); None for counters, which have no momentary
    power.
    """
    if any(series.channel.quantity != "power" for series in headline):
        return None
    highest = None
    for window in windows:
        total: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None
        grid = None
        for series in headline:
            t, v = np.asarray(series.times, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
            keep = (t >= window.start_s) & (t <= window.end_s) & ~np.isnan(v)
            t, v = t[keep], v[keep]
            if t.size == 0:
                return None
            grid = t if grid is None else grid
            on_grid = np.interp(grid, t, v)
            total = on_grid if total is None else total + on_grid
        if total is not None:
            highest = max(highest if highest is not None else -math.inf, float(total.max()))
    return highest
