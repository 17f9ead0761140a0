"""The joules of one window from one channel's readings, whatever the channel's readings are averages of.

Two ways to treat a window's edges, because the readings beside an edge belong to something else when work begins or
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
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.sensing.sensor import Channel

    Floats = npt.NDArray[np.float64]

Edges = Literal["steady", "interpolated"]

#: Conversion times of the INA family are typical; their upper limit is 10 % longer (SBOS576, 140 µs typical, 154 µs at
#: most), and an exponential filter's time constant with them. Half-width, relative, taken as rectangular.
TAU_LIMIT = 0.1
#: A distance between readings beyond this many update intervals is a gap (and the variant is degraded).
GAP_INTERVALS = 3.0


@dataclass(frozen=True)
class ChannelSeries:
    """A channel and its readings.

    Attributes:
        channel: Of quantity ``power`` (W) or ``energy`` (J).
        times: Monotonic seconds, strictly increasing, shape ``(n,)``.
        values: In the channel's unit, NaN where a read failed, shape ``(n,)``.
    """

    channel: Channel
    times: npt.ArrayLike
    values: npt.ArrayLike


@dataclass(frozen=True)
class WindowEnergy:
    """The energy of a window.

    Attributes:
        joules: None where the readings do not tell; ``problems`` says why.
        u_sync: Standard uncertainty (J) from not knowing how readings and edges lie to each other.
        u_resolution: Standard uncertainty (J) from the sensor's step.
        u_filter: Standard uncertainty (J) from the sensor's step through the correction of an exponential filter.
        u_filter_gain: Standard uncertainty (J) from the time constant itself: the same sign in every window.
        samples: Valid readings used.
        max_gap_s: The longest stretch of the window without a valid reading; None without any.
        problems: ``no_samples``, ``few_samples`` (the sensor is too slow for this window), ``gaps``, ``counter_reset``.
    """

    joules: float | None
    u_sync: float = 0.0
    u_resolution: float = 0.0
    u_filter: float = 0.0
    u_filter_gain: float = 0.0
    samples: int = 0
    max_gap_s: float | None = None
    problems: tuple[str, ...] = ()


def window_energy(
    times: npt.ArrayLike,
    values: npt.ArrayLike,
    start: float,
    end: float,
    channel: Channel,
    *,
    edges: Edges = "steady",
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

    Raises:
        ValueError: the channel is neither power nor an energy counter, the window is empty or backwards, or the
            shapes differ.
    """
    if end <= start:
        raise ValueError(f"a window from {start} to {end} s has no length")
    if channel.quantity != "power" and not _is_counter(channel):
        raise ValueError(f"{channel.name} is {channel.quantity}, neither power nor a counter of energy")
    t, v = _valid(times, values)
    if _is_counter(channel):
        # Unwrapped before anything is cut off; a counter that went back without a known wrap was reset.
        v, broken = _unwrap(v, channel.wrap)
        if _any_inside(t, broken, start, end):
            return WindowEnergy(None, problems=("counter_reset",))
    interval = _typical_interval(t, start, end)
    if interval is None:
        return WindowEnergy(None, problems=("no_samples",))
    update = max(interval, channel.update_interval_s or 0.0)
    margin = 4 * update + 2 * (channel.filter.length_s or 0.0)
    first, last = np.searchsorted(t, [start - margin, end + margin])
    # One reading beyond the margin on either side, so that a gap over an edge is seen as one.
    around = slice(max(0, int(first) - 1), int(last) + 1)
    window = _Window(t[around], v[around], start, end, channel, interval)
    result = replace(_integrate(window, edges), max_gap_s=window.max_gap())
    return _judge_gaps(result, update, window.length)


def _is_counter(channel: Channel) -> bool:
    return channel.quantity == "energy" and channel.kind == "counter"


def _valid(times: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Floats, Floats]:
    t, v = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.shape != v.shape or t.ndim != 1:
        raise ValueError(f"times {t.shape} and values {v.shape} must be one-dimensional and of one length")
    read = ~(np.isnan(v) | np.isnan(t))
    return t[read], v[read]


