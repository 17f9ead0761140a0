"""Relative costs of the variants of a result, and the one rule by which two costs are tied.

A cost is a multiple of the cost of a reference: the first variant of the result that has the figure. It is computed
from paired windows (``compare``), never from two separate figures, since the pairs of a study are measured one after
another while the device drifts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeprof.results import schema
from edgeprof.verdicts.compare import RELEVANT, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Comparison, Result, Variant

Kind = Literal["energy", "latency"]


@dataclass(frozen=True)
class Cost:
    """A multiple of the reference's cost, and the ends of its 95 % interval; a smaller cost is better."""

    value: float
    low: float
    high: float

    def against(self, other: Cost) -> schema.Verdict:
        """Judge the ratio of two costs by ``schema.sense``: ``better``, ``worse`` or ``tied``.

        The ratio's interval is the widest one that the two intervals allow. Compared with the reference, whose cost is
        exactly 1, this is the verdict that every table shows.
        """
        interval = (self.low / other.high, self.high / other.low)
        return schema.sense(schema.Ratio(value=self.value / other.value, ci95=interval), RELEVANT)


_ITSELF = Cost(1.0, 1.0, 1.0)


def is_usable(variant: Variant) -> bool:
    """Whether the variant ran and its figures may be quoted."""
    return variant.status not in {"failed", "invalid"}


class Costs:
    """The costs of the variants of one result.

    Args:
        variants: The variants, in the result's order.
        comparisons: Stored comparisons; a missing one is computed.
    """

    def __init__(self, variants: Sequence[Variant], comparisons: Sequence[Comparison] = ()) -> None:
        self._variants = variants
        self._stored = {(c.variant, c.baseline): c for c in comparisons}
        self._costs: dict[tuple[int, Kind], Cost | None] = {}
        self._references: dict[Kind, Variant | None] = {}

    @classmethod
    def of(cls, result: Result) -> Costs:
        """The costs of ``result``'s variants."""
        return cls(result.variants, result.comparisons)

    def reference(self, kind: Kind) -> Variant | None:
        """The variant whose cost is 1; None if no variant has the figure."""
        if kind not in self._references:
            usable = (v for v in self._variants if is_usable(v) and _has_figure(v, kind))
            self._references[kind] = next(usable, None)
        return self._references[kind]

    def get(self, variant: Variant, kind: Kind) -> Cost | None:
        """The cost of ``variant``; None if it is unknown or cannot be compared with the reference."""
        key = (id(variant), kind)
        if key not in self._costs:
            self._costs[key] = self._compute(variant, kind)
        return self._costs[key]

    def _compute(self, variant: Variant, kind: Kind) -> Cost | None:
        reference = self.reference(kind)
        if reference is None or not is_usable(variant) or not _has_figure(variant, kind):
            return None
        if variant is reference:
            return _ITSELF
        compared = self._stored.get((variant.name, reference.name)) or compare(variant, reference)
        ratio = compared.energy_ratio if kind == "energy" else compared.latency_ratio
        return None if ratio is None or ratio.ci95[0] <= 0 else Cost(ratio.value, *ratio.ci95)


def _has_figure(variant: Variant, kind: Kind) -> bool:
    if kind == "latency":
        return variant.latency_s is not None or any(w.latency_median_s is not None for w in variant.windows)
    energy = variant.energy_j_per_inference
    return energy is not None and energy.gross.value is not None and energy.provenance != "none"
