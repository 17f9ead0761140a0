"""Grafana dashboards as readable Python: a definition states what each panel shows; the layout is computed.

``Dashboard.render`` returns the classic JSON model (schemaVersion 42), which Grafana 10 to 13 read. It can be imported
by hand or provisioned, because the data source is a template variable and no ``__inputs`` must be filled in. The same
definition always gives the same JSON, so that it can be committed and compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgeprof_boards.options import CUSTOM, OPTIONS
from edgeprof_boards.queries import absence
from edgeprof_boards.style import GREEN, Levels, steps, value_mappings
from edgeprof_dashboards.preview.panels import Override, Query

#: The data source of all panels: a template variable of the dashboard.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: The number of columns of Grafana's grid.
COLUMNS = 24
Kind = Literal["timeseries", "stat", "gauge", "bargauge", "table", "xychart", "state-timeline", "text"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: Grafana's id of the unit, such as ``watt``.
        width: Width in columns; the grid has 24.
        height: Height in grid rows (30 pixels).
        stack: Whether series are stacked.
        bounds: Lowest and highest value of the axis; Grafana chooses an end that is None.
        thresholds: (from, colour); the first is the base.
        limits: Whether a timeseries shows its thresholds as dashed lines.
        mappings: Value → (text, colour), for states.
        reduce: How a stat reduces a series to one number: ``lastNotNull``, ``max`` …
        columns: A table's columns: field → heading. Other fields are left out.
        column_units: A table's units: heading → unit.
        points: xychart: (field of x, field of y).
        content: Markdown of a text panel.
        time_from: The panel's own time range, such as ``now/d``; without it the panel uses the dashboard's.
        text_mode: What a stat writes: ``auto``, ``value_and_name``, ``name``.
        line: How a timeseries is drawn: ``linear`` or ``stepAfter``.
        fill: Opacity under the lines, 0 to 100.
        log: Whether the y axis is logarithmic.
        from_zero: Whether a timeseries' axis includes 0.
        absent: The text shown where there is no data; by default, what the absence of the first metric means.
    """

    title: str
    description: str
    queries: tuple[Query, ...] = ()
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    stack: bool = False
    decimals: int | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    thresholds: Levels = ((None, GREEN),)
    limits: bool = False
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    reduce: str = "lastNotNull"
    columns: dict[str, str] = field(default_factory=dict)
    column_units: dict[str, str] = field(default_factory=dict)
    points: tuple[str, str] | None = None
    content: str = ""
    time_from: str | None = None
    text_mode: str = "auto"
    line: str = "linear"
    fill: int = 10
    log: bool = False
    from_zero: bool = True
    absent: str = ""

    def render(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Return the panel's JSON; ``number`` is its id within the dashboard, ``x`` and ``y`` its grid position."""
        panel: dict[str, Any] = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
        }
        if self.kind == "text":
            return panel | {"options": {"mode": "markdown", "content": self.content}}
        panel |= {
            "datasource": SOURCE,
            "targets": [self._target(i, query) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": OPTIONS[self.kind](self),
        }
        transformations = self._transformations()
        if transformations:
            panel["transformations"] = transformations
        if self.time_from:
            panel["timeFrom"] = self.time_from
        return panel

    def _target(self, index: int, query: Query) -> dict[str, Any]:
        table = self.kind in ("table", "xychart")
        target = {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "format": "table" if table else "time_series",
            "instant": query.instant,
            "range": not query.instant,
            "legendFormat": query.legend or "__auto",
        }
        return target | {"interval": query.min_step} if query.min_step else target

    def _defaults(self) -> dict[str, Any]:
        low, high = self.bounds
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "decimals": self.decimals,
            "noValue": self.absent or absence(self.queries),
            "min": low,
            "max": high,
            "color": {"mode": "palette-classic" if self.kind in ("timeseries", "xychart") else "thresholds"},
            "thresholds": steps(self.thresholds),
            "custom": CUSTOM[self.kind](self) if self.kind in CUSTOM else None,
        }
        if self.mappings:
            defaults["mappings"] = value_mappings(self.mappings)
        return {key: value for key, value in defaults.items() if value is not None and value != {}}

    def _overrides(self) -> list[dict[str, Any]]:
        by_unit = [Override(heading, {"unit": unit}) for heading, unit in self.column_units.items()]
        return [
            {
                "matcher": {"id": "byRegexp" if override.by_regexp else "byName", "options": override.name},
                "properties": [{"id": key, "value": value} for key, value in override.properties.items()],
            }
            for override in (*by_unit, *self.overrides)
        ]

    def _transformations(self) -> list[dict[str, Any]]:
        """Return the transformations that join instant queries as columns, with one row for each set of labels."""
        if not self.columns:
            return []
        order = {name: index for index, name in enumerate(self.columns)}
        return [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": list(self.columns)}}},
            {
                "id": "organize",
                "options": {
                    "indexByName": order,
                    "renameByName": {name: heading for name, heading in self.columns.items() if name != heading},
                },
            },
        ]


