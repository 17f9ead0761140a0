"""Estimate the energy of a pause in the readings from a curve between the power before it and the power after it.

For a load in bursts, the mean of the readings predicts the pause better than the last readings do; for a load that
changes slowly, their trend predicts it better. A straight line is therefore fitted to the readings next to the pause.
Its value and its slope are used with a weight that grows with the share of the variance that the line explains, and the
mean over a longer time is used with the remaining weight. The curve in the pause is the cubic through both edges with
their slopes.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

#: How far (s) beside a pause readings are used: a few periods of most bursts.
SIDE_S = 3.0
#: The part of that (s), next to the pause, to which the line is fitted.
_NEAR_S = 1.5
#: With fewer readings than this, no slope is fitted.
_FEWEST = 10


class Edge(NamedTuple):
    """Power (W) where a pause begins or ends, and its slope there (W/s)."""

    watts: float
    slope: float


def edge_at(readings: Collection[tuple[float, float]], at: float) -> Edge:
    """The power at an edge of a pause, from the readings beside it.

    The least-squares line has the weight max(0, 4·R² − 3), where R² is the share of the variance that it explains, and
    the mean has the remaining weight. A line explains at most 3/4 of the variance of a step, so that a load that was
    switched is not taken for one that rises.

    Args:
        readings: Times (s) and watts, at least one reading.
        at: The time of the edge, which is that of the first or the last reading.
    """
    mean = fsum(watts for _, watts in readings) / len(readings)
    near = [(time - at, watts) for time, watts in readings if abs(time - at) <= _NEAR_S]
    count = len(near)
    if count < _FEWEST:
        return Edge(mean, 0.0)
    middle = fsum(time for time, _ in near) / count
    level = fsum(watts for _, watts in near) / count
    times = fsum((time - middle) ** 2 for time, _ in near)
    both = fsum((time - middle) * (watts - level) for time, watts in near)
    scatter = fsum((watts - level) ** 2 for _, watts in near)
    slope = both / times
    share = max(0.0, 4 * slope * both / scatter - 3) if scatter > 0 else 1.0
    return Edge(share * (level - slope * middle) + (1 - share) * mean, share * slope)


def bridge_energy(before: Edge, after: Edge, span: float) -> float:
    """The joules of a pause of ``span`` seconds, never below 0.

    The integral of a cubic Hermite curve is span·(w₀ + w₁)/2 + span²·(s₀ − s₁)/12 with the powers w and slopes s at its
    ends. In a longer pause the slopes count for ``SIDE_S`` only.
    """
    reach = min(span, SIDE_S)
    return max(0.0, span * (0.5 * (before.watts + after.watts) + reach * (before.slope - after.slope) / 12))
