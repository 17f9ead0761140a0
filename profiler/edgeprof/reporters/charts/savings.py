"""What a frame saves with each variant of a pipeline: a bar with its interval, and below it one bar for each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts import svg
from edgeprof.reporters.stages_text import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.verdicts.savings import Saved, Saving

LEFT, RIGHT, TOP, BOTTOM = 16.0, 16.0, 8.0, 48.0
LINE, BAR, GAP = 20.0, 12.0, 14.0


def draw(
    savings: Sequence[Saving], labels: Mapping[int, str], colors: Mapping[str, str], width: float = svg.WIDE
) -> str | None:
    """Draw the savings, all on one scale; None if there are none.

    Args:
        savings: The savings.
        labels: Identity of a variant (``id``) → its name on the page.
        colors: Stage → the class of its colour.
        width: Width of the drawing (px).
    """
    if not savings:
        return None
    amounts = [amount for saving in savings for amount in (saving.frame, *_shown(saving).values())]
    low, high = min(0.0, *(a.low for a in amounts)), max(0.0, *(a.high for a in amounts))
    scale = svg.fitted(low, high, LEFT, width - RIGHT)
    factor, prefix = units.prefix_for([max(-low, high)])
    titles = [_title(saving, labels.get(id(saving.variant), saving.variant.name), width) for saving in savings]
    heights = [
        LINE * len(title) + BAR * (1 + len(_shown(saving))) + GAP for title, saving in zip(titles, savings, strict=True)
    ]
    height = TOP + sum(heights) + BOTTOM
    parts = [svg.x_axis(scale, height - BOTTOM, TOP, f"{prefix}J saved in a frame (below 0: more is spent)", factor)]
    top = TOP
    for saving, title, below in zip(savings, titles, heights, strict=True):
        parts.append(_bars(saving, title, colors, scale, top))
        top += below
    return svg.drawing(width, height, "what a frame saves with each variant", *parts)


def _shown(saving: Saving) -> dict[str, Saved]:
    """The stages whose joules differ for certain."""
    return {name: amount for name, amount in saving.stages.items() if amount.is_certain}


def _title(saving: Saving, label: str, width: float) -> list[str]:
    """The variant and what it saves, in two lines on a telephone."""
    amount = f"{amount_text(saving.frame)}, {100 * saving.frame.value / saving.baseline_j:.0f} %"
    return [label, amount] if width < svg.WIDE else [f"{label}: {amount}"]


def _bars(saving: Saving, title: Sequence[str], colors: Mapping[str, str], scale: svg.Scale, top: float) -> str:
    parts = [svg.text(LEFT, top + 14 + n * LINE, words, "start", "label ink") for n, words in enumerate(title)]
    rows = [("frame", svg.color(None), saving.frame)]
    rows += [(name, colors[name], amount) for name, amount in _shown(saving).items()]
    for n, (name, color, amount) in enumerate(rows):
        parts.append(_bar(name, color, amount, scale, top + len(title) * LINE + n * BAR))
    return svg.el("g", *parts)


def _bar(name: str, color: str, amount: Saved, scale: svg.Scale, top: float) -> str:
    left, right = sorted((scale.at(0.0), scale.at(amount.value)))
    middle = top + (BAR - 2) / 2
    return svg.el(
        "g",
        svg.el("title", svg.escape(f"{name}: {amount_text(amount)}")),
        svg.el("rect", x=left, y=top, width=max(0.5, right - left), height=BAR - 2, class_="window"),
        svg.line(scale.at(amount.low), middle, scale.at(amount.high), middle, "bar"),
        class_=color,
    )
