"""What a chip's two averages make too much of on a rail whose voltage sags with its current.

A monitor averages volts and amperes each for itself, and their product is taken for the power. Where V = V₀ − R·I, the
mean power is V₀·mean(I) − R·mean(I²), and the product of the means V₀·mean(I) − R·mean(I)²: too much by R·var(I), of
what the filter hides. R shows in how volts and amperes move together, since both are behind the same filter; the hidden
variance shows in how fast the readings rise and fall, since the filter's input is y + τ·dy/dt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgeprof.energy.window import Floats

#: A voltage that moves by less (V) tells no resistance: a step of an INA3221's bus register.
_LEAST_VOLTS = 0.0075
#: So does a current that moves by less than this part of its mean: its steps and ripple would make the resistance.
_LEAST_SWING = 0.25
#: Readings closer together than this part of a time constant show the filter's input between them.
_CLOSE_TAUS = 0.05
#: The hidden variance is known no better than this (relative, standard uncertainty): what varies faster than readings
#: follow one another stays hidden, and few of them are close together.
U_HIDDEN = 0.3


@dataclass(frozen=True)
class Sag:
    """How a rail's voltage falls with its current.

    Attributes:
        ohm: R, as its volts and amperes show it.
        volts: The rail's mean voltage.
    """

    ohm: float
    volts: float


def sag_of(volts: Floats, amperes: Floats) -> Sag | None:
    """The resistance before a rail by least squares; None where the voltage does not move with the current.

    Args:
        volts: Readings, V.
        amperes: Readings of the same times, A, same shape.
    """
    good = np.isfinite(volts) & np.isfinite(amperes)
    u, i = volts[good], amperes[good]
    if u.size < 10 or np.ptp(u) < _LEAST_VOLTS or np.ptp(i) <= _LEAST_SWING * abs(float(i.mean())):
        return None
    centred = i - i.mean()
    ohm = -float(np.dot(centred, u)) / float(np.dot(centred, centred))
    # Only a voltage that follows the current sags by it; one that wanders by itself correlates little.
    correlation = float(np.corrcoef(u, i)[0, 1])
    return Sag(ohm, float(u.mean())) if ohm > 0 and correlation < -0.5 else None


def excess_w(t: Floats, v: Floats, tau: float, step: float, sag: Sag) -> float:
    """By how much (W) a window's mean reading is too high: R·var(I) of what the filter hides.

    Args:
        t: Times of the window's readings, s, rising.
        v: The readings, W, same shape.
        tau: Time constant of the filter, s.
        step: The sensor's step, W.
        sag: Of the rail.
    """
    apart = np.diff(t)
    close = (apart > 0) & (apart < _CLOSE_TAUS * tau)
    if np.count_nonzero(close) < 5:
        return 0.0
    amplified = tau / apart[close]
    inputs = v[:-1][close] + amplified * np.diff(v)[close]
    # Two readings are each off by a step's uniform error, which their difference carries, amplified.
    noise = step**2 / 6 * amplified**2
    squares = (inputs - v[:-1][close]) ** 2 - noise
    # Pairs count by how little their steps disturb them, beside what the load itself scatters by.
    typical = max(float(np.median(noise)), float(np.mean(np.abs(squares))), 1e-12)
    weights = 1 / (noise + typical) ** 2
    hidden = float(np.dot(weights, squares)) / float(weights.sum())
    return sag.ohm / sag.volts**2 * max(0.0, hidden)
