"""What a pause in the readings held: a curve between the power before it and the power after it.

A load in bursts says little by its last readings and much by its mean; a slow one was going somewhere. So a straight
line is fitted to the readings next to the pause, and as far as it explains them it is believed; as far as it does not,
the mean over a longer time is. The curve between is the cubic through both edges with their slopes.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

#: How far (s) beside a pause readings are looked at: a few periods of most bursts.
SIDE_S = 3.0
#: The part of it (s), next to the pause, that a line is fitted to.
_NEAR_S = 1.5
#: Fewer readings tell no slope.
_FEWEST = 10


class Edge(NamedTuple):
    """Power (W) where a pause begins or ends, and its slope there (W/s)."""

    watts: float
    slope: float


def edge_at(readings: Collection[tuple[float, float]], at: float) -> Edge:
    """The power at ``at``, the first or the last of these readings (s, W); at least one.

    The line by least squares counts by 4 R² − 3 of it, where that is above 0: a step explains at most 3/4 of the
    variance by a line, so that a load that was switched is not taken for one that rises.
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
    """Joules of a pause of ``span`` seconds, never below 0.

    Cubic Hermite: span · (w₀ + w₁)/2 + span² · (s₀ − s₁)/12; how a load went on is believed for ``SIDE_S``.
    """
    reach = min(span, SIDE_S)
    return max(0.0, span * (0.5 * (before.watts + after.watts) + reach * (before.slope - after.slope) / 12))
