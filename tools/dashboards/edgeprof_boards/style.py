"""Colours, thresholds and words for values, as Grafana has them."""

from __future__ import annotations

from typing import Any

#: The colours of provenance-free thresholds, as Grafana names them.
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"

#: Of a processor (°C): warm, hot, and where boards hold themselves back.
HEAT_LEVELS = ((None, GREEN), (70.0, YELLOW), (80.0, ORANGE), (90.0, RED))
#: A line's style.
DASHED = {"fill": "dash", "dash": [4, 4]}

Levels = tuple[tuple[float | None, str], ...]


def steps(levels: Levels) -> dict[str, Any]:
    """Thresholds as Grafana has them; (from, colour), the first is the base."""
    return {"mode": "absolute", "steps": [{"color": color, "value": start} for start, color in levels]}


def value_mappings(words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Value → (text, colour), as Grafana has it."""
    options = {
        value: {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]
