"""Accuracy against joules, or two other quantities of accuracy, joules and latency, with intervals and baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters import view
from edgeprof.reporters.charts import svg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.reporters.charts.rows import Row

HEIGHT = 460.0
TOP, BOTTOM = 34.0, 56.0
#: Largest number of points that have room for names; more points are labelled with their numbers in the table.
NAMED = 6
#: Height of a line of the legend.
_LEGEND_LINE = 20.0

Measured = tuple[float, float, float]  # value, low, high
Box = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True)
class Axis:
    """One quantity.

    Attributes:
        title: Its title.
        unit: Its unit; empty for none.
        of: Gets the value and the ends of its interval from a row; None if the row does not have it.
        up: Whether a larger value is better.
    """

    title: str
    unit: str
    of: Callable[[Row], Measured | None]
    up: bool


def _accuracy_range(row: Row) -> Measured | None:
    a = row.variant.accuracy
    if a is None:
        return None
    scale = 100 if a.is_ratio else 1
    low, high = a.ci95 or (a.value, a.value)
    return a.value * scale, low * scale, high * scale


def _energy_range(row: Row) -> Measured | None:
    energy = row.energy
    if energy is None or energy.gross.value is None or energy.gross.value <= 0:
        return None
    low, high = energy.gross.ci95 or (energy.gross.value, energy.gross.value)
    return energy.gross.value, max(low, energy.gross.value * 0.01), high


def _latency_range(row: Row) -> Measured | None:
    value = row.latency
    return None if value is None or value <= 0 else (value, value, value)


LATENCY = Axis("latency p50", "s", _latency_range, up=False)


def axes(rows: Sequence[Row]) -> tuple[Axis, Axis] | None:
    """Choose the two quantities to plot: the first of energy, accuracy and latency that at least two rows have."""
    metrics = [r.variant.accuracy.metric for r in rows if r.variant.accuracy]
    chosen_axes = []
    if sum(_energy_range(r) is not None for r in rows) > 1:
        unit = view.common_unit([row.variant for row in rows])
        chosen_axes.append(Axis(f"energy per {unit}", "J", _energy_range, up=False))
    if len(metrics) > 1 and len(set(metrics)) == 1:
        accuracies = [r.variant.accuracy for r in rows if r.variant.accuracy]
        unit = "%" if all(a.is_ratio for a in accuracies) else ""
        up = accuracies[0].higher_is_better
        chosen_axes.append(Axis(view.metric_heading(accuracies[0]), unit, _accuracy_range, up=up))
    if sum(_latency_range(r) is not None for r in rows) > 1:
        chosen_axes.append(LATENCY)
    if len(chosen_axes) < 2:
        return None
    # The benefit (accuracy) is on the vertical axis, the cost (joules or seconds) on the horizontal one.
    if chosen_axes[1].up or not chosen_axes[0].up:
        return chosen_axes[0], chosen_axes[1]
    return chosen_axes[1], chosen_axes[0]


@dataclass(frozen=True)
class Frame:
    """The size of the drawing, and the coordinates of its axes (px)."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


def frame(width: float) -> Frame:
    """The frame of a drawing of this width; on a telephone it is nearly a square."""
    if width < svg.WIDE:
        return Frame(width, width + 30, 50.0, width - 10, TOP, width + 30 - BOTTOM)
    return Frame(width, HEIGHT, 72.0, width - 24, TOP, HEIGHT - BOTTOM)


def has_names(points: int, width: float) -> bool:
    """Whether there is room for names beside the points; otherwise their numbers are shown."""
    return points <= NAMED and width >= svg.WIDE


