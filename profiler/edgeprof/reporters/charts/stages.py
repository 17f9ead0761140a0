"""One frame of a pipeline as a timeline of its stages, with the power that the device draws in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts import svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Stage

LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 8.0, 48.0
POWER, BAR, GAP, TITLE = 92.0, 22.0, 16.0, 20.0
#: Width of the narrowest bar that contains a name (px).
_LEAST_NAMED = 48.0


def draw(rows: Sequence[Row], colors: Mapping[str, str], width: float = svg.WIDE) -> str | None:
    """Draw a timeline for each pipeline, all on one time scale; None if no variant is a pipeline.

    Args:
        rows: The variants.
        colors: Stage → the class of its colour.
        width: Width of the drawing (px).
    """
    drawn = [row for row in rows if _frame_seconds(row.variant.stages) > 0]
    if not drawn:
        return None
    legend, first = svg.legend(list(colors.items()), LEFT, width - RIGHT)
    first += TOP
    longest = max(_frame_seconds(row.variant.stages) for row in drawn)
    watts = [power[1] for row in drawn for stage in row.variant.stages if (power := stage_power(stage)) is not None]
    step = TITLE + POWER + BAR + GAP
    height = first + step * len(drawn) + BOTTOM
    factor, prefix = units.prefix_for([longest])
    times = svg.Scale(0.0, longest, LEFT, width - RIGHT)
    parts = [legend, svg.x_axis(times, height - BOTTOM, first + TITLE, f"{prefix}s since the frame began", factor)]
    for n, row in enumerate(drawn):
        parts.append(_frame_timeline(row, times, max(watts, default=0.0), first + n * step + TITLE, colors))
    return svg.drawing(width, height, "a frame as a timeline of its stages", *parts)


def stage_colors(rows: Sequence[Row]) -> dict[str, str]:
    """Stage → the class of its colour, the same in all pipelines."""
    names = dict.fromkeys(stage.name for row in rows for stage in row.variant.stages)
    return {name: svg.color(number) for number, name in enumerate(names)}


def stage_power(stage: Stage) -> tuple[float, float] | None:
    """Mean power of the device while a stage runs, and the upper end of its 95 % interval (W); None if unknown."""
    energy = stage.energy_j_per_call
    if energy is None or energy.gross.value is None or energy.gross.ci95 is None or not _stage_seconds(stage):
        return None
    return energy.gross.value / _stage_seconds(stage), energy.gross.ci95[1] / _stage_seconds(stage)


def _frame_timeline(row: Row, times: svg.Scale, high: float, top: float, colors: Mapping[str, str]) -> str:
    power = svg.Scale(0.0, high * 1.08 or 1.0, top + POWER, top)
    parts = [svg.text(LEFT, top - 6, row.label, "start", "label ink"), svg.text(LEFT - 8, top - 6, "W", "end", "tick")]
    if high:
        parts.append(svg.y_axis(power, LEFT, times.end, about=3))
    start_s = 0.0
    for stage in row.variant.stages:
        end_s = start_s + _stage_seconds(stage)
        parts.append(_draw_stage(stage, colors[stage.name], (times.at(start_s), times.at(end_s)), power, top))
        start_s = end_s
    return svg.el("g", *parts)


def _draw_stage(stage: Stage, color: str, edges: tuple[float, float], power: svg.Scale, top: float) -> str:
    left, right = edges
    parts = [svg.el("title", svg.escape(_stage_tooltip(stage)))]
    width = max(1.0, right - left)
    parts.append(svg.el("rect", x=left, y=top + POWER, width=width, height=BAR, class_="window"))
    watts = stage_power(stage)
    if watts is not None:
        y = power.at(watts[0])
        parts.append(svg.el("rect", x=left, y=y, width=width, height=top + POWER - y, class_="window"))
        parts.append(svg.path([(left, y), (left + width, y)], "trace own"))
        middle = left + width / 2
        half = watts[1] - watts[0]
        parts.append(svg.line(middle, power.at(watts[1]), middle, power.at(max(0.0, watts[0] - half)), "bar"))
    if width >= _LEAST_NAMED:
        parts.append(svg.text(left + width / 2, top + POWER + BAR - 6, stage.name[: int(width / 7)], "middle", "tick"))
    return svg.el("g", *parts, class_=color)


def _stage_tooltip(stage: Stage) -> str:
    words = f"{stage.name}: {units.quantity(_stage_seconds(stage), 's')}"
    energy = stage.energy_j_per_call
    if energy is None or energy.gross.value is None:
        return f"{words}, joules not known"
    return f"{words}, {units.plus_minus(energy.gross.value, energy.gross.expanded_uncertainty, 'J')}"


def _stage_seconds(stage: Stage) -> float:
    return (stage.seconds.p50 or stage.seconds.mean) if stage.seconds is not None else 0.0


def _frame_seconds(stages: Sequence[Stage]) -> float:
    return sum(map(_stage_seconds, stages))
