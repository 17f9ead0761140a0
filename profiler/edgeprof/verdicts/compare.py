"""Compare a variant with its baseline by the ratios of paired windows, never by two separate intervals.

The k-th window of a variant and the k-th window of its baseline were measured next to each other (ABBA). Therefore
drift cancels in their ratio, as does the sensor's gain error in any case. The interval is that of the mean log-ratio
(Student's t, K − 1 degrees of freedom), widened by what pairing does not cancel: the sensor's offset and resolution.

The verdict rests on energy, or on latency if no energy was measured. *Better* and *worse* need an interval that
excludes 1 and does not lie wholly within ±1 % of it: a difference that small is *tied*, however certain it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.figures import repeatability_component
from edgeprof.energy.influences import OWN
from edgeprof.energy.uncertainty import Component, combine_components, mean_and_error
from edgeprof.results import schema
from edgeprof.verdicts import accuracy, perplexity, requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.verdicts.between_runs import BetweenRuns

#: Two variants are tied if the interval of their ratio lies within 1 ± this.
RELEVANT = 0.01

#: Fields that must agree between two hosts for their results to be compared; other differences are only noted.
DECISIVE = ("board", "arch", "cpu", "cores", "memory_bytes", "power_mode", "governor")
#: Beginnings of names in ``Host.context`` that must agree too.
DECISIVE_CONTEXT = ("model", "max_freq", "turbo", "boost", "smt", "l4t", "sensor", "simulated", "power_limit")
#: Relative difference of memory that is ignored: versions of the kernel report slightly different sizes.
_MEMORY_TOLERANCE = 0.05


@dataclass(frozen=True)
class ContextDifference:
    """One thing that differs between two hosts.

    Attributes:
        name: A field of ``schema.Host``, or a name in its context.
        a: The value of the first host, as text.
        b: The value of the second host, as text.
        forbids: Whether it makes the results incomparable; otherwise it is only noted.
    """

    name: str
    a: str
    b: str
    forbids: bool


def compare(
    variant: schema.Variant,
    baseline: schema.Variant,
    *,
    relevant: float = RELEVANT,
    between: BetweenRuns | None = None,
) -> schema.Comparison:
    """Compare a variant with its baseline.

    Args:
        variant: A variant that was measured on the same device as ``baseline``, preferably in the same run.
        baseline: The variant to compare with.
        relevant: The half-width around 1 within which a difference does not matter.
        between: The uncertainty between runs, if the two were not measured in the same run.
    """
    comparison = schema.Comparison(
        variant=variant.name, baseline=baseline.name, energy_ratio=None, latency_ratio=None, verdict="not_comparable"
    )
    for measured in (baseline, variant):
        if measured.status in {"failed", "invalid"}:
            comparison.reason = f"{measured.name} {'failed' if measured.status == 'failed' else 'is invalid'}"
            return comparison
    other = requests.difference(variant, baseline)
    if other is not None:
        comparison.reason = f"their requests differ: {other}"
        return comparison
    if variant.accuracy is not None and baseline.accuracy is not None:
        comparison.accuracy_difference = accuracy.difference(variant.accuracy, baseline.accuracy)
    comparison.perplexity_ratio = perplexity.ratio(variant, baseline)
    apart = [] if between is None else [between.component()]
    comparison.latency_ratio = _compare_latency(variant, baseline, apart)
    comparison.energy_ratio, obstacle, forbids = _compare_energy(variant, baseline, apart)
    if forbids:
        comparison.reason = obstacle
        return comparison
    ratio, what = comparison.energy_ratio, "energy"
    if ratio is None:
        ratio, what = comparison.latency_ratio, "latency"
    if ratio is None:
        comparison.reason = f"{obstacle}; and latency needs two windows of each" if obstacle else "too few windows"
        return comparison
    comparison.verdict, why = _ratio_verdict(ratio, relevant)
    comparison.reason = f"{what} {why}" if what == "energy" or not obstacle else f"{what} {why}; {obstacle}"
    comparison.workloads = _compare_workloads(variant, baseline, relevant)
    return comparison


def comparisons(variants: Sequence[schema.Variant]) -> list[schema.Comparison]:
    """Compare each variant of a run with its baseline (``baseline_of``); a baseline is compared with nothing."""
    compared = []
    for variant in variants[1:]:
        baseline = baseline_of(variant, variants)
        if baseline is not variant:
            compared.append(compare(variant, baseline))
    return compared


def baseline_of(variant: schema.Variant, variants: Sequence[schema.Variant]) -> schema.Variant:
    """The first variant; for language models, the first one whose requests have the same lengths."""
    return next(candidate for candidate in variants if requests.difference(variant, candidate) is None)


def _compare_workloads(
    variant: schema.Variant, baseline: schema.Variant, relevant: float
) -> list[schema.WorkloadComparison]:
    """Compare each workload that both variants have; a variant with a single workload has no such comparisons."""
    if len(variant.workloads) < 2:
        return []
    compared = []
    for workload in variant.workloads:
        mine, its = schema.workload_view(variant, workload.name), schema.workload_view(baseline, workload.name)
        if mine is None or its is None or its.unit != workload.unit:
            continue
        part = compare(mine, its, relevant=relevant)
        compared.append(
            schema.WorkloadComparison(
                name=workload.name,
                unit=workload.unit,
                energy_ratio=part.energy_ratio,
                latency_ratio=part.latency_ratio,
                verdict=part.verdict,
                reason=part.reason,
            )
        )
    return compared


def _ratio_verdict(ratio: schema.Ratio, relevant: float) -> tuple[schema.Verdict, str]:
    low, high = ratio.ci95
    interval = f"{ratio.value:.3f} × ({low:.3f}–{high:.3f})"
    verdict = schema.sense(ratio, relevant)
    if verdict != "tied":
        return verdict, interval
    if low <= 1 <= high:
        return verdict, f"{interval}: the interval contains 1"
    return verdict, f"{interval}: within ±{100 * relevant:.1f} %, too little to matter"


def _compare_energy(
    variant: schema.Variant, baseline: schema.Variant, apart: list[Component]
) -> tuple[schema.Ratio | None, str | None, bool]:
    """The ratio, the reason why there is none, and whether that reason forbids every verdict."""
    a, b = variant.energy_j_per_inference, baseline.energy_j_per_inference
    if a is None or b is None or "none" in {a.provenance, b.provenance}:
        return None, "no energy was measured", False
    for name in ("provenance", "rail", "covers"):
        mine, its = getattr(a, name), getattr(b, name)
        if mine != its:
            what = {"provenance": "joules are", "rail": "rail is", "covers": "joules cover"}[name]
            return None, f"{variant.name}'s {what} {mine or 'unknown'}, {baseline.name}'s {its or 'unknown'}", True
    for owner, energy in ((variant, a), (baseline, b)):
        if energy.gross.value is None:
            return None, f"the energy of {owner.name} is not to be quoted", False
    pairs = _paired_windows(
        [
            None if w.energy_j is None or w.inferences <= 0 else w.energy_j / w.inferences
            for w in _windows_in_order(variant)
        ],
        [
            None if w.energy_j is None or w.inferences <= 0 else w.energy_j / w.inferences
            for w in _windows_in_order(baseline)
        ],
    ) or _paired_windows(a.gross.windows, b.gross.windows)
    ratio = _paired_ratio(pairs, [*_uncancelled_uncertainties(a.gross, b.gross), *apart])
    return ratio, None if ratio else "energy needs two windows of each to be compared", False


def _compare_latency(variant: schema.Variant, baseline: schema.Variant, apart: list[Component]) -> schema.Ratio | None:
    measured = [_windows_in_order(row) for row in (variant, baseline)]
    centres = [[w.latency_median_s for w in windows] for windows in measured]
    if all(centre is None for column in centres for centre in column):  # some devices report only a mean
        centres = [[w.latency_mean_s for w in windows] for windows in measured]
    return _paired_ratio(_paired_windows(*centres), apart)


def _windows_in_order(variant: schema.Variant) -> list[schema.Window]:
    return sorted(variant.windows, key=lambda window: window.order)


def _paired_windows(variant: Sequence[float | None], baseline: Sequence[float | None]) -> list[tuple[float, float]]:
    """Pair windows by position, without pairs of which a value is unknown or not positive."""
    return [
        (v, b) for v, b in zip(variant, baseline, strict=False) if v is not None and b is not None and min(v, b) > 0
    ]


#: Largest logarithm of a ratio that is reported; beyond it the exponential could overflow.
_MOST_LOG = 300.0


def _paired_ratio(pairs: list[tuple[float, float]], components: list[Component]) -> schema.Ratio | None:
    if len(pairs) < 2:
        return None
    logs = [math.log(v / b) for v, b in pairs]
    mean, error = mean_and_error(logs)
    total = combine_components([repeatability_component(error or 0.0, len(logs), components), *components])
    if abs(mean) + total.expanded > _MOST_LOG:
        return None
    low, high = math.exp(mean - total.expanded), math.exp(mean + total.expanded)
    return schema.Ratio(value=math.exp(mean), ci95=(low, high))


def _uncancelled_uncertainties(variant: schema.EnergyFigure, baseline: schema.EnergyFigure) -> list[Component]:
    """Relative standard uncertainties of the ratio that pairing does not cancel.

    One cause of error acts on both energies, and the ratio changes by the difference of its relative effects. The gain
    of a single channel cancels; it does not if the joules of the two variants come from different rails.
    """
    if not variant.value or not baseline.value or variant.budget is None or baseline.budget is None:
        return []
    if not variant.influences or not baseline.influences:
        return _uncancelled_lines(variant, baseline)
    mine = {name: u / variant.value for name, u in variant.influences.items()}
    its = {name: u / baseline.value for name, u in baseline.influences.items()}
    components = []
    for name in mine.keys() | its.keys():
        both = mine.get(name, 0.0), its.get(name, 0.0)
        u = math.hypot(*both) if name.startswith(OWN) else abs(both[0] - both[1])
        components.append(Component("model", u, rectangular=name.startswith(("gain", "offset", "meter"))))
    for figure in (variant, baseline):
        budget, value = figure.budget or schema.Budget(), abs(figure.value or 1.0)
        for line, causes in (("resolution", OWN), ("filter", "clock"), ("sync", "")):
            shared = math.fsum(u**2 for name, u in figure.influences.items() if causes and name.startswith(causes))
            left = math.sqrt(max(0.0, (getattr(budget, line) or 0.0) ** 2 - shared)) / value
            components.append(Component(line, left, random=True))
    return components


def _uncancelled_lines(variant: schema.EnergyFigure, baseline: schema.EnergyFigure) -> list[Component]:
    """The same uncertainties from the budgets alone, for results before 0.2, which hold no influences."""
    components = []
    for name in ("resolution", "filter", "sync"):
        for figure in (variant, baseline):
            u = getattr(figure.budget, name)
            if u:
                components.append(Component(name, u / abs(figure.value or 1.0)))
    if variant.budget and baseline.budget and variant.budget.offset and baseline.budget.offset:
        # Both energies contain the same offset o as o·t, so the ratio changes by the difference of the two shares.
        shares = [figure.budget.offset / figure.value for figure in (variant, baseline)]  # type: ignore[operator,union-attr] # neither is None
        components.append(Component("offset", abs(shares[0] - shares[1])))
    return components


def contexts(a: schema.Host, b: schema.Host) -> list[ContextDifference]:
    """List the differences between the devices of two results; those that forbid a comparison come first.

    Differences of the board, its processor, memory, power mode and governor forbid it, as do those of names in the
    context that begin with one of ``DECISIVE_CONTEXT``. If only the fingerprints differ, that forbids it too: something
    decisive has changed that is not listed here.
    """
    differences = []
    for name in ("board", "arch", "cpu", "cores", "memory_bytes", "power_mode", "governor", "hostname", "kernel", "os"):
        mine, its = getattr(a, name), getattr(b, name)
        if mine == its:
            continue
        if name == "memory_bytes" and mine and its and abs(mine - its) <= _MEMORY_TOLERANCE * max(mine, its):
            continue
        differences.append(ContextDifference(name, _shown_value(mine), _shown_value(its), forbids=name in DECISIVE))
    for name in sorted({*a.context, *b.context}):
        mine, its = a.context.get(name), b.context.get(name)
        if mine != its:
            differences.append(
                ContextDifference(
                    name, _shown_value(mine), _shown_value(its), forbids=name.lower().startswith(DECISIVE_CONTEXT)
                )
            )
    if a.fingerprint != b.fingerprint and not any(difference.forbids for difference in differences):
        differences.append(ContextDifference("fingerprint", a.fingerprint, b.fingerprint, forbids=True))
    return sorted(differences, key=lambda difference: not difference.forbids)


def _shown_value(value: object) -> str:
    return "unknown" if value is None else str(value)
