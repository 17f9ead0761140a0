"""Readings of loads whose energy is known exactly, for testing both the windows' integrator and the daemon's.

A load is a square wave of inferences on a constant idle power. A sensor has an exponential filter or none; it is
quantised, and read at a constant rate with some jitter.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Inferences of ``busy_s`` that draw ``busy_w``, one every ``every_s``, and ``idle_w`` between them."""

    busy_s: float
    every_s: float
    idle_w: float = 2.0
    busy_w: float = 10.0

    @property
    def name(self) -> str:
        return f"{self.busy_s:g} s every {self.every_s:g} s"

    @property
    def joules(self) -> float:
        """The energy (J) of one inference."""
        return self.busy_w * self.busy_s

    def starts(self, begin: float, end: float) -> list[float]:
        """Return when the inferences between two times begin (s); their phase relative to the readings drifts."""
        count = int((end - begin) / self.every_s)
        return [begin + self.every_s * (n + 0.25) for n in range(count)]


@dataclass(frozen=True)
class Reading:
    """The properties of a sensor: time constant (s), step (W), rate (Hz)."""

    tau_s: float = 0.0
    step_w: float = 0.0
    rate_hz: float = 10.0

    def rows(self, load: Load, begin: float, end: float, seed: int = 1) -> list[tuple[float, float]]:
        """Return the readings (s, W) from ``begin`` to ``end``; the filter is solved exactly between the steps."""
        chance = random.Random(seed)
        steps = [(start, load.busy_w) for start in load.starts(begin, end)]
        steps += [(start + load.busy_s, load.idle_w) for start in load.starts(begin, end)]
        looks = [begin + (n + 0.1 * chance.random()) / self.rate_hz for n in range(int((end - begin) * self.rate_hz))]
        moments = sorted([*((at, power) for at, power in steps), *((at, math.nan) for at in looks)])
        rows, shown, power, before = [], load.idle_w, load.idle_w, begin
        for at, new_power in moments:
            decay = math.exp((before - at) / self.tau_s) if self.tau_s else 0.0
            shown, before = power + (shown - power) * decay, at
            if math.isnan(new_power):
                rows.append((at, round(shown / self.step_w) * self.step_w if self.step_w else shown))
            else:
                power = new_power
        return rows


#: Inferences that are short compared with the filter and the interval of the readings, and long ones.
LOADS = (Load(0.05, 0.55), Load(0.2, 1.03), Load(0.7, 1.43), Load(2.0, 4.01))
#: An unfiltered sensor, and the INA3221 of a stock Orin (512 × 6 × 140 µs, 40 mW).
SENSORS = {"unfiltered": Reading(), "0.43 s": Reading(0.43), "0.43 s, 40 mW": Reading(0.43, 0.04)}
