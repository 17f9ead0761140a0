"""Tables of a model's operators, and notes on what it needs of a microcontroller, for console and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeprof import units
from edgeprof.reporters.terminal import Column
from edgeprof.reporters.view import scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import MicrocontrollerNeed, Operator, Variant

#: The sentence that must accompany the joules of operators.
ATTRIBUTED = (
    "The joules of operators are attributed by their share of the time, as if each drew the mean power; they are not "
    "measured."
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
    shares = [operator for variant in variants for operator in variant.operators if operator.method == "time-share"]
    return [ATTRIBUTED] if any(operator.energy_j_attributed is not None for operator in shares) else []


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
    columns = [
        Column("share", [(units.significant(100 * operator.share, 3), "%") for operator in operators]),
        Column("time", scaled([operator.seconds for operator in operators], "s")),
        Column("J attributed", scaled([operator.energy_j_attributed for operator in operators], "J")),
        Column("type", [("", operator.type or "") for operator in operators]),
    ]
    return [short_name(operator.name) for operator in operators], [
        c for c in columns if any(any(cell) for cell in c.cells)
    ]