def _integrate(window: _Window, edges: Edges) -> WindowEnergy:
    what = window.channel.filter
    if _is_counter(window.channel):
        return _counter(window, edges)
    if what.kind == "exponential" and what.tau_s:
        return _exponential(window, what.tau_s, edges)
    if what.kind == "block":
        return _block(window, what.length_s or window.channel.update_interval_s or window.interval, edges)
    return _instantaneous(window, edges)


def _judge_gaps(result: WindowEnergy, update: float, length: float) -> WindowEnergy:
    gap = result.max_gap_s or 0.0
    if result.joules is None or gap <= GAP_INTERVALS * update:
        return result
    # With more than half of the window unseen, what is left is no measurement of it.
    joules = None if gap > length / 2 else result.joules
    return replace(result, joules=joules, problems=(*result.problems, "gaps"))


@dataclass(frozen=True)
class _Window:
    t: Floats
    v: Floats
    start: float
    end: float
    channel: Channel
    #: median distance of the readings, seconds
    interval: float

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def age(self) -> float:
        """How old a reading may be: the source's update interval (a quarter of a window that is too short for it)."""
        return min(self.channel.update_interval_s or 0.0, self.length / 4)

    def inside(self, lead: float = 0.0) -> slice:
        """The readings that speak of the inside alone: not before ``start + lead``, not after ``end``."""
        first = int(np.searchsorted(self.t, self.start + lead, side="left"))
        last = int(np.searchsorted(self.t, self.end, side="right"))
        return slice(first, max(first, last))

    def max_gap(self) -> float:
        """The longest distance between valid readings that touches the window; an edge without one counts too."""
        first = max(0, int(np.searchsorted(self.t, self.start, side="right")) - 1)
        last = int(np.searchsorted(self.t, self.end, side="left"))
        t = self.t[first : last + 1]
        marks = np.concatenate(
            (
                [self.start] if not t.size or t[0] > self.start else [],
                t,
                [self.end] if not t.size or t[-1] < self.end else [],
            )
        )
        return float(np.diff(marks).max(initial=0.0))


def _typical_interval(t: Floats, start: float, end: float) -> float | None:
    """The median distance of readings in and around the window; None where none is near enough to tell."""
    first, last = np.searchsorted(t, [start, end])
    near = t[max(0, int(first) - 2) : int(last) + 2]
    if near.size == 0:
        return None
    if near[0] > end or near[-1] < start:  # all on one side: nothing is known of the window
        return None
    return float(np.median(np.diff(near))) if near.size > 1 else end - start


# --- power ------------------------------------------------------------------------------------------------------------


def _instantaneous(window: _Window, edges: Edges) -> WindowEnergy:
    if edges == "interpolated":
        return _interpolated(window)
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if t.size < 2:
        return _too_few(window)
    before, after = t[0] - window.start, window.end - t[-1]
    joules = _trapezoid(t, v) + v[0] * before + v[-1] * after
    return WindowEnergy(
        float(joules),
        u_sync=float(v.std(ddof=1)) * math.hypot(before, after),
        u_resolution=_step_energy(window, v),
        samples=int(t.size),
    )


