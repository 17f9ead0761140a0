"""The shapes that panels of all dashboards have, each said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeprof_boards.dashboard import Panel
from edgeprof_boards.style import BLUE, Levels, steps, value_mappings
from edgeprof_dashboards.preview.panels import Override, Query

#: Neither good nor bad.
PLAIN = ((None, BLUE),)


def stat(title: str, description: str, expr: str, legend: str, *, instant: bool = False, **more: Any) -> Panel:
    """One number for each series; of a line its last value, with the line behind it."""
    given = {"width": 4, "height": 4, "thresholds": PLAIN, **more}
    return Panel(title, description, (Query(expr, legend, instant=instant),), kind="stat", **given)


def bars(title: str, description: str, expr: str, legend: str, **more: Any) -> Panel:
    """One bar for each series, at the end of the time shown."""
    given = {"width": 8, "thresholds": PLAIN, **more}
    return Panel(title, description, (Query(expr, legend, instant=True),), kind="bargauge", **given)


def states(title: str, description: str, expr: str, legend: str, **more: Any) -> Panel:
    """One band for each series, coloured by its value (``mappings``)."""
    return Panel(title, description, (Query(expr, legend),), kind="state-timeline", **{"width": 8, **more})


@dataclass(frozen=True)
class Value:
    """A column of numbers.

    Attributes:
        expr: PromQL; one row for each set of its labels.
        unit: Grafana's id.
        properties: More of the column's properties, as ``{"min": 0}``.
    """

    expr: str
    unit: str = "short"
    properties: dict[str, Any] | None = None


def coloured(levels: Levels) -> dict[str, Any]:
    """A column's properties: its text has the colour of its threshold."""
    return {"thresholds": steps(levels), "custom.cellOptions": {"type": "color-text"}}


def answer(words: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A column's properties: value → (text, colour)."""
    return {"mappings": value_mappings(words), "custom.cellOptions": {"type": "color-text"}}


def _table_columns(columns: dict[str, str | Value], more: dict[str, Any]) -> dict[str, Any]:
    """Of heading → label or numbers: the queries, and what Grafana's transformations call their fields."""
    values = {heading: value for heading, value in columns.items() if isinstance(value, Value)}
    fields = {heading: f"Value #{chr(ord('A') + index)}" for index, heading in enumerate(values)}
    overrides = tuple(Override(heading, value.properties) for heading, value in values.items() if value.properties)
    return {
        **more,
        "queries": (*(Query(value.expr, instant=True) for value in values.values()), *more.get("queries", ())),
        "columns": {fields.get(heading, str(label)): heading for heading, label in columns.items()},
        "column_units": {heading: value.unit for heading, value in values.items() if value.unit != "short"},
        "overrides": (*overrides, *more.get("overrides", ())),
    }


def table(title: str, description: str, columns: dict[str, str | Value], **more: Any) -> Panel:
    """One line for each set of labels; ``columns``: heading → the label, or the numbers.

    ``queries`` are asked too, for labels of theirs.
    """
    return Panel(title, description, kind="table", **{"width": 24, **_table_columns(columns, more)})


def scatter(title: str, description: str, x: str, y: str, columns: dict[str, str | Value], **more: Any) -> Panel:
    """One point for each set of labels; ``x`` and ``y`` are headings of ``columns``, the others are in its tooltip."""
    given = _table_columns(columns, more)
    field = {heading: name for name, heading in given["columns"].items()}
    return Panel(title, description, kind="xychart", points=(field[x], field[y]), **given)
