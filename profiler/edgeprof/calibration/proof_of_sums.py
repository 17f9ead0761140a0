"""The verdicts of a proof on sums and comparisons: windows, parts, counters, doubles, idle and cost. Pure."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

from edgeprof.calibration.levels import fit_levels
from edgeprof.calibration.observed import Interval, interval
from edgeprof.calibration.proof import Check, Verdict, alone, check, judged, needed_s
from edgeprof.energy.uncertainty import t_quantile
from edgeprof.errors import InputError
from edgeprof.sensing.board.evidence import judge_channels
from edgeprof.sensing.board.headline import best_of
from edgeprof.units import quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.calibration.observed import Observed
    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key
    from edgeprof.worker.span import Span

#: The tolerated relative difference between the cost of the same work in pulses and in long windows.
_ADDITIVE = 0.03
#: The time (s) in each pulse that may pass at other clocks than in a long window, which is no error of the sensor.
_RAMP_S = 0.015
#: Momentary readings closer together than this (s) miss nothing of the shortest pulse.
_APART_S = 0.01
#: The least share of the power that a CPU load adds to a total which must appear in the parts that contain the CPU.
_LEAST_SHARE = 0.5
#: The largest half-width of a share that is reported as passed.
_SURE_SHARE = 0.1
#: A counter and the integrated power of the same source may differ by this much (relative).
_COUNTER = 0.02
#: The tolerated relative drift of the idle power, and share of the cores that other programs use.
_IDLE, _OTHERS = 0.02, 0.05
#: The tolerated relative loss of work to sampling.
_COST = 0.01
#: Two channels that differ by less than this (relative) at every load are the same.
_SAME = 0.002
#: The most watts that a supply draws at the wall for each watt that it delivers.
_MOST_LOSS = 1.7


def sum_checks(seen: Observed) -> Iterator[Check]:
    """All checks that need more than one channel, or the whole pattern."""
    if seen.headline:
        yield _check_additivity(seen)
    yield from _check_parts(seen)
    yield from _check_counters(seen)
    yield from _check_doubles(seen)
    yield from _check_first_looks(seen)
    yield from _check_idle(seen)
    yield _check_sampling_cost(seen)


def _joined_names(channels: Sequence[Channel]) -> str:
    return " + ".join(channel.name for channel in channels)


def _check_additivity(seen: Observed) -> Check:
    """Check that the same work costs the same energy in many short pulses and in one long pulse."""
    groups: dict[float, list[float]] = {}
    for pulse in [*seen.played.steps, *seen.played.trains]:
        groups.setdefault(pulse.on_s, []).append(seen.work_cost(pulse))
    long_s = seen.plan.hold_s if seen.plan.hold_s in groups else max(groups)
    usual = interval(groups[long_s]).value
    freedom = sum(len(costs) - 1 for costs in groups.values())
    subject = _joined_names(seen.headline)
    if not usual > 0 or freedom < 1:
        text = "the load's work is not seen in its joules"
        return check("additivity", subject, "cannot_tell", text)
    scatter = math.fsum((c / usual - interval(costs).value / usual) ** 2 for costs in groups.values() for c in costs)
    u = t_quantile(0.975, freedom) * math.sqrt(scatter / freedom)
    verdicts: list[tuple[Verdict, float, Interval, float]] = []
    for on_s, costs in sorted(groups.items()):
        if on_s == long_s:
            continue
        half = u * math.sqrt(1 / len(costs) + 1 / len(groups[long_s]))
        excess = Interval(interval(costs).value / usual - 1, half)
        # A momentary sensor misses up to half of its interval at each edge of a pulse, in the worst case always alike.
        limit = _ADDITIVE + (_RAMP_S + _apart_s(seen) / 2) / on_s
        verdict = judged(excess, -limit, limit)
        if verdict == "passed" and (excess.low > _ADDITIVE or excess.high < -_ADDITIVE):
            verdict = "cannot_tell"
        verdicts.append((verdict, on_s, excess, limit))
    order = ("failed", "cannot_tell", "passed")
    verdict, on_s, excess, limit = min(
        verdicts, key=lambda judgement: (order.index(judgement[0]), -abs(judgement[2].value))
    )
    lengths = ", ".join(f"{1e3 * on_s:.0f}" for _, on_s, _, _ in verdicts)
    figure = f"{100 * excess.value:+.1f} ± {100 * excess.half:.1f} %"
    text = f"work in pulses of {lengths} ms costs what it costs in pulses of {long_s:.1f} s: {figure} at most"
    if verdict != "passed":
        text = f"work in pulses of {1e3 * on_s:.0f} ms costs {figure} beyond what it costs in pulses of {long_s:.1f} s"
        if verdict == "cannot_tell" and excess.half < limit:
            return check(
                "additivity", subject, verdict, f"{text}: the sensor, or clocks that rise slowly", excess, unit="1"
            )
    return check("additivity", subject, verdict, text, excess, unit="1", needs_s=needed_s(seen, excess, limit))


def _apart_s(seen: Observed) -> float:
    """The longest interval (s) of a channel that does not average; 0 if all are short."""
    looks = [
        c.update_interval_s or 0.0 for c in seen.headline if c.kind != "counter" and c.filter.kind == "instantaneous"
    ]
    return max((apart for apart in looks if apart > _APART_S), default=0.0)


def _parts_inside(seen: Observed, total: Channel) -> list[Channel]:
    """The channels inside a total, one for each thing."""
    inside: dict[str, list[Channel]] = {}
    for channel in seen.channels:
        if channel.parent == total.name and channel.key != total.key and channel.name != total.name:
            inside.setdefault(channel.name, []).append(channel)
    return [best for channels in inside.values() if (best := best_of(channels)) is not None]


def _gain_limit(channel: Channel) -> float:
    return channel.gain_limit or 0.0


def _check_parts(seen: Observed) -> Iterator[Check]:
    for total in seen.channels:
        parts = _parts_inside(seen, total)
        counted = total.kind != "counter" and any(_is_twin(total, c) for c in seen.channels if c.kind == "counter")
        if parts and not counted and seen.rise(total).low > _power_step(total):
            yield _parts_of(seen, total, parts)


def _parts_of(seen: Observed, total: Channel, parts: Sequence[Channel]) -> Check:
    """Check the parts of a total: they must not exceed it, and must show most of a load if the CPU is in them."""
    rises, shares = [], []
    for on, off in zip(seen.played.ons(), seen.played.offs(), strict=True):
        whole, inner = seen.power(total, on), seen.level(parts, on)
        rises.append(_ratio_or_nan(inner - seen.level(parts, off), whole - seen.power(total, off)))
        shares.append(_ratio_or_nan(inner, whole))
    rise, share = interval(rises), interval(shares)
    watts = interval([seen.power(total, on) for on in seen.played.ons()]).value
    offsets = math.fsum(c.offset_limit or 0.0 for c in [total, *parts] if c.quantity == "power")
    slack = math.hypot(_gain_limit(total), *map(_gain_limit, parts))
    subject, names = total.name, _joined_names(parts)
    if max(rise.low, share.low - offsets / watts) > 1 + slack:
        worst = rise if rise.low > share.low else share
        detail = f"{names} make {worst.value:.2f} ± {worst.half:.2g} of it: a part cannot exceed its whole"
        return check("parts", subject, "failed", detail, worst, unit="1", remedy=_SHUNT.format(subject))
    detail = f"of each watt that the load adds to it, {names} show {rise.value:.2f} ± {rise.half:.2g}"
    if rise.high < _LEAST_SHARE - slack and any(map(_feeds_cpu, parts)):
        return check(
            "parts", subject, "failed", f"{detail}, though the CPU is in them", rise, unit="1",
            remedy=_SHUNT.format(f"{subject}, or of a part"),
        )  # fmt: skip
    verdict: Verdict = "passed" if rise.half <= _SURE_SHARE else "cannot_tell"
    return check("parts", subject, verdict, detail, rise, unit="1", needs_s=needed_s(seen, rise, _SURE_SHARE))


def _feeds_cpu(channel: Channel) -> bool:
    return channel.scope in {"cpu", "package"} or (channel.scope == "soc" and "CPU" in channel.name.upper())


_SHUNT = "The shunt of {}? A meter tells: edgeprof calibrate --against meter:ADDRESS"


def _ratio_or_nan(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _is_twin(channel: Channel, other: Channel) -> bool:
    return (channel.sensor, channel.name) == (other.sensor, other.name) and channel.quantity != other.quantity


def _check_counters(seen: Observed) -> Iterator[Check]:
    """Compare an energy counter with the power of the same source, over each step and the idle after it."""
    for counter in (channel for channel in seen.channels if channel.kind == "counter"):
        gauge = next((channel for channel in seen.channels if _is_twin(counter, channel)), None)
        if gauge is None:
            continue
        quiet = [seen.settled_before(step.start_s)[0] for step in seen.played.steps]
        ratios = [
            _ratio_or_nan(seen.joules(counter, start, step.end_s), seen.joules(gauge, start, step.end_s))
            for start, step in zip(quiet, seen.played.steps, strict=True)
        ]
        ratio = interval(ratios)
        verdict = judged(ratio, 1 - _COUNTER, 1 + _COUNTER)
        text = f"it counts {ratio.value:.3f} ± {ratio.half:.2g} of the power that the same source adds up to"
        yield check(
            "counter", counter.name, verdict, text, ratio, unit="1", stated=1.0, needs_s=needed_s(seen, ratio, _COUNTER)
        )


def _check_doubles(seen: Observed) -> Iterator[Check]:
    """Check that nothing is in the sum twice: equal channels, or a total beside its parts."""
    channels = seen.headline
    if len(channels) < 2:
        return
    holds = seen.played.holds()
    powers = {channel.key: [seen.power(channel, hold) for hold in holds] for channel in channels}
    moving = [channel for channel in channels if seen.rise(channel).low > 10 * _power_step(channel)]
    for channel, other in combinations(moving, 2):
        if _are_alike(powers[channel.key], powers[other.key], _power_step(channel) + _power_step(other)):
            text = f"{channel.name} and {other.name} show the same at every load: one of them is counted twice"
            yield check("double", _joined_names(channels), "failed", text, remedy=f"Choose one: --rail {channel.name}")
            return
    for total in moving if len(channels) > 2 else []:
        rest = [channel for channel in channels if channel.key != total.key]
        sums = [math.fsum(watts) for watts in zip(*(powers[c.key] for c in rest), strict=True)]
        if _are_alike(powers[total.key], sums, math.fsum(map(_power_step, channels))):
            text = f"{total.name} shows what {_joined_names(rest)} show together, and all are added up"
            yield check(
                "double", _joined_names(channels), "failed", text, remedy=f"Choose the total: --rail {total.name}"
            )
            return
    yield check("double", _joined_names(channels), "passed", "no two of them show one thing")


def _power_step(channel: Channel) -> float:
    return (channel.resolution or 0.0) if channel.quantity == "power" else 0.0


def _are_alike(ones: Sequence[float], others: Sequence[float], step: float) -> bool:
    return all(abs(a - b) <= _SAME * abs(a) + step for a, b in zip(ones, others, strict=True))


def _check_first_looks(seen: Observed) -> Iterator[Check]:
    """Apply the rule for first readings (``evidence.judge_channels``) to the readings of the whole pattern."""
    moments = [end for _, end in seen.played.holds()]
    looks: dict[Key, list[tuple[float, float]]] = {}
    for channel in seen.channels:
        t, v = seen.within(channel, moments[0] - 1.0, moments[-1])
        places = [int(t.searchsorted(moment)) - 1 for moment in moments]
        looks[channel.key] = [(float(t[i]), float(v[i])) for i in places if i >= 0]
    for before, after in zip(seen.channels, judge_channels(list(seen.channels), looks), strict=True):
        if before.available and not after.available:
            yield check("evidence", before.name, "failed", after.reason or "its readings cannot be true")


def _check_idle(seen: Observed) -> Iterator[Check]:
    played, channels = seen.played, seen.headline
    if channels:
        idles = [seen.level(channels, (a + 0.2 * (b - a), b)) for a, b in played.idles]
        idles += [seen.level(channels, hold) for hold in played.offs()]
        mean = interval(idles)
        spread = (max(idles) - min(idles)) / mean.value if mean.value > 0 else math.nan
        step = math.fsum(map(_power_step, channels)) / mean.value if mean.value > 0 else 0.0
        wander = Interval(spread, 0.0)
        steady = spread <= _IDLE + step
        text = f"without the load it draws {quantity(mean.value, 'W')}, within {100 * spread:.1f} %"
        if not steady:
            text += ": net joules are no surer than that"
        yield check("idle", _joined_names(channels), "passed" if steady else "cannot_tell", text, wander, unit="1")
    if played.others is None:
        return
    busy = Interval(played.others, 0.0)
    quiet = played.others <= _OTHERS
    who = f" ({', '.join(played.busiest)})" if played.busiest and not quiet else ""
    text = f"other programs use {100 * played.others:.1f} % of the cores{who}"
    remedy = None if quiet else "Stop them: their work is in every joule."
    yield check("others", "this machine", "passed" if quiet else "cannot_tell", text, busy, unit="1", remedy=remedy)


def _check_sampling_cost(seen: Observed) -> Check:
    blocks = seen.played.blocks
    lost = interval([1 - with_it / without for with_it, without in blocks if without > 0])
    verdict: Verdict = "failed" if lost.low > _COST else "passed" if lost.high <= _COST else "cannot_tell"
    text = f"sampling at 100 Hz costs {100 * lost.value:.2f} ± {100 * lost.half:.2g} % of the work of all cores"
    if not math.isfinite(lost.value):
        text = "no work was done in the blocks with and without sampling"
    blocks_s = 2 * len(blocks) * seen.plan.block_s
    needs = blocks_s * (lost.half / _COST) ** 2 + seen.plan.seconds if math.isfinite(lost.half) else None
    return check("cost", "the sampler", verdict, text, lost, unit="1", stated=_COST, needs_s=needs)


def meter_check(seen: Observed, mine: Sequence[ChannelSeries], theirs: ChannelSeries, holds: Sequence[Span]) -> Check:
    """Compare the headline with a meter, over every level of the pattern.

    Args:
        seen: The observed pattern.
        mine: The readings of the headline's channels.
        theirs: The readings of the meter.
        holds: The settled stretches.
    """
    subject = f"{_joined_names([series.channel for series in mine])} against {theirs.channel.name}"
    try:
        _, line = fit_levels(mine, theirs, holds)
    except InputError as error:
        return check("meter", subject, "cannot_tell", error.message, remedy=error.remedy)
    gain = Interval(line.gain, 2 * line.u_gain)
    scopes = {series.channel.scope for series in mine}
    same = scopes == {theirs.channel.scope}
    slack = math.hypot(_gain_limit(theirs.channel), *(_gain_limit(series.channel) for series in mine))
    high = 1 + slack if same else _MOST_LOSS
    verdict = judged(gain, 1 - slack, high)
    text = f"for each watt that it shows the meter shows {gain.value:.3f} ± {gain.half:.2g} W"
    if not same:
        text += f"; the meter sees the {theirs.channel.scope}, with the losses between"
    remedy = f"edgeprof calibrate --against {theirs.channel.sensor}: corrects it" if verdict == "failed" else None
    return check(
        "meter", subject, verdict, text, gain, unit="1", needs_s=needed_s(seen, gain, slack or _COUNTER), remedy=remedy
    )


def unproved_gain(seen: Observed) -> Check:
    """The check of the sensor's scale, which no load pattern can do without a second instrument."""
    limits = max((_gain_limit(channel) for channel in seen.headline), default=0.0)
    stated = f" (stated ± {100 * limits:.1f} %)" if limits else ""
    which = "its scale" if alone(seen) else "the scale of each rail"
    text = f"{which}{stated} only a second instrument can see"
    remedy = "edgeprof doctor --prove --against meter:ADDRESS"
    return check("gain", _joined_names(seen.headline), "cannot_tell", text, remedy=remedy)
