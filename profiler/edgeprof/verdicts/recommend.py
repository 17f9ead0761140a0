"""From budgets, some of them written as requirements of a product, to the variant worth shipping, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprof.verdicts import gate
from edgeprof.verdicts.across import label
from edgeprof.verdicts.gate import Check, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Accuracy, Result, Variant

#: Two variants whose figures lie within this of each other, or whose intervals overlap, are tied.
_TIED = 0.03


@dataclass(frozen=True)
class Product:
    """What a device must do; None: not said.

    Attributes:
        fps: Inferences per second.
        battery_wh: Watt-hours of the battery.
        hours: How long it must last.
        memory_left_bytes: What is left for the model's process.
    """

    fps: float | None = None
    battery_wh: float | None = None
    hours: float | None = None
    memory_left_bytes: float | None = None

    def limits(self, base: Limits) -> tuple[Limits, list[str]]:
        """These requirements as limits, the stricter where ``base`` has one, and how each came about.

        A frame must be done before the next: p99 ≤ 1 / fps. The battery's energy is shared by all frames:
        E ≤ battery · 3600 / (hours · 3600 · fps), of everything that the rail covers.
        """
        told = []
        limits = base
        if self.fps:
            limits = replace(limits, max_p99_s=_least(limits.max_p99_s, 1 / self.fps))
            told.append(f"{self.fps:g} frames a second: p99 of at most {1e3 / self.fps:.4g} ms")
        joules = self.joules_per_frame
        if joules is not None:
            told.append(
                f"{self.battery_wh:g} Wh over {self.hours:g} h are {self.watts:.3g} W, at {self.fps:g} frames a second"
                f" {joules * 1e3:.4g} mJ a frame, idle power included"
            )
        if self.memory_left_bytes:
            limits = replace(limits, max_rss_bytes=_least(limits.max_rss_bytes, self.memory_left_bytes))
            told.append(f"{self.memory_left_bytes / 2**20:.4g} MiB left: peak RSS of at most that")
        return limits, told

    @property
    def watts(self) -> float:
        return (self.battery_wh or 0.0) / self.hours if self.hours else 0.0

    @property
    def joules_per_frame(self) -> float | None:
        """Joules that each frame may cost; None where something needed for it is not said."""
        return self.watts / self.fps if self.fps and self.battery_wh and self.hours else None

    def check(self, variant: Variant) -> list[Check]:
        """Whether the battery lasts: E(fps) = e_net + p_idle / fps, where idle was measured; else the gross figure."""
        limit = self.joules_per_frame
        if limit is None or variant.status in {"failed", "invalid"}:
            return []
        energy = variant.energy_j_per_inference
        value = None if energy is None else energy.gross.value
        if energy is not None and energy.marginal is not None and self.fps:
            value = energy.marginal.e_net_j + energy.marginal.p_idle_w / self.fps
        name = "energy of a frame"
        if value is None or energy is None:
            why = [r.message for r in variant.reasons if r.code in {"no_sensor", "uncertain", "gaps"}]
            reason = why[0] if why else "no energy was measured"
            return [Check(variant.name, name, passed=False, limit=limit, unit="J", reason=reason)]
        return [
            Check(variant.name, name, value <= limit, value=value, limit=limit, unit="J", provenance=energy.provenance)
        ]


@dataclass(frozen=True)
class Recommendation:
    """Attributes:
    variant: The name; None where none keeps the budgets.
    reason: Why, in one sentence.
    """

    variant: str | None
    reason: str


def budgets(result: Result, limits: Limits, product: Product | None = None) -> list[Check]:
    """Every budget asked of every variant."""
    names = {label(variant): variant.name for variant in result.variants}
    asked = gate.check(result, limits) if limits != Limits() else []
    found = [replace(check, variant=names.get(check.variant, check.variant)) for check in asked]
    for variant in result.variants:
        found += product.check(variant) if product else []
    return found


def recommend(result: Result, checks: Sequence[Check]) -> Recommendation:
    """The variant that keeps every budget and costs least: energy, or latency where no energy is known.

    Among those tied with it, of the most accurate (as far as the samples can tell) the smallest file is taken.
    """
    able = [
        v for v in result.variants if v.status not in {"failed", "invalid"} and cost(result, v, "latency") is not None
    ]
    if not able:
        return Recommendation(None, "no variant was measured")
    broken = {c.variant for c in checks if not c.passed}
    kept = [v for v in able if v.name not in broken]
    if not kept:
        failures = {v.name: sum(c.variant == v.name and not c.passed for c in checks) for v in able}
        near = min(able, key=lambda v: failures[v.name])
        which = ", ".join(c.quantity for c in checks if c.variant == near.name and not c.passed)
        return Recommendation(None, f"no variant keeps the budgets; {near.name} comes nearest (it breaks: {which})")
    kind = "energy" if all(cost(result, v, "energy") is not None for v in kept) else "latency"
    costs = {v.name: cost(result, v, kind) or (0.0, 0.0, 0.0) for v in kept}
    best = min(kept, key=lambda v: costs[v.name])
    tied = [v for v in kept if v is best or _tied(costs[v.name], costs[best.name])]
    chosen = min(_most_accurate(tied), key=_bytes)  # min keeps the first, so that a tie leaves the model as it was
    asked = f"of {len(result.variants)} variants {len(kept)} keep{'s' if len(kept) == 1 else ''} every budget"
    if not checks:
        asked = f"of {len(able)} variant{'s' if len(able) > 1 else ''} that ran"
    return Recommendation(chosen.name, asked + _reason(result, chosen, costs[chosen.name], tied, kind, len(kept)))


def _reason(  # noqa: PLR0917 - called once, above
    result: Result, chosen: Variant, mine: tuple[float, float, float], tied: Sequence[Variant], kind: str, kept: int
) -> str:
    baseline = result.variants[0]
    words = f"; it has the least {kind}" if kept > 1 else ""
    if len(tied) > 1:
        others = ", ".join(v.name for v in tied if v is not chosen)
        judged = ", as accurate as any," if chosen.accuracy is not None else ""
        words = f"; for the least {kind} it is tied with {others}, and of these{judged} the smallest file"
    if chosen is baseline:
        return words + "; it is the model as it was: nothing here is worth the change"
    words += f": {mine[0]:.2f} × the baseline's {kind}"
    if chosen.accuracy is not None and chosen.accuracy.drop is not None:
        words += ", " + _change(chosen.accuracy, chosen.accuracy.drop)
    if chosen.model.size_bytes and baseline.model.size_bytes:
        words += f", {chosen.model.size_bytes / baseline.model.size_bytes:.2f} × the size"
        packed, before = chosen.model.size_compressed_bytes, baseline.model.size_compressed_bytes
        words += f" ({packed / before:.2f} × packed)" if packed and before else ""
    if chosen.accuracy is None:
        words += "; accuracy was not judged"
    return words


def _most_accurate(variants: Sequence[Variant]) -> list[Variant]:
    """Those whose accuracy is not clearly below the best one's."""
    judged = [(v, v.accuracy) for v in variants if v.accuracy]
    if not judged:
        return list(variants)
    best = max(a.sign * a.value for _, a in judged)
    return [v for v, a in judged if max(a.sign * end for end in a.ci95 or (a.value, a.value)) >= best]


