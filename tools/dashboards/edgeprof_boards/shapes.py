"""The kinds of panel that all dashboards share, each defined once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeprof_boards.dashboard import Panel
from edgeprof_boards.style import BLUE, Levels, steps, value_mappings
from edgeprof_dashboards.preview.panels import Override, Query

#: A colour for values that are neither good nor bad.
PLAIN = ((None, BLUE),)


def stat(title: str, description: str, expr: str, legend: str, *, instant: bool = False, **more: Any) -> Panel:
    """Return a panel with one number for each series; a range query gives the last value, with its line behind it."""
    given = {"width": 4, "height": 4, "thresholds": PLAIN, **more}
    return Panel(title, description, (Query(expr, legend, instant=instant),), kind="stat", **given)


def bars(title: str, description: str, expr: str, legend: str, **more: Any) -> Panel:
    """Return a panel with one bar for each series, at the end of the time shown."""
    given = {"width": 8, "thresholds": PLAIN, **more}
    return Panel(title, description, (Query(expr, legend, instant=True),), kind="bargauge", **given)


def states(title: str, description: str, expr: str, legend: str, **more: Any) -> Panel:
    """Return a panel with one band for each series, coloured by its value (``mappings``)."""
    return Panel(title, description, (Query(expr, legend),), kind="state-timeline", **{"width": 8, **more})


@dataclass(frozen=True)
class Value:
    """A column of numbers.

    Attributes:
        expr: PromQL; one row for each set of its labels.
        unit: Grafana's id of the unit.
        properties: Further properties of the column, such as ``{"min": 0}``.
    """

    expr: str
    unit: str = "short"
    properties: dict[str, Any] | None = None


def coloured(levels: Levels) -> dict[str, Any]:
    """Return column properties that give each text the colour of its threshold."""
    return {"thresholds": steps(levels), "custom.cellOptions": {"type": "color-text"}}


def answer(words: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return column properties that show values as words: value → (text, colour)."""
    return {"mappings": value_mappings(words), "custom.cellOptions": {"type": "color-text"}}


def _table_columns(columns: dict[str, str | Value], more: dict[str, Any]) -> dict[str, Any]:
    """Return a table's queries, and its headings by the field names that Grafana's transformations use."""
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
    """Return a table with one row for each set of labels; ``columns`` maps a heading to a label or to numbers.

    Further ``queries`` are sent too, because they may have labels that the columns show.
    """
    return Panel(title, description, kind="table", **{"width": 24, **_table_columns(columns, more)})


def scatter(title: str, description: str, x: str, y: str, columns: dict[str, str | Value], **more: Any) -> Panel:
    """Return a chart with a point for each set of labels; ``x`` and ``y`` are headings, the tooltip shows the rest."""
    given = _table_columns(columns, more)
    field = {heading: name for name, heading in given["columns"].items()}
    return Panel(title, description, kind="xychart", points=(field[x], field[y]), **given)
