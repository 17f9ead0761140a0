"""One window, the readings around it, and what every way of integrating them needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.sensing.sensor import Channel

    Floats = npt.NDArray[np.float64]

#: Readings that are judged together as being on one level or moving.
_LEVEL_READINGS = 10

Edges = Literal["steady", "interpolated"]


@dataclass(frozen=True)
class WindowEnergy:
    """The energy of a window.

    Attributes:
        joules: None where the readings do not tell; ``problems`` says why.
        u_sync: Standard uncertainty (J) from not knowing how readings and edges lie to each other.
        u_resolution: Standard uncertainty (J) from the sensor's step, another one in each window.
        u_level: Standard uncertainty (J) from the sensor's step at a level that nothing moves: the same in every
            window at that level.
        u_filter: Standard uncertainty (J) from the sensor's step through the correction of an exponential filter.
        tau_slope_w: What the energy changes by with the filter's time constant (J/s), signed.
        samples: Valid readings used.
        max_gap_s: The longest stretch of the window without a valid reading; None without any.
        problems: ``no_samples``, ``few_samples`` (the sensor is too slow for this window), ``gaps``, ``counter_reset``,
            ``counter_jumped`` (it rose by more than can have flowed).
    """

    joules: float | None
    u_sync: float = 0.0
    u_resolution: float = 0.0
    u_level: float = 0.0
    u_filter: float = 0.0
    tau_slope_w: float = 0.0
    samples: int = 0
    max_gap_s: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """A window and its channel's valid readings in and around it, counters unwrapped."""

    t: Floats
    v: Floats
    start: float
    end: float
    channel: Channel
    #: median distance of the readings, seconds
    interval: float
    #: how long nothing else runs before the window and after it, seconds
    quiet: tuple[float, float] = (0.0, 0.0)

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def age(self) -> float:
        """How old a reading may be: the source's update interval (a quarter of a window that is too short for it)."""
        return min(self.channel.update_interval_s or 0.0, self.length / 4)

    def inside(self, lead: float = 0.0) -> slice:
        """The readings that speak of the inside alone: not before ``start + lead``, not after ``end``."""
        first = int(np.searchsorted(self.t, self.start + lead, side="left"))
        last = int(np.searchsorted(self.t, self.end, side="right"))
        return slice(first, max(first, last))

    def max_gap(self) -> float:
        """The longest distance between valid readings that touches the window; an edge without one counts too."""
        first = max(0, int(np.searchsorted(self.t, self.start, side="right")) - 1)
        last = int(np.searchsorted(self.t, self.end, side="left"))
        t = self.t[first : last + 1]
        marks = np.concatenate(
            (
                [self.start] if not t.size or t[0] > self.start else [],
                t,
                [self.end] if not t.size or t[-1] < self.end else [],
            )
        )
        return float(np.diff(marks).max(initial=0.0))


def typical_interval(t: Floats, start: float, end: float) -> float | None:
    """The median distance of readings in and around the window; None where none is near enough to tell."""
    first, last = np.searchsorted(t, [start, end])
    near = t[max(0, int(first) - 2) : int(last) + 2]
    if near.size == 0:
        return None
    if near[0] > end or near[-1] < start:  # all on one side: nothing is known of the window
        return None
    return float(np.median(np.diff(near))) if near.size > 1 else end - start


def level_energy(window: Window, v: Floats) -> float:
    """Standard uncertainty (J) of a mean of readings from levels that nothing moves: W·step/√12 where all are on one.

    Readings that stay on one code, or toggle between two, are off by the same part of a step however many there are.
    A signal that moves over several steps takes its mean over them: the error of that is step/√12 times the signal's
    characteristic function at one step, at most √(step/(π²·A)) for a movement of amplitude A (that of a sine, the
    slowest to fall; Widrow and Kollár, Quantization Noise, ch. 4). A window may do both in turn: it is judged in parts,
    of which those on one level add up, and those on different levels are added as squares.
    """
    step = window.channel.resolution
    if not step or v.size == 0:
        return 0.0
    levels: dict[float, float] = {}
    for part in np.array_split(v, max(1, v.size // _LEVEL_READINGS)):
        # A toggle between two codes has a variance of up to a quarter of a step: it is no sign of movement.
        moved = math.sqrt(2 * max(0.0, float(part.var()) / step**2 - 0.25))
        damped = min(1.0, math.sqrt(1 / (math.pi**2 * moved))) if moved > 0 else 1.0
        level = round(float(np.median(part)) / step)
        levels[level] = levels.get(level, 0.0) + damped * part.size / v.size
    return window.length * step / math.sqrt(12) * math.hypot(*levels.values())


def step_energy(window: Window, v: Floats) -> float:
    """Standard uncertainty (J) of a mean of quantised readings: W·step/√(12 n), n of them independent.

    A reading that does not move is wrong by the same part of a step each time, so only changes count as new ones.
    """
    step = window.channel.resolution
    if not step or v.size == 0:
        return 0.0
    independent = 1 + int(np.count_nonzero(np.diff(v)))
    return window.length * step / math.sqrt(12 * independent)


def between(window: Window, knots: Floats, total: Floats) -> WindowEnergy:
    """The difference of a running integral, linear between its knots and with its end slopes beyond them."""
    rates = np.diff(total) / np.diff(knots)

    def at(time: float) -> float:
        if time < knots[0]:
            return float(total[0] + rates[0] * (time - knots[0]))
        if time > knots[-1]:
            return float(total[-1] + rates[-1] * (time - knots[-1]))
        return float(np.interp(time, knots, total))

    # The power changes somewhere within the distance that an edge cuts; a step there moves up to f(1 − f)·ΔP·h, whose
    # mean square over f is (ΔP·h)²/30.
    moved = 0.0
    for edge in (window.start, window.end):
        i = int(np.searchsorted(knots, edge)) - 1
        if 0 < i < rates.size:
            step = max(abs(rates[i] - rates[i - 1]), abs(rates[min(i + 1, rates.size - 1)] - rates[i]))
            moved = math.hypot(moved, float(step) * float(knots[i + 1] - knots[i]) / math.sqrt(30))
    inside = np.count_nonzero((window.t >= window.start) & (window.t <= window.end))
    return WindowEnergy(
        at(window.end) - at(window.start),
        u_sync=moved,
        u_resolution=step_energy(window, window.v) if window.channel.quantity == "power" else 0.0,
        samples=int(inside),
    )


def trapezoid(t: Floats, y: Floats) -> float:
    return float(np.dot(np.diff(t), y[1:] + y[:-1]) / 2)