def draw(rows: Sequence[Row], width: float = svg.WIDE, *, legend: bool = False) -> str | None:
    """Draw the plot; None if fewer than two rows have two quantities in common.

    Args:
        rows: The variants.
        width: The width of the drawing.
        legend: Whether to list the names of numbered points below, where no table does.
    """
    chosen = axes(rows)
    if chosen is None:
        return None
    across, upward = chosen
    points = [(r, x, y) for r in rows if (x := across.of(r)) is not None and (y := upward.of(r)) is not None]
    if len(points) < 2:
        return None
    box = frame(width)
    xs, x_factor, x_prefix = _scale_and_title([x for _, x, _ in points], across, box.left, box.right)
    ys, y_factor, y_prefix = _scale_and_title([y for _, _, y in points], upward, box.bottom, box.top)
    parts = [
        svg.x_axis(xs, box.bottom, box.top, _axis_title(across, x_prefix), x_factor),
        svg.y_axis(ys, box.left, box.right, y_factor),
        svg.text(12.0 if width >= svg.WIDE else 4.0, box.top - 16, _axis_title(upward, y_prefix), "start", "axis"),
    ]
    for row, x, y in points:
        if row.color is None:
            parts += [
                svg.line(xs.at(x[0]), box.top, xs.at(x[0]), box.bottom, "cross"),
                svg.line(box.left, ys.at(y[0]), box.right, ys.at(y[0]), "cross"),
            ]
    parts.append(_pareto_staircase(points, xs, ys, up=upward.up))
    taken: list[Box] = [(xs.at(x[0]) - 8, ys.at(y[0]) - 8, 16, 16) for _, x, y in points]
    parts += [_interval_bars(row, x, y, xs, ys) for row, x, y in points]
    parts += [_draw_point(row, xs.at(x[0]), ys.at(y[0])) for row, x, y in points]
    for row, x, y in points:
        words = row.label if has_names(len(points), width) else str(row.number)
        parts.append(_place_label(words, (xs.at(x[0]), ys.at(y[0])), svg.color(row.color), taken, box))
    height = box.height
    if legend and not has_names(len(points), width):
        parts += _list_names([row for row, _, _ in points], box)
        height += _LEGEND_LINE * math.ceil(len(points) / 2) + 10
    return svg.drawing(box.width, height, f"{upward.title} against {across.title}", *parts)


