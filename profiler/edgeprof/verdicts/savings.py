"""What a frame would save with each variant of a pipeline: joules of the whole frame and of each stage.

A saving is the baseline's figure times one minus the ratio of paired windows (``compare``), so that what both have in
common cancels in its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeprof.verdicts.across import across

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.results.schema import Comparison, Ratio, Result, Variant


@dataclass(frozen=True)
class Saved:
    """Joules that are saved, with the ends of their 95 % interval; what costs more is below 0."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, joules: float, ratio: Ratio) -> Saved:
        """Return what is saved of ``joules`` if they are multiplied by a ratio."""
        low, high = ratio.ci95
        return cls(joules * (1 - ratio.value), joules * (1 - high), joules * (1 - low))

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Saving:
    """What one variant saves.

    Attributes:
        result: The result that contains the variant.
        variant: The variant.
        baseline: The variant that it is compared with.
        baseline_j: Joules of a frame of the baseline.
        frame: What a frame saves.
        stages: Stage → what it saves in a frame, for the stages of both.
    """

    result: Result
    variant: Variant
    baseline: Variant
    baseline_j: float
    frame: Saved
    stages: dict[str, Saved]


def savings(results: Sequence[Result]) -> list[Saving]:
    """Return the savings of all variants of pipelines, each against the baseline of its run, or of the first result."""
    first = next(((result, v) for result in results for v in result.variants if v.stages), None)
    if first is None:
        return []
    all_savings = []
    for result in results:
        for variant in result.variants:
            if variant.stages and variant is not first[1]:
                all_savings += list(_saving(result, variant, *first))
    return all_savings


def _saving(result: Result, variant: Variant, reference: Result, baseline: Variant) -> Iterator[Saving]:
    comparison = next((c for c in result.comparisons if c.variant == variant.name), None)
    if comparison is not None:
        baseline = next((v for v in result.variants if v.name == comparison.baseline), baseline)
    elif result is reference or not {s.name for s in variant.stages} & {s.name for s in baseline.stages}:
        return
    else:
        alone = [msgspec.structs.replace(r, variants=[v]) for r, v in ((reference, baseline), (result, variant))]
        comparison = across(*alone).pairs[0].comparison
    energy = baseline.energy_j_per_inference
    if comparison.energy_ratio is None or energy is None or energy.gross.value is None:
        return
    yield Saving(
        result,
        variant,
        baseline,
        energy.gross.value,
        Saved.of(energy.gross.value, comparison.energy_ratio),
        dict(_stages(comparison, baseline)),
    )


def _stages(comparison: Comparison, baseline: Variant) -> Iterator[tuple[str, Saved]]:
    ratios = {workload.name: workload.energy_ratio for workload in comparison.workloads}
    for stage in baseline.stages:
        energy, ratio = stage.energy_j_per_call, ratios.get(stage.name)
        if energy is not None and energy.gross.value is not None and ratio is not None:
            yield stage.name, Saved.of(energy.gross.value * (stage.calls_per_frame or 1.0), ratio)
