"""The rows of charts and tables: each variant with its label and its colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.reporters.names import short_names
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Energy, Result, Variant


@dataclass(frozen=True)
class Row:
    """One variant of one result.

    Attributes:
        number: Number of the row on the page, from 1, for plots that have no room for names.
        label: Name of the variant on this page.
        color: Index of its colour; None for a baseline.
        result: The result that contains the variant.
        variant: The variant.
    """

    number: int
    label: str
    color: int | None
    result: Result
    variant: Variant

    @property
    def energy(self) -> Energy | None:
        """The variant's energy; None if it has no figure that may be quoted."""
        energy = self.variant.energy_j_per_inference
        return energy if energy and energy.gross.value is not None else None

    @property
    def latency(self) -> float | None:
        """The median latency of a call (s)."""
        return self.variant.latency_s.p50 if self.variant.latency_s else None


def rows(results: Sequence[Result]) -> list[Row]:
    """Make a row for each variant; equal names are distinguished by the model, the board or the run."""
    pairs = [(result, variant) for result in results for variant in result.variants]
    labels = _distinct_labels(pairs)
    short = short_names(labels)
    chart_rows: list[Row] = []
    color = 0
    compared = {result.id: _compared_with(result) for result in results}
    for number, ((result, variant), label) in enumerate(zip(pairs, labels, strict=True), 1):
        base = _is_baseline(result, variant, compared[result.id])
        chart_rows.append(Row(number, short[label], None if base else color, result, variant))
        color += not base
    return chart_rows


def is_baseline(result: Result, variant: Variant) -> bool:
    """Whether other variants are compared with this one; without comparisons, whether it is named ``baseline``."""
    return _is_baseline(result, variant, _compared_with(result))


def _compared_with(result: Result) -> set[str]:
    return {comparison.baseline for comparison in result.comparisons}


def _is_baseline(result: Result, variant: Variant, compared: set[str]) -> bool:
    return variant.name in compared if compared else variant.name == "baseline" and len(result.variants) > 1


def _distinct_labels(pairs: Sequence[tuple[Result, Variant]]) -> list[str]:
    tries = (
        [v.name for _, v in pairs],
        [f"{schema.model_name(v.model)} {v.name}" for _, v in pairs],
        [f"{v.name} @ {r.host.board}" for r, v in pairs],
        [f"{v.name} @ {r.host.board} {r.host.power_mode or ''}".rstrip() for r, v in pairs],
        [f"{v.name} ({r.id.rpartition('-')[2]})" for r, v in pairs],
    )
    return next((labels for labels in tries if len(set(labels)) == len(labels)), tries[-1])
