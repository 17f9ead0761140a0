"""The energy of a window from readings of power: momentary ones, block averages, or those of an exponential filter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprof.energy.edges import block_integral
from edgeprof.energy.window import WindowEnergy, energy_between_knots, level_energy, step_energy, trapezoid_integral

if TYPE_CHECKING:
    from edgeprof.energy.window import Edges, Window

#: The standard uncertainty of a clock's phase as a share of the delay with which its ticks are seen: the delays are not
#: evenly spread.
_PHASE = 1 / 6
#: With fewer readings than this inside a window, the correction of a filter uses the readings beside it.
_FEW = 5


def energy_of_momentary(window: Window, edges: Edges) -> WindowEnergy:
    """The energy of a window from momentary readings, by the trapezoidal rule.

    At each edge the nearest reading inside holds until the edge.
    """
    if edges == "interpolated":
        return _integrate_interpolated(window)
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if t.size < 2:
        return _too_few(window)
    before, after = t[0] - window.start, window.end - t[-1]
    joules = trapezoid_integral(t, v) + v[0] * before + v[-1] * after
    # Between two readings the power may have jumped at any moment: a rectangular error of full width |Δv|·Δt for each
    # interval, whose standard uncertainty is |Δv|·Δt/√12 (GUM 4.3.7).
    jumps = math.sqrt(float(np.sum((np.diff(v) * np.diff(t)) ** 2)) / 12)
    return WindowEnergy(
        float(joules),
        u_sync=math.hypot(float(v.std(ddof=1)) * math.hypot(before, after), jumps),
        u_resolution=step_energy(window, v),
        u_level=level_energy(window, v),
        samples=int(t.size),
    )


def energy_behind_filter(window: Window, tau: float, edges: Edges) -> WindowEnergy:
    """The energy of a window from readings y of an exponential filter with the time constant τ = ``tau`` (s).

    The filter's input is P = y + τ·dy/dt, so its mean between the first reading a and the last reading b inside the
    window is P̄ = [∫ₐᵇ y dt + τ·(y_b − y_a)] / (t_b − t_a). The energy is P̄ times the length of the window.
    """
    if edges == "interpolated":
        y0, y1 = np.interp([window.start, window.end], window.t, window.v) if window.t.size else (0.0, 0.0)
        # The interpolated reading cuts the kink of the curve at an edge by up to half the change of slope.
        kink = tau * math.hypot(_kink_error_w(window, window.start), _kink_error_w(window, window.end))
        return _from_edges(window, tau, float(y0), float(y1), kink)
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if t.size < _FEW:
        # A short burst is still visible in the filter after it. Lines through the readings before and after the window
        # give the readings at its edges without cutting the kinks there.
        y0, before = _reading_at_edge(window, window.start, -1, tau)
        y1, after = _reading_at_edge(window, window.end, +1, tau)
        result = _from_edges(window, tau, y0, y1, tau * math.hypot(before, after))
        return result if t.size else replace(result, problems=(*result.problems, "few_samples"))
    step = window.channel.resolution or 0.0
    span = t[-1] - t[0]
    stretch = window.length / span
    change = float(v[-1] - v[0])
    joules = (trapezoid_integral(t, v) + tau * change) * stretch
    # The parts left out at the edges differ from the mean by the standard deviation of the power. A filtered reading
    # shows that damped, so the power is recovered from the slope, and the noise that this amplifies is subtracted.
    power = v[:-1] + tau * np.diff(v) / np.diff(t)
    noise = step / math.sqrt(6) * tau / window.interval
    spread = math.sqrt(max(0.0, float(power.var()) - noise**2))
    return WindowEnergy(
        joules,
        u_sync=spread * math.hypot(t[0] - window.start, window.end - t[-1]),
        u_resolution=step_energy(window, v),
        u_level=level_energy(window, v),
        u_filter=tau * step / math.sqrt(6) * stretch,
        tau_slope_w=change * stretch,
        samples=int(t.size),
    )


def _from_edges(window: Window, tau: float, y0: float, y1: float, u_edges: float) -> WindowEnergy:
    """E = ∫y dt + τ·(y(t₁) − y(t₀)) from given readings y at the edges (W).

    Args:
        window: The window.
        tau: The filter's time constant, in seconds.
        y0: The reading at the beginning of the window, in watts.
        y1: The reading at its end, in watts.
        u_edges: The standard uncertainty that comes from the two, in joules.
    """
    if window.t.size == 0:
        return WindowEnergy(None, problems=("no_samples",))
    inside = (window.t > window.start) & (window.t < window.end)
    t = np.concatenate(([window.start], window.t[inside], [window.end]))
    y = np.concatenate(([y0], window.v[inside], [y1]))
    step = window.channel.resolution or 0.0
    return WindowEnergy(
        trapezoid_integral(t, y) + tau * (y1 - y0),
        u_sync=u_edges,
        u_resolution=step_energy(window, y),
        u_level=level_energy(window, y),
        u_filter=tau * step / math.sqrt(6),
        tau_slope_w=y1 - y0,
        samples=int(np.count_nonzero(inside)),
    )


def _reading_at_edge(window: Window, edge: float, side: Literal[-1, 1], tau: float) -> tuple[float, float]:
    """A filter's reading at an edge, from a line through the nearest readings outside the window, and its uncertainty
    (W).
    """
    outside = (window.t - edge) * side >= 0
    t, v = window.t[outside], window.v[outside]
    order = np.argsort((t - edge) * side)[:_FEW]
    near = order[np.abs(t[order] - edge) < 0.2 * tau]  # the curve is straight only for a short time
    if near.size < 3:
        if not order.size:
            return float(np.interp(edge, window.t, window.v)), 0.0
        held = float(v[order[0]])
        return held, abs(held - float(np.interp(edge, window.t, window.v)))
    x = t[near] - edge
    slope, height = np.polyfit(x, v[near], 1)
    residuals = v[near] - (height + slope * x)
    return float(height), float(np.sqrt(np.sum(residuals**2) / (near.size - 2) / near.size))


def energy_of_blocks(window: Window, length: float, edges: Edges) -> WindowEnergy:
    """The energy of a window from block averages: each reading is the mean power of the ``length`` seconds before it.

    The power is a step function. Consecutive blocks hold from tᵢ − length until the next block begins (a reading that
    did not change was left out of the series, and its block held on). Where blocks overlap, each stands for a stretch
    of one update interval around its middle, which lies half a block earlier.
    """
    if window.t.size < 2:
        return _too_few(window)
    own_length = min(length, window.channel.update_interval_s or window.interval)
    begins = window.t - (length + own_length) / 2
    knots = np.append(begins, begins[-1] + own_length)
    total = np.concatenate(([0.0], np.cumsum(window.v * np.diff(knots))))
    # A reading may be one update interval old; its block then began that much earlier.
    part = window.inside(length + own_length)
    part = part if window.t[part].size else window.inside(length)
    if edges == "steady":
        if window.t[part].size == 0:
            # No whole block fits: each reading mixes this window with its neighbours in unknown proportions.
            return WindowEnergy(None, problems=("few_samples",))
        v = window.v[part]
        # The next block may begin sooner, because a repeated reading that was kept does not lie on the grid of blocks.
        first, last = float(begins[part][0]), min(float(begins[part][-1]) + own_length, float(knots[part.stop]))
        power = float(np.diff(np.interp([first, last], knots, total))[0]) / (last - first)
        # The parts that whole blocks leave out at the edges have the mean power, within the spread of single blocks.
        # Where blocks overlap, the outermost ones count for less than their length.
        left_out = max(0.0, window.length - (last - first))
        return WindowEnergy(
            power * window.length,
            u_sync=float(np.ptp(v) / 2 if v.size < 3 else v.std(ddof=1))
            * math.hypot(left_out, length - own_length)
            / math.sqrt(2),
            u_resolution=step_energy(window, v),
            u_level=level_energy(window, v),
            samples=int(v.size),
        )
    integral = block_integral(window, length) if length <= 1.5 * own_length else None
    if integral is not None and integral.lag_s < own_length / 2:
        # The chip's clock is regular, and is known better than the times at which its blocks were seen to end. An error
        # of its phase shifts both edges by the same time; its effect is that time multiplied by the difference of the
        # power at the two edges.
        y0, y1 = np.interp([window.start, window.end], window.t, window.v)
        result = energy_between_knots(window, integral.t, integral.joules)
        return replace(result, u_sync=math.hypot(result.u_sync, float(y1 - y0) * _PHASE * integral.lag_s))
    return energy_between_knots(window, knots, total)


def _integrate_interpolated(window: Window) -> WindowEnergy:
    """The trapezoidal integral of the readings, interpolated at the edges; the first and last readings hold beyond
    them.
    """
    if window.t.size == 0:
        return WindowEnergy(None, problems=("no_samples",))
    knots = np.concatenate(([min(window.t[0], window.start)], window.t, [max(window.t[-1], window.end)]))
    power = np.concatenate(([window.v[0]], window.v, [window.v[-1]]))
    # The power is interpolated at the edges, and not the running integral, which is curved between two readings.
    first, last = np.searchsorted(knots, [window.start, window.end], side="right")
    part = slice(int(first), int(np.searchsorted(knots, window.end, side="left")))
    y0, y1 = np.interp([window.start, window.end], knots, power)
    t = np.concatenate(([window.start], knots[part], [window.end]))
    y = np.concatenate(([y0], power[part], [y1]))
    steps = [_step_at(window, window.start), _step_at(window, window.end)]
    half = max(window.interval, window.age) / 2
    return WindowEnergy(
        float(trapezoid_integral(t, y)),
        u_sync=half / math.sqrt(3) * math.hypot(*steps),
        u_resolution=step_energy(window, window.v),
        u_level=level_energy(window, window.v),
        samples=int(last - first),
    )


def _too_few(window: Window) -> WindowEnergy:
    """The energy of a window with at most one reading inside: that reading holds throughout, or else the neighbours are
    interpolated.

    The error is estimated from the range of the readings around (rectangular), and the problem ``few_samples`` reports
    it.
    """
    result = _integrate_interpolated(window)
    if result.joules is None:
        return result
    alone = window.v[window.inside(window.age)]
    joules = float(alone[0]) * window.length if alone.size else result.joules
    spread = float(np.ptp(window.v)) / 2 * window.length / math.sqrt(3)
    if alone.size:
        spread /= 2
    return replace(result, joules=joules, u_sync=max(result.u_sync, spread), problems=(*result.problems, "few_samples"))


def _step_at(window: Window, edge: float) -> float:
    """The difference of the readings on both sides of an edge (W)."""
    i = int(np.searchsorted(window.t, edge))
    if 0 < i < window.t.size:
        return abs(float(window.v[i] - window.v[i - 1]))
    return 0.0


def _kink_error_w(window: Window, edge: float) -> float:
    """Standard uncertainty (W) of an interpolated reading where the slope of the curve changes at ``edge``.

    Two straight lines that meet between two readings lie at most (change of slope)·h/4 away from the line through the
    readings, where h is the interval of the readings.
    """
    i = int(np.searchsorted(window.t, edge))
    if not 1 < i < window.t.size - 1:
        return 0.0
    slopes = np.diff(window.v[i - 2 : i + 2]) / np.diff(window.t[i - 2 : i + 2])
    return abs(float(slopes[2] - slopes[0])) * window.interval / 4 / math.sqrt(3)