def _exponential(window: _Window, tau: float, edges: Edges) -> WindowEnergy:
    """An exponential filter's window: P̄ = [∫ₐᵇ y dt + τ·(y_b − y_a)] / (t_b − t_a), E = P̄·W, samples a…b."""
    step = window.channel.resolution or 0.0
    part = window.inside(window.age)
    t, v = window.t[part], window.v[part]
    if edges == "interpolated" or t.size < 2 or t[-1] - t[0] < window.length / 2:
        plain = _interpolated(window)
        if plain.joules is None:
            return plain
        y0, y1 = np.interp([window.start, window.end], window.t, window.v)
        # The reading's kink at an edge is cut by up to half the slope's change over one distance of readings.
        kink = tau * math.hypot(_kink(window, window.start), _kink(window, window.end))
        return replace(
            plain,
            joules=plain.joules + tau * float(y1 - y0),
            u_sync=math.hypot(plain.u_sync, kink),
            u_filter=tau * step / math.sqrt(6),
            u_filter_gain=tau * TAU_LIMIT / math.sqrt(3) * abs(float(y1 - y0)),
            problems=plain.problems if edges == "interpolated" else (*plain.problems, "few_samples"),
        )
    span = t[-1] - t[0]
    stretch = window.length / span
    change = float(v[-1] - v[0])
    joules = (_trapezoid(t, v) + tau * change) * stretch
    # Within the window the power is what it is at each moment; what is left out at the edges deviates from the mean by
    # its standard deviation, which a filtered reading shows damped: by its slope it can be had back.
    power = v[:-1] + tau * np.diff(v) / np.diff(t)
    noise = step / math.sqrt(6) * tau / window.interval
    spread = math.sqrt(max(0.0, float(power.var()) - noise**2)) if power.size > 1 else 0.0
    return WindowEnergy(
        joules,
        u_sync=spread * math.hypot(t[0] - window.start, window.end - t[-1]),
        u_resolution=_step_energy(window, v),
        u_filter=tau * step / math.sqrt(6) * stretch,
        u_filter_gain=tau * TAU_LIMIT / math.sqrt(3) * abs(change) * stretch,
        samples=int(t.size),
    )


def _block(window: _Window, length: float, edges: Edges) -> WindowEnergy:
    """A block average stands for the ``length`` before its time: steps around its middle, half a block earlier."""
    part = window.inside(length)
    if edges == "steady" and window.t[part].size >= 2:
        t, v = window.t[part], window.v[part]
        weights = np.gradient(t)
        power = float(np.average(v, weights=weights))
        # What whole blocks leave out at the edges is like the mean, within the spread of single blocks; where blocks
        # overlap, the outermost ones weigh less over their own length.
        left_out = max(0.0, window.length - (t[-1] - t[0] + length))
        thin = max(0.0, length - window.interval)
        return WindowEnergy(
            power * window.length,
            u_sync=float(v.std(ddof=1)) * math.hypot(left_out, thin) / math.sqrt(2),
            u_resolution=_step_energy(window, v),
            samples=int(t.size),
        )
    shifted = window.t - length / 2
    if shifted.size < 2:
        return _too_few(window)
    middles = (shifted[1:] + shifted[:-1]) / 2
    knots = np.concatenate(([shifted[0] - length / 2], middles, [shifted[-1] + length / 2]))
    total = np.concatenate(([0.0], np.cumsum(window.v * np.diff(knots))))
    result = _between(window, knots, total)
    if edges == "steady":
        # No whole block fits: the readings mix this window with its neighbours over a block's length at each edge.
        return replace(result, problems=(*result.problems, "few_samples"))
    return result


def _interpolated(window: _Window) -> WindowEnergy:
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
        float(_trapezoid(t, y)),
        u_sync=half / math.sqrt(3) * math.hypot(*steps),
        u_resolution=_step_energy(window, window.v),
        samples=int(last - first),
    )


def _too_few(window: _Window) -> WindowEnergy:
    """Fewer than two readings speak of the inside: those around it are interpolated, and that is said."""
    result = _interpolated(window)
    if result.joules is None:
        return result
    # Without readings inside, the whole window is a guess between its neighbours: rectangular between them.
    around = window.v
    spread = float(around.max() - around.min()) / 2 * window.length / math.sqrt(3) if around.size else 0.0
    return replace(result, u_sync=max(result.u_sync, spread), problems=(*result.problems, "few_samples"))


def _step_at(window: _Window, edge: float) -> float:
    """How far apart the readings on both sides of an edge are (W)."""
    i = int(np.searchsorted(window.t, edge))
    if 0 < i < window.t.size:
        return abs(float(window.v[i] - window.v[i - 1]))
    return 0.0


