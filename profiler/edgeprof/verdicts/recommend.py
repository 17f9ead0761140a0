"""The recommendation: which variant to take, which are tied with it, which meet the budgets, and why.

Every table, page, file and command shows what ``judge`` stored in the result, or, for a file of an older edgeprof, what
``recommendation_of`` computes from it. No reporter decides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprof.reasons import Code
from edgeprof.results.schema import Recommendation
from edgeprof.verdicts import accuracy, gate, requests
from edgeprof.verdicts.across import label
from edgeprof.verdicts.cost import Costs, is_usable
from edgeprof.verdicts.gate import Check, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.results.schema import Accuracy, Result, Variant
    from edgeprof.verdicts.cost import Cost, Kind


@dataclass(frozen=True)
class Product:
    """Requirements of a device; None: not given.

    Attributes:
        fps: Inferences per second.
        battery_wh: Energy of the battery (Wh).
        hours: Hours that the battery must last.
        memory_left_bytes: Memory that is left for the model's process (bytes).
    """

    fps: float | None = None
    battery_wh: float | None = None
    hours: float | None = None
    memory_left_bytes: float | None = None

    def limits(self, base: Limits) -> tuple[Limits, list[str]]:
        """Convert the requirements to limits, and say how each was derived; the stricter limit counts.

        A frame must be finished before the next one: p99 ≤ 1 / fps. All frames share the battery's energy:
        E ≤ battery · 3600 / (hours · 3600 · fps), where E includes everything that the rail covers.
        """
        derivations = []
        limits = base
        if self.fps:
            limits = replace(limits, max_p99_s=_smaller_size(limits.max_p99_s, 1 / self.fps))
            derivations.append(f"{self.fps:g} frames a second: p99 of at most {1e3 / self.fps:.4g} ms")
        joules = self.joules_per_frame
        if joules is not None:
            derivations.append(
                f"{self.battery_wh:g} Wh over {self.hours:g} h are {self.watts:.3g} W, at {self.fps:g} frames a second"
                f" {joules * 1e3:.4g} mJ a frame, idle power included"
            )
        if self.memory_left_bytes:
            limits = replace(limits, max_rss_bytes=_smaller_size(limits.max_rss_bytes, self.memory_left_bytes))
            derivations.append(f"{self.memory_left_bytes / 2**20:.4g} MiB left: peak RSS of at most that")
        return limits, derivations

    @property
    def watts(self) -> float:
        return (self.battery_wh or 0.0) / self.hours if self.hours else 0.0

    @property
    def joules_per_frame(self) -> float | None:
        """Joules that each frame may cost; None if a requirement that it needs is not given."""
        return self.watts / self.fps if self.fps and self.battery_wh and self.hours else None

    def check(self, variant: Variant) -> list[Check]:
        """Check that the battery lasts, by E(fps) = e_net + p_idle / fps, or the gross energy if idle is not known."""
        limit = self.joules_per_frame
        if limit is None or variant.status in {"failed", "invalid"}:
            return []
        energy = variant.energy_j_per_inference
        value = None if energy is None else energy.gross.value
        if energy is not None and energy.marginal is not None and self.fps:
            value = energy.marginal.e_net_j + energy.marginal.p_idle_w / self.fps
        name = "energy of a frame"
        if value is None or energy is None:
            why = [r.message for r in variant.reasons if r.code in {Code.NO_SENSOR, Code.UNCERTAIN, Code.GAPS}]
            reason = why[0] if why else "no energy was measured"
            return [Check(variant.name, name, passed=False, limit=limit, unit="J", reason=reason)]
        return [
            Check(variant.name, name, value <= limit, value=value, limit=limit, unit="J", provenance=energy.provenance)
        ]


def budgets(result: Result, limits: Limits, product: Product | None = None) -> list[Check]:
    """Check every variant against every budget."""
    names = {label(variant): variant.name for variant in result.variants}
    limit_checks = gate.check(result, limits) if limits != Limits() else []
    checks = [replace(check, variant=names.get(check.variant, check.variant)) for check in limit_checks]
    for variant in result.variants:
        checks += product.check(variant) if product else []
    return checks


def judge(result: Result, checks: Sequence[Check] = ()) -> None:
    """Store the Pareto front and the recommendation in ``result``.

    The front is computed among the variants that meet every budget, so that the recommended variant is always on it. If
    none meets the budgets, it is computed among all variants.
    """
    from edgeprof.verdicts import pareto  # noqa: PLC0415 - reports show what is stored, and start without numpy

    passing = _usable_within_budgets(result.variants, checks) or result.variants
    result.pareto = pareto.front(passing, result.comparisons)
    result.recommendation = recommend(result, checks)


def recommendation_of(result: Result) -> Recommendation:
    """The stored recommendation; if the file has none, it is computed by the same rule from the stored front."""
    return result.recommendation or recommend(result, front=result.pareto or None)


def recommended_variant(result: Result) -> Variant | None:
    """The variant that the recommendation names; None if it names none, or there was only one variant."""
    recommendation = recommendation_of(result)
    if recommendation.praise is None:
        return None
    return next((v for v in result.variants if v.name == recommendation.variant), None)


def recommend(result: Result, checks: Sequence[Check] = (), *, front: Iterable[str] | None = None) -> Recommendation:
    """Recommend the variant that meets every budget and costs least: in energy, or in latency if no energy is known.

    Only variants on the Pareto front are candidates. A proven loss of accuracy is not traded for joules unless a budget
    says how much may be lost. Of the variants that are tied in the criterion, the most accurate ones are kept; of
    these the smallest file is taken, and of equal files the first, so that an unchanged baseline stays.

    Args:
        result: The result.
        checks: The checks of the budgets (``budgets``).
        front: Names of the variants that may be recommended; None: computed.
    """
    costs = Costs.of(result)
    able = [v for v in result.variants if costs.get(v, "latency") or costs.get(v, "energy")]
    able = [v for v in able if requests.difference(v, able[0]) is None]  # the joules of others are of other work
    if not able:
        return Recommendation(variant=None, reason="no variant was measured")
    passing = _usable_within_budgets(able, checks)
    if not passing:
        return Recommendation(variant=None, reason=_nearest_sentence(able, checks))
    if front is None:
        from edgeprof.verdicts import pareto  # noqa: PLC0415 - as in judge

        front = pareto.front(passing, result.comparisons)
    names = set(front)
    candidates = [v for v in passing if v.name in names] or passing
    kind: Kind = "energy" if all(costs.get(v, "energy") for v in candidates) else "latency"
    spent = {v.name: cost for v in passing if (cost := costs.get(v, kind))}
    may_lose = any(check.is_about_accuracy for check in checks)
    faithful = [v for v in candidates if v.name in spent and (may_lose or not accuracy.has_dropped(v.accuracy))]
    if not faithful:
        which = ", ".join(v.name for v in candidates)
        return Recommendation(variant=None, reason=f"{which}: every candidate has lost accuracy", criterion=kind)
    least = spent[min(faithful, key=lambda v: spent[v.name].value).name]
    tied = [v for v in faithful if spent[v.name].against(least) == "tied"]
    chosen = min(
        _most_accurate(tied), key=_rounded_sizes
    )  # min keeps the first, so that a tie leaves the model as it was
    mine = spent[chosen.name]
    others = [v for v in passing if v is not chosen and v.name in spent]
    choice = _Choice(
        chosen,
        kind,
        mine,
        ties=[v.name for v in others if spent[v.name].against(mine) == "tied"],
        cheaper=[
            v.name
            for v in others
            if not may_lose and accuracy.has_dropped(v.accuracy) and spent[v.name].against(mine) == "better"
        ],
    )
    asked = f"{len(passing)} of {len(result.variants)} variants meet{'s' if len(passing) == 1 else ''} every budget"
    if not checks:
        asked = f"of {len(able)} variant{'s' if len(able) > 1 else ''} that ran"
    untouched = chosen is result.variants[0]
    return Recommendation(
        variant=chosen.name,
        reason=asked + choice.reason(costs.reference(kind), alone=len(passing) == 1, untouched=untouched),
        praise=choice.praise(untouched=untouched) if len(able) > 1 else None,
        criterion=kind,
        ties=choice.ties,
        untouched=untouched,
    )


def _usable_within_budgets(variants: Sequence[Variant], checks: Sequence[Check]) -> list[Variant]:
    """The usable variants that meet every budget."""
    broken = {c.variant for c in checks if not c.passed}
    return [v for v in variants if is_usable(v) and v.name not in broken]


def _nearest_sentence(able: Sequence[Variant], checks: Sequence[Check]) -> str:
    failures = Counter(check.variant for check in checks if not check.passed)
    near = min(able, key=lambda v: failures[v.name])
    which = ", ".join(c.quantity for c in checks if c.variant == near.name and not c.passed)
    return f"no variant meets the budgets; {near.name} comes nearest (it breaks: {which})"


@dataclass(frozen=True)
class _Choice:
    """The chosen variant, and those that it competed with.

    Attributes:
        variant: The chosen variant.
        kind: The criterion.
        cost: The cost of the chosen variant.
        ties: Names of the variants that are tied with it.
        cheaper: Names of the variants that cost less but have lost accuracy.
    """

    variant: Variant
    kind: Kind
    cost: Cost
    ties: list[str]
    cheaper: list[str]

    def praise(self, *, untouched: bool) -> str:
        if self.variant.accuracy is not None:
            return "best"
        if self.ties:
            return "keep" if untouched else "smallest"
        return "cheapest" if self.kind == "energy" else "fastest"

    def reason(self, reference: Variant | None, *, alone: bool, untouched: bool) -> str:
        words = "" if alone else f"; it has the least {self.kind}"
        if self.cheaper:
            words += f" of those that lost no accuracy ({', '.join(self.cheaper)} did)"
        if self.ties:
            judged = ", as accurate as any," if self.variant.accuracy is not None else ""
            words = f"; for the least {self.kind} it is tied with {', '.join(self.ties)}, and of these{judged}"
            words += " the smallest file"
            words += f" ({', '.join(self.cheaper)} lost accuracy)" if self.cheaper else ""
        if untouched:
            return words + "; it is the unchanged model: no variant is worth the change"
        if reference is not None and reference is not self.variant:
            words += f": {self.cost.value:.2f} × {_possessive_name(reference)} {self.kind}"
            words += _further_text(self.variant, reference)
        if self.variant.accuracy is None:
            words += "; accuracy was not judged"
        return words


def _possessive_name(reference: Variant) -> str:
    return "the baseline's" if reference.name == "baseline" else f"the {reference.name}'s"


def _further_text(chosen: Variant, reference: Variant) -> str:
    """Further differences to the reference, as ``, accuracy -0.5 pt, 0.31 × the size (0.33 × packed)``."""
    words = ""
    if chosen.accuracy is not None and chosen.accuracy.drop is not None:
        words += ", " + _accuracy_change(chosen.accuracy, chosen.accuracy.drop)
    if chosen.model.size_bytes and reference.model.size_bytes:
        words += f", {chosen.model.size_bytes / reference.model.size_bytes:.2f} × the size"
        packed, before = chosen.model.size_compressed_bytes, reference.model.size_compressed_bytes
        words += f" ({packed / before:.2f} × packed)" if packed and before else ""
    return words


def _most_accurate(variants: Sequence[Variant]) -> list[Variant]:
    """The variants that no other one clearly beats in accuracy; all variants if accuracy was not judged."""
    import numpy as np  # noqa: PLC0415 - as in judge

    from edgeprof.verdicts.objectives import AccuracyObjective  # noqa: PLC0415 - as in judge

    objective = AccuracyObjective([v.accuracy for v in variants])
    beaten = np.zeros(len(variants), dtype=bool)
    for number in range(len(variants)):
        beaten |= objective.judge(number)[0]
    return [v for v, is_beaten in zip(variants, beaten, strict=True) if v.accuracy and not is_beaten] or list(variants)


def _accuracy_change(accuracy: Accuracy, drop: float) -> str:
    """A change of the accuracy, as ``accuracy −0.5 pt`` or ``perplexity +0.31``."""
    change = 0.0 - accuracy.sign * drop
    return f"accuracy {100 * change:+.1f} pt" if accuracy.is_ratio else f"{accuracy.metric} {change:+.3g}"


def _rounded_sizes(variant: Variant) -> tuple[int, int]:
    """Plain and compressed file size, rounded to two digits: a few bytes are no reason to change a model."""
    plain, packed = variant.model.size_bytes or 0, variant.model.size_compressed_bytes or 0
    return _rounded_size(plain), _rounded_size(packed)


def _rounded_size(size: int) -> int:
    return round(size, 2 - len(str(size)))


def _smaller_size(smallest: float | None, other: float) -> float:
    return other if smallest is None else min(smallest, other)
