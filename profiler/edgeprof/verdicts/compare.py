"""Better, worse, tied or not comparable: ratios from windows that were paired, never from two separate intervals.

The k-th window of a variant and the k-th of its baseline were measured next to each other (ABBA), so drift falls out of
their ratio, and the sensor's gain error does in any case. The interval is that of the mean log-ratio (t, K − 1 degrees
of freedom), widened by what pairing does not cancel: the sensor's offset and step.

The verdict rests on energy, or on latency where no energy was measured. *Better* and *worse* need an interval that
excludes 1 and is not wholly within ±1 % of it: a difference that small, however certain, is *tied*.
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

#: A ratio whose interval lies within 1 ± this is tied.
RELEVANT = 0.01

#: What must agree between two hosts for their results to be compared; all else is noted.
DECISIVE = ("board", "arch", "cpu", "cores", "memory_bytes", "power_mode", "governor")
#: Names in ``Host.context`` that are decisive too; those that begin so.
DECISIVE_CONTEXT = ("model", "max_freq", "turbo", "boost", "smt", "l4t", "sensor", "simulated", "power_limit")
#: The kernel reports a little less memory from one version to the next.
_MEMORY_TOLERANCE = 0.05


@dataclass(frozen=True)
class ContextDifference:
    """One thing that differs between two hosts.

    Attributes:
        name: A field of ``schema.Host`` or a name in its context.
        a: The first host's value, for people.
        b: The second's.
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
        variant: Measured on the same device as ``baseline``, best in the same run.
        baseline: What it is compared with.
        relevant: The half-width around 1 within which a difference does not matter.
        between: What two runs differ by, where the two were not measured in one.
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
    """Each variant of a run against its baseline: the first one; of language models at several lengths the first one
    that was asked the same. A variant that is the baseline of its lengths itself is compared with none.
    """
    compared = []
    for variant in variants[1:]:
        baseline = baseline_of(variant, variants)
        if baseline is not variant:
            compared.append(compare(variant, baseline))
    return compared


def baseline_of(variant: schema.Variant, variants: Sequence[schema.Variant]) -> schema.Variant:
    """The first variant, or the first one whose requests are as long."""
    return next(candidate for candidate in variants if requests.difference(variant, candidate) is None)


def _compare_workloads(
    variant: schema.Variant, baseline: schema.Variant, relevant: float
) -> list[schema.WorkloadComparison]:
    """Each workload that both have, compared as the whole is; none where there is but one."""
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
    """The ratio, or why there is none, and whether that forbids any verdict."""
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
    if all(centre is None for column in centres for centre in column):  # devices that tell only their mean
        centres = [[w.latency_mean_s for w in windows] for windows in measured]
    return _paired_ratio(_paired_windows(*centres), apart)


def _windows_in_order(variant: schema.Variant) -> list[schema.Window]:
    return sorted(variant.windows, key=lambda window: window.order)


def _paired_windows(variant: Sequence[float | None], baseline: Sequence[float | None]) -> list[tuple[float, float]]:
    """Windows by their position; those of which one is unknown or not positive fall out."""
    return [
        (v, b) for v, b in zip(variant, baseline, strict=False) if v is not None and b is not None and min(v, b) > 0
    ]


#: The logarithm of a ratio of which nothing can be said: e to its power is beyond all numbers.
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
    """Relative standard uncertainties of the ratio that pairing leaves.

    An error of one cause acts on both energies, and the ratio feels the difference of what it does to each: nothing of
    a single channel's gain, all of it where one variant's joules come from another rail than the other's.
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
    """The same from the budgets alone, for results that kept no influences (before 0.2)."""
    components = []
    for name in ("resolution", "filter", "sync"):
        for figure in (variant, baseline):
            u = getattr(figure.budget, name)
            if u:
                components.append(Component(name, u / abs(figure.value or 1.0)))
    if variant.budget and baseline.budget and variant.budget.offset and baseline.budget.offset:
        # The same offset sits in both: o·t is in each energy, so the ratio feels its two shares' difference.
        shares = [figure.budget.offset / figure.value for figure in (variant, baseline)]  # type: ignore[operator,union-attr] # both are there
        components.append(Component("offset", abs(shares[0] - shares[1])))
    return components


def contexts(a: schema.Host, b: schema.Host) -> list[ContextDifference]:
    """What differs between the devices of two results, those that forbid a comparison first.

    Decisive are the board, its processor, memory, power mode and governor, and the context's names that begin with one
    of ``DECISIVE_CONTEXT``. A different fingerprint without any of these forbids too: something decisive has changed
    that has no name here.
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