def _change(accuracy: Accuracy, drop: float) -> str:
    """``accuracy −0.5 pt``, ``perplexity +0.31``."""
    change = 0.0 - accuracy.sign * drop
    return f"accuracy {100 * change:+.1f} pt" if accuracy.is_ratio else f"{accuracy.metric} {change:+.3g}"


def _bytes(variant: Variant) -> tuple[int, int]:
    """On the disk and packed, to two digits: a few bytes of names are no reason to change a model."""
    plain, packed = variant.model.size_bytes or 0, variant.model.size_compressed_bytes or 0
    return _rounded(plain), _rounded(packed)


def _rounded(size: int) -> int:
    return round(size, 2 - len(str(size)))


def _tied(one: tuple[float, float, float], best: tuple[float, float, float]) -> bool:
    return one[0] <= best[0] * (1 + _TIED) or one[1] <= best[2]


def cost(result: Result, variant: Variant, kind: str) -> tuple[float, float, float] | None:
    """What it costs as a multiple of the baseline that it was measured beside, and the ends of its interval.

    Never the bare figures: the pairs of a study are measured one after the other, and a device drifts meanwhile.
    """
    if kind == "energy" and not _measured(variant):
        return None
    if variant is result.variants[0]:
        return (1.0, 1.0, 1.0) if kind == "energy" or variant.windows else None
    found = next((c for c in result.comparisons if c.variant == variant.name), None)
    ratio = None if found is None else found.energy_ratio if kind == "energy" else found.latency_ratio
    return None if ratio is None else (ratio.value, *ratio.ci95)


def _measured(variant: Variant) -> bool:
    """Whether its joules are more than a guess."""
    energy = variant.energy_j_per_inference
    return energy is not None and energy.gross.value is not None and energy.provenance not in {"none", "estimated"}


def _least(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)
