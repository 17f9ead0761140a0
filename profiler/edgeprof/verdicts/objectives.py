"""Judge one variant against all others at once, by the rules of ``Cost.against`` and ``accuracy.against``.

A result may have thousands of variants, of which each pair must be judged; arrays make that a matter of seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeprof.verdicts.accuracy import goodness_interval, has_dropped
from edgeprof.verdicts.compare import RELEVANT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgeprof.results.schema import Accuracy
    from edgeprof.verdicts.cost import Cost

    Mask = npt.NDArray[np.bool_]


class Objective(Protocol):
    """One quantity of a list of variants."""

    def judge(self, index: int) -> tuple[Mask, Mask]:
        """Return masks of the variants than which this one is clearly better, and of those that it cannot beat.

        It cannot beat those than which it is clearly worse, and those with which it cannot be compared.
        """
        ...


class CostObjective:
    """The joules or the latency of each variant; None: unknown."""

    def __init__(self, costs: Sequence[Cost | None]) -> None:
        self._known = np.array([cost is not None for cost in costs], dtype=bool)
        self._low = np.array([math.nan if cost is None else cost.low for cost in costs])
        self._high = np.array([math.nan if cost is None else cost.high for cost in costs])

    def judge(self, index: int) -> tuple[Mask, Mask]:
        if not self._known[index]:
            return np.zeros_like(self._known), self._known
        low, high = self._low[index] / self._high, self._high[index] / self._low
        # A tie has 1 in its interval, or the whole interval near 1. An unknown cost is a nan: it is neither better nor
        # tied, because no comparison with it is true.
        better = (high < 1) & (low <= 1 - RELEVANT)
        better_or_tied = (low <= 1) | (high < 1 + RELEVANT)
        return better, ~better_or_tied


class AccuracyObjective:
    """The accuracy of each variant; None: it was not judged."""

    def __init__(self, accuracies: Sequence[Accuracy | None]) -> None:
        kinds: dict[object, int] = {None: 0}
        intervals = [(math.nan, math.nan) if a is None else goodness_interval(a) for a in accuracies]
        keys = [None if a is None else (a.metric, a.preprocessing) for a in accuracies]
        self._kind = np.array([kinds.setdefault(key, len(kinds)) for key in keys], dtype=np.int64)
        self._low, self._high = np.array(intervals, dtype=np.float64).reshape(-1, 2).T
        self._dropped = np.array([has_dropped(a) for a in accuracies], dtype=bool)

    def judge(self, index: int) -> tuple[Mask, Mask]:
        comparable = self._kind == self._kind[index]
        if not self._kind[index]:
            return np.zeros_like(comparable), ~comparable
        higher, lower = self._low[index] > self._high, self._high[index] < self._low
        only_one_dropped = ~higher & ~lower & (self._dropped != self._dropped[index])
        better = comparable & (higher | (only_one_dropped & ~self._dropped[index]))
        worse = (lower & ~higher) | (only_one_dropped & self._dropped[index])
        return better, ~comparable | worse
