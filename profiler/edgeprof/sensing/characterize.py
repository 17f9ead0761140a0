"""Measure the characteristics of a channel by reading it fast for some seconds: refresh, step and plausibility.

A data sheet states how often a chip converts; only fast reading shows how often a new value appears (powerstamp found
21 Hz for the Raspberry Pi 5's PMIC, where its protocol suggests 43 Hz).
"""

from __future__ import annotations

import math
import statistics
import threading
from array import array
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edgeprof.sensing.characteristic import Characteristic
from edgeprof.sensing.clock import Clock, MonotonicClock
from edgeprof.sensing.limits import counter_rise
from edgeprof.sensing.trace import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.sensing.boot import BootCache
    from edgeprof.sensing.sensor import Channel, Quantity, Sensor
    from edgeprof.sensing.trace import Key

#: The pause between two reads (s): ten reads within 5 ms, which leaves a core mostly free.
PACE_S = 0.0005
#: The least number of gaps between changes from which a refresh interval is determined.
_MIN_GAPS = 8
#: The share of gaps that must agree with an interval, and how well (relative).
_AGREE, _WITHIN = 0.6, 0.25
#: A counter may differ from its integrated power by this much (relative) beyond what both resolve.
COUNTER_TOLERANCE = 0.2

#: Lowest and highest value that anything on an edge device can have, in SI units.
_POSSIBLE: dict[Quantity, tuple[float, float]] = {
    "power": (-1e5, 1e5),
    "energy": (0.0, 1e13),
    "voltage": (-1e3, 1e3),
    "current": (-1e4, 1e4),
    "temperature": (-100.0, 250.0),
    "frequency": (0.0, 1e11),
    "utilization": (0.0, 1.1),
    "memory": (0.0, 1e15),
    "fan": (0.0, 1e6),
    "count": (0.0, 1e18),
}
#: Values that registers and drivers give without a reading, in the units that they may have been scaled from.
_SENTINELS = (0xFFFF, 0x7FFF, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
_SCALES = (1.0, 1e-1, 1e-2, 1e-3, 1e-6, 1e-9)


def characterise(
    sensor: Sensor, seconds: float = 2.0, *, cache: BootCache | None = None, clock: Clock | None = None
) -> dict[Key, Characteristic]:
    """Read a sensor fast and determine the characteristics of each of its channels.

    The sensor is opened and closed in this thread. If it raises, its readings until then are used.

    Args:
        sensor: A sensor that is not open.
        seconds: How long to read, in seconds.
        cache: The results since this boot, to which new ones are added; None: no cache is used.
        clock: Replaces the clock in tests.
    """
    known = cache.get(sensor) if cache else None
    if known is not None:
        return known
    columns, failure = _read_fast(sensor, seconds, clock or MonotonicClock())
    characteristics: dict[Key, Characteristic] = {
        channel.key: _characterise_channel(channel, series, failure)
        for channel, series in zip(sensor.channels, columns, strict=True)
    }
    by_key = {channel.key: (channel, series) for channel, series in zip(sensor.channels, columns, strict=True)}
    for key, (channel, series) in by_key.items():
        power = by_key.get((channel.sensor, channel.name, "power"))
        if channel.quantity == "energy" and channel.kind == "counter" and power and characteristics[key].plausible:
            wrong = check_counter(channel, series, *power)
            if wrong:
                characteristics[key] = replace(characteristics[key], plausible=False, reason=wrong)
    if cache:
        cache.put(sensor, characteristics)
    return characteristics


def check_counter(counter: Channel, energy: Series, gauge: Channel, power: Series) -> str | None:
    """Compare an energy counter with the power that the same source reports.

    Args:
        counter: The channel of the counter.
        energy: Its readings (J).
        gauge: The power channel of the same thing.
        power: Its readings (W).

    Returns:
        Why the counter is not to be trusted; None where it agrees to ``COUNTER_TOLERANCE`` beyond what both resolve,
        or where there is too little to say.
    """
    ticks = _value_changes(energy)
    if len(ticks) < _MIN_GAPS:
        return None
    start, end = ticks[0][0], ticks[-1][0]
    rises = [counter_rise(counter, a, b, until - since)[0] for (since, a), (until, b) in pairwise(ticks)]
    rise = math.fsum(step for step in rises if not math.isnan(step))
    inside = [(t, v) for t, v in zip(power.times, power.values, strict=True) if start <= t <= end and math.isfinite(v)]
    if len(inside) < _MIN_GAPS:
        return None
    integral = sum((b - a) * (v + w) / 2 for (a, v), (b, w) in pairwise(inside))
    integral *= (end - start) / (inside[-1][0] - inside[0][0])
    # A filtered power is delayed: the energy not shown yet is at most its time constant times its change over the span.
    memory = gauge.filter.tau_s or gauge.filter.length_s or 0.0
    values = [v for _, v in inside]
    step = smallest_step([v for _, v in ticks]) or 0.0
    slack = 2 * max(counter.resolution or 0.0, step) + (gauge.resolution or 0.0) * (end - start) / 2
    slack += memory * (max(values) - min(values))
    if abs(rise - integral) <= COUNTER_TOLERANCE * abs(integral) + slack:
        return None
    return f"the counter rose by {rise:.3g} J while the power of the same source adds up to {integral:.3g} J"


def smallest_step(values: Iterable[float]) -> float | None:
    """The greatest common divisor of the differences between the values; None if there are fewer than two values.

    Files of the kernel hold whole milliwatts, microjoules and the like: in SI units, whole multiples of a power of
    ten, in which the divisor is exact. Other numbers get their smallest difference.
    """
    distinct = sorted({value for value in values if math.isfinite(value)})
    if len(distinct) < 2:
        return None
    largest = max(abs(distinct[0]), abs(distinct[-1]))
    for digits in range(10):
        scale = 10.0**digits
        if largest * scale > 1e12:
            break
        rounding = 1e-9 + 4e-15 * largest * scale  # the error of doubles that were a whole number times 1e-6 or similar
        whole = sorted({round(value * scale) for value in distinct})
        # Values that rounding would make equal are no multiples of this power of ten: 0 and 1e-9 are not both 0.
        near = all(abs(value * scale - round(value * scale)) <= rounding for value in distinct)
        if near and len(whole) == len(distinct):
            return math.gcd(*(b - a for a, b in pairwise(whole))) / scale
    return min(b - a for a, b in pairwise(distinct))


def _read_fast(sensor: Sensor, seconds: float, clock: Clock) -> tuple[list[Series], str | None]:
    """All channels' readings over some seconds, and what the sensor raised, if it did."""
    width = len(sensor.channels)
    nan = array("d", [math.nan] * width)
    columns = [Series(array("d"), array("d")) for _ in range(width)]
    never = threading.Event()
    try:
        sensor.open()
        end = clock.now() + seconds
        while (before := clock.now()) < end:
            values, stamps = nan[:], nan[:]
            sensor.read(values, stamps)
            middle = (before + clock.now()) / 2
            for column, value, stamp in zip(columns, values, stamps, strict=True):
                time = stamp if math.isfinite(stamp) else middle
                if not column.times or time > column.times[-1]:
                    column.times.append(time)
                    column.values.append(value)
            clock.wait(clock.now() + PACE_S, never)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is the finding
        return columns, f"{type(error).__name__}: {error}"
    finally:
        _close_quietly(sensor)
    return columns, None


def _close_quietly(sensor: Sensor) -> None:
    with suppress(Exception, SystemExit):  # its readings are complete, so an error on closing does not matter
        sensor.close()


def _characterise_channel(channel: Channel, series: Series, failure: str | None) -> Characteristic:
    good = [value for value in series.values if math.isfinite(value)]
    if not good:
        tries = len(series)
        why = failure or (f"all {tries} readings failed" if tries else "it was never read")
        return Characteristic(None, None, 0.0, plausible=False, reason=why)
    changes = _value_changes(series)
    span = series.times[-1] - series.times[0]
    reads_apart = span / max(1, len(series) - 1)
    interval, why_not = _find_refresh(changes, reads_apart, span)
    wrong = _why_implausible(channel, good)
    return Characteristic(
        update_interval_s=interval,
        step=smallest_step(good),
        effective_rate_hz=(len(changes) - 1) / span if span > 0 else 0.0,
        plausible=wrong is None,
        reason=wrong or why_not,
    )


def _value_changes(series: Series) -> list[tuple[float, float]]:
    """Time and value of the first good reading and of each that differs from the good one before."""
    changes: list[tuple[float, float]] = []
    for time, value in zip(series.times, series.values, strict=True):
        if math.isfinite(value) and (not changes or value != changes[-1][1]):
            changes.append((time, value))
    return changes


def _find_refresh(
    changes: Sequence[tuple[float, float]], reads_apart: float, span: float
) -> tuple[float | None, str | None]:
    """The refresh interval (s), or why there is none."""
    # The first value appeared before the first read, so the first gap is unknown and left out.
    gaps = [b - a for (a, _), (b, _) in pairwise(changes[1:])]
    if len(gaps) < _MIN_GAPS:
        return None, f"{len(changes) - 1} changes in {span:.1f} s are too few to tell its refresh"
    median = statistics.median(gaps)
    if median <= 1.5 * reads_apart:
        return median, None  # new at every read: it refreshes at least this often
    if _agreeing_share(gaps, median, reads_apart, multiples=False) >= _AGREE:
        return median, None
    # A regular refresh may give the same value again; the gaps are then multiples of the interval.
    base = sorted(gaps)[len(gaps) // 10]
    if base > 3 * reads_apart and _agreeing_share(gaps, base, reads_apart, multiples=True) >= (1 + _AGREE) / 2:
        # A gap of less than half the interval counts as one interval.
        return statistics.median(gap / max(1, round(gap / base)) for gap in gaps), None
    return None, "it changes at irregular times: that is the signal, and its refresh cannot be told from it"


def _agreeing_share(gaps: Sequence[float], interval: float, reads_apart: float, *, multiples: bool) -> float:
    """The share of gaps that agree with an interval, or with a multiple of it, to ``_WITHIN`` or two reads."""
    within = min(max(_WITHIN * interval, 2 * reads_apart), 0.4 * interval)
    agree = 0
    for gap in gaps:
        times = max(1, round(gap / interval)) if multiples else 1
        agree += abs(gap - times * interval) <= within
    return agree / len(gaps)


def _why_implausible(channel: Channel, good: Sequence[float]) -> str | None:
    """Return why the values cannot be true; None if they can. Single impossible values are refused by the sampler."""
    if len(set(good)) == 1 and any(math.isclose(good[0], s * k, rel_tol=1e-9) for s in _SENTINELS for k in _SCALES):
        return f"it says {good[0]:g} {channel.unit} all the time, which is what a register without a reading says"
    floor, ceiling = _POSSIBLE[channel.quantity]
    low, high = max(floor, channel.plausible[0]), min(ceiling, channel.plausible[1])
    outside = [value for value in good if not low <= value <= high]
    if 2 * len(outside) > len(good):
        return f"it says {outside[0]:g} {channel.unit}, which is not between {low:g} and {high:g}"
    if channel.kind == "counter":
        falls = sum(b < a for a, b in pairwise(good))
        if falls > 1 or (falls and channel.wrap is None):
            return "it is called a counter but falls"
    return None
