"""Joules and latency for benchmark-action/github-action-benchmark: the JSON of its tool ``customSmallerIsBetter``.

The action compares entries with equal names. Therefore a name contains the provenance of its figure, so that an
estimate is never compared with a measurement.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgeprof.errors import printable
from edgeprof.reporters.statement import energy_statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.results.schema import Result, Variant


def render(results: Sequence[Result]) -> str:
    """Write an array with an entry for each figure that is known."""
    entries = [
        entry for result in results for variant in result.variants for entry in _benchmark_entries(result, variant)
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _benchmark_entries(result: Result, variant: Variant) -> Iterator[dict[str, Any]]:
    name = printable(f"{variant.name} on {result.host.board}")
    energy, statement = variant.energy_j_per_inference, energy_statement(result, variant)
    if energy is not None and energy.provenance != "none" and energy.gross.value is not None:
        origin = "" if energy.provenance == "measured" else f", {energy.provenance}"
        half = energy.gross.expanded_uncertainty
        yield {
            "name": f"{name}: energy per {variant.unit}{origin}",
            "unit": "J",
            "value": energy.gross.value,
            **({} if half is None else {"range": f"± {half:.2g}"}),
            "extra": statement.text,
        }
    latency = variant.latency_s
    if latency is not None:
        quantile, value = ("p50", latency.p50) if latency.p50 is not None else ("mean", latency.mean)
        yield {"name": f"{name}: latency {quantile}", "unit": "s", "value": value, "extra": statement.text}
