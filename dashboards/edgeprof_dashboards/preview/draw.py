"""Draw panels as HTML and SVG; each function takes a panel and the answers to its queries."""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof.reporters.charts.svg import Scale, drawing, el, escape, fitted, line, path, text
from edgeprof_dashboards.preview.values import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof_dashboards.preview.panels import Panel
    from edgeprof_dashboards.preview.prometheus import Series, Window

    Answers = Sequence[Sequence[Series]]

#: Colours that colour-blind people can tell apart too (Okabe and Ito, 2008), followed by darker shades of the same.
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7d7100", "#666666"),
    *("#004d78", "#9c6b00", "#006b4e", "#8a4f71", "#2f7fa8", "#8f3f00"),
)
_NAMED = {"green": "#2e8b57", "yellow": "#c79a00", "orange": "#d9730d", "red": "#c4314b", "blue": "#0072b2"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 22, 8, 20
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_COLUMN = 51.5  # width of a grid column in pixels, on a page of 1280 pixels
_MOST = 10  # rows of a list that are drawn; Grafana shows a scroll bar for more
_MOST_LEGEND = 6  # rows of a legend; page.css hides the rest


def lines(panel: Panel, answers: Answers, window: Window) -> str:
    """Draw a timeseries panel, and its legend with the last value of each series."""
    named = _named_series(panel, answers)
    looks = [_field_look(panel, name, index) for index, (name, _) in enumerate(named)]
    width = panel.width * _COLUMN - 30
    rows = _legend_rows([name for look, (name, _) in zip(looks, named, strict=True) if look.listed], width)
    height = max(90, panel.height * 38 - 54 - 17 * rows)
    left = [(look, series) for look, (_, series) in zip(looks, named, strict=True) if look.unit == panel.unit]
    right = [(look, series) for look, (_, series) in zip(looks, named, strict=True) if look.unit != panel.unit]
    x = Scale(window.end - window.span_s, window.end, _LEFT, width - (62 if right else _RIGHT))
    stacked = _stack_series([s for _, s in left]) if panel.stack else [(s.points, None) for _, s in left]
    y = Scale(*_axis_range([v for points, _ in stacked for _, v in points], panel), height - _BOTTOM, _TOP)
    parts = [_time_axis(x, height - _BOTTOM, window.span_s), _value_axis(y, x, panel.unit)]
    for start, color in panel.thresholds if panel.limits else ():
        if start is not None and y.low <= start <= y.high:
            edge = [(x.start, y.at(start)), (x.end, y.at(start))]
            parts.append(path(edge, "").replace('class=""', f'stroke="{_NAMED[color]}" stroke-dasharray="6 4"'))
    pen = _Pen(x, y, window.step_s, panel.line == "stepAfter")
    parts += [pen.line(points, floor, look) for (look, _), (points, floor) in zip(left, stacked, strict=True)]
    if right:
        far = Scale(*_axis_range([v for _, s in right for _, v in s.points], None), height - _BOTTOM, _TOP)
        parts += [
            text(x.end + 6, far.at(m) + 4, _mark_text(m, right[0][0].unit)) for m in _round_marks(far, right[0][0].unit)
        ]
        pen = _Pen(x, far, window.step_s)
        parts += [pen.line(series.points, None, look) for look, series in right]
    legend = "".join(
        f'<span><span class="swatch" style="color:{look.color}"></span>{escape(name)} '
        f"<b>{escape(written(series.last, look.unit, panel.decimals))}</b></span>"
        for look, (name, series) in zip(looks, named, strict=True)
        if look.listed
    )
    return drawing(width, height, panel.title, *parts) + f'<div class="legend">{legend}</div>'


def stats(panel: Panel, answers: Answers) -> str:
    """Draw a stat or gauge panel: one number for each series."""
    cells = []
    named = _named_series(panel, answers)
    for name, series in named[:_MOST]:
        value = max(v for _, v in series.points) if panel.reduce == "max" else series.last
        words, color = _shown_value(panel, value)
        cells.append(
            f'<div class="stat" style="color:{color}"><strong>{escape(words)}</strong><span>{escape(name)}</span></div>'
        )
    return f'<div class="stats{" many" if len(named) > 2 else ""}">{"".join(cells)}</div>'


def bars(panel: Panel, answers: Answers) -> str:
    """Draw a bar gauge: one bar for each series, from 0."""
    named = _named_series(panel, answers)[: max(2, int((panel.height * 38 - 50) // 34))]
    top = panel.bounds[1] or max((abs(series.last) for _, series in named), default=1.0) or 1.0
    rows = []
    for name, series in named:
        words, color = _shown_value(panel, series.last)
        share = min(100.0, 100 * abs(series.last) / top)
        rows.append(
            f'<div class="bar" style="color:{color}"><span class="name">{escape(name)}</span>'
            f'<div class="track"><div class="fill" style="width:{share:.1f}%"></div></div>'
            f"<strong>{escape(words)}</strong></div>"
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def table(panel: Panel, answers: Answers) -> str:
    """Draw a table: one row for each set of labels, one column for each query."""
    rows = merged(answers)
    room = max(1, int((panel.height * 38 - 70) // 26))
    head = "".join(f'<th class="{_cell_class(name)}">{escape(title)}</th>' for name, title in panel.columns.items())
    body = "".join(
        "<tr>"
        + "".join(_table_cell(panel, name, title, row.get(name)) for name, title in panel.columns.items())
        + "</tr>"
        for row in rows[:room]
    )
    more = f'<p class="nothing">and {len(rows) - room} more</p>' if len(rows) > room else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def scatter(panel: Panel, answers: Answers) -> str:
    """Draw an XY chart; each point is labelled with the name of its variant."""
    assert panel.points is not None
    a, b = panel.points
    rows = [row for row in merged(answers) if a in row and b in row]
    if not rows:
        return '<p class="nothing">no data</p>'
    width, height = panel.width * _COLUMN - 30, panel.height * 38 - 48
    unit_x, unit_y = (panel.column_units.get(panel.columns[name], "short") for name in (a, b))
    xs, ys = [float(row[a]) for row in rows], [float(row[b]) for row in rows]
    low_x, low_y = (_overrides_of(panel, panel.columns[name]).get("min") for name in (a, b))
    x = fitted(min(xs) if low_x is None else low_x, max(xs), _LEFT, width - 90)
    y = fitted(min(ys) if low_y is None else low_y, max(ys), height - 40, _TOP)
    parts = [_value_axis(y, x, unit_y)]
    for mark in x.ticks(6):
        parts += [
            line(x.at(mark), _TOP, x.at(mark), height - 40, "grid-line"),
            text(x.at(mark), height - 24, written(mark, unit_x), "middle"),
        ]
    parts.append(text((x.start + x.end) / 2, height - 6, panel.columns[a], "middle"))
    parts.append(text(_LEFT, _TOP + 4, panel.columns[b]))
    for index, row in enumerate(rows):
        cx, cy = x.at(float(row[a])), y.at(float(row[b]))
        parts.append(el("circle", cx=cx, cy=cy, r=5, fill=COLORS[index % len(COLORS)]))
        parts.append(text(cx + 9, cy + 4, f"{row.get('variant', '')}", class_="point"))
    return drawing(width, height, panel.title, *parts)


def states(panel: Panel, answers: Answers, window: Window) -> str:
    """Draw a state timeline: one band for each series."""
    named = _named_series(panel, answers)[:_MOST]
    width, height = panel.width * _COLUMN - 30, panel.height * 38 - 58
    start = window.end - window.span_s
    x = Scale(start, window.end, min(210, width / 3), width - _RIGHT)
    tall = (height - _BOTTOM - _TOP) / max(1, len(named))
    parts = [_time_axis(x, height - _BOTTOM, window.span_s)]
    for index, (name, series) in enumerate(named):
        top = _TOP + index * tall
        parts.append(text(0, top + tall / 2 + 4, name[: int(x.start // 6.2)]))
        for begin, until, value in _value_spells(series.points, window):
            color = _shown_value(panel, value)[1]
            wide = max(1.0, x.at(until) - x.at(begin))
            parts.append(el("rect", x=x.at(begin), y=top + 2, width=wide, height=max(2.0, tall - 4), fill=color))
    used = {value for _, s in named for _, value in s.points}
    legend = "".join(
        f'<span><span class="swatch" style="color:{_NAMED[color]}"></span>{escape(words)}</span>'
        for value, (words, color) in panel.mappings.items()
        if float(value) in used
    )
    return drawing(width, height, panel.title, *parts) + f'<div class="legend">{legend}</div>'


def _legend_rows(names: Sequence[str], width: float) -> int:
    """Estimate how many rows the legend needs when each name stands with its colour swatch and its last value."""
    rows, x = 0, width
    for name in names:
        wide = 6.4 * (len(name) + 9) + 36
        rows, x = (rows + 1, wide) if x + wide > width else (rows, x + wide)
    return min(rows, _MOST_LEGEND)


def _value_spells(points: Sequence[tuple[float, float]], window: Window) -> list[tuple[float, float, float]]:
    """Return how long each value lasted, as (from, until, value)."""
    spells: list[tuple[float, float, float]] = []
    for time, value in points:
        until = min(time + window.step_s, window.end)
        if spells and spells[-1][2] == value and time - spells[-1][1] < 0.5 * window.step_s:
            spells[-1] = (spells[-1][0], until, value)
        else:
            spells.append((time, until, value))
    return spells


def merged(answers: Answers) -> list[dict[str, str | float]]:
    """Join instant answers as Grafana's transformation ``merge`` does: rows whose common labels all agree."""
    rows: list[dict[str, str | float]] = []
    for index, answer in enumerate(answers):
        field = f"Value #{chr(ord('A') + index)}"
        new: list[dict[str, str | float]] = []
        for series in answer:
            fits = [
                row
                for row in rows
                if field not in row
                and (shared := set(row) & set(series.labels))
                and all(row[k] == series.labels[k] for k in shared)
            ]
            for row in fits:
                row.update({**series.labels, field: series.last})
            if not fits:
                new.append({**series.labels, field: series.last})
        rows += new
    return rows


def _named_series(panel: Panel, answers: Answers) -> list[tuple[str, Series]]:
    named = []
    for query, answer in zip(panel.queries, answers, strict=True):
        for series in answer:
            parts = _FIELD.split(query.legend)  # texts and labels in turn
            words = "".join(series.labels.get(part, "") if i % 2 else part for i, part in enumerate(parts))
            named.append((" ".join(words.replace("()", "").split()) or panel.title, series))
    return named


@dataclass(frozen=True)
class _Look:
    """How a series is drawn, with the overrides of its panel applied.

    Attributes:
        fill: Opacity of the area below the line, 0 to 1.
        listed: Whether the legend shows the series.
    """

    unit: str
    color: str
    fill: float
    dashed: bool
    listed: bool


def _overrides_of(panel: Panel, name: str) -> dict[str, Any]:
    """Return the properties that the panel's overrides set for one field."""
    given: dict[str, Any] = {}
    for override in panel.overrides:
        pattern = override.name.strip("/") if override.by_regexp else f"^{re.escape(override.name)}$"
        if re.search(pattern, name):
            given |= override.properties
    return given


def _field_look(panel: Panel, name: str, index: int) -> _Look:
    given = _overrides_of(panel, name)
    return _Look(
        unit=str(given.get("unit", panel.unit)),
        color="#a0a6ab" if "color" in given else COLORS[index % len(COLORS)],
        fill=given.get("custom.fillOpacity", 0 if "color" in given else panel.fill) / 100,
        dashed="custom.lineStyle" in given,
        listed=not given.get("custom.hideFrom", {}).get("legend", False),
    )


def _shown_value(panel: Panel, value: float) -> tuple[str, str]:
    """Return the text for a value, and its colour."""
    key = f"{value:g}"
    if key in panel.mappings:
        words, color = panel.mappings[key]
        return words, _NAMED[color]
    color = next(c for start, c in reversed(panel.thresholds) if start is None or value >= start)
    return written(value, panel.unit, panel.decimals), _NAMED[color]


def _table_cell(panel: Panel, field: str, heading: str, value: str | float | None) -> str:
    """Draw one cell of a table, with the texts and colours of its column."""
    words, style = "–", ""
    if isinstance(value, str):
        words = value
    elif value is not None:
        given = _overrides_of(panel, heading)
        words = written(value, panel.column_units.get(heading, "short"))
        color = ""
        for step in given.get("thresholds", {}).get("steps", ()):
            if step["value"] is None or value >= step["value"]:
                color = step["color"]
        for mapping in given.get("mappings", ()):
            entry = mapping["options"].get(f"{value:g}")
            if entry:
                words, color = entry["text"], entry["color"]
        style = f' style="color:{_NAMED[color]}"' if color else ""
    return f'<td class="{_cell_class(field)}"{style}>{escape(words)}</td>'


def _cell_class(column: str) -> str:
    return "number" if column.startswith("Value") else "word"


def _axis_range(values: list[float], panel: Panel | None) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if panel is not None and not panel.from_zero:
        air = 0.1 * (high - low) or 0.02 * abs(high) or 1.0
        return low - air, high + air
    wanted = panel.bounds if panel else (None, None)
    if wanted[0] is not None:
        low = wanted[0]
    elif low >= 0:
        low = 0.0
    high = wanted[1] if wanted[1] is not None else high * 1.08
    return (low, high) if high > low else (low, low + 1.0)


def _stack_series(stack: Sequence[Series]) -> list[tuple[list[tuple[float, float]], dict[float, float]]]:
    """Stack the series: for each, its upper edge, and the upper edge of those below it (time → value)."""
    height: dict[float, float] = {}
    layers = []
    for series in stack:
        floor = dict(height)
        points = []
        for time, value in series.points:
            height[time] = height.get(time, 0.0) + value
            points.append((time, height[time]))
        layers.append((points, floor))
    return layers


@dataclass(frozen=True)
class _Pen:
    """Draws lines.

    Attributes:
        step_s: The interval between points (s); points more than 1.5 intervals apart are not joined.
        stepped: Whether a value lasts until the next one.
    """

    x: Scale
    y: Scale
    step_s: float
    stepped: bool = False

    def line(self, points: Sequence[tuple[float, float]], floor: dict[float, float] | None, look: _Look) -> str:
        """Draw one series; where it is stacked, ``floor`` is its lower edge (time → value)."""
        corners: list[tuple[float, float] | None] = []
        runs: list[list[tuple[float, float]]] = []
        before: tuple[float, float] | None = None
        for time, value in points:
            if before is None or time - before[0] > 1.5 * self.step_s:
                corners.append(None)
                runs.append([])
            elif self.stepped:
                corners.append((self.x.at(time), self.y.at(before[1])))
            corners.append((self.x.at(time), self.y.at(value)))
            runs[-1].append((time, value))
            before = (time, value)
        opacity = 0.45 if floor is not None else look.fill
        drawn_area = "".join(self._area(run, floor or {}, look.color, opacity) for run in runs) if opacity else ""
        style = f'fill="none" stroke="{look.color}" stroke-width="1.5"' + (
            ' stroke-dasharray="4 4"' if look.dashed else ""
        )
        return drawn_area + path(corners, "").replace('class=""', style)

    def _area(self, run: list[tuple[float, float]], floor: dict[float, float], color: str, opacity: float) -> str:
        edge = [*run, *((time, floor.get(time, self.y.low)) for time, _ in reversed(run))]
        area = path([(self.x.at(time), self.y.at(value)) for time, value in edge], "", close=True)
        return area.replace('class=""', f'fill="{color}" fill-opacity="{opacity:.2f}"')


def _time_axis(x: Scale, y: float, span_s: float) -> str:
    nice = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
    room = min(9.0, (x.end - x.start) / 62)
    every = next((step for step in nice if span_s / step <= room), 5 * 604800)
    form = "%H:%M:%S" if every < 60 else "%H:%M" if span_s <= 2 * 86400 else "%d %b"
    parts = []
    mark = math.ceil(x.low / every) * every
    while mark <= x.high:
        words = dt.datetime.fromtimestamp(mark, dt.timezone.utc).strftime(form)
        parts += [line(x.at(mark), _TOP, x.at(mark), y, "grid-line"), text(x.at(mark), y + 15, words, "middle")]
        mark += every
    return "".join(parts)


def _value_axis(y: Scale, x: Scale, unit: str) -> str:
    return "".join(
        line(x.start, y.at(mark), x.end, y.at(mark), "grid-line")
        + text(x.start - 6, y.at(mark) + 4, _mark_text(mark, unit), "end")
        for mark in _round_marks(y, unit)
    )


def _round_marks(y: Scale, unit: str) -> list[float]:
    """Return round numbers for the axis; bytes are round in their own prefixes."""
    if unit != "bytes":
        return y.ticks(5)
    factor = next((f for f in (2.0**40, 2.0**30, 2.0**20, 2.0**10) if y.high >= f), 1.0)
    return [mark * factor for mark in Scale(y.low / factor, y.high / factor, y.start, y.end).ticks(5)]


def _mark_text(value: float, unit: str) -> str:
    """Return the value as a text that is short enough for an axis."""
    if unit == "s" and value >= 100:
        return f"{value / 60:.1f} min"
    return written(value, unit)
