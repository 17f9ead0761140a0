"""The Pareto front: the variants that no other one beats in accuracy, joules and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprof.verdicts import requests
from edgeprof.verdicts.cost import Costs, is_usable
from edgeprof.verdicts.objectives import AccuracyObjective, CostObjective

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgeprof.results.schema import Comparison, Variant
    from edgeprof.verdicts.objectives import Mask, Objective


def front(variants: Sequence[Variant], comparisons: Sequence[Comparison] = ()) -> list[str]:
    """Return the names of the variants that no other one beats, in their order.

    A variant beats another if it is clearly better in one objective and clearly worse in none; a tie is neither
    (``Cost.against`` for joules and latency, ``accuracy.against``). If only one of two variants has an objective,
    neither can beat the other; an objective that neither has is skipped. Ties are not transitive, so variants may beat
    each other in a circle; all of the circle then stay. Failed and invalid variants are not candidates. Language models
    that were measured with requests of several lengths have a front for each length.
    """
    groups: list[list[Variant]] = []
    for variant in variants:
        alike = next((group for group in groups if requests.difference(variant, group[0]) is None), None)
        if alike is None:
            groups.append([variant])
        else:
            alike.append(variant)
    names = {name for group in groups for name in _front_of_one(group, comparisons)}
    return [variant.name for variant in variants if variant.name in names]


def _front_of_one(variants: Sequence[Variant], comparisons: Sequence[Comparison]) -> list[str]:
    """The front of variants that did the same work: those that only members of their own circle beat."""
    costs = Costs(variants, comparisons)
    able = [v for v in variants if is_usable(v) and (v.accuracy or _has_cost(costs, v))]
    beats = _Beats(
        [
            AccuracyObjective([v.accuracy for v in able]),
            CostObjective([costs.get(v, "energy") for v in able]),
            CostObjective([costs.get(v, "latency") for v in able]),
        ],
        len(able),
    )
    circles = _find_circles(beats)
    beaten = np.zeros(len(able), dtype=bool)
    for number in range(len(able)):
        beaten |= beats.row(number) & (circles != circles[number])
    return [v.name for v, is_beaten in zip(able, beaten, strict=True) if not is_beaten]


def _has_cost(costs: Costs, variant: Variant) -> bool:
    return costs.get(variant, "energy") is not None or costs.get(variant, "latency") is not None


class _Beats:
    """Which variant beats which others, with one bit for each pair."""

    def __init__(self, objectives: Sequence[Objective], count: int) -> None:
        self.count = count
        self._rows = [np.packbits(self._judge(objectives, number)) for number in range(count)]

    @staticmethod
    def _judge(objectives: Sequence[Objective], number: int) -> Mask:
        better, blocked = objectives[0].judge(number)
        for objective in objectives[1:]:
            also_better, also_blocked = objective.judge(number)
            better, blocked = better | also_better, blocked | also_blocked
        return better & ~blocked

    def row(self, number: int) -> Mask:
        """A mask of the variants that variant ``number`` beats."""
        return np.unpackbits(self._rows[number], count=self.count).view(bool)


def _find_circles(beats: _Beats) -> npt.NDArray[np.int64]:
    """Number the circles of variants that beat each other, directly or by way of others; most have one member.

    Source: R. Tarjan, Depth-first search and linear graph algorithms (1972): strongly connected components. Recursion
    is replaced by a list, and the edges of a variant are looked at all at once.
    """
    unseen = beats.count
    order = np.full(beats.count, unseen)  # in which the variants are reached
    lowest = order.copy()  # the first variant of the same circle that is known to be reachable
    circles = np.full(beats.count, -1)
    reached = 0
    open_members: list[int] = []
    for root in range(beats.count):
        path = [root] if order[root] == unseen else []
        while path:
            at = path[-1]
            row = beats.row(at)
            if order[at] == unseen:
                order[at] = lowest[at] = reached
                reached += 1
                open_members.append(at)
            is_open = row & (circles < 0) & (order < unseen)
            lowest[at] = min(lowest[at], lowest[is_open].min(initial=unseen))
            following = row & (order == unseen)
            if following.any():
                path.append(int(following.argmax()))
                continue
            path.pop()
            while lowest[at] == order[at] and circles[at] < 0:
                circles[open_members.pop()] = at
    return circles
