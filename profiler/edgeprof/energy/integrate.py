"""The joules of one window from one channel's readings, whatever the channel's readings are averages of.

Where nothing else runs beside a window, its edges are taken from the readings there (``energy.edges``). Else there are
two ways to treat them, because the readings beside an edge belong to something else when work begins or
ends exactly there:

- ``steady`` (the default; for windows of repeated inferences and for idles): only readings that speak of the inside
  are used, and what they leave out at the edges is taken to be like its neighbourhood. Unbiased for a step of power at
  the edge, which straight interpolation between two samples cuts by ΔP·h/6 at each edge (measurement of a real INA3221
  driver: a 500 ms burst read as 0.995, a 100 ms one as 0.971).
- ``interpolated`` (for cutting a running waveform anywhere): the running integral is interpolated at the edges.
  Adjacent windows add up exactly.

What a reading stands for (``Filter``): a value at its time (trapezoid); a block average of what lay before it (a step
function, shifted by half the block); an exponential average y with time constant τ, whose input is P = y + τ·dy/dt, so
that ∫P dt = ∫y dt + τ·(y(t₁) − y(t₀)). A counter is differenced.
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
    import numpy.typing as npt

    from edgeprof.energy.edges import RunningIntegral
    from edgeprof.energy.sag import Sag
    from edgeprof.energy.window import Floats
    from edgeprof.sensing.sensor import Channel

__all__ = ["ChannelSeries", "Edges", "WindowEnergy", "window_energy"]

#: A distance between readings of power beyond this many update intervals is a gap (and the variant is degraded).
GAP_INTERVALS = 3.0
#: How far into the quiet beside a window readings are looked at, in update intervals.
_QUIET_INTERVALS = 16


@dataclass(frozen=True)
class ChannelSeries:
    """A channel and its readings.

    Attributes:
        channel: Of quantity ``power`` (W) or ``energy`` (J).
        times: Monotonic seconds, strictly increasing, shape ``(n,)``.
        values: In the channel's unit, NaN where a read failed, shape ``(n,)``.
        sag: How the rail's voltage falls with its current; None where it does not, or where nothing is known of it.
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
    """The energy between two times from a channel's readings.

    Args:
        times: Monotonic seconds, strictly increasing, shape ``(n,)``; readings before and after the window help.
        values: W or J as the channel's quantity says, NaN where a read failed, shape ``(n,)``. Repeated readings of a
            slow gauge should have been dropped (``Trace.series`` does); those of a counter are dropped here.
        start: Seconds.
        end: Seconds, after ``start``.
        channel: What the values are.
        edges: See the module.
        quiet: How long (s) nothing runs before the window and after it. Where readings fall there, the edges are taken
            from them (``energy.edges``).
        steady_power: Whether the power is about the same throughout, as in an idle.
        judges_level: Whether ``u_level`` is wanted; it is 0 otherwise.

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
        # Unwrapped before anything is cut off; what is no energy takes the window with it.
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
    # One reading beyond the margin on either side, so that a gap over an edge is seen as one.
    around = slice(max(0, int(first) - 1), int(last) + 1)
    window = Window(t[around], v[around], start, end, channel, interval, quiet, judges_level)
    energy = _integrate_window(window, edges, steady_power=steady_power)
    result = _add_unseen_parts(replace(energy, max_gap_s=window.max_gap()), window)
    return _judge_gaps(result, _longest_harmless_gap(channel, update, window.length), window.length)


def _add_unseen_parts(result: WindowEnergy, window: Window) -> WindowEnergy:
    """What a sensor that looks part of the time cannot know of a window's first and last period, as ``sync``.

    It takes what it did not see to be like what it saw; at an edge, where power jumps, that is off by up to the unseen
    part of a period, rectangular, at either end: P·(period − look)/√6. That a load in step with the sensor is seen
    always at the same phase is not in it: windows whose starts are spread over the period show that as their scatter.
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
    """The longest stretch without a reading that costs nothing worth telling (s)."""
    if _is_counter(channel):
        # A counter goes on between readings; energy is lost only at an edge without a reading nearby.
        return max(GAP_INTERVALS * update, length / 4)
    tau = channel.filter.tau_s if channel.filter.kind == "exponential" else None
    if tau and tau > 4 * (channel.update_interval_s or 0.0):
        # An exponential filter's reading follows its curve: trapezoids over τ/2 miss (1/2)²/12 of its change there, and
        # how often it was really read is no excuse for more.
        return max(tau / 2, GAP_INTERVALS * min(update, tau / 8))
    return GAP_INTERVALS * update


def _judge_gaps(result: WindowEnergy, tolerated: float, length: float) -> WindowEnergy:
    gap = result.max_gap_s or 0.0
    if result.joules is None or gap <= tolerated:
        return result
    # With more than half of the window unseen, what is left is no measurement of it.
    joules = None if gap > length / 2 else result.joules
    return replace(result, joules=joules, problems=(*result.problems, "gaps"))
