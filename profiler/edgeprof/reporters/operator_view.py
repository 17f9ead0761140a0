"""Tables of a model's operators, and notes on what it needs of a microcontroller, for console and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeprof import units
from edgeprof.reporters.terminal import Column
from edgeprof.reporters.view import NONE, energy_cells, energy_text, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import MicrocontrollerNeed, Operator, Variant

#: The sentence that must accompany the joules of operators.
ATTRIBUTED = (
    "The joules of operators are attributed by their share of the time, as if each drew the mean power; they are not "
    "measured."
)
#: The sentence that must accompany operators that were measured alone.
ALONE = (
    "Alone, an operator finds its inputs in the cache and does not overlap with others, so that its figures differ "
    "from those in its place."
)
#: Most characters of a name in a table; the names of fused operators are long chains of names.
_LONGEST = 44


class OperatorTable(NamedTuple):
    """The table of one variant's operators.

    Attributes:
        title: Title of the table, with the variant's name.
        names: Names of the rows.
        columns: The columns.
    """

    title: str
    names: list[str]
    columns: list[Column]


def operator_tables(variants: Sequence[Variant]) -> list[OperatorTable]:
    """Make a table for each variant whose operators were profiled."""
    return [
        OperatorTable(f"Where the time of {variant.name} goes", *_cells(variant.operators))
        for variant in variants
        if variant.operators
    ]


def operator_notes(variants: Sequence[Variant]) -> list[str]:
    """The sentences that a reader of the tables must know."""
    attributed = any(operator.energy_j_attributed is not None for variant in variants for operator in variant.operators)
    sums = [f"{variant.name}: {isolated_text(variant)}" for variant in variants if variant.isolated_sum is not None]
    return [*([ATTRIBUTED] if attributed else []), *sums, *([ALONE] if sums else [])]


def isolated_text(variant: Variant) -> str:
    """Compare the operators that were measured alone with the whole model, in a sentence."""
    total = variant.isolated_sum
    assert total is not None
    whole, rest = total.whole, units.quantity(total.rest_s, "s")
    if total.rest_s_ci95 is not None:
        rest = units.plus_minus(total.rest_s, (total.rest_s_ci95[1] - total.rest_s_ci95[0]) / 2, "s")
    parts = [(units.quantity(whole.seconds - total.rest_s, "s"), units.quantity(whole.seconds, "s"), rest)]
    if whole.energy_j is not None and whole.energy_j.gross.value is not None and total.rest_j.value is not None:
        joules, provenance = whole.energy_j.gross.value, whole.energy_j.provenance
        parts.append(
            (
                units.quantity(joules - total.rest_j.value, "J"),
                energy_text(whole.energy_j.gross, provenance),
                energy_text(total.rest_j, provenance),
            )
        )
    alone, together, remaining = (" and ".join(words) for words in zip(*parts, strict=True))
    plural = "s" if total.operators > 1 else ""
    return (
        f"the {total.operators} operator{plural} measured alone: {alone} of the {together} of the whole model in the "
        f"same turns; {remaining} remain for everything else."
    )


def microcontroller_notes(variants: Sequence[Variant]) -> list[str]:
    """Write a line for each model whose needs of a microcontroller are known."""
    return [
        f"{variant.name} on a microcontroller: {_need(variant.microcontroller_need)}."
        for variant in variants
        if variant.microcontroller_need is not None
    ]


def _need(need: MicrocontrollerNeed) -> str:
    flash = f"{units.size(need.flash_bytes)} of flash"
    if need.arena_bytes is None:
        return f"{flash}, but the model does not run there: {need.reason}"
    parts = f"{units.size(need.head_bytes)} for activations, {units.size(need.tail_bytes)} that stay"
    return f"at most {units.size(need.arena_bytes)} of RAM for its tensors ({parts}) and {flash}"


def short_name(name: str) -> str:
    """Shorten a long name in the middle."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 16]}…{name[-15:]}"


def _cells(operators: Sequence[Operator]) -> tuple[list[str], list[Column]]:
    alone = [operator.isolated for operator in operators]
    columns = [
        Column("share", [(units.significant(100 * operator.share, 3), "%") for operator in operators]),
        Column("time", scaled([operator.seconds for operator in operators], "s")),
        Column("J attributed", scaled([operator.energy_j_attributed for operator in operators], "J")),
        Column("alone", scaled([figures.seconds if figures else None for figures in alone], "s")),
        Column(
            "J alone",
            energy_cells([(e.gross, e.provenance) if (e := f and f.energy_j) else None for f in alone]),
        ),
        Column("type", [("", operator.type or "") for operator in operators]),
    ]
    return [short_name(operator.name) for operator in operators], [
        c for c in columns if any(cell not in (NONE, ("", "")) for cell in c.cells)
    ]
