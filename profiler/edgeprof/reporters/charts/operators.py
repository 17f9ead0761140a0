"""Where a model's time goes: one bar for each operator, the longest first, and the time outside of operators last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts import svg
from edgeprof.reporters.operator_view import short_name
from edgeprof.reporters.view import energy_text

if TYPE_CHECKING:
    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Operator

WIDTH = 960.0
LEFT, RIGHT, TOP = 330.0, 210.0, 6.0
#: Room at the right for the figures of operators that were measured alone.
RIGHT_ALONE = 420.0
BAR, STEP = 14.0, 23.0


def draw(row: Row) -> str | None:
    """Draw the bars of one variant; None if its operators were not profiled."""
    operators = row.variant.operators
    if not operators:
        return None
    right = RIGHT if row.variant.isolated_sum is None else RIGHT_ALONE
    scale = svg.Scale(0.0, max(operator.share for operator in operators), LEFT, WIDTH - right)
    parts = []
    for n, operator in enumerate(operators):
        top = TOP + n * STEP
        parts += [
            svg.text(LEFT - 10, top + 12, short_name(operator.name), "end", "tick"),
            svg.el(
                "rect",
                svg.el("title", svg.escape(f"{operator.name} ({operator.type})" if operator.type else operator.name)),
                x=LEFT,
                y=top,
                width=max(0.5, scale.at(operator.share) - LEFT),
                height=BAR,
                class_=f"share {svg.color(row.color) if operator.type else 'base'}",
            ),
            svg.text(scale.at(operator.share) + 8, top + 12, _operator_text(operator), "start", "tick"),
        ]
    return svg.drawing(WIDTH, TOP + len(operators) * STEP, f"operators of {row.label}", *parts)


def _operator_text(operator: Operator) -> str:
    parts = [f"{units.significant(100 * operator.share, 3)} %"]
    if operator.seconds is not None:
        parts.append(units.quantity(operator.seconds, "s"))
    if operator.isolated is not None:
        parts.append(f"alone {units.quantity(operator.isolated.seconds, 's')}")
        energy = operator.isolated.energy_j
        if energy is not None and energy.gross.value is not None:
            parts.append(energy_text(energy.gross, energy.provenance))
    return " · ".join(parts)
