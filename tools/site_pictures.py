"""Write the pictures of docs/joules.md and docs/scenarios.md: python tools/site_pictures.py

The curves and numbers are computed: the filter is that of the INA3221 on a stock Jetson Orin, the energies are sums.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.reporters.charts import svg
from edgeprof.reporters.picture import standalone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMAGES = Path(__file__).parent.parent / "docs/img"
#: Time constant of the filter (s), idle and busy power (W), time step of the curves (s).
TAU_S, IDLE_W, BUSY_W, STEP_S = 0.43, 2.0, 9.0, 0.01
LEFT, RIGHT, TOP, BOTTOM = 60.0, 20.0, 34.0, 48.0


def filtered(power: Sequence[float]) -> list[float]:
    """Return the readings of an exponential average that has settled at the first power (W)."""
    readings = [power[0]]
    for value in power[1:]:
        readings.append(readings[-1] + (value - readings[-1]) * (1 - math.exp(-STEP_S / TAU_S)))
    return readings


def times(seconds: float) -> list[float]:
    return [n * STEP_S for n in range(round(seconds / STEP_S) + 1)]


def frame(
    seconds: float, high: float, height: float, title: str, across: str = "seconds"
) -> tuple[svg.Scale, svg.Scale, str]:
    xs = svg.Scale(0.0, seconds, LEFT, svg.WIDE - RIGHT)
    ys = svg.Scale(0.0, high, height - BOTTOM, TOP)
    axes = svg.x_axis(xs, height - BOTTOM, TOP, across) + svg.y_axis(ys, LEFT, svg.WIDE - RIGHT)
    return xs, ys, axes + svg.text(12, TOP - 14, title, "start", "axis")


def curve(
    xs: svg.Scale, ys: svg.Scale, t: Sequence[float], values: Sequence[float], color: str, *, close: bool = False
) -> str:
    points: list[tuple[float, float] | None] = [(xs.at(x), ys.at(y)) for x, y in zip(t, values, strict=True)]
    if close:
        points = [(xs.at(t[0]), ys.at(0.0)), *points, (xs.at(t[-1]), ys.at(0.0))]
    return svg.el("g", svg.path(points, "area" if close else "own trace", close=close), class_=color)


def named(xs: svg.Scale, ys: svg.Scale, x: float, y: float, words: str, color: str) -> str:  # noqa: PLR0917
    return svg.text(xs.at(x), ys.at(y), words, "start", f"label ink {color}")


def behind_a_filter() -> str:
    """Draw a burst of power, what the sensor shows of it, and the power recovered by inverting the filter."""
    t = times(3.0)
    power = [BUSY_W if 0.5 <= x < 1.0 else IDLE_W for x in t]
    readings = filtered(power)
    inside = [n for n, x in enumerate(t) if 0.5 <= x < 1.0]
    shown = sum(readings[n] - IDLE_W for n in inside) * STEP_S
    true = sum(power[n] - IDLE_W for n in inside) * STEP_S
    xs, ys, axes = frame(3.0, 10.0, 320, "power, W")
    return svg.drawing(
        svg.WIDE,
        320,
        "a burst of half a second behind a filter",
        axes,
        curve(xs, ys, t, power, "c0"),
        curve(xs, ys, [t[n] for n in inside], [readings[n] for n in inside], "c1", close=True),
        curve(xs, ys, t, readings, "c1"),
        named(xs, ys, 1.03, 9.0, "what the model draws", "c0"),
        named(xs, ys, 1.15, 6.2, "what the sensor shows (0.43 s)", "c1"),
        named(xs, ys, 1.6, 4.4, f"of the burst's {true:.1f} J its own window holds {shown:.1f} J", "base"),
    )


def window_edges() -> str:
    """Draw the running sum of the readings, and the two lines whose distance is the window's energy."""
    t = times(8.0)
    begin, end = 2.0, 5.0
    power = [BUSY_W if begin <= x < end else IDLE_W for x in t]
    readings = filtered(power)
    total, sums = 0.0, []
    for reading in readings:
        sums.append(total + TAU_S * reading)  # the inverse of the filter: true energy = ∫P dt + τ·P for readings P
        total += reading * STEP_S
    xs, ys, axes = frame(8.0, 42.0, 360, "energy since the beginning, J")
    before, after = sums[0], sums[-1] - IDLE_W * 8.0
    lines = [
        curve(xs, ys, [0.0, end], [before, before + IDLE_W * end], "c2"),
        curve(xs, ys, [begin, 8.0], [after + IDLE_W * begin, after + IDLE_W * 8.0], "c2"),
    ]
    edge = svg.el(
        "g",
        svg.line(xs.at(begin), TOP, xs.at(begin), 312, "cross"),
        svg.line(xs.at(end), TOP, xs.at(end), 312, "cross"),
    )
    low, high = before + IDLE_W * begin, after + IDLE_W * end
    joules = f"energy of the window: {high - low:.1f} J ({BUSY_W * (end - begin):.1f} J were drawn)"
    return svg.drawing(
        svg.WIDE,
        360,
        "the energy of a window between two pauses",
        axes,
        edge,
        *lines,
        curve(xs, ys, t, sums, "c0"),
        named(xs, ys, 0.1, 8.2, "the line of the pause before", "c2"),
        named(xs, ys, 5.9, 41.0, "of the pause after", "c2"),
        named(xs, ys, 2.1, 37.0, joules, "base"),
    )


