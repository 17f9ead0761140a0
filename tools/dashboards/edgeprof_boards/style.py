"""Colours, thresholds and texts for values, in the form that Grafana expects."""

from __future__ import annotations

from typing import Any

#: Grafana's names of the colours of thresholds.
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"

#: Temperatures of a processor (°C): warm, hot, and where boards throttle.
HEAT_LEVELS = ((None, GREEN), (70.0, YELLOW), (80.0, ORANGE), (90.0, RED))
#: A line's style.
DASHED = {"fill": "dash", "dash": [4, 4]}

Levels = tuple[tuple[float | None, str], ...]


def steps(levels: Levels) -> dict[str, Any]:
    """Return thresholds in Grafana's form; ``levels`` are pairs (from, colour), and the first is the base."""
    return {"mode": "absolute", "steps": [{"color": color, "value": start} for start, color in levels]}


def value_mappings(words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return value → (text, colour) in Grafana's form."""
    options = {
        value: {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]
