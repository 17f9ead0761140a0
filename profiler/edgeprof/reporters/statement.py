"""The statement on a model's joules in a file for other services: a figure and its meaning, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.errors import printable
from edgeprof.reporters import view

if TYPE_CHECKING:
    from edgeprof.results.schema import Result, Variant


@dataclass(frozen=True)
class Statement:
    """The energy of one variant, in words that are true without its result.

    Attributes:
        joules: Gross energy per unit of the variant (J); None if it must not be stated.
        uncertainty: Expanded uncertainty (J); None if it is unknown.
        text: One sentence on what the figure is, or why there is none.
    """

    joules: float | None
    uncertainty: float | None
    text: str


def energy_statement(result: Result, variant: Variant) -> Statement:
    """State a variant's energy; if it is unknown or of a virtual board, state the reason instead."""
    energy = variant.energy_j_per_inference
    if energy is None or energy.provenance == "none" or energy.gross.value is None:
        reasons = [*variant.reasons, *result.reasons]
        why = " ".join(view.reason_sentence(reason) for reason in reasons) or "No sensor measured it."
        return Statement(None, None, printable(f"The energy of {variant.name} is not known. {why}"))
    if energy.provenance == "simulated":
        text = f"The energy of {variant.name} is left out: its joules are of a virtual board, not of a device."
        return Statement(None, None, printable(text))
    figure = energy.gross
    covered = view.COVERS.get(energy.covers or "", energy.covers or "an unknown part of the device")
    text = (
        f"Energy of one {variant.unit} of {variant.name} on {result.host.board}, {energy.provenance}: "
        f"{view.energy_text(figure, energy.provenance)}, gross (idle power included), of {covered}"
    )
    caveat = "; something disturbed the run" if variant.status == "degraded" else ""
    return Statement(figure.value, figure.expanded_uncertainty, printable(f"{text}{caveat}."))