def _kink(window: _Window, edge: float) -> float:
    """Standard uncertainty (W) of a reading interpolated where its slope changes at ``edge``.

    Two straight lines that meet between two readings lie at most (slope change)·h/4 below the line through them.
    """
    i = int(np.searchsorted(window.t, edge))
    if not 1 < i < window.t.size - 1:
        return 0.0
    slopes = np.diff(window.v[i - 2 : i + 2]) / np.diff(window.t[i - 2 : i + 2])
    return abs(float(slopes[2] - slopes[0])) * window.interval / 4 / math.sqrt(3)


def _step_energy(window: _Window, v: Floats) -> float:
    """Standard uncertainty (J) of a mean of quantised readings: W·step/√(12 n), n of them independent.

    A reading that does not move is wrong by the same part of a step each time, so only changes count as new ones.
    """
    step = window.channel.resolution
    if not step or v.size == 0:
        return 0.0
    independent = 1 + int(np.count_nonzero(np.diff(v)))
    return window.length * step / math.sqrt(12 * independent)


# --- counters ---------------------------------------------------------------------------------------------------------


def _unwrap(v: Floats, wrap: float | None) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A counter that starts again from 0 at ``wrap``, made to rise for ever.

    Returns:
        The values, and where (at the later reading) it fell without a wrap that explains it.
    """
    fell = np.diff(v, prepend=v[:1]) < 0
    if wrap is None or not fell.any():
        return v, fell
    return v + wrap * np.cumsum(fell), np.zeros_like(fell)


def _any_inside(t: Floats, marks: npt.NDArray[np.bool_], start: float, end: float) -> bool:
    """Whether a mark lies in the window or in the distance of readings that its end cuts."""
    last = int(np.searchsorted(t, end, side="left"))
    return bool(np.any(marks[: last + 1] & (t[: last + 1] > start)))


def _counter(window: _Window, edges: Edges) -> WindowEnergy:
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
        sparse = _between(window, t, v)
        joules = sparse.joules or 0.0
        return replace(sparse, u_sync=joules / math.sqrt(3), problems=("few_samples",))
    late = min(window.interval, window.channel.update_interval_s or math.inf)
    resolution = (window.channel.resolution or 0.0) / math.sqrt(6)
    first = int(np.searchsorted(t, window.start + min(window.age, late), side="left"))
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
    result = _between(window, t, v)
    power = (result.joules or 0.0) / window.length
    return replace(
        result,
        u_sync=max(result.u_sync, power * late / math.sqrt(6)),
        u_resolution=resolution,
        problems=result.problems if edges == "interpolated" else ("few_samples",),
    )


def _between(window: _Window, knots: Floats, total: Floats) -> WindowEnergy:
    """The difference of a running integral, linear between its knots and with its end slopes beyond them."""
    rates = np.diff(total) / np.diff(knots)

    def at(time: float) -> float:
        if time < knots[0]:
            return float(total[0] + rates[0] * (time - knots[0]))
        if time > knots[-1]:
            return float(total[-1] + rates[-1] * (time - knots[-1]))
        return float(np.interp(time, knots, total))

    # The power changes somewhere within the distance that an edge cuts; a step there moves up to f(1 − f)·ΔP·h, whose
    # mean square over f is (ΔP·h)²/30.
    moved = 0.0
    for edge in (window.start, window.end):
        i = int(np.searchsorted(knots, edge)) - 1
        if 0 < i < rates.size:
            step = max(abs(rates[i] - rates[i - 1]), abs(rates[min(i + 1, rates.size - 1)] - rates[i]))
            moved = math.hypot(moved, float(step) * float(knots[i + 1] - knots[i]) / math.sqrt(30))
    inside = np.count_nonzero((window.t >= window.start) & (window.t <= window.end))
    return WindowEnergy(
        at(window.end) - at(window.start),
        u_sync=moved,
        u_resolution=_step_energy(window, window.v) if window.channel.quantity == "power" else 0.0,
        samples=int(inside),
    )


def _trapezoid(t: Floats, y: Floats) -> float:
    return float(np.dot(np.diff(t), y[1:] + y[:-1]) / 2)
