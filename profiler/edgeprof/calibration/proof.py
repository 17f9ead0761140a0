"""The verdicts of a proof on each sensor: whether its readings agree with what it states. Pure.

Every check gives a figure, its 95 % interval and one of three verdicts. ``failed`` means that the whole interval lies
outside the tolerated range, ``passed`` that the figure lies inside it and is known well enough.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprof.calibration.observed import Interval, interval
from edgeprof.energy.filters import time_constant
from edgeprof.energy.influences import u_tau
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.units import quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof.calibration.observed import Observed
    from edgeprof.calibration.pattern import Pulse
    from edgeprof.energy.window import Floats
    from edgeprof.sensing.sensor import Channel

Verdict = Literal["passed", "failed", "cannot_tell"]

#: The tolerated difference (s) of a delay from the stated one; the load itself needs some hundredths to end.
DELAY_S = 0.1
#: A rail does not answer the load if its rise is surely below this share of its idle power.
_LEAST_RISE = 0.02
#: The readings of an averaging sensor during the shortest pulses scatter by at most this share of the rise.
_LEAST_ALIAS = 0.15
#: A sensor whose stated average leaves more ripple than this cannot be distinguished from a momentary one (0.5).
_MOST_ALIAS = 0.35
#: The factor by which a measured refresh interval may exceed the stated one.
_SLOWER = 1.5
#: The least number of gaps between changes for a refresh interval, and of different values for a step.
_LEAST_GAPS, _LEAST_VALUES = 8, 20
#: The scopes of rails that a load of all cores must reach.
_CPU_SCOPES = ("cpu", "package")


@dataclass(frozen=True)
class Check:
    """One figure and its verdict.

    Attributes:
        name: What was checked, such as ``answers``, ``filter``, ``additivity``.
        subject: The channel, or channels joined by `` + ``.
        verdict: ``passed``, ``failed`` or ``cannot_tell``.
        detail: The finding, as a clause.
        value: The figure; None if there is none.
        low: The lower end of its 95 % interval; None if unknown.
        high: The upper end of the interval; None if unknown.
        unit: The unit of these three.
        stated: The value that the driver or the design states, in the same unit.
        needs_s: How long (s) a proof would have to take for a verdict; None if there is one, or if time would not help.
        remedy: What the user can do about it.
    """

    name: str
    subject: str
    verdict: Verdict
    detail: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    stated: float | None = None
    needs_s: float | None = None
    remedy: str | None = None


def judged(figure: Interval, low: float, high: float) -> Verdict:
    """The verdict on whether a figure lies between two limits."""
    if figure.low > high or figure.high < low:
        return "failed"
    inside = low <= figure.value <= high and figure.half <= (high - low) / 2
    return "passed" if inside else "cannot_tell"


def check(
    name: str,
    subject: str,
    verdict: Verdict,
    detail: str,
    figure: Interval | None = None,
    *,
    unit: str = "",
    stated: float | None = None,
    needs_s: float | None = None,
    remedy: str | None = None,
) -> Check:
    """Make a check from an interval; numbers that are not finite become None."""
    figures = (figure.value, figure.low, figure.high) if figure is not None else (math.nan,) * 3
    value, low, high = (number if math.isfinite(number) else None for number in figures)
    needs_s = needs_s if verdict == "cannot_tell" and needs_s is not None and math.isfinite(needs_s) else None
    return Check(name, subject, verdict, detail, value, low, high, unit, stated, needs_s, remedy)


def needed_s(seen: Observed, figure: Interval, target: float) -> float | None:
    """How long (s) a proof must take for a half-width of ``target``: half-widths fall with the square root of time."""
    if not math.isfinite(figure.half) or target <= 0:
        return None
    return seen.plan.seconds * max(1.0, (figure.half / target) ** 2)


def sensor_checks(seen: Observed) -> Iterator[Check]:
    """The checks of every channel: whether it answers the load, its refresh, steps, filter and delay."""
    for channel in seen.channels:
        answer = _check_answers(seen, channel)
        yield answer
        refresh = _check_refresh(seen, channel)
        if answer.verdict == "passed" or (refresh.verdict == "failed" and not _stands_still(seen, channel)):
            yield refresh
        if answer.verdict != "passed":
            continue
        if channel.kind != "counter":
            yield _check_steps(seen, channel)
            if channel.filter.kind == "exponential":
                yield _check_filter(seen, channel)
            if channel.filter.kind != "instantaneous":
                yield from _check_aliasing(seen, channel)
            elif (channel.update_interval_s or 0.0) > 0.01:
                yield _looks_apart(channel)
        yield _check_delay(seen, channel)


def _check_answers(seen: Observed, channel: Channel) -> Check:
    rise = seen.rise(channel)
    offs = [seen.power(channel, hold) for hold in seen.played.offs()]
    idle = interval(offs).value
    step = (channel.resolution or 0.0) if channel.quantity == "power" else 0.0
    name, levels = channel.name, f"{idle:.3g} → {idle + rise.value:.3g} W"
    if not math.isfinite(rise.value):
        return check("answers", name, "cannot_tell", "it had no readings in the holds", rise, unit="W")
    if rise.low > max(_LEAST_RISE * abs(idle) / 4, step):
        return check("answers", name, "passed", f"it answers the load: {levels}", rise, unit="W")
    fed = channel.scope in _CPU_SCOPES or channel.key in {c.key for c in seen.topology.headline.channels if alone(seen)}
    still = _stands_still(seen, channel)
    if fed and (still or rise.high < max(_LEAST_RISE * abs(idle), 2 * step)):
        how = "it stands still" if still else "it does not answer"
        return check(
            "answers", name, "failed", f"{how} at {idle:.3g} W while all cores are busy and idle in turn", rise,
            unit="W", remedy="Is its driver bound, and does the chip convert? edgeprof sensors; dmesg",
        )  # fmt: skip
    if fed:
        needs = needed_s(seen, rise, max(abs(rise.value), _LEAST_RISE * abs(idle)) / 2)
        return check(
            "answers", name, "cannot_tell", f"its rise is within its noise: {levels}", rise, unit="W", needs_s=needs
        )
    what = "every reading is the same" if still else f"it hardly moves ({levels})"
    return check("answers", name, "cannot_tell", f"{what}: a load of the CPU says nothing of it", rise, unit="W")


def alone(seen: Observed) -> bool:
    """Whether one channel is the whole headline, so that every load must reach it."""
    return len(seen.topology.headline.channels) == 1


def _stands_still(seen: Observed, channel: Channel) -> bool:
    steps = seen.played.steps
    if not steps:
        return False
    _, values = seen.within(channel, steps[0].start_s, steps[-1].end_s)
    return values.size > 0 and float(values.min()) == float(values.max())


def _moving_stretches(seen: Observed, channel: Channel) -> Iterator[tuple[float, float]]:
    """The stretches in which a channel's readings have to change."""
    played = seen.played
    if channel.kind == "counter":
        yield from ((step.start_s + 0.1, step.off_s) for step in played.steps)
    elif channel.filter.kind == "exponential":
        yield from ((step.off_s + 0.03, step.off_s + (channel.filter.tau_s or 0.0)) for step in played.steps)
    else:
        shortest = min(train.on_s for train in played.trains)
        yield from ((train.start_s, train.off_s) for train in played.trains if train.on_s == shortest)


