"""Correct the power of a rail whose voltage sags with its current, where a monitor averages the two separately.

Such a monitor averages volts and amperes, and the product of the averages is read as the power. Where V = V₀ − R·I, the
mean power is V₀·mean(I) − R·mean(I²), but the product of the means is V₀·mean(I) − R·mean(I)². It is too large by
R·var(I), where the variance is that of the fluctuations which the filter hides. R follows from how volts and amperes
change together, because both are behind the same filter. The hidden variance follows from the slope of the readings,
because the filter's input is y + τ·dy/dt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgeprof.energy.window import Floats

#: A voltage that changes by less than this (V), one step of an INA3221's bus register, determines no resistance.
_LEAST_VOLTS = 0.0075
#: A current that changes by less than this share of its mean determines no resistance either, because its steps and
#: ripple would dominate the fit.
_LEAST_SWING = 0.25
#: Readings closer together than this share of a time constant determine the filter's input between them.
_CLOSE_TAUS = 0.05


@dataclass(frozen=True)
class Sag:
    """How a rail's voltage falls with its current.

    Attributes:
        ohm: The resistance R before the rail, in ohms.
        volts: The mean voltage of the rail, in volts.
    """

    ohm: float
    volts: float


def sag_of(volts: Floats, amperes: Floats) -> Sag | None:
    """Fit the resistance before a rail by least squares; None where the voltage does not follow the current.

    Args:
        volts: Readings in volts, shape ``(n,)``.
        amperes: Readings in amperes at the same times, same shape.
    """
    good = np.isfinite(volts) & np.isfinite(amperes)
    u, i = volts[good], amperes[good]
    if u.size < 10 or np.ptp(u) < _LEAST_VOLTS or np.ptp(i) <= _LEAST_SWING * abs(float(i.mean())):
        return None
    centred = i - i.mean()
    ohm = -float(np.dot(centred, u)) / float(np.dot(centred, centred))
    # A voltage that drifts for other reasons correlates little with the current.
    correlation = float(np.corrcoef(u, i)[0, 1])
    return Sag(ohm, float(u.mean())) if ohm > 0 and correlation < -0.5 else None


def excess_w(t: Floats, v: Floats, tau: float, step: float, sag: Sag) -> float:
    """By how much (W) a window's mean reading is too high: R·var(I) of the fluctuations that the filter hides.

    Args:
        t: The times of the window's readings in seconds, rising, shape ``(n,)``.
        v: The readings in watts, same shape.
        tau: The time constant of the filter, in seconds.
        step: The sensor's step, in watts.
        sag: The sag of the rail.
    """
    apart = np.diff(t)
    close = (apart > 0) & (apart < _CLOSE_TAUS * tau)
    if np.count_nonzero(close) < 5:
        return 0.0
    amplified = tau / apart[close]
    inputs = v[:-1][close] + amplified * np.diff(v)[close]
    # Each of the two readings has a rounding error of variance step²/12 (GUM F.2.2.1), which the inversion amplifies.
    noise = step**2 / 6 * amplified**2
    squares = (inputs - v[:-1][close]) ** 2 - noise
    # Pairs are weighted by the inverse variance: the rounding noise plus a typical scatter of the load itself.
    typical = max(float(np.median(noise)), float(np.mean(np.abs(squares))), 1e-12)
    weights = 1 / (noise + typical) ** 2
    hidden = float(np.dot(weights, squares)) / float(weights.sum())
    return sag.ohm / sag.volts**2 * max(0.0, hidden)
