"""Judge which channels cannot be what they claim to be, by comparing the first readings of all of them.

Two counters that show the same value are the same meter. A counter that stands still while others rise, and a total
that is smaller than its own part, are refused. A captured tree, in which nothing changes, gives no such evidence.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edgeprof.sensing.board.headline import is_additive, is_power, without_doubles
from edgeprof.sensing.limits import counter_rise, why_impossible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key

    #: Key → (monotonic s, value) of each look, in the order of time; NaN where a reading failed.
    Looks = Mapping[Key, Sequence[tuple[float, float]]]

#: For these quantities a failed first reading means that the channel gives nothing; others (a load) need two readings.
_PROVEN_BY_ONE = frozenset({"power", "energy", "voltage", "current", "temperature"})
#: A total must reach this share of its parts: readings are not simultaneous, and filters may differ.
_BELOW = 0.9
#: The readings of two counters that may be the same meter are at most this far apart in time (s).
_APART_S = 0.05
#: The scopes with which a platform's counter is compared.
_PARTS_OF_PLATFORM = ("package", "memory")


def judge_channels(channels: Sequence[Channel], looks: Looks) -> list[Channel]:
    """Return the channels; those whose readings cannot be true are marked unavailable, with the reason."""
    judged = [_prove_channel(channel, [value for _, value in looks.get(channel.key, ())]) for channel in channels]
    judged = _without_mirrors(judged, looks)
    judged = without_doubles(_without_still_counters(judged, looks))
    return _without_hollow_totals(judged, looks)


def mean_watts(channel: Channel, looks: Looks) -> float | None:
    """The mean power (W) in the first readings of a channel; None if they show none."""
    readings = [(time, value) for time, value in looks.get(channel.key, ()) if math.isfinite(value)]
    if channel.kind != "counter":
        return math.fsum(value for _, value in readings) / len(readings) if readings else None
    rises = [counter_rise(channel, v, w, b - a)[0] for (a, v), (b, w) in pairwise(readings)]
    span = readings[-1][0] - readings[0][0] if len(readings) > 1 else 0.0
    return math.fsum(rises) / span if span > 0 and not math.isnan(math.fsum(rises)) else None


def is_doubtful(channels: Sequence[Channel], looks: Looks) -> bool:
    """Whether longer readings are worthwhile, because some channel stands still or does not add up."""
    first = [_prove_channel(channel, [value for _, value in looks.get(channel.key, ())]) for channel in channels]
    return judge_channels(channels, looks) != first


def _prove_channel(channel: Channel, values: Sequence[float]) -> Channel:
    """Return the channel; it is marked unavailable if it gave no value that can be true."""
    if channel.quantity not in _PROVEN_BY_ONE or not channel.available or not values:
        return channel
    good = [value for value in values if not math.isnan(value)]
    if not good:
        return replace(channel, available=False, reason=channel.reason or "a reading failed")
    reasons = [why_impossible(channel, value) for value in good]
    if all(reasons):
        return replace(channel, available=False, reason=reasons[-1])
    return channel


def _energy_counters(channels: Sequence[Channel]) -> list[Channel]:
    return [c for c in channels if c.available and c.quantity == "energy" and c.kind == "counter"]


def _without_mirrors(channels: Sequence[Channel], looks: Looks) -> list[Channel]:
    """Keep only the first of counters that show the same values; channels inside the others move to the first."""
    same: dict[str, Channel] = {}
    counters = [c for c in _energy_counters(channels) if c.parent is None]
    for index, channel in enumerate(counters):
        for other in counters[:index]:
            alike = (other.sensor, other.scope, other.role) == (channel.sensor, channel.scope, channel.role)
            if alike and other.name not in same and _is_mirror(channel, other, looks):
                same[channel.name] = other
                break
    result = []
    for channel in channels:
        twin = same.get(channel.name) if channel.parent is None else None
        if twin is not None and channel.sensor == twin.sensor and is_power(channel):
            reason = f"it is the same meter as {twin.name}: both show one counter"
            result.append(replace(channel, available=False, additive=False, parent=twin.name, reason=reason))
            continue
        around = same.get(channel.parent or "")
        moved = around is not None and around.sensor == channel.sensor
        result.append(replace(channel, parent=around.name) if moved and around is not None else channel)
    return result


def _is_mirror(first: Channel, second: Channel, looks: Looks) -> bool:
    """Whether two counters are the same: once equal, and never farther apart than the rise between two readings."""
    a, b = looks.get(first.key, ()), looks.get(second.key, ())
    power = mean_watts(first, looks)
    if len(a) < 2 or len(a) != len(b) or not power:
        return False
    apart = [abs(v - w) for (_, v), (_, w) in zip(a, b, strict=True)]
    return min(apart) == 0.0 and max(apart) <= power * _APART_S + (first.resolution or 0.0)


def _without_still_counters(channels: Sequence[Channel], looks: Looks) -> list[Channel]:
    """Refuse totals and memories that stand still while another counter of the same source rises.

    A package that stands still makes the total unavailable: it surely draws power, so that a sum without it would be
    too small. A card may really draw nothing while it sleeps.
    """
    power = {c.key: mean_watts(c, looks) for c in _energy_counters(channels)}
    result = []
    for channel in channels:
        mover = next(
            (c for c in _energy_counters(channels) if c.sensor == channel.sensor and (power[c.key] or 0.0) > 0), None
        )
        still = power.get(channel.key) == 0.0
        if not still or mover is None or channel.scope in {"gpu", "accelerator"}:
            result.append(channel)
        elif channel.role == "total" or (is_additive(channel) and channel.scope in _PARTS_OF_PLATFORM):
            reason = f"it stands still while {mover.name} rises"
            counts = channel.scope == "package"
            additive = channel.additive if counts else False
            result.append(replace(channel, available=False, additive=additive, reason=reason))
        else:
            result.append(channel)
    return result


def _without_hollow_totals(channels: Sequence[Channel], looks: Looks) -> list[Channel]:
    """Refuse totals and packages that show less than their parts; of several platform counters keep what adds up."""
    platforms: dict[tuple[str, str], list[Channel]] = {}
    for channel in channels:
        if channel.available and is_power(channel) and channel.role == "total" and channel.parent is None:
            platforms.setdefault((channel.sensor, channel.scope), []).append(channel)
    changed: dict[Key, Channel] = {}
    for totals in platforms.values():
        counters = [c for c in totals if c.kind == "counter" and c.additive is False]
        if len(counters) > 1 and len({c.name for c in counters}) > 1:
            changed |= _add_or_choose(counters, channels, looks)
            continue
        for total in totals:
            refusal = _why_hollow(total, mean_watts(total, looks), channels, looks)
            if refusal is not None:
                changed[total.key] = replace(total, available=False, reason=refusal)
    for package in _energy_counters(channels):
        if package.scope == "package" and package.role != "total":
            refusal = _why_hollow(package, mean_watts(package, looks), channels, looks)
            if refusal is not None:
                changed[package.key] = replace(package, available=False, reason=refusal)
    return [changed.get(channel.key, channel) for channel in channels]


def _add_or_choose(totals: Sequence[Channel], channels: Sequence[Channel], looks: Looks) -> dict[Key, Channel]:
    """Of several counters of a platform use the largest, or their sum if only the sum is larger than the parts."""
    shown = {c.key: mean_watts(c, looks) or 0.0 for c in totals}
    largest = max(totals, key=lambda c: shown[c.key])
    if _why_hollow(largest, shown[largest.key], channels, looks) is None:
        reason = f"it is not known whether it is beside {largest.name} or inside of it"
        return {c.key: replace(c, available=False, reason=reason) for c in totals if c is not largest}
    refusal = _why_hollow(largest, math.fsum(shown.values()), channels, looks)
    if refusal is None:
        return {c.key: replace(c, additive=True) for c in totals}
    return {c.key: replace(c, available=False, reason=refusal) for c in totals}


def _why_hollow(total: Channel, shown: float | None, channels: Sequence[Channel], looks: Looks) -> str | None:
    """Return why a total cannot contain its parts; None if it can, or if too little is known."""
    if shown is None:
        return None
    if shown == 0.0 and total.quantity == "power" and total.resolution is None and total.gain_limit is None:
        # A monitor with known limits may read 0 because of its offset; a reading of 0 from firmware means no reading.
        return "it shows 0 W, and a machine that runs draws more"
    inside = [c for c in channels if c.available and is_power(c) and c.parent == total.name and c.key != total.key]
    groups = [[c] for c in inside]
    if total.scope in {"wall", "board"}:
        sockets = [c for c in channels if c.available and is_power(c) and is_additive(c)]
        sockets = [c for c in sockets if c.scope in _PARTS_OF_PLATFORM and c.kind == "counter"]
        groups.append(sockets)
    for group in groups:
        parts = [mean_watts(c, looks) for c in group]
        if not group or any(part is None for part in parts):
            continue
        power = math.fsum(part for part in parts if part is not None)
        if shown < _BELOW * power - _tolerance_w([total, *group]):
            names = " + ".join(c.name for c in group)
            verb = "show" if len(group) > 1 else "shows"
            return f"it shows {shown:.3g} W while {names} inside of it {verb} {power:.3g} W"
    return None


def _tolerance_w(channels: Sequence[Channel]) -> float:
    """The largest difference (W) that the resolution and the offset of power readings can cause."""
    return math.fsum(3 * (c.resolution or 0.0) + (c.offset_limit or 0.0) for c in channels if c.quantity == "power")
