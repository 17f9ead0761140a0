"""One window, the readings around it, and the calculations that every method of integration needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.sensing.sensor import Channel

    Floats = npt.NDArray[np.float64]

#: A signal is smoothed over this many readings; it moves if it changes by more than this many steps in them.
_SHAPE_READINGS, _MOVING_STEPS = 5, 2.5
#: A moving signal oscillates if at least this share of its readings are turning points.
_TURNING = 0.2
#: The offsets at which a shape is placed between two steps, in steps.
_PLACES = (np.arange(16) + 0.5) / 16

Edges = Literal["steady", "interpolated"]


@dataclass(frozen=True)
class WindowEnergy:
    """The energy of a window.

    Attributes:
        joules: The energy (J); None where the readings do not determine it, and ``problems`` says why.
        u_sync: The standard uncertainty (J) from the unknown position of the edges relative to the readings.
        u_resolution: The standard uncertainty (J) from the sensor's step, with another error in each window.
        u_level: The standard uncertainty (J) from the sensor's step at a constant level, with the same error in every
            window at that level.
        u_filter: The standard uncertainty (J) from the sensor's step through the correction of an exponential filter.
        tau_slope_w: The derivative of the energy by the filter's time constant (J/s), with its sign.
        sag_j: What was subtracted (J) because the rail's voltage sags with its current.
        samples: How many valid readings were used.
        max_gap_s: The longest stretch of the window without a valid reading (s); None without any reading.
        problems: ``no_samples``, ``few_samples`` (the sensor is too slow for this window), ``gaps``, ``counter_reset``,
            ``counter_jumped`` (it rose by more than can have flowed).
    """

    joules: float | None
    u_sync: float = 0.0
    u_resolution: float = 0.0
    u_level: float = 0.0
    u_filter: float = 0.0
    tau_slope_w: float = 0.0
    sag_j: float = 0.0
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
    #: the median interval of the readings, in seconds
    interval: float
    #: for how long nothing else runs before the window and after it, in seconds
    quiet: tuple[float, float] = (0.0, 0.0)
    #: whether ``u_level`` is computed
    judges_level: bool = True

    @property
    def length(self) -> float:
        """The length of the window, in seconds."""
        return self.end - self.start

    @property
    def age(self) -> float:
        """How old (s) a reading may be: the source's update interval, but at most a quarter of the window."""
        return min(self.channel.update_interval_s or 0.0, self.length / 4)

    def inside(self, lead: float = 0.0) -> slice:
        """The readings that describe only the inside: not before ``start + lead``, not after ``end``."""
        first = int(np.searchsorted(self.t, self.start + lead, side="left"))
        last = int(np.searchsorted(self.t, self.end, side="right"))
        return slice(first, max(first, last))

    def max_gap(self) -> float:
        """The longest time (s) between valid readings that overlaps the window; an edge without a reading nearby counts
        too.
        """
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
    """The median interval (s) of the readings in and around the window; None if none is near."""
    first, last = np.searchsorted(t, [start, end])
    near = t[max(0, int(first) - 2) : int(last) + 2]
    if near.size == 0:
        return None
    if near[0] > end or near[-1] < start:  # all on one side: the window is unknown
        return None
    return float(np.median(np.diff(near))) if near.size > 1 else end - start


def level_energy(window: Window, v: Floats) -> float:
    """The standard uncertainty (J) of the mean of quantised readings at constant levels: W·step/√12 if all have one
    code.

    Readings that stay at one code all have the same rounding error, however many there are (GUM F.2.2.1). Where a
    signal moves over several steps, the rounding errors differ and average out. The cases in between (a filter that
    settles, noise that toggles a code) are simulated: the smoothed shape of the signal is placed at several offsets
    between two steps and rounded again, and the root mean square of the error of the mean is the uncertainty (Widrow
    and Kollár, Quantization Noise, ch. 4). Stretches at different levels have independent offsets and are added as
    squares.
    """
    step = window.channel.resolution
    if not step or v.size == 0 or not window.judges_level:
        return 0.0
    shape, moves = _shape_between_steps(v / step)
    squares = _oscillation_square(v / step, moves)
    if window.channel.filter.tau_s:
        _mark_approaches(moves, np.rint(v / step), math.ceil(window.channel.filter.tau_s / window.interval))
    squares += np.count_nonzero(moves) / 12
    if not moves.all():
        # Stretches that return to the same level have the same rounding error.
        jumps = np.abs(np.diff(v, prepend=v[0])) > _MOVING_STEPS / 2 * step
        _, stretch = np.unique(np.cumsum(moves | jumps)[~moves], return_inverse=True)
        still = shape[~moves]
        means = np.rint(np.bincount(stretch, still) / np.bincount(stretch))
        _, level = np.unique(means, return_inverse=True)
        for place in _PLACES:
            laid = still + place
            errors = np.bincount(level[stretch], np.rint(laid) - laid)
            squares += float(np.dot(errors, errors)) / len(_PLACES)
    return window.length * step * math.sqrt(squares) / v.size


