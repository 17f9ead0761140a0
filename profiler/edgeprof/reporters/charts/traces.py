"""Power over the run: one strip for each variant on common scales of time and power, with its windows shaded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from edgeprof.reporters import view
from edgeprof.reporters.charts import svg
from edgeprof.results.schema import TraceStrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Result

LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 8.0, 48.0
STRIP, GAP, TITLE = 92.0, 12.0, 20.0


def headline(result: Result) -> TraceStrip | None:
    """The trace of the rail that the joules come from; if the headline is a sum of rails, the sum of their traces."""
    strips = {strip.channel: strip for strip in result.traces if strip.times_s}
    if not strips:
        return None
    energy = view.headline_energy(result)
    rail = (energy.rail if energy else None) or ""
    if rail in strips:
        return strips[rail]
    parts = [strips[name] for part in rail.split("+") if (name := part.strip()) in strips]
    if len(parts) > 1 and len(parts) == rail.count("+") + 1 and len({tuple(p.times_s) for p in parts}) == 1:
        columns = zip(*(p.power_w for p in parts), strict=True)
        added = [None if None in values else sum(v for v in values if v is not None) for values in columns]
        return TraceStrip(channel=rail, times_s=parts[0].times_s, power_w=added)
    return next(iter(strips.values()))


def draw(result: Result, rows: Sequence[Row], width: float = svg.WIDE) -> str | None:
    """Draw the strips of one result; None if no power was sampled."""
    strip = headline(result)
    drawn = [row for row in rows if row.variant.windows]
    if strip is None or not drawn:
        return None
    known = [p for p in strip.power_w if p is not None]
    if not known:
        return None
    high = max(known)
    step = STRIP + TITLE + GAP
    height = TOP + step * len(drawn) - GAP + BOTTOM
    times = svg.Scale(min(0.0, strip.times_s[0]), strip.times_s[-1], LEFT, width - RIGHT)
    across = [times.at(t) for t in strip.times_s]
    parts = [svg.x_axis(times, height - BOTTOM, TOP + TITLE, "seconds since the run began")]
    for n, row in enumerate(drawn):
        top = TOP + n * step + TITLE
        power = svg.Scale(0.0, high * 1.08, top + STRIP, top)
        parts.append(_draw_strip(row, strip, times, across, power, top=top))
    return svg.drawing(width, height, f"power of {strip.channel} over the run", *parts)


def _draw_strip(
    row: Row, strip: TraceStrip, times: svg.Scale, across: Sequence[float], power: svg.Scale, *, top: float
) -> str:
    """Draw one strip; ``across`` are the positions of the strip's times on their scale."""
    mean = row.variant.power_w.mean if row.variant.power_w else None
    what = "W mean in its windows" if times.end > svg.NARROW else "W"
    words = row.label + (f" · {mean:.2f} {what}" if mean is not None else "")
    shades = [
        svg.el(
            "rect",
            x=times.at(w.start_s),
            y=top,
            width=max(1.0, times.at(w.end_s) - times.at(w.start_s)),
            height=STRIP,
            class_="window",
        )
        for w in row.variant.windows
    ]
    rest = [(x, power.at(p)) if p is not None else None for x, p in zip(across, strip.power_w, strict=True)]
    # The gray line continues where a window ends, so both lines include the sample at the edge.
    points: list[tuple[float, float] | None] = [None] * len(rest)
    for window in row.variant.windows:
        inside = slice(bisect_left(strip.times_s, window.start_s), bisect_right(strip.times_s, window.end_s))
        points[inside] = rest[inside]
    return svg.el(
        "g",
        svg.y_axis(power, LEFT, times.end, about=3),
        *shades,
        svg.path(rest, "trace"),
        svg.path(points, "trace own"),
        svg.text(LEFT, top - 6, words, "start", "label ink"),
        svg.text(LEFT - 8, top - 6, "W", "end", "tick"),
        class_=svg.color(row.color),
    )
