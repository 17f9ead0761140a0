"""Compare two sources level by level while loads were held, and fit the line between them. Pure."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.calibration.fit import Level, Line, level, line
from edgeprof.energy.integrate import window_energy
from edgeprof.energy.online.frozen import Change, expected_answer, find_unanswered, least_standstill_s
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.energy.window import WindowEnergy
    from edgeprof.worker.span import Span

#: Fewer levels leave too few degrees of freedom; a calibration is as good as its range.
LEAST_LEVELS = 5
#: A hold is divided into this many parts, whose scatter gives the uncertainty of the level.
_PARTS = 8
#: A gap in the readings up to this long (s) is tolerated, because a machine with all cores busy reads late.
_SHORT_GAP_S = 0.25
#: The least distance of the highest and the lowest level, in standard uncertainties of a level.
_LEAST_SPAN = 10.0


def fit_levels(
    channels: Sequence[ChannelSeries], theirs: ChannelSeries, holds: Sequence[Span]
) -> tuple[list[Level], Line]:
    """Compute the levels and fit their line.

    Args:
        channels: The channels to be corrected; their sum is compared with the meter.
        theirs: The readings of the meter.
        holds: The stretch of each level.

    Raises:
        InputError: the levels are too few, too similar, or not on a rising line; or a sensor is stuck.
    """
    _require_answers(channels, theirs, holds)
    pairs = []
    for hold in holds:
        sums, meter = [_part_powers(series, hold) for series in channels], _part_powers(theirs, hold)
        if meter is not None and all(part is not None for part in sums):
            pairs.append(([math.fsum(column) for column in zip(*(s for s in sums if s), strict=True)], meter))
    levels = [level(sensor, meter, 1.0) for sensor, meter in pairs]
    powers = [level.sensor_w for level in levels]
    span = max(powers, default=0.0) - min(powers, default=0.0)
    distinct = len({round(20 * (watts - min(powers)) / span) for watts in powers}) if span > 0 else len(powers[:1])
    if len(levels) < LEAST_LEVELS or distinct < LEAST_LEVELS:
        lost = len(holds) - len(levels)
        why = f"; in {lost} of {len(holds)} holds one side did not read" if lost else ""
        raise InputError(
            f"only {distinct} different levels were measured, of {LEAST_LEVELS} that a line needs{why}",
            remedy="See that both sides read (edgeprof sensors) and that the load moves them; --hold S lengthens each.",
        )
    try:
        # The uncertainties of the levels need an approximate gain, which a first fit gives.
        rough = line(levels)
        levels = [level(sensor, meter, rough.gain) for sensor, meter in pairs]
        fitted = line(levels)
    except ValueError as error:
        raise InputError(f"the levels make no line: {error}", remedy="Make them differ more.") from None
    if span < _LEAST_SPAN * statistics.median(level.u_w for level in levels):
        raise InputError(
            f"the levels lie within {span:.3g} W, which is not enough to tell a gain from an offset",
            remedy="Close other programs, lengthen --hold S, or make the load yourself with --no-load.",
        )
    if not fitted.gain > 2 * fitted.u_gain:
        raise InputError(
            f"the meter does not rise with the sensor (gain {fitted.gain:.2g} ± {2 * fitted.u_gain:.2g})",
            remedy="See that both look at the same device, and that a record's clock is this machine's.",
        )
    return levels, fitted


def _require_answers(channels: Sequence[ChannelSeries], theirs: ChannelSeries, holds: Sequence[Span]) -> None:
    """Refuse a sensor that repeats one value while the meter sees the load change.

    Raises:
        InputError: a sensor does.
    """
    levels = [_mean_power(theirs, hold) for hold in holds]
    for series in channels:
        channel = series.channel
        step, tau, refresh = channel.resolution or 0.0, channel.filter.tau_s, channel.update_interval_s
        expected = []
        for (before, after), hold, following in zip(pairwise(levels), holds, holds[1:], strict=False):
            if before is None or after is None:
                continue
            # Between two holds that lie apart the load was changed on purpose. Where one hold follows the other
            # at once, it may have changed at any time in either.
            apart = following.start_s - hold.end_s > _SHORT_GAP_S
            latest_s = following.start_s if apart else following.end_s
            latest = expected_answer(Change(latest_s, math.inf), after - before, 3 * step, tau, refresh)
            if latest is not None:
                expected.append(Change(hold.end_s if apart else hold.start_s, latest.until_s))
        times = np.asarray(series.times, dtype=np.float64).tolist()
        values = np.asarray(series.values, dtype=np.float64).tolist()
        stood = find_unanswered(times, values, expected, least_standstill_s(tau, refresh))
        if stood is not None:
            raise InputError(
                f"{channel.name} repeated one value for {stood[1] - stood[0]:.3g} s while the meter saw the load move",
                remedy="Reload the sensor's driver or restart the device; edgeprof sensors shows whether it moves.",
            )


def _mean_power(series: ChannelSeries, hold: Span) -> float | None:
    powers = _part_powers(series, hold)
    return None if powers is None else math.fsum(powers) / len(powers)


def _part_powers(series: ChannelSeries, hold: Span) -> list[float] | None:
    """The power (W) in each part of a hold, in fewer parts for a slow source; None if the source gave no readings."""
    start = hold.start_s
    for parts in (_PARTS, _PARTS // 2, 2):
        width = hold.seconds / parts
        energies = [
            window_energy(series.times, series.values, start + k * width, start + (k + 1) * width, series.channel)
            for k in range(parts)
        ]
        if all(_is_covered(energy) for energy in energies):
            return [(energy.joules or 0.0) / width for energy in energies for _ in range(_PARTS // parts)]
    return None


def _is_covered(energy: WindowEnergy) -> bool:
    """Whether a part of a hold is measured; a short gap is harmless, because the load is constant."""
    short = energy.problems == ("gaps",) and (energy.max_gap_s or 0.0) <= _SHORT_GAP_S
    return energy.joules is not None and (not energy.problems or short)
