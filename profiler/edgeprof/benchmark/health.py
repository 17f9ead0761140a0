"""Find signs in a run that the device changed between the first and the last window. All functions are pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.reasons import Code
from edgeprof.results.schema import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

#: A median clock below this share of the first window's means that the device became slower (measurement rules A6).
CLOCK_RATIO = 0.97
#: Latency that grows by more than this share per window, while the device gets warmer, is a sign of throttling (A6).
LATENCY_SLOPE = 0.01
_WARMER_C = 1.0


@dataclass(frozen=True)
class Span:
    """The mean, lowest, highest and median reading in an interval; all are None if there was no reading."""

    mean: float | None
    low: float | None
    high: float | None
    median: float | None


def span(times: npt.ArrayLike, values: npt.ArrayLike, start: float, end: float) -> Span:
    """Summarise the readings with ``start <= time <= end`` (s); failed readings (NaN) are left out."""
    t, v = np.asarray(times, float), np.asarray(values, float)
    inside = v[(t >= start) & (t <= end) & np.isfinite(v)]
    if inside.size == 0:
        return Span(None, None, None, None)
    return Span(float(inside.mean()), float(inside.min()), float(inside.max()), float(np.median(inside)))


def clock_drift(medians_hz: Sequence[float | None], clock: str) -> Reason | None:
    """Return the reason that a clock fell below 97 % of its value in the first window; None if it did not.

    Args:
        medians_hz: The clock's median in each window, in order of time; None where it was not read.
        clock: The clock's name, for the message.
    """
    seen = [hz for hz in medians_hz if hz]
    if len(seen) < 2 or min(seen) >= CLOCK_RATIO * seen[0]:
        return None
    return Reason(
        code=Code.CLOCK_DRIFT,
        message=f"the clock {clock} fell from {seen[0] / 1e6:.0f} to {min(seen) / 1e6:.0f} MHz during the run",
        remedy="Fix the clocks (jetson_clocks, or the governor 'performance') or cool the device.",
    )


def warming_slowdown(latencies_s: Sequence[float], temperatures_c: Sequence[float | None]) -> Reason | None:
    """Return the reason that inferences became slower by more than 1 % per window while the device warmed; None if not.

    Args:
        latencies_s: Median latency of each window, in order of time.
        temperatures_c: Highest temperature of each window (°C); None where it was not read.
    """
    warm = [t for t in temperatures_c if t is not None]
    if len(latencies_s) < 3 or len(warm) < 2 or warm[-1] - warm[0] < _WARMER_C:
        return None
    slope = float(np.polyfit(np.arange(len(latencies_s)), np.asarray(latencies_s) / np.median(latencies_s), 1)[0])
    if slope <= LATENCY_SLOPE:
        return None
    return Reason(
        code=Code.THROTTLED,
        message=f"latency grew by {100 * slope:.1f} % a window while it warmed from {warm[0]:.1f} to {warm[-1]:.1f} °C",
        remedy="Cool the device, or use --preset rigorous, which waits for the start temperature.",
    )


def decimate(times: npt.ArrayLike, values: npt.ArrayLike, points: int) -> tuple[list[float], list[float | None]]:
    """Reduce a trace to at most ``points`` means over equal intervals, for drawing; None for bins without readings."""
    t, v = np.asarray(times, float), np.asarray(values, float)
    if t.size == 0:
        return [], []
    if t.size <= points:
        return t.tolist(), [float(x) if np.isfinite(x) else None for x in v]
    edges = np.linspace(t[0], t[-1], points + 1)
    which = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, points - 1)
    good = np.isfinite(v)
    sums = np.bincount(which[good], weights=v[good], minlength=points)
    counts = np.bincount(which[good], minlength=points)
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()
    return centres, [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
