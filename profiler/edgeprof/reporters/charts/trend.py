"""The runs of a model over time: joules per inference with intervals at the top, median latency below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts import svg
from edgeprof.reporters.names import short_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.results.store import Entry

LEFT, RIGHT, TOP, BOTTOM = 72.0, 24.0, 34.0, 40.0
PANEL, BETWEEN, LINE = 220.0, 60.0, 20.0


@dataclass(frozen=True)
class Series:
    """One variant, in the order of its runs.

    Attributes:
        label: Name in the legend.
        points: For each run its index, the value, and half of the 95 % interval or 0.
    """

    label: str
    points: list[tuple[int, float, float]]


#: One panel: its series, its title and its unit.
Quantity = tuple[list[Series], str, str]


def draw(entries: Sequence[Entry], width: float = svg.WIDE) -> str | None:
    """Draw the panels; None if fewer than two runs have a figure in common.

    Args:
        entries: Variants of any runs, in any order.
        width: Width of the drawing (px).
    """
    runs = list(dict.fromkeys((e.created, e.id) for e in sorted(entries, key=lambda e: (e.created, e.id))))
    place = {run: number for number, run in enumerate(runs)}
    labels = _line_labels(entries)
    energy = _group_series(
        (labels[_line_key(e)], place[e.created, e.id], e.energy_j, e.energy_u_j)
        for e in entries
        if e.energy_j is not None
    )
    latency = _group_series(
        (labels[_line_key(e)], place[e.created, e.id], e.latency_p50_s, 0.0)
        for e in entries
        if e.latency_p50_s is not None
    )
    panels = [p for p in ((energy, "energy per inference", "J"), (latency, "latency p50", "s")) if _is_a_line(p[0])]
    if not panels:
        return None
    colors = {label: n for n, label in enumerate(dict.fromkeys(labels.values()))}
    legend, top = _draw_legend(colors, width)
    xs = svg.Scale(-0.5, len(runs) - 0.5, LEFT, width - RIGHT)
    parts = [legend]
    for panel in panels:
        parts.append(_quantity_panel(panel, xs, top + TOP, colors))
        top += TOP + PANEL + BETWEEN / 2
    parts.append(_day_labels(runs, xs, top - BETWEEN / 2))
    return svg.drawing(width, top - BETWEEN / 2 + BOTTOM, "runs over time", *parts)


def _line_key(entry: Entry) -> tuple[str, str, str]:
    return entry.model, entry.variant, entry.board


def _line_labels(entries: Sequence[Entry]) -> dict[tuple[str, str, str], str]:
    """Model, variant and board → a label with the parts that distinguish it."""
    keys = list(dict.fromkeys(map(_line_key, entries)))
    several = [len({key[n] for key in keys}) > 1 for n in range(3)]
    texts = {}
    for key in keys:
        model, variant, board = key
        words = [model if several[0] or model == variant else "", variant if variant != model else ""]
        texts[key] = " ".join(filter(None, [*words, f"@ {board}" if several[2] else ""]))
    short = short_names(texts.values())
    return {key: short[text] for key, text in texts.items()}


def _group_series(rows: Iterable[tuple[str, int, float, float | None]]) -> list[Series]:
    series: dict[str, dict[int, tuple[float, float]]] = {}
    for label, place, value, half in rows:
        series.setdefault(label, {})[place] = (value, half or 0.0)
    return [Series(label, [(n, *points[n]) for n in sorted(points)]) for label, points in series.items()]


def _is_a_line(series: Sequence[Series]) -> bool:
    return any(len(line.points) > 1 for line in series)


def _quantity_panel(quantity: Quantity, xs: svg.Scale, top: float, colors: dict[str, int]) -> str:
    """Draw one quantity; its axis begins at 0 unless the lines would then be flat."""
    series, title, unit = quantity
    values = [point for line in series for point in line.points]
    low, high = min(v - u for _, v, u in values), max(v + u for _, v, u in values)
    factor, prefix = units.prefix_for([v for _, v, _ in values])
    ys = svg.fitted(max(0.0, low), high, top + PANEL, top, margin=0.08)
    if low < 0.5 * high:
        ys = svg.Scale(0.0, high * 1.08, top + PANEL, top)
    parts = [
        svg.y_axis(ys, LEFT, xs.end, factor),
        svg.text(12.0, top - 14, f"{title}, {prefix}{unit} (less is better)", "start", "axis"),
    ]
    for line in series:
        drawn = [svg.path(((xs.at(n), ys.at(v)) for n, v, _ in line.points), "own trace")]
        for n, value, half in line.points:
            x = xs.at(n)
            if half:
                drawn.append(svg.line(x, ys.at(value - half), x, ys.at(value + half), "bar"))
            words = f"{line.label}: {units.plus_minus(value, half, unit) if half else units.quantity(value, unit)}"
            drawn.append(
                svg.el("circle", svg.el("title", svg.escape(words)), cx=x, cy=ys.at(value), r=4.5, class_="dot")
            )
        parts.append(svg.el("g", *drawn, class_=svg.color(colors[line.label])))
    return "".join(parts)


def _draw_legend(colors: dict[str, int], width: float) -> tuple[str, float]:
    parts = []
    x, y = 12.0, 4.0
    for label, number in colors.items():
        room = 40 + 7.4 * len(label)
        if x > 12.0 and x + room > width - RIGHT:
            x, y = 12.0, y + LINE
        mark = svg.el("rect", x=x, y=y, width=11.0, height=11.0, rx=2.0, class_=f"share {svg.color(number)}")
        parts += [mark, svg.text(x + 16, y + 10, label, "start", "tick")]
        x += room
    return "".join(parts), y + LINE


def _day_labels(runs: Sequence[tuple[str, str]], xs: svg.Scale, y: float) -> str:
    """Draw the day of each run below it; of runs that are too close only the first has its day."""
    parts = []
    last = -1e9
    for number, (created, _) in enumerate(runs):
        try:
            day = datetime.fromisoformat(created.replace("Z", "+00:00")).strftime("%d %b")
        except ValueError:
            day = created[:10]
        if xs.at(number) - last > 52:
            last = xs.at(number)
            parts.append(svg.text(last, y + 20, day, "middle", "tick"))
    return "".join(parts)