def _check_refresh(seen: Observed, channel: Channel) -> Check:
    period = seen.trace.period_s(channel.key)
    gaps: list[float] = []
    changes, moving_s = 0, 0.0
    for start, end in _moving_stretches(seen, channel):
        t, v = seen.within(channel, start, end)
        changed = t[1:][np.diff(v) != 0]
        gaps += [b - a for a, b in pairwise(changed.tolist())]
        changes += changed.size
        moving_s += end - start
    stated = channel.update_interval_s
    # The signal may need more time to change by one step than the sensor needs for one reading.
    limit = _SLOWER * max(stated or 0.0, _signal_s(seen, channel)) + 2 * period
    if len(gaps) < _LEAST_GAPS:
        rare = f"it changed {changes} times in the {moving_s:.1f} s in which its signal moved"
        slow = stated is not None and moving_s / max(1, changes) > limit
        return check("refresh", channel.name, "failed" if slow else "cannot_tell", rare, stated=stated)
    gap = statistics.median(gaps)
    spread = sorted(gaps)
    seen_s = Interval(gap, max(period, (spread[3 * len(gaps) // 4] - spread[len(gaps) // 4]) / math.sqrt(len(gaps))))
    text = f"it shows something new every {quantity(gap, 's')}" + (" or less" if gap < 1.5 * period else "")
    if stated is None:
        return check("refresh", channel.name, "passed", f"{text}; nothing is stated", seen_s, unit="s")
    text += f" (stated {quantity(stated, 's')})"
    verdict: Verdict = "failed" if gap > limit else "passed"
    return check("refresh", channel.name, verdict, text, seen_s, unit="s", stated=stated)


def _signal_s(seen: Observed, channel: Channel) -> float:
    """How long (s) the moving signal itself needs to change by one step of the sensor."""
    rise = abs(seen.rise(channel).value)
    resolution = channel.resolution or _smallest_step(seen, channel)
    if channel.kind == "counter":
        return resolution / rise if rise else math.inf
    if channel.filter.kind == "exponential":
        return 3 * resolution * (channel.filter.tau_s or 0.0) / rise if rise else math.inf
    return min((train.on_s for train in seen.played.trains), default=math.inf)


def _check_steps(seen: Observed, channel: Channel) -> Check:
    noise = []
    for hold in seen.played.holds():
        _, v = seen.within(channel, *hold)
        if v.size > 1:
            noise.append(round(float(v.std()), 9))
    smallest = _smallest_step(seen, channel)
    stated = channel.resolution
    spread = Interval(statistics.median(noise), 0.0) if noise else Interval(math.nan, math.inf)
    text = f"its steps are {quantity(smallest, 'W')}, its noise at rest {quantity(spread.value, 'W')}"
    if stated is None:
        return check(
            "resolution", channel.name, "passed", f"{text}; no step is stated", Interval(smallest, 0.0), unit="W"
        )
    verdict: Verdict = "passed" if smallest <= _SLOWER * stated else "failed"
    if verdict == "failed" and _distinct_values(seen, channel).size < _LEAST_VALUES:
        verdict, text = (
            "cannot_tell",
            f"it took too few values to tell its steps; its noise is {quantity(spread.value, 'W')}",
        )
    text += f" (stated step {quantity(stated, 'W')})"
    return check("resolution", channel.name, verdict, text, Interval(smallest, 0.0), unit="W", stated=stated)


def _distinct_values(seen: Observed, channel: Channel) -> Floats:
    """The different values that were read; values that differ by rounding count once."""
    steps = seen.played.steps
    _, values = seen.within(channel, steps[0].start_s, steps[-1].end_s)
    return np.unique(np.round(values, 9))


def _smallest_step(seen: Observed, channel: Channel) -> float:
    """The smallest difference between two values that were read; 0 if all are equal."""
    return (
        float(np.diff(_distinct_values(seen, channel)).min(initial=math.inf))
        if _distinct_values(seen, channel).size > 1
        else 0.0
    )


def _check_filter(seen: Observed, channel: Channel) -> Check:
    stated = channel.filter.tau_s or 0.0
    series = seen.series(channel)
    rests = [(step.off_s + 0.03, step.end_s) for step in seen.played.steps]
    fitted = time_constant([ChannelSeries(channel, series.times, series.values)], rests)
    if fitted is None:
        text = f"no fall shows its time constant (stated {stated:.3g} s)"
        return check("filter", channel.name, "cannot_tell", text, stated=stated, needs_s=2 * seen.plan.seconds)
    tau = Interval(fitted.tau_s, 2 * fitted.u_s)
    allowed = math.sqrt(3) * u_tau(channel) + fitted.u_s
    verdict = judged(tau, stated - allowed, stated + allowed)
    text = f"its filter is exponential, tau {tau.value:.3g} ± {tau.half:.2g} s (stated {stated:.3g})"
    remedy = "edgeprof calibrate --filter keeps the measured one." if verdict == "failed" else None
    needs = needed_s(seen, tau, allowed)
    return check("filter", channel.name, verdict, text, tau, unit="s", stated=stated, needs_s=needs, remedy=remedy)


def _check_delay(seen: Observed, channel: Channel) -> Check:
    delay = interval(seen.delays(channel))
    what, refresh = channel.filter, channel.update_interval_s or 0.0
    stated = (what.tau_s or 0.0) if what.kind == "exponential" else (what.length_s or 0.0) / 2
    if channel.kind == "counter":
        stated = 0.0
    stated += refresh / 2
    allowed = DELAY_S + (2 * u_tau(channel) if what.kind == "exponential" else 0.0) + refresh / 2
    verdict = judged(delay, stated - allowed, stated + allowed)
    text = f"it shows the end of a load {delay.value:.3f} ± {delay.half:.2g} s late (stated {stated:.3g})"
    remedy = None
    if verdict == "failed" and delay.value > stated:
        remedy = "Leave its windows long against that, or use another source: edgeprof sensors"
    needs = needed_s(seen, delay, allowed)
    return check("delay", channel.name, verdict, text, delay, unit="s", stated=stated, needs_s=needs, remedy=remedy)


def _check_aliasing(seen: Observed, channel: Channel) -> Iterator[Check]:
    """Check that an averaging sensor averages: during short pulses its readings must stay near their mean."""
    shortest = min((train.on_s for train in seen.played.trains), default=math.inf)
    memory = channel.filter.tau_s if channel.filter.kind == "exponential" else channel.filter.length_s
    if not memory or not math.isfinite(shortest):
        return
    rise = abs(seen.rise(channel).value)
    shares = [
        _detrended_scatter(seen, channel, train, memory) / rise
        for train in seen.played.trains
        if train.on_s == shortest
    ]
    shares = [share for share in shares if math.isfinite(share)]
    if not shares:
        return
    limit = max(_LEAST_ALIAS, 1.5 * ripple(channel, shortest))
    if limit > _MOST_ALIAS:
        return
    scatter = Interval(math.fsum(shares) / len(shares), max(shares) - min(shares))
    verdict: Verdict = "failed" if scatter.low > limit else "passed" if scatter.value <= limit else "cannot_tell"
    pulses = f"during pulses of {1e3 * shortest:.0f} ms its readings scatter by {100 * scatter.value:.0f} % of the rise"
    text = f"{pulses}: it averages" if verdict == "passed" else f"{pulses}: it looks at moments, and averages nothing"
    yield check("aliasing", channel.name, verdict, text, scatter, unit="1", stated=limit)


def ripple(channel: Channel, half_s: float) -> float:
    """The ripple that the stated average leaves of a square wave: its standard deviation over the wave's height.

    Behind an exponential filter the response to a square wave is piecewise exponential, with the standard deviation
    tanh(h/2τ)/√12 for short half periods h.

    Args:
        channel: A channel with an exponential filter or a block average.
        half_s: Half the period of the wave, in seconds.
    """
    what = channel.filter
    if what.kind == "exponential":
        return math.tanh(half_s / (2 * (what.tau_s or math.inf))) / math.sqrt(12)
    length = (what.length_s or 0.0) / half_s
    # The integral of a wave that alternates between 1 and 0 every unit, and its mean over blocks with any end.
    ends = np.linspace(length, length + 2, 401)

    def integral(at: Floats) -> Floats:
        return np.floor(at / 2) + np.minimum(at % 2, 1.0)

    return float(((integral(ends) - integral(ends - length)) / length).std())


def _detrended_scatter(seen: Observed, channel: Channel, train: Pulse, memory: float) -> float:
    lead = min(4 * memory, 0.6 * (train.off_s - train.start_s))
    t, v = seen.within(channel, train.start_s + lead, train.off_s)
    if v.size < 8:
        return math.nan
    return float((v - np.polyval(np.polyfit(t - t[0], v, 1), t - t[0])).std())


def _looks_apart(channel: Channel) -> Check:
    every = quantity(channel.update_interval_s, "s")
    text = f"it looks at moments, {every} apart: a load that repeats in step with that would be read wrong"
    return check("aliasing", channel.name, "cannot_tell", text, remedy="Only a counter or a meter that averages tells.")
