"""The energy of a window from an energy counter: its wraps are undone, then it is differenced where it ticked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.window import WindowEnergy, energy_between_knots
from edgeprof.sensing.limits import allowed_rise, counter_rise, power_limit

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.energy.window import Edges, Floats, Window
    from edgeprof.sensing.sensor import Channel


def unwrap(t: Floats, v: Floats, channel: Channel) -> tuple[Floats, dict[str, npt.NDArray[np.bool_]]]:
    """Undo the wraps of a counter, so that it never falls.

    A step that no possible power explains (``sensing.limits.counter_rise``) counts as 0 J, so that it does not disturb
    the windows around it. A window that contains such a step has no energy.

    Args:
        t: The times of the readings in seconds, shape ``(n,)``.
        v: The readings in joules, same shape.
        channel: The counter.

    Returns:
        The unwrapped readings in joules, and a mask for each kind of impossible step (``counter_reset``,
        ``counter_jumped``) that is true at the later reading of the step.
    """
    marks = {code: np.zeros(v.shape, dtype=np.bool_) for code in ("counter_reset", "counter_jumped")}
    rises, spans = np.diff(v), np.diff(t)
    suspect = (rises < 0) | (rises > allowed_rise(channel, 0.0) + power_limit(channel) * spans)
    for index in np.flatnonzero(suspect):
        rise, code = counter_rise(channel, float(v[index]), float(v[index + 1]), float(spans[index]))
        rises[index] = 0.0 if code else rise
        if code:
            marks[code][index + 1] = True
    return v[:1].sum() + np.concatenate([[0.0], np.cumsum(rises)])[: v.size], marks


def any_between(t: Floats, marks: npt.NDArray[np.bool_], start: float, end: float) -> bool:
    """Whether a marked step lies in the window, or between the two readings around the window's end."""
    last = int(np.searchsorted(t, end, side="left"))
    return bool(np.any(marks[: last + 1] & (t[: last + 1] > start)))


def counter_energy(window: Window, edges: Edges) -> WindowEnergy:
    """The energy of a window from the counter's ticks, the times at which it changed; power is constant between ticks.

    A tick is seen at most one reading interval and at most one update interval T after it happened. Both ends of the
    window are late by the same amount on average, so only the spread of the delay matters. Each delay is rectangular
    with the standard uncertainty T/√12 (GUM 4.3.7); two independent ones give P·T/√6.
    """
    changed = np.flatnonzero(np.diff(window.v) > 0) + 1
    t, v = window.t[changed], window.v[changed]
    if t.size < 2:
        # Even a single tick, or none, bounds the energy between the first and the last reading.
        t, v = window.t[[0, -1]], window.v[[0, -1]]
        if window.t.size < 2 or t[0] > window.start or t[1] < window.end:
            return WindowEnergy(None, samples=int(window.t.size), problems=("no_samples",))
        sparse = energy_between_knots(window, t, v)
        joules = sparse.joules or 0.0
        return replace(sparse, u_sync=joules / math.sqrt(3), problems=("few_samples",))
    late = _tick_delay_s(window, t)
    resolution = (window.channel.resolution or 0.0) / math.sqrt(6)
    first = int(np.searchsorted(t, window.start + window.age, side="left"))
    last = int(np.searchsorted(t, window.end, side="right")) - 1
    if edges == "steady" and last > first and t[last] - t[first] >= window.length / 2:
        span = float(t[last] - t[first])
        power = float(v[last] - v[first]) / span
        stretch = window.length / span
        rates = np.diff(v[first : last + 1]) / np.diff(t[first : last + 1])
        # The parts left out at the edges differ from the mean power as single tick intervals do. Their scatter is the
        # variance of the rates less the share that the jitter of the ticks causes.
        jitter = power * late / math.sqrt(6) / (span / (last - first))
        spread = math.sqrt(max(0.0, float(rates.var()) - jitter**2)) if rates.size > 1 else 0.0
        left_out = math.hypot(t[first] - window.start, window.end - t[last])
        return WindowEnergy(
            power * window.length,
            u_sync=math.hypot(power * late / math.sqrt(6) * stretch, spread * left_out),
            u_resolution=resolution * stretch,
            samples=last - first + 1,
        )
    if edges == "steady" and window.length < 2 * max(late, window.channel.update_interval_s or window.interval):
        # A window shorter than two ticks: most of the energy that the ticks around it count flowed outside of it.
        return WindowEnergy(None, problems=("few_samples",))
    result = energy_between_knots(window, t, v)
    power = (result.joules or 0.0) / window.length
    return replace(
        result,
        u_sync=max(result.u_sync, power * late / math.sqrt(6)),
        u_resolution=resolution,
        problems=result.problems if edges == "interpolated" else ("few_samples",),
    )


def _tick_delay_s(window: Window, ticks: Floats) -> float:
    """How late a tick may be seen (s), as the full width of a rectangular distribution.

    A counter that is read less often than it ticks is up to one tick old. If it is read more often, its ticks are seen
    up to one reading interval late. That interval is not known here, because unchanged readings are left out of a
    series, but the intervals between seen ticks are differences of two delays, whose standard deviation is width/√6.
    """
    update = window.channel.update_interval_s or window.interval
    if window.interval > 1.5 * update or ticks.size < 4:
        return min(window.interval, update)
    return min(update, math.sqrt(6) * float(np.diff(ticks).std(ddof=1)))
