"""Compare two results: pair their variants, check that their contexts agree, and compare each pair.

The functions are pure; they build on ``compare`` (ratios and verdicts of two variants) and ``contexts`` (two hosts).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.results import schema
from edgeprof.verdicts.between_runs import BetweenRuns, between_runs
from edgeprof.verdicts.compare import ContextDifference, compare, contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from edgeprof.results.schema import Comparison, Protocol, Result, SensorUse, Variant

#: Fields of the protocol that change what an inference is, or how long a request waits for it.
_DECISIVE = ("scenario", "batch", "rate_hz", "streams", "queue")
_NOTED = ("threads", "windows", "window_s", "preset", "inputs", "sample_rate_hz")


@dataclass(frozen=True)
class Pair:
    """A variant of the branch, its counterpart in the baseline, and their comparison."""

    label: str
    variant: Variant
    baseline: Variant
    comparison: Comparison


@dataclass(frozen=True)
class Across:
    """The comparison of two results.

    Attributes:
        pairs: The pairs of variants, in the branch's order.
        only_baseline: Labels of variants that the branch lacks.
        only_branch: Labels of variants that the baseline lacks.
        differences: Differences of the contexts; those that forbid a comparison come first.
        between: The uncertainty between runs that the intervals allow for.
    """

    pairs: list[Pair]
    only_baseline: list[str]
    only_branch: list[str]
    differences: list[ContextDifference]
    between: BetweenRuns = field(default_factory=BetweenRuns)

    @property
    def forbidden(self) -> list[ContextDifference]:
        return [d for d in self.differences if d.forbids]


def across(baseline: Result, branch: Result, *, force: bool = False, repeats: Iterable[Result] = ()) -> Across:
    """Compare each variant of ``branch`` with its counterpart in ``baseline``.

    Counterparts have the same model and variant name, or else the same variant name, if it is unique on both sides. An
    unchanged model that is named like its file is also the counterpart of the baseline, if it is the only one of its
    model. No variant is the counterpart of two. Two results with one variant each are always paired. If the contexts
    forbid a comparison, every verdict is ``not_comparable`` and there are no ratios, since nobody could quote them;
    with ``force`` there are ratios, and the differences are still listed.

    Two results are two runs, so every interval includes the uncertainty between runs (``between_runs``). It is measured
    if ``repeats`` (other results, of any kind) contain enough runs of the same variants, and assumed otherwise.
    """
    partners = _pair_variants(baseline.variants, branch.variants)
    differences = [*contexts(baseline.host, branch.host), *_protocol_differences(baseline.protocol, branch.protocol)]
    differences += _runtime_differences(partners)
    differences += _calibration_differences(baseline.sensors, branch.sensors)
    differences.sort(key=lambda d: not d.forbids)
    forbidden = "; ".join(f"{d.name} {d.a} → {d.b}" for d in differences if d.forbids)
    between = BetweenRuns(0.0, 1) if baseline.id == branch.id else between_runs([baseline, branch], repeats)
    pairs = [Pair(label(v), v, b, _compare_pair(v, b, "" if force else forbidden, between)) for v, b in partners]
    matched = [id(variant) for pair in partners for variant in pair]
    return Across(
        pairs,
        [label(v) for v in baseline.variants if id(v) not in matched],
        [label(v) for v in branch.variants if id(v) not in matched],
        differences,
        between,
    )


def label(variant: Variant) -> str:
    """Name a variant together with its model, as ``resnet8 int8-static``."""
    return schema.variant_label(schema.model_name(variant.model), variant.name)


def _compare_pair(variant: Variant, baseline: Variant, forbidden: str, between: BetweenRuns) -> Comparison:
    if not forbidden:
        return compare(variant, baseline, between=between)
    return schema.Comparison(
        variant=variant.name,
        baseline=baseline.name,
        energy_ratio=None,
        latency_ratio=None,
        verdict="not_comparable",
        reason=f"the contexts differ: {forbidden}",
    )


def _pair_variants(baseline: list[Variant], branch: list[Variant]) -> list[tuple[Variant, Variant]]:
    if len(baseline) == len(branch) == 1:
        return [(branch[0], baseline[0])]
    partners: dict[int, Variant] = {}
    for key in (_model_and_name, _model_and_role, _name):
        counterparts, candidates = _by_unique_key(baseline, key), _by_unique_key(branch, key)
        taken = {id(partner) for partner in partners.values()}
        for name, variant in candidates.items():
            partner = counterparts.get(name)
            if partner is not None and id(variant) not in partners and id(partner) not in taken:
                partners[id(variant)] = partner
    return [(variant, partners[id(variant)]) for variant in branch if id(variant) in partners]


def _by_unique_key(variants: list[Variant], key: Callable[[Variant], Hashable]) -> dict[Hashable, Variant]:
    """The variants by their key, without those whose key another one has too: these could be confused."""
    counts = Counter(map(key, variants))
    return {key(variant): variant for variant in variants if counts[key(variant)] == 1}


def _model_and_name(variant: Variant) -> tuple[str, str]:
    return schema.model_name(variant.model), variant.name


def _model_and_role(variant: Variant) -> tuple[str, str]:
    """Model and name; an unchanged model that is named like its file has the role of the baseline."""
    untouched = not variant.recipe and variant.name == Path(variant.model.path).name
    return schema.model_name(variant.model), "baseline" if untouched else variant.name


def _name(variant: Variant) -> str:
    return variant.name


def _protocol_differences(a: Protocol, b: Protocol) -> list[ContextDifference]:
    return [
        ContextDifference(
            name.replace("_", " "), _shown_value(getattr(a, name)), _shown_value(getattr(b, name)), name in _DECISIVE
        )
        for name in (*_DECISIVE, *_NOTED)
        if getattr(a, name) != getattr(b, name)
    ]


def _runtime_differences(partners: list[tuple[Variant, Variant]]) -> list[ContextDifference]:
    """Differences of the runtimes; they never forbid a comparison, since a new version is often what is compared."""
    changes = {
        (
            f"{b.runtime.name} {b.runtime.version} ({b.runtime.device})",
            f"{v.runtime.name} {v.runtime.version} ({v.runtime.device})",
        )
        for v, b in partners
        if v.runtime and b.runtime
    }
    return [ContextDifference("runtime", old, new, forbids=False) for old, new in sorted(changes) if old != new]


def _calibration_differences(a: list[SensorUse], b: list[SensorUse]) -> list[ContextDifference]:
    """Differences of the calibrations: they put joules on two scales, as when a sensor was calibrated in between."""

    def scales(uses: list[SensorUse]) -> dict[tuple[str, str], tuple[float, float]]:
        powers = [use for use in uses if use.quantity in {"power", "energy"}]
        calibrations = {(use.sensor, use.channel): use.calibration or {} for use in powers}
        return {key: (line.get("gain", 1.0), line.get("offset_w", 0.0)) for key, line in calibrations.items()}

    before, after = scales(a), scales(b)
    return [
        ContextDifference(f"calibration of {key[1]}", _scale_text(before[key]), _scale_text(after[key]), forbids=True)
        for key in sorted(before.keys() & after.keys())
        if before[key] != after[key]
    ]


def _scale_text(line: tuple[float, float]) -> str:
    return "none" if line == (1.0, 0.0) else f"× {line[0]:.4g} {line[1]:+.3g} W"


def _shown_value(value: object) -> str:
    return "unknown" if value is None else str(value)