def _shape_between_steps(y: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Smooth a signal over a few readings, in steps, and mark the readings that move too fast for that.

    Beside a jump, only the calmer side of a reading is used.
    """
    half = _SHAPE_READINGS // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(y, half, mode="edge"), _SHAPE_READINGS)
    sides = around[:, : half + 1], around[:, half:]
    ranges = [np.ptp(side, axis=1) for side in sides]
    calmer = np.where(ranges[0] <= ranges[1], sides[0].mean(axis=1), sides[1].mean(axis=1))
    shape = np.where(np.ptp(around, axis=1) > _MOVING_STEPS, calmer, around.mean(axis=1))
    return shape, np.minimum(*ranges) > _MOVING_STEPS / 2


def _oscillation_square(y: Floats, moves: npt.NDArray[np.bool_]) -> float:
    """The squared sum of the rounding errors of oscillating readings.

    The mean of a quantised sine of A steps has √(1/(π²·A)) of the error of a constant level (Widrow and Kollár).
    """
    changes = np.sign(np.diff(y))
    turns = np.zeros(y.size, dtype=np.bool_)
    turns[1:-1] = changes[1:] * changes[:-1] < 0
    count = int(np.count_nonzero(moves))
    if not count or np.count_nonzero(turns & moves) < _TURNING * count:
        return 0.0
    amplitude = max(math.sqrt(2) * float(np.std(y[moves])), 1.0)
    return count**2 / 12 / (math.pi**2 * amplitude)


def _mark_approaches(moves: npt.NDArray[np.bool_], codes: Floats, tau_readings: int) -> None:
    """Mark as moving the last time constant that an exponential filter needs to approach a level.

    On its way through a code, the rounding error of the filter's output has one sign and then the other, and cancels.
    Only the time beyond one time constant in the last code counts as a constant level. With the final value f and a
    stay T in the last code c, ∫(c − y)dt is (c − f)·(T − τ) + τ/2 steps, and the errors of the earlier codes cancel the
    τ/2. A signal that goes up and down again is not such an approach.
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([1], moves, [1]))))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        changes = np.diff(codes[begin:end])
        if end - begin <= tau_readings or not changes.any() or (changes.min() < 0 < changes.max()):
            continue
        for start in (begin, *(begin + 1 + np.flatnonzero(changes))):
            moves[start : start + tau_readings] = True


def step_energy(window: Window, v: Floats) -> float:
    """The standard uncertainty (J) of the mean of n independent quantised readings: W·step/√(12·n) (GUM F.2.2.1).

    A constant reading has the same rounding error each time, so that only changes count as independent readings.
    """
    step = window.channel.resolution
    if not step or v.size == 0:
        return 0.0
    independent = 1 + int(np.count_nonzero(np.diff(v)))
    return window.length * step / math.sqrt(12 * independent)


def energy_between_knots(window: Window, knots: Floats, total: Floats) -> WindowEnergy:
    """The energy of a window as the difference of a running integral.

    The integral is linear between its knots, and continues with its first and last slopes beyond them.

    Args:
        window: The window.
        knots: The times of the knots in seconds, rising, shape ``(n,)``.
        total: The running integral at the knots in joules, same shape.
    """
    rates = np.diff(total) / np.diff(knots)

    def at(time: float) -> float:
        if time < knots[0]:
            return float(total[0] + rates[0] * (time - knots[0]))
        if time > knots[-1]:
            return float(total[-1] + rates[-1] * (time - knots[-1]))
        return float(np.interp(time, knots, total))

    # The power changes somewhere within the interval h that an edge cuts. A step ΔP at the fraction f of the interval
    # causes an error of up to f·(1 − f)·ΔP·h, whose mean square over f is (ΔP·h)²/30.
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


def trapezoid_integral(t: Floats, y: Floats) -> float:
    """The integral of y over t by the trapezoidal rule."""
    return float(np.dot(np.diff(t), y[1:] + y[:-1]) / 2)
