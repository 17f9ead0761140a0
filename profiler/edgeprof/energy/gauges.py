"""The energy of a window from readings of power: at a time, over a block, or behind an exponential filter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprof.energy.edges import block_integral
from edgeprof.energy.window import WindowEnergy, energy_between_knots, level_energy, step_energy, trapezoid_integral

if TYPE_CHECKING:
    from edgeprof.energy.window import Edges, Window

#: How well a clock's phase is known, in what its ticks are seen late by: how reads fall between ticks is not all known.
_PHASE = 1 / 6
#: Fewer readings than these inside of a window leave a filter's correction to the readings beside it.
_FEW = 5


def energy_of_momentary(window: Window, edges: Edges) -> WindowEnergy:
    if edges == "interpolated":
        return _integrate_interpolated(window)
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if t.size < 2:
        return _too_few(window)
    before, after = t[0] - window.start, window.end - t[-1]
    joules = trapezoid_integral(t, v) + v[0] * before + v[-1] * after
    # Between two readings the power may have jumped at any moment: rectangular over their distance, |Δv|·Δt/√12 each.
    jumps = math.sqrt(float(np.sum((np.diff(v) * np.diff(t)) ** 2)) / 12)
    return WindowEnergy(
        float(joules),
        u_sync=math.hypot(float(v.std(ddof=1)) * math.hypot(before, after), jumps),
        u_resolution=step_energy(window, v),
        u_level=level_energy(window, v),
        samples=int(t.size),
    )


def energy_behind_filter(window: Window, tau: float, edges: Edges) -> WindowEnergy:
    """An exponential filter's window: P̄ = [∫ₐᵇ y dt + τ·(y_b − y_a)] / (t_b − t_a), E = P̄·W, samples a…b."""
    if edges == "interpolated":
        y0, y1 = np.interp([window.start, window.end], window.t, window.v) if window.t.size else (0.0, 0.0)
        # The reading's kink at an edge is cut by up to half the slope's change over one distance of readings.
        kink = tau * math.hypot(_kink_error_w(window, window.start), _kink_error_w(window, window.end))
        return _from_edges(window, tau, float(y0), float(y1), kink)
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if t.size < _FEW:
        # What a burst leaves in the filter is read beside it: lines through the readings before and after the window
        # meet its edges without cutting the kinks.
        y0, before = _reading_at_edge(window, window.start, -1, tau)
        y1, after = _reading_at_edge(window, window.end, +1, tau)
        result = _from_edges(window, tau, y0, y1, tau * math.hypot(before, after))
        return result if t.size else replace(result, problems=(*result.problems, "few_samples"))
    step = window.channel.resolution or 0.0
    span = t[-1] - t[0]
    stretch = window.length / span
    change = float(v[-1] - v[0])
    joules = (trapezoid_integral(t, v) + tau * change) * stretch
    # Within the window the power is what it is at each moment; what is left out at the edges deviates from the mean by
    # its standard deviation, which a filtered reading shows damped: by its slope it can be had back.
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
    """E = ∫y dt + τ·(y(t₁) − y(t₀)) with the filter's readings at the edges given (W), ``u_edges`` in joules."""
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
    """A filter's reading at an edge from the nearest readings outside of it, and its standard uncertainty (W)."""
    outside = (window.t - edge) * side >= 0
    t, v = window.t[outside], window.v[outside]
    order = np.argsort((t - edge) * side)[:_FEW]
    near = order[np.abs(t[order] - edge) < 0.2 * tau]  # a line is the filter's curve only for so long
    if near.size < 3:
        if not order.size:
            return float(np.interp(edge, window.t, window.v)), 0.0
        held = float(v[order[0]])
        return held, abs(held - float(np.interp(edge, window.t, window.v)))
    x = t[near] - edge
    slope, height = np.polyfit(x, v[near], 1)
    left = v[near] - (height + slope * x)
    return float(height), float(np.sqrt(np.sum(left**2) / (near.size - 2) / near.size))


def energy_of_blocks(window: Window, length: float, edges: Edges) -> WindowEnergy:
    """A block average stands for the ``length`` before its time: steps that begin where the blocks begin.

    Blocks that follow one another without overlap hold from (tᵢ − length) until the next one's begin (a reading that
    did not change was left out, and held). Where they overlap, each stands for its middle, half a block earlier.
    """
    if window.t.size < 2:
        return _too_few(window)
    own_length = min(length, window.channel.update_interval_s or window.interval)
    begins = window.t - (length + own_length) / 2
    knots = np.append(begins, begins[-1] + own_length)
    total = np.concatenate(([0.0], np.cumsum(window.v * np.diff(knots))))
    # A reading may be one refresh old, and its block then began that much earlier.
    part = window.inside(length + own_length)
    part = part if window.t[part].size else window.inside(length)
    if edges == "steady":
        if window.t[part].size == 0:
            # No whole block fits: each reading mixes this window with its neighbours, in parts that no one knows.
            return WindowEnergy(None, problems=("few_samples",))
        v = window.v[part]
        # The next one may begin sooner: a repeat that was kept is not on the blocks' own grid.
        first, last = float(begins[part][0]), min(float(begins[part][-1]) + own_length, float(knots[part.stop]))
        power = float(np.diff(np.interp([first, last], knots, total))[0]) / (last - first)
        # What whole blocks leave out at the edges is like the mean, within the spread of single blocks; where blocks
        # overlap, the outermost ones weigh less over their own length.
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
        # The chip's own clock is regular, and known better than when each of its blocks was seen to end. What its phase
        # is off by moves both edges alike, and counts by what the power differs between them.
        y0, y1 = np.interp([window.start, window.end], window.t, window.v)
        result = energy_between_knots(window, integral.t, integral.joules)
        return replace(result, u_sync=math.hypot(result.u_sync, float(y1 - y0) * _PHASE * integral.lag_s))
    return energy_between_knots(window, knots, total)


def _integrate_interpolated(window: Window) -> WindowEnergy:
    """Trapezoids of the readings, linear to the edges; beyond the first and last reading their value holds."""
    if window.t.size == 0:
        return WindowEnergy(None, problems=("no_samples",))
    knots = np.concatenate(([min(window.t[0], window.start)], window.t, [max(window.t[-1], window.end)]))
    power = np.concatenate(([window.v[0]], window.v, [window.v[-1]]))
    # The integrand at the edges, then trapezoids between: interpolating the running integral would bend the edges.
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
    """At most one reading speaks of the inside: it holds for all of it; without one, its neighbours are interpolated.

    How far off that may be is guessed from the readings around (rectangular between them), and it is said.
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
    """How far apart the readings on both sides of an edge are (W)."""
    i = int(np.searchsorted(window.t, edge))
    if 0 < i < window.t.size:
        return abs(float(window.v[i] - window.v[i - 1]))
    return 0.0


def _kink_error_w(window: Window, edge: float) -> float:
    """Standard uncertainty (W) of a reading interpolated where its slope changes at ``edge``.

    Two straight lines that meet between two readings lie at most (slope change)·h/4 below the line through them.
    """
    i = int(np.searchsorted(window.t, edge))
    if not 1 < i < window.t.size - 1:
        return 0.0
    slopes = np.diff(window.v[i - 2 : i + 2]) / np.diff(window.t[i - 2 : i + 2])
    return abs(float(slopes[2] - slopes[0])) * window.interval / 4 / math.sqrt(3)
