"""The Pareto front: the variants that no other one beats in accuracy, joules and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.verdicts import accuracy, requests
from edgeprof.verdicts.cost import Costs, is_usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Comparison, Variant, Verdict


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
    names = [name for group in groups for name in _front_of_one(group, comparisons)]
    return [variant.name for variant in variants if variant.name in names]


def _front_of_one(variants: Sequence[Variant], comparisons: Sequence[Comparison]) -> list[str]:
    """The front of variants that did the same work."""
    costs = Costs(variants, comparisons)
    able = [v for v in variants if is_usable(v) and (v.accuracy or _has_cost(costs, v))]
    count = len(able)
    beats = [[_is_better(costs, a, b) for b in able] for a in able]
    for middle in range(count):  # transitive closure (Warshall): also who beats whom by way of others
        for a in range(count):
            for b in range(count):
                beats[a][b] = beats[a][b] or (beats[a][middle] and beats[middle][b])
    return [
        able[b].name for b in range(count) if not any(beats[a][b] and not beats[b][a] for a in range(count) if a != b)
    ]


def _has_cost(costs: Costs, variant: Variant) -> bool:
    return costs.get(variant, "energy") is not None or costs.get(variant, "latency") is not None


def _is_better(costs: Costs, a: Variant, b: Variant) -> bool:
    verdicts = [_compare_accuracy(a, b), *(_compare_cost(costs, a, b, kind) for kind in ("energy", "latency"))]
    return "better" in verdicts and not {"worse", "not_comparable"} & {*verdicts}


def _compare_accuracy(a: Variant, b: Variant) -> Verdict | None:
    if a.accuracy is None and b.accuracy is None:
        return None
    return "not_comparable" if a.accuracy is None or b.accuracy is None else accuracy.against(a.accuracy, b.accuracy)


def _compare_cost(costs: Costs, a: Variant, b: Variant, kind: str) -> Verdict | None:
    mine, its = (costs.get(v, "energy" if kind == "energy" else "latency") for v in (a, b))
    if mine is None and its is None:
        return None
    return "not_comparable" if mine is None or its is None else mine.against(its)
