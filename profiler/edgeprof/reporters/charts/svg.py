"""The part of SVG that the charts need: escaped elements, scales with round ticks, axes.

Colours come from the page's style sheet (``currentColor`` and classes), so one drawing works on light and dark pages.
"""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof import units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Widths of a drawing on a page and on a telephone, where the wide one would be too small to read (px).
WIDE, NARROW = 960.0, 350.0
#: Height of a line of a legend (px).
_LEGEND_LINE = 20.0
#: Number of colours in the style sheet, without that of the baseline.
COLORS = 8
#: What html.escape changes. A large report escapes half a million texts, of which most have nothing to escape.
_MARKUP = re.compile("[&<>\"']")


def escape(text: object) -> str:
    """Escape a text for content or an attribute; control characters, which XML forbids, become spaces."""
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else " " for c in plain)
    return html.escape(plain) if _MARKUP.search(plain) else plain


def el(tag: str, *content: str, **attributes: object) -> str:
    """Write an element.

    Args:
        tag: Name of the element.
        content: Markup inside the element; texts must be escaped first.
        attributes: Attributes; a trailing underscore (``class_``) is removed, others become hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_shortest_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>{''.join(content)}</{tag}>" if content or tag in {"text", "g"} else f"<{tag}{given}/>"


def text(x: float, y: float, words: str, anchor: str = "start", class_: str = "label") -> str:
    return el("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float] | None], class_: str, *, close: bool = False) -> str:
    """Draw a polyline; None among the points interrupts it."""
    steps: list[str] = []
    pen = "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    return el("path", d=" ".join(steps) + (" Z" if close else ""), class_=class_)


def drawing(width: float, height: float, title: str, *content: str) -> str:
    """Write a whole picture, with a title for people who cannot see it."""
    return el(
        "svg",
        el("title", escape(title)),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="chart",
    )


def color(index: int | None) -> str:
    """The class of a series: ``base`` for the baseline (None), ``c0`` … for the others."""
    return "base" if index is None else f"c{index % COLORS}"


def legend(entries: Sequence[tuple[str, str]], left: float, right: float) -> tuple[str, float]:
    """Draw names with their colours, in as many lines as they need; return also where the last line ends (px).

    Args:
        entries: Each name and the class of its colour.
        left: Where the lines begin.
        right: Where they have to end.
    """
    parts = []
    x, y = left, 4.0
    for name, class_ in entries:
        room = 34 + 6.2 * len(name)
        if x > left and x + room - 18 > right:
            x, y = left, y + _LEGEND_LINE
        parts += [
            el("rect", x=x, y=y, width=11.0, height=11.0, rx=2.0, class_=f"share {class_}"),
            text(x + 16, y + 10, name, "start", "tick"),
        ]
        x += room
    return "".join(parts), y + _LEGEND_LINE


def _shortest_number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


@dataclass(frozen=True)
class Scale:
    """Converts values to coordinates.

    Attributes:
        low: The smallest value.
        high: The largest value.
        start: Coordinate of ``low`` (px).
        end: Coordinate of ``high`` (px).
        log: Whether the scale is logarithmic; ``low`` must then be above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        a, b, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(v)
        return self.start + (v - a) / (b - a) * (self.end - self.start) if b > a else (self.start + self.end) / 2

    def ticks(self, about: int = 6) -> list[float]:
        """Round numbers within the range: 1, 2 or 5 times a power of ten."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            inside = [m for m in marks if self.low <= m <= self.high]
            if len(inside) >= 3:
                return inside
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def fitted(low: float, high: float, start: float, end: float, *, log: bool = False, margin: float = 0.06) -> Scale:
    """Make a scale with a margin around the values."""
    if log:
        factor = (high / low) ** margin if high > low else 1.2
        return Scale(low / factor, high * factor, start, end, log=True)
    air = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Scale(low - air, high + air, start, end)


def ticks_text(values: Sequence[float]) -> list[str]:
    """Write the values of ticks with as many decimals as distinguish neighbouring ticks."""
    for decimals in range(7):
        texts = [f"{v:.{decimals}f}" for v in values]
        if len(set(texts)) == len(values) and all(
            abs(float(t) - v) <= 1e-6 * max(1.0, abs(v)) for t, v in zip(texts, values, strict=True)
        ):
            return texts
    return [units.significant(v) for v in values]


def x_axis(scale: Scale, y: float, top: float, title: str, factor: float = 1.0) -> str:
    """Draw a horizontal axis: ticks with grid lines up to ``top``, and a title.

    There are as many ticks as the width allows. Values are divided by ``factor``, which belongs to the unit's prefix.
    """
    marks = scale.ticks(max(2, min(6, round((scale.end - scale.start) / 80))))
    if scale.log:
        marks = _spaced_marks(marks, scale, 34.0)
    parts = []
    for mark, words in zip(marks, ticks_text([m / factor for m in marks]), strict=True):
        x = scale.at(mark)
        parts += [line(x, top, x, y, "grid"), text(x, y + 18, words, "middle", "tick")]
    parts.append(text((scale.start + scale.end) / 2, y + 38, title, "middle", "axis"))
    return "".join(parts)


def _spaced_marks(marks: Sequence[float], scale: Scale, least: float) -> list[float]:
    """The marks that are at least ``least`` pixels apart; of marks that are too close the first stays."""
    chosen: list[float] = []
    for mark in marks:
        if not chosen or abs(scale.at(mark) - scale.at(chosen[-1])) >= least:
            chosen.append(mark)
    return chosen


def y_axis(scale: Scale, x: float, right: float, factor: float = 1.0, about: int = 6) -> str:
    """Draw a vertical axis: ticks with grid lines up to ``right``."""
    marks = scale.ticks(about)
    return "".join(
        line(x, scale.at(m), right, scale.at(m), "grid") + text(x - 8, scale.at(m) + 4, words, "end", "tick")
        for m, words in zip(marks, ticks_text([m / factor for m in marks]), strict=True)
    )
