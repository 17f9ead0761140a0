"""The energy of a window from a counter: unwrapped, and differenced where it ticked."""

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
    """A counter that starts again from 0 at its wrap, made to rise for ever.

    What cannot have flowed (``sensing.limits.counter_rise``) counts as nothing, so that the power around it stays that
    of the other readings; a window that holds such a step has no energy.

    Args:
        t: Times of the readings, s.
        v: The readings, J.
        channel: The counter.

    Returns:
        The values, and why steps (at the later reading) are no energy: ``counter_reset``, ``counter_jumped`` → where.
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
    """Whether a mark lies in the window or in the distance of readings that its end cuts."""
    last = int(np.searchsorted(t, end, side="left"))
    return bool(np.any(marks[: last + 1] & (t[: last + 1] > start)))


def counter_energy(window: Window, edges: Edges) -> WindowEnergy:
    """Differences of a counter at the times when it changed; between two changes the power is taken as constant.

    A change was seen at most one distance of readings, and at most one update interval, after it happened; both ends
    are late alike, so only the spread of that remains: P·T/√6 for two independent phases.
    """
    changed = np.flatnonzero(np.diff(window.v) > 0) + 1
    t, v = window.t[changed], window.v[changed]
    if t.size < 2:
        # Two readings that differ, or a counter that stood still, still bound what flowed.
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
        # The parts left out at the edges deviate from the mean as single distances do, beyond their own jitter.
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
        # Shorter than two ticks: most of what the ticks around it count flowed outside of it.
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
    """How late a change may be seen (s), as the width of a rectangular distribution.

    Read less often than it ticks, a counter is up to one tick old. Read more often, the ticks are seen up to one
    reading late; unchanged readings are left out of a series, but the seen distances then scatter by width/√6.
    """
    update = window.channel.update_interval_s or window.interval
    if window.interval > 1.5 * update or ticks.size < 4:
        return min(window.interval, update)
    return min(update, math.sqrt(6) * float(np.diff(ticks).std(ddof=1)))
