"""The uncertainty budget as one bar for each variant: shares of the variance (GUM 5.1.3: variances add, not widths)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgeprof import units
from edgeprof.reporters.charts import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Budget

LEFT, RIGHT, TOP = 16.0, 16.0, 14.0
BAR, STEP, LINE = 18.0, 50.0, 20.0
#: Term of the budget → its description, in the order of the legend and of the colours.
TERMS = {
    "repeatability": "spread of the windows",
    "gain": "sensor gain",
    "offset": "sensor offset",
    "sync": "edges of the windows",
    "resolution": "sensor steps",
    "filter": "sensor filter",
    "idle": "idle power",
    "model": "the estimate's model",
}


def shares(budget: Budget) -> dict[str, float]:
    """Term → its share of the variance (0 to 1), without terms that contribute nothing; empty if nothing is known."""
    squares = {key: value**2 for key, value in msgspec.structs.asdict(budget).items() if value}
    total = sum(squares.values())
    return {key: squares[key] / total for key in TERMS if squares.get(key, 0.0) / total > 0.0005} if total else {}


def draw(rows: Sequence[Row], width: float = svg.WIDE) -> str | None:
    """Draw the bars; None if no variant has a budget."""
    drawn = [(row, terms) for row in rows if row.energy and (b := row.energy.gross.budget) and (terms := shares(b))]
    if not drawn:
        return None
    used = [key for key in TERMS if any(key in terms for _, terms in drawn)]
    legend, below = svg.legend([(TERMS[key], _css_class(key)) for key in used], LEFT, width - RIGHT)
    below += TOP - 4.0
    several_lines = width < svg.WIDE
    step = STEP + (LINE if several_lines else 0.0)
    scale = svg.Scale(0.0, 1.0, LEFT, width - RIGHT)
    parts = [legend]
    for n, (row, terms) in enumerate(drawn):
        top = below + n * step + step - STEP + 18
        words = [row.label, _interval_text(row)] if several_lines else [f"{row.label} · {_interval_text(row)}"]
        for line, text in enumerate(words):
            class_ = f"{'tick' if line else 'label'} ink {svg.color(row.color)}"
            parts.append(svg.text(LEFT, top - 5 - LINE * (len(words) - 1 - line), text, "start", class_))
        parts.append(_stacked_bar(terms, scale, top))
    return svg.drawing(width, below + len(drawn) * step, "uncertainty budget", *parts)


def _stacked_bar(terms: dict[str, float], scale: svg.Scale, top: float) -> str:
    parts = []
    at = 0.0
    for key, share in terms.items():
        left, right = scale.at(at), scale.at(at + share)
        name = f"{TERMS[key]}: {100 * share:.0f} % of the variance"
        parts.append(
            svg.el(
                "rect",
                svg.el("title", svg.escape(name)),
                x=left,
                y=top,
                width=max(0.5, right - left - 1),
                height=BAR,
                class_=f"share {_css_class(key)}",
            )
        )
        if right - left > 44:
            parts.append(svg.text(left + 6, top + 13, f"{100 * share:.0f} %", "start", "inside"))
        at += share
    return "".join(parts)


def _css_class(key: str) -> str:
    return f"c{list(TERMS).index(key)}"


def _interval_text(row: Row) -> str:
    figure = row.energy.gross if row.energy else None
    if figure is None or figure.value is None or figure.expanded_uncertainty is None:
        return "no interval"
    u, k = figure.expanded_uncertainty, figure.coverage_factor
    factor, prefix = units.prefix_for([figure.value])
    text = f"U = {u / factor:.{units.decimals_for(u / factor)}f} {prefix}J"
    if figure.value:
        text += f", {units.significant(100 * u / abs(figure.value), 2)} % of the value"
    if k:
        text += f" (k = {units.significant(k, 3)}"
        text += f", ν = {figure.degrees_of_freedom:.0f})" if (figure.degrees_of_freedom or 1e9) < 1000 else ")"
    return text