def _list_names(rows: Sequence[Row], box: Frame) -> list[str]:
    """The number and the name of each row, in two columns below the plot."""
    lines = math.ceil(len(rows) / 2)
    half = (box.right - box.left) / 2
    return [
        svg.text(
            box.left + half * (index // lines),
            box.height + 14 + _LEGEND_LINE * (index % lines),
            f"{row.number}  {row.label}",
            "start",
            f"label {svg.color(row.color)} ink",
        )
        for index, row in enumerate(rows)
    ]


def title(rows: Sequence[Row]) -> str:
    """The heading of the plot."""
    chosen = axes(rows)
    if chosen is None or not chosen[1].up:
        return "Latency and energy"
    return "Accuracy for the joules" if chosen[0].of is _energy_range else "Accuracy for the time"


def _scale_and_title(values: Sequence[Measured], axis: Axis, start: float, end: float) -> tuple[svg.Scale, float, str]:
    low, high = min(v[1] for v in values), max(v[2] for v in values)
    log = axis.unit in ("J", "s") and low > 0 and high / low > 8
    factor, prefix = units.prefix_for([v[0] for v in values]) if axis.unit in ("J", "s") else (1.0, "")
    scale = svg.fitted(low, high, start, end, log=log, margin=0.08)
    if axis.unit == "%":
        scale = svg.Scale(max(0.0, scale.low), min(100.0, scale.high), start, end)
    return scale, factor, prefix


def _axis_title(axis: Axis, prefix: str) -> str:
    unit = f"{prefix}{axis.unit}"
    better = "up is better" if axis.up else "less is better"
    return f"{axis.title}{f', {unit}' if unit else ''} ({better})"


def _pareto_staircase(
    points: Sequence[tuple[Row, Measured, Measured]], xs: svg.Scale, ys: svg.Scale, *, up: bool
) -> str:
    """Draw the Pareto front as a staircase: between two of its points, the accuracy is that of the cheaper one."""
    front = sorted(
        ((x[0], y[0]) for row, x, y in points if row.variant.name in row.result.pareto), key=lambda p: (p[0], p[1])
    )
    stairs: list[tuple[float, float]] = []
    for x, y in front:
        if stairs:
            if (y <= stairs[-1][1]) is up:
                continue  # on the front for its latency only
            stairs.append((x, stairs[-1][1]))
        stairs.append((x, y))
    return svg.path(((xs.at(x), ys.at(y)) for x, y in stairs), "front") if len(stairs) > 1 else ""


def _interval_bars(row: Row, x: Measured, y: Measured, xs: svg.Scale, ys: svg.Scale) -> str:
    """The 95 % intervals of both quantities, drawn under all points so that they hide none."""
    cx, cy = xs.at(x[0]), ys.at(y[0])
    bars = []
    if x[2] > x[1]:
        a, b = xs.at(x[1]), xs.at(x[2])
        bars += [svg.line(a, cy, b, cy, "bar")] + [svg.line(e, cy - 4, e, cy + 4, "bar") for e in (a, b)]
    if y[2] > y[1]:
        a, b = ys.at(y[1]), ys.at(y[2])
        bars += [svg.line(cx, a, cx, b, "bar")] + [svg.line(cx - 4, e, cx + 4, e, "bar") for e in (a, b)]
    return svg.el("g", *bars, class_=svg.color(row.color))


def _draw_point(row: Row, x: float, y: float) -> str:
    hollow = row.energy is not None and row.energy.provenance not in view.REAL
    dot = svg.el("circle", cx=x, cy=y, r=6.0, class_="dot hollow" if hollow else "dot")
    return svg.el("g", svg.el("title", svg.escape(_tooltip_text(row))), dot, class_=svg.color(row.color))


def _tooltip_text(row: Row) -> str:
    """The tooltip of a point: the figures that the plot shows."""
    energy = view.energy_text(row.energy.gross, row.energy.provenance) if row.energy else "no energy"
    words = [f"{row.label}: {energy}"]
    if row.latency is not None:
        words.append(f"p50 {units.quantity(row.latency, 's')}")
    accuracy = row.variant.accuracy
    if accuracy is not None:
        value = f"{100 * accuracy.value:.1f} %" if accuracy.is_ratio else units.significant(accuracy.value)
        words.append(f"{view.metric_heading(accuracy)} {value}")
    return ", ".join(words)


def _place_label(words: str, point: tuple[float, float], color: str, taken: list[Box], frame: Frame) -> str:
    """Draw a label beside its point, where it covers neither a point nor another label."""
    x, y = point
    wide = 7.4 * len(words)
    places = [
        (x + 11, y - 9, "start"),
        (x + 11, y + 19, "start"),
        (x - 11, y - 9, "end"),
        (x - 11, y + 19, "end"),
        (x, y - 22, "middle"),
        (x, y + 32, "middle"),
        (x + 11, y - 25, "start"),
        (x + 11, y + 35, "start"),
        (x - 11, y - 25, "end"),
        (x - 11, y + 35, "end"),
        (x + 26, y + 5, "start"),
        (x - 26, y + 5, "end"),
    ]
    around = (x - 26 - wide, y - 40, 52 + 2 * wide, 80)  # all places
    near = [other for other in taken if _overlap_area(around, other)]
    best, least = places[0], float("inf")
    for place in places:
        left = place[0] - {"start": 0.0, "end": wide, "middle": wide / 2}[place[2]]
        box = (left, place[1] - 12, wide, 15)
        cost = sum(_overlap_area(box, other) for other in near)
        cost += 1e6 * (left < frame.left or left + wide > frame.width - 4 or box[1] < 4 or place[1] > frame.bottom)
        if cost < least:
            best, least = place, cost
    left = best[0] - {"start": 0.0, "end": wide, "middle": wide / 2}[best[2]]
    taken.append((left, best[1] - 12, wide, 15))
    return svg.text(best[0], best[1], words, best[2], f"label {color} ink")


def _overlap_area(a: Box, b: Box) -> float:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0
