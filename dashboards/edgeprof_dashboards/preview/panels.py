"""The parts of a dashboard's JSON that the preview draws."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Json = Mapping[str, Any]


@dataclass(frozen=True)
class Query:
    """One expression of a panel.

    Attributes:
        expr: PromQL.
        legend: The template for the name of each series, such as ``{{rail}}``.
        instant: Whether the query asks for one point in time instead of a range.
        min_step: Grafana's "Min step", such as ``30s``, for series that change less often than they are scraped:
            ``$__rate_interval`` is then at least four times as long.
    """

    expr: str
    legend: str = ""
    instant: bool = False
    min_step: str = ""


@dataclass(frozen=True)
class Override:
    """Properties of the fields that have a given name, or whose name matches a regular expression."""

    name: str
    properties: dict[str, Any]
    by_regexp: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel; the fields are Grafana's, read from its JSON.

    Attributes:
        x: The leftmost of its columns; the grid has 24.
        y: The topmost of its grid rows.
        width: Width in columns.
        height: Height in grid rows.
        absent: The text that is shown where there is no data.
        bounds: Lowest and highest value of the axis.
        thresholds: (from, colour); the first is the base.
        mappings: Value → (text, colour).
        columns: A table's columns: field → heading.
        column_units: Heading → unit.
        points: xychart: (field of x, field of y).
    """

    title: str
    description: str
    kind: str
    x: int = 0
    y: int = 0
    width: int = 12
    height: int = 8
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    decimals: int | None = None
    absent: str = ""
    bounds: tuple[float | None, float | None] = (None, None)
    thresholds: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    limits: bool = False
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    reduce: str = "lastNotNull"
    columns: dict[str, str] = field(default_factory=dict)
    column_units: dict[str, str] = field(default_factory=dict)
    points: tuple[str, str] | None = None
    time_from: str | None = None
    stack: bool = False
    line: str = "linear"
    fill: int = 10
    from_zero: bool = True


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    y: int
    is_collapsed: bool
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard.

    Attributes:
        kind: ``query``, ``custom`` or ``textbox``.
        query: ``label_values(...)``, the list of choices, or the initial text.
        every: The regular expression that "All" stands for; None where "All" is not offered.
        first: The value that is chosen at first, if it is among the choices.
    """

    name: str
    kind: str
    query: str
    every: str | None
    first: str


@dataclass(frozen=True)
class Board:
    """A whole dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in order, without the row headings."""
        return tuple(panel for row in self.rows for panel in row.panels)


def load_board(path: Path) -> Board:
    """Read a dashboard from a file in Grafana's classic JSON model, as edgeprof ships it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    variables = content["templating"]["list"]
    return Board(
        uid=content["uid"],
        title=content["title"],
        description=content["description"],
        rows=_read_rows(content["panels"]),
        variables=tuple(_read_variable(variable) for variable in variables if variable["type"] != "datasource"),
    )


def _read_rows(panels: list[Json]) -> tuple[Row, ...]:
    rows: list[tuple[Json, list[Panel]]] = []
    for panel in panels:
        if panel["type"] == "row":
            rows.append((panel, [read_panel(inner) for inner in panel["panels"]]))
        else:
            rows[-1][1].append(read_panel(panel))
    return tuple(
        Row(heading["title"], heading["gridPos"]["y"], heading["collapsed"], tuple(inner)) for heading, inner in rows
    )


def _read_variable(variable: Json) -> Variable:
    first = variable["current"].get("value", "")
    return Variable(
        name=variable["name"],
        kind=variable["type"],
        query=variable["query"],
        every=variable["allValue"] if variable.get("includeAll") else None,
        first=first if isinstance(first, str) else "",
    )


def read_panel(panel: Json) -> Panel:
    """Read a panel from its JSON."""
    place, options = panel["gridPos"], panel.get("options", {})
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    custom = defaults.get("custom", {})
    columns = _read_columns(panel)
    overrides = tuple(
        Override(
            override["matcher"]["options"],
            {item["id"]: item["value"] for item in override["properties"]},
            override["matcher"]["id"] == "byRegexp",
        )
        for override in panel.get("fieldConfig", {}).get("overrides", ())
    )
    headings = set(columns.values())
    return Panel(
        title=panel["title"],
        description=panel["description"],
        kind=panel["type"],
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        queries=tuple(
            Query(
                target["expr"],
                target["legendFormat"].replace("__auto", ""),
                target["instant"],
                target.get("interval", ""),
            )
            for target in panel.get("targets", ())
        ),
        unit=defaults.get("unit", "short"),
        decimals=defaults.get("decimals"),
        absent=defaults.get("noValue", ""),
        bounds=(defaults.get("min"), defaults.get("max")),
        thresholds=tuple((step["value"], step["color"]) for step in defaults.get("thresholds", {}).get("steps", ())),
        limits="thresholdsStyle" in custom,
        mappings={
            value: (shown["text"], shown["color"])
            for mapping in defaults.get("mappings", ())
            for value, shown in mapping["options"].items()
        },
        overrides=overrides,
        reduce=next(iter(options.get("reduceOptions", {}).get("calcs", ())), "lastNotNull"),
        columns=columns,
        column_units={o.name: o.properties["unit"] for o in overrides if o.name in headings and "unit" in o.properties},
        points=_read_points(options, columns) if panel["type"] == "xychart" else None,
        time_from=panel.get("timeFrom"),
        stack=custom.get("stacking", {}).get("mode") == "normal",
        line=custom.get("lineInterpolation", "linear"),
        fill=custom.get("fillOpacity", 10),
        from_zero="axisSoftMin" in custom,
    )


def _read_columns(panel: Json) -> dict[str, str]:
    for transformation in panel.get("transformations", ()):
        if transformation["id"] == "organize":
            order, names = (transformation["options"][key] for key in ("indexByName", "renameByName"))
            return {name: names.get(name, name) for name in sorted(order, key=order.__getitem__)}
    return {}


def _read_points(options: Json, columns: dict[str, str]) -> tuple[str, str]:
    fields = {heading: name for name, heading in columns.items()}
    (series,) = options["series"]
    x, y = (series[axis]["matcher"]["options"] for axis in ("x", "y"))
    return fields.get(x, x), fields.get(y, y)
