"""Whether a sensor has stuck: it repeats one value while the load beside it changes. Standard library only.

A reading that stands still is no sign of anything while nothing happens. Where work begins or ends, though, and what
follows lasts long enough to show, a source that goes on saying the same to the last digit does not read.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: A change of the load counts where it should move a reading by so many of its steps.
LEAST_STEPS = 3.0
#: A value stands still when it repeats for so many time constants, for so many refreshes, and for so long (s).
_TAUS, _REFRESHES, _LEAST_S = 5.0, 50.0, 1.0

#: A change so near (s) to the beginning of a standstill is what began it.
_BEGINNING_S = 0.05
#: A reading behind a filter goes on to move after a change. A time constant is known to within a factor, and not every
#: change is as large as the largest: half of the time is taken.
_SURELY = 0.5


class Change(NamedTuple):
    """The load changed.

    Attributes:
        at_s: When.
        until_s: Until when it stayed so; of a change that must have shown, by when it had to.
        moving_s: For how long a reading surely goes on to move: what begins to stand still before is no answer to it.
    """

    at_s: float
    until_s: float
    moving_s: float = 0.0


def least_standstill_s(tau_s: float | None, refresh_s: float | None) -> float:
    """How long a value has to repeat to stand still (s)."""
    return max(_TAUS * (tau_s or 0.0), _REFRESHES * (refresh_s or 0.0), _LEAST_S)


def expected_answer(
    change: Change, watts: float, step: float, tau_s: float | None, refresh_s: float | None
) -> Change | None:
    """A change of the load by ``watts``, with the time by which it must have moved a reading by enough steps.

    None where it was too small for that, or did not last so long.
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
    """The longest time in which one value stood still through a change of the load; None where there is none.

    Args:
        times: Of the readings, rising, s.
        values: As they were read; NaN where a read failed.
        changes: Those that must have shown, and by when (``shown``).
        least_s: See ``least_standstill_s``.
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
