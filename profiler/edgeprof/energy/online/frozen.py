"""Decide whether a sensor is stuck: it repeats one value while the load changes. Standard library only.

A constant reading means nothing while the load is constant. But where work begins or ends, and the new state lasts long
enough to show, a source that repeats the same value to the last digit is not reading.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: A change of the load counts if it should move a reading by at least this many steps of the sensor.
LEAST_STEPS = 3.0
#: A value stands still if it repeats for this many time constants, this many refreshes and this many seconds.
_TAUS, _REFRESHES, _LEAST_S = 5.0, 50.0, 1.0

#: A change this close (s) to the beginning of a standstill is taken to be its cause, and does not count as unanswered.
_BEGINNING_S = 0.05
#: A reading behind a filter goes on moving after a change. Half of the computed time is used, because the time constant
#: is known only to within a factor, and not every change is as large as the largest.
_SURELY = 0.5


class Change(NamedTuple):
    """A change of the load.

    Attributes:
        at_s: When the load changed, in seconds.
        until_s: Until when the new state lasted; for an expected answer, by when the readings must have moved.
        moving_s: For how many seconds readings surely go on moving: a standstill that begins earlier did not answer it.
    """

    at_s: float
    until_s: float
    moving_s: float = 0.0


def least_standstill_s(tau_s: float | None, refresh_s: float | None) -> float:
    """For how long (s) a value must repeat before it counts as a standstill."""
    return max(_TAUS * (tau_s or 0.0), _REFRESHES * (refresh_s or 0.0), _LEAST_S)


def expected_answer(
    change: Change, watts: float, step: float, tau_s: float | None, refresh_s: float | None
) -> Change | None:
    """The change that the readings must show after the load changed by ``watts``, with the time by which they must.

    The answer of an exponential filter to a step is 1 − exp(−t/τ), so that a share m of it shows after −τ·ln(1 − m).

    Returns:
        None where the change is too small to show, or did not last long enough.
    """
    moved = LEAST_STEPS * step / abs(watts) if watts else 1.0
    if step <= 0 or moved >= 1:
        return None
    by_s = change.at_s + 2 * (refresh_s or 0.0) - (tau_s or 0.0) * math.log(1 - moved)
    moving_s = -_SURELY * (tau_s or 0.0) * math.log(moved)
    return Change(change.at_s, by_s, moving_s) if by_s <= change.until_s else None


def find_unanswered(
    times: Sequence[float], values: Sequence[float], changes: Iterable[Change], least_s: float
) -> tuple[float, float] | None:
    """Find the longest time in which one value stood still although the load changed; None if there is none.

    Args:
        times: The times of the readings in seconds, rising.
        values: The readings; NaN where a read failed.
        changes: The changes that the readings must show, and by when (``expected_answer``).
        least_s: The shortest standstill (``least_standstill_s``), in seconds.
    """
    expected = sorted(changes, key=_settling_s)
    begins = [_settling_s(change) for change in expected]
    longest: tuple[float, float] | None = None
    for start_s, end_s in _find_standstills(times, values, least_s):
        first = bisect_left(begins, start_s + _BEGINNING_S)
        lived_through = first < len(expected) and expected[first].until_s <= end_s
        if lived_through and (longest is None or end_s - start_s > longest[1] - longest[0]):
            longest = start_s, end_s
    return longest


def _settling_s(change: Change) -> float:
    return change.at_s + change.moving_s


def _find_standstills(times: Sequence[float], values: Sequence[float], least_s: float) -> Iterable[tuple[float, float]]:
    start = 0
    for index in range(1, len(times) + 1):
        if index < len(times) and values[index] == values[start]:
            continue
        if times[index - 1] - times[start] >= least_s:
            yield times[start], times[index - 1]
        start = index
