"""Which variants are worth a choice: accuracy better, joules and latency down, ties where intervals overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import mean_and_error, t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results import schema


@dataclass(frozen=True)
class _Interval:
    """An objective that is better when lower."""

    low: float
    high: float

    def clearly_below(self, other: _Interval) -> bool:
        return self.high < other.low


def front(variants: Sequence[schema.Variant]) -> list[str]:
    """The names of the variants that no other one beats, in their order.

    One beats another when it is clearly better (the intervals do not overlap) in an objective and clearly worse in
    none. An objective that only one of two variants has keeps them from beating each other; one that neither has is
    passed over. Ties are not transitive, so that variants may beat each other in a circle: all of it stays.

    Joules are compared with the part of their uncertainty that differs between variants (windows, step), without the
    sensor's gain and offset, which they share. Failed and invalid variants are not candidates.
    """
    able = [v for v in variants if v.status not in {"failed", "invalid"}]
    objectives = {id(v): (_accuracy(v), _joules(v), _latency(v)) for v in able}
    able = [v for v in able if any(objectives[id(v)])]
    count = len(able)
    beats = [[_beats(objectives[id(a)], objectives[id(b)]) for b in able] for a in able]
    for middle in range(count):  # transitive closure: who beats whom by way of others
        for a in range(count):
            for b in range(count):
                beats[a][b] = beats[a][b] or (beats[a][middle] and beats[middle][b])
    return [
        able[b].name for b in range(count) if not any(beats[a][b] and not beats[b][a] for a in range(count) if a != b)
    ]


def _beats(a: tuple[_Interval | None, ...], b: tuple[_Interval | None, ...]) -> bool:
    better = False
    for mine, its in zip(a, b, strict=True):
        if mine is None and its is None:
            continue
        if mine is None or its is None or its.clearly_below(mine):
            return False
        better = better or mine.clearly_below(its)
    return better


def _accuracy(variant: schema.Variant) -> _Interval | None:
    found = variant.accuracy
    if found is None:
        return None
    low, high = found.ci95 or (found.value, found.value)
    return _Interval(-high, -low) if found.higher_is_better else _Interval(low, high)


def _joules(variant: schema.Variant) -> _Interval | None:
    energy = variant.energy_j_per_inference
    if energy is None or energy.gross.value is None:
        return None
    figure = energy.gross
    half = 0.0
    if figure.budget is not None and figure.coverage_factor is not None:
        own = (figure.budget.repeatability, figure.budget.sync, figure.budget.resolution, figure.budget.filter)
        half = figure.coverage_factor * sum((u or 0.0) ** 2 for u in own) ** 0.5
    elif figure.expanded_uncertainty is not None:
        half = figure.expanded_uncertainty
    assert figure.value is not None
    return _Interval(figure.value - half, figure.value + half)


def _latency(variant: schema.Variant) -> _Interval | None:
    medians = [w.latency_median_s for w in variant.windows if w.latency_median_s is not None]
    if medians:
        mean, error = mean_and_error(medians)
        half = 0.0 if error is None else t_quantile(0.975, len(medians) - 1) * error
        return _Interval(mean - half, mean + half)
    latency = variant.latency_s
    if latency is None:
        return None
    middle = latency.mean if latency.median is None else latency.median
    return _Interval(middle, middle)