def gross_and_net() -> str:
    t = times(6.0)
    power = [BUSY_W if 1.5 <= x < 4.5 else IDLE_W for x in t]
    xs, ys, axes = frame(6.0, 10.0, 280, "power, W")
    busy = [n for n, x in enumerate(t) if 1.5 <= x < 4.5]
    xs_busy = [t[n] for n in busy]
    return svg.drawing(
        svg.WIDE,
        280,
        "gross and net energy",
        axes,
        curve(xs, ys, xs_busy, [BUSY_W] * len(busy), "c0", close=True),
        curve(xs, ys, xs_busy, [IDLE_W] * len(busy), "base", close=True),
        curve(xs, ys, t, power, "c0"),
        named(xs, ys, 2.2, 5.4, "net: what the model adds", "c0"),
        named(xs, ys, 2.2, 0.8, "idle, with the model loaded", "base"),
        named(xs, ys, 4.6, 8.4, "gross: both together", "c0"),
    )


def scenarios() -> str:
    """Draw when requests arrive in each scenario, and when they are processed."""
    rows: list[tuple[str, list[tuple[float, float, float]]]] = [
        ("single-stream", [(n * 0.4, n * 0.4, 0.38) for n in range(10)]),
        ("multi-stream", [(n * 0.5 + s * 0.13, n * 0.5 + s * 0.13, 0.48) for s in range(2) for n in range(7)]),
        ("offline", [(0.0, n * 0.25, 0.24) for n in range(16)]),
        ("server", _served([0.1, 0.9, 1.05, 1.15, 2.3, 2.5, 3.4], 0.3)),
        ("periodic", _served([0.0, 0.8, 1.6, 2.4, 3.2], 0.3)),
    ]
    xs = svg.Scale(0.0, 4.0, 150.0, svg.WIDE - RIGHT)
    parts = []
    for number, (name, requests) in enumerate(rows):
        y = 20.0 + number * 52
        parts.append(svg.text(12, y + 20, name, "start", "axis"))
        boxes = []
        for n, (arrives, begins, takes) in enumerate(requests):
            shift = 13.0 if name == "multi-stream" and n >= 7 else 0.0
            high = 12.0 if name == "multi-stream" else 26.0
            width = max(2.0, xs.at(min(4.0, begins + takes)) - xs.at(begins))
            boxes.append(
                svg.el("rect", x=xs.at(begins), y=y + 4 + shift, width=width, height=high, rx=2.0, class_="area")
            )
            if name not in ("offline", "multi-stream"):
                boxes.append(svg.line(xs.at(arrives), y, xs.at(arrives), y + 34, "percentile"))
        parts.append(svg.el("g", *boxes, class_=svg.color(number)))
    parts.append(svg.text(150, 292, "time →   line: a request arrives · box: it is worked on", "start", "tick"))
    return svg.drawing(svg.WIDE, 300, "when requests come in each scenario", *parts)


def _served(arrivals: Sequence[float], takes: float) -> list[tuple[float, float, float]]:
    """Return the requests that one worker serves in the order of their arrival."""
    served, free = [], 0.0
    for arrival in arrivals:
        begins = max(arrival, free)
        served.append((arrival, begins, takes))
        free = begins + takes
    return served


PICTURES: dict[str, Callable[[], str]] = {
    "joules-filter": behind_a_filter,
    "joules-window": window_edges,
    "joules-net": gross_and_net,
    "scenarios": scenarios,
}


def main() -> None:
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(standalone(draw()), encoding="utf-8")


if __name__ == "__main__":
    main()
