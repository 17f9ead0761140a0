"""Write a checked limit, the measured value and the outcome as one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units

if TYPE_CHECKING:
    from edgeprof.verdicts.gate import Check


def sentence(c: Check) -> str:
    """Write a check as ``energy regression of resnet8 int8-static: +3.2 % (1.1 to 5.4 %), limit 2 %``."""
    parts = [c.reason] if c.reason else []
    if c.value is not None:
        parts.append(_figure_text(c, c.value))
    if c.limit is not None:
        parts.append(f"limit {_limit_text(c, c.limit)}")
    if c.unsure and c.value is not None:
        parts.append("unsure: its interval contains the limit" if c.ci95 else "unsure: no interval is known")
    return f"{c.quantity} of {c.variant}: {', '.join(parts)}"


def _figure_text(c: Check, value: float) -> str:
    word = "" if c.provenance in (None, "counter", "measured") else f" {c.provenance}"
    if c.unit == "J":
        u = (c.ci95[1] - c.ci95[0]) / 2 if c.ci95 else None
        return f"{'~' if c.provenance == 'estimated' else ''}{units.plus_minus(value, u, 'J')}{word}"
    if c.unit != "1":
        return _limit_text(c, value)
    sign = "+" if value > 0 else "−" if value < 0 else ""
    text = f"{sign}{abs(100 * value):.1f}"
    if c.ci95:
        low, high = (f"{100 * end:.1f}".replace("-", "−") for end in c.ci95)
        return f"{text} {_share_unit(c)} ({low} to {high} {_share_unit(c)}){word}"
    return f"{text} {_share_unit(c)}{word}"


def _limit_text(c: Check, value: float) -> str:
    if c.unit == "B":
        return units.size(round(value))
    if c.unit == "1":
        return f"{100 * value:g} {_share_unit(c)}"
    factor, prefix = units.prefix_for([value])
    return f"{value / factor:.3g} {prefix}{c.unit}"


def _share_unit(c: Check) -> str:
    return "pt" if "accuracy" in c.quantity else "%"
