"""The exit code of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof.results.schema import Result


def exit_code(result: Result, *, strict: bool) -> int:
    """Return the exit code of contract §1.

    130: interrupted; 3: a variant has no figures to quote; 1: strict, and a variant is degraded or its joules are
    estimated or absent; else 0.
    """
    if result.interrupted:
        return 130
    if any(variant.status in {"failed", "invalid"} for variant in result.variants):
        return 3
    if strict and any(
        variant.status != "ok"
        or variant.energy_j_per_inference is None
        or variant.energy_j_per_inference.provenance in {"estimated", "none"}
        for variant in result.variants
    ):
        return 1
    return 0