@dataclass(frozen=True)
class Row:
    """Panels under one heading, placed from left to right, then from top to bottom."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard.

    Attributes:
        kind: ``query`` (values of a label), ``custom`` (a list) or ``textbox`` (a number that the user types).
        query: Grafana's ``label_values(...)``, the list of choices, or the initial text.
        every: For a query: the regular expression that "All" stands for.
        multi: Whether several values may be chosen; a single choice has no "All".
        offers_all: Whether "All" is offered, as the first choice; without it Grafana chooses the first value.
        first: For a query without ``multi``: the value that is chosen at first.
        about: The description that Grafana shows beside the variable.
    """

    name: str
    label: str
    query: str
    kind: Literal["query", "custom", "textbox"] = "query"
    every: str = ".+"
    multi: bool = True
    offers_all: bool = True
    first: str = ""
    about: str = ""

    def render(self) -> dict[str, Any]:
        rendered: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "type": self.kind,
            "query": self.query,
            "description": self.about,
            "hide": 0,
            "skipUrlSync": False,
        }
        if self.kind == "query":
            return rendered | {
                "datasource": SOURCE,
                "definition": self.query,
                "refresh": 2,
                "sort": 1,
                "regex": "",
                "multi": self.multi,
                "includeAll": self.multi and self.offers_all,
                **({"allValue": self.every} if self.multi else {}),
                "current": self._current(),
                "options": [],
            }
        values = [value.strip() for value in self.query.split(",")]
        options = [{"text": value, "value": value, "selected": not index} for index, value in enumerate(values)]
        return rendered | {"current": {"text": values[0], "value": values[0]}, "options": options}

    def _current(self) -> dict[str, Any]:
        if not self.multi:
            return {"text": self.first, "value": self.first}
        return {"text": ["All"], "value": ["$__all"]} if self.offers_all else {}


#: The variables that every dashboard has; the linter's rules require exactly these.
JOB = Variable("job", "Job", "label_values(edgeprof_build_info, job)")
INSTANCE = Variable("instance", "Instance", 'label_values(edgeprof_build_info{job=~"$job"}, instance)')


@dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        uid: Its permanent id in Grafana's URLs.
        variables: Its variables besides data source, job and instance.
        is_for_one: Whether it shows one device at first, because rails of many devices in one panel are unreadable.
        shows: The metric whose devices can be chosen; the first of them is shown at first.
        span: The start of the time that it shows at first, such as ``now-6h``.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    span: str = "now-6h"
    refresh: str = "30s"
    is_for_one: bool = True
    shows: str = "edgeprof_build_info"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in order, without the row headings."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def render(self) -> dict[str, Any]:
        """Return the JSON that Grafana imports."""
        source = {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "regex": "",
            "hide": 0,
            "refresh": 1,
            "current": {},
            "options": [],
        }
        devices = f'label_values({self.shows}{{job=~"$job"}}, instance)'
        instance = replace(INSTANCE, query=devices, offers_all=not self.is_for_one)
        return {
            "id": None,
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["edgeprof", "energy"],
            "schemaVersion": 42,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": self.span, "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [
                {
                    "title": "edgeprof",
                    "type": "dashboards",
                    "tags": ["edgeprof"],
                    "asDropdown": True,
                    "includeVars": False,
                    "keepTime": True,
                    "targetBlank": False,
                }
            ],
            "templating": {"list": [source, *(v.render() for v in (JOB, instance, *self.variables))]},
            "panels": self._grid(),
        }

    def _grid(self) -> list[dict[str, Any]]:
        placed: list[dict[str, Any]] = []
        number, y = 0, 0
        for row in self.rows:
            number += 1
            heading: dict[str, Any] = {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": row.collapsed,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
            inside: list[dict[str, Any]] = []
            y += 1
            x = tallest = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, tallest = 0, y + tallest, 0
                number += 1
                inside.append(panel.render(number, x, y))
                x += panel.width
                tallest = max(tallest, panel.height)
            if row.collapsed:
                heading["panels"] = inside
                placed.append(heading)
                y = heading["gridPos"]["y"] + 1
            else:
                placed += [heading, *inside]
                y += tallest
        return placed
