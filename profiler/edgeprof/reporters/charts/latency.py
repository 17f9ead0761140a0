"""The distribution of latencies: one band for each variant on a common scale, with its percentiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Latency

LEFT, RIGHT, TOP, BOTTOM = 16.0, 16.0, 6.0, 48.0
BAND, TITLE, LINE = 54.0, 26.0, 15.0


def draw(rows: Sequence[Row], width: float = svg.WIDE) -> str | None:
    """Draw the bands; None if no latency was measured."""
    drawn = [(row, v) for row in rows if (v := row.variant.latency_s) is not None and v.mean > 0 and v.min is not None]
    if not drawn:
        return None
    low = min(v.min for _, v in drawn if v.min is not None)
    # Far outliers would press everything against the left edge; they are counted in the text instead.
    high = max(max(v.p99_bound or 0.0, v.p99 or 0.0, v.p95 or 0.0, v.mean) for _, v in drawn) * 1.15
    log = low > 0 and high / low > 12
    scale = svg.fitted(low, high, LEFT, width - RIGHT, log=log, margin=0.03)
    factor, prefix = units.prefix_for([v.mean for _, v in drawn])
    words = [_band_text(row, latency, (factor, prefix), several_lines=width < svg.WIDE) for row, latency in drawn]
    title = TITLE + LINE * (max(map(len, words)) - 1)
    height = TOP + len(drawn) * (BAND + title) + BOTTOM
    parts = [svg.x_axis(scale, height - BOTTOM, TOP + title, f"latency, {prefix}s", factor)]
    for n, (row, latency) in enumerate(drawn):
        top = TOP + n * (BAND + title) + title
        parts.append(_latency_band(row, latency, scale, top, words[n]))
    return svg.drawing(width, height, "distribution of latencies", *parts)


def _known_percentiles(latency: Latency) -> list[tuple[str, float]]:
    """The percentiles that are known."""
    marks = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("p99 ≤", latency.p99_bound)]
    return [(name, value) for name, value in marks if value is not None]


def _band_text(row: Row, latency: Latency, prefix: tuple[float, str], *, several_lines: bool) -> list[str]:
    """The text above a band, in one line or in three."""
    factor, unit = prefix[0], f"{prefix[1]}s"
    known = " · ".join(f"{name} {units.significant(value / factor)}" for name, value in _known_percentiles(latency))
    requests = f"{latency.samples} requests"
    if latency.outliers and latency.max is not None:
        requests += f", {latency.outliers} outliers kept, max {units.significant(latency.max / factor)} {unit}"
    lines = [row.label, f"{known} {unit}", requests] if known else [row.label, requests]
    return lines if several_lines else [" · ".join(lines)]


def _latency_band(row: Row, latency: Latency, scale: svg.Scale, top: float, words: Sequence[str]) -> str:
    bottom = top + BAND - 6
    parts = [_histogram_or_line(latency, scale, top, bottom)]
    drawn = [(name, scale.at(value)) for name, value in _known_percentiles(latency)]
    for n, (name, x) in enumerate(drawn):
        parts.append(svg.line(x, top + 4, x, bottom, "percentile"))
        if (n + 1 == len(drawn) or drawn[n + 1][1] - x > 34) and x < scale.end - 30:
            parts.append(svg.text(x + 5, top + 13, name, "start", "tick"))
    for n, line in enumerate(words):
        parts.append(svg.text(LEFT, top - 5 - LINE * (len(words) - 1 - n), line, "start", "tick" if n else "label ink"))
    return svg.el("g", *parts, class_=svg.color(row.color))


def _axis_distance(a: float, b: float, scale: svg.Scale) -> float:
    return math.log(b / a) if scale.log and a > 0 else b - a


def _histogram_or_line(latency: Latency, scale: svg.Scale, top: float, bottom: float) -> str:
    """Draw the histogram if there is one; else a line from the minimum to p99 (or maximum), thick from p50 to p90."""
    histogram = latency.histogram
    if histogram and histogram.counts and len(histogram.edges) == len(histogram.counts) + 1 and max(histogram.counts):
        # A density per unit of the axis, so that areas are proportional to counts for any bins and scale.
        pairs = list(zip(histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True))
        dense = [(a, b, n / _axis_distance(a, b, scale)) for a, b, n in pairs if b > a and a < scale.high]
        most = max((d for _, _, d in dense), default=1.0) or 1.0
        points: list[tuple[float, float] | None] = []
        for a, b, d in dense:
            y = bottom - (bottom - top - 8) * d / most
            points += [(scale.at(a), y), (scale.at(b), y)]
        if dense:
            points = [(scale.at(dense[0][0]), bottom), *points, (scale.at(dense[-1][1]), bottom)]
        return svg.path(points, "area", close=True)
    middle = (top + bottom) / 2 + 4
    p50 = latency.p50
    end = latency.p99 if latency.p99 is not None else latency.max
    parts = []
    if latency.min is not None and end is not None:
        parts.append(svg.line(scale.at(latency.min), middle, scale.at(end), middle, "bar"))
    if p50 is not None and latency.p90 is not None:
        parts.append(
            svg.el(
                "rect",
                x=scale.at(p50),
                y=middle - 7,
                width=max(1.0, scale.at(latency.p90) - scale.at(p50)),
                height=14.0,
                class_="area",
            )
        )
    return "".join(parts)
