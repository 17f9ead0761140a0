"""Models of the converters: when they sample the true power, how they average it, and the steps of their registers.

Each class represents one rail of one part. ``advance`` gets the true energy over time and makes as many conversions as
the real part would have made; the properties are then the contents of its registers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Cumulative true energy (J) of the rail at a time (s).
    Energy = Callable[[float], float]


class Converter(ABC):
    """One rail of one part.

    Attributes:
        refresh_s: Time from one new result to the next, s.
    """

    refresh_s: float

    @abstractmethod
    def advance(self, end: float, energy: Energy, steady: float | None = None) -> None:
        """Make all conversions that are finished at ``end``.

        Args:
            end: The present time (s), on the clock of ``energy``.
            energy: The rail's true energy over time.
            steady: The rail's power (W) if it has not changed since the last call, so that many cycles cost as little
                as one; otherwise None.
        """


class Ina3221(Converter):
    """One channel of a TI INA3221.

    The part converts shunt 1, bus 1, shunt 2 ... cyclically, so a channel samples its current for one conversion time
    per cycle. It computes a running average, ``new = old + (x − old)/samples`` per cycle (datasheet SBOS576 §7.4.1),
    which is an exponential filter with the time constant samples × cycle. Registers: shunt voltage in steps of 40 µV,
    ±163.8 mV; bus voltage in steps of 8 mV.

    Args:
        shunt_ohm: The resistor in the rail, Ω.
        volts: The rail's voltage (V), assumed constant; it is rounded to the register's step, so that only the current
            has a rounding error.
        samples: Averages: 1, 4, 16, 64, 128, 256, 512 or 1024.
        conversion_s: Time of one conversion, s (140 µs to 8.244 ms).
        channels: How many channels are enabled.
        position: The position of this channel among them, from 0.
        start: The time at which the part was switched on (s).
        watts: The average power at ``start``, W.
    """

    SHUNT_STEP = 40e-6
    SHUNT_LIMIT = 4095 * SHUNT_STEP
    BUS_STEP = 8e-3

    def __init__(
        self,
        *,
        shunt_ohm: float,
        volts: float,
        samples: int = 512,
        conversion_s: float = 140e-6,
        channels: int = 3,
        position: int = 0,
        start: float = 0.0,
        watts: float = 0.0,
    ) -> None:
        self.shunt_ohm, self.samples = shunt_ohm, samples
        self.volts = round(volts / self.BUS_STEP) * self.BUS_STEP
        self.refresh_s = 2 * conversion_s * channels
        self._slot = conversion_s
        self._offset = start + 2 * position * conversion_s
        self._cycles = 0
        self.average_w = watts

    @property
    def tau_s(self) -> float:
        """The time constant of the running average, s; 0 without averaging."""
        return self.samples * self.refresh_s if self.samples > 1 else 0.0

    def _due(self, end: float) -> int:
        return max(0, math.floor((end - self._offset - self._slot) / self.refresh_s) + 1)

    def advance(self, end: float, energy: Energy, steady: float | None = None) -> None:
        due, value, share, slot = max(self._due(end), self._cycles), self.average_w, 1 / self.samples, self._slot
        if steady is not None:
            value = steady + (value - steady) * (1 - share) ** (due - self._cycles)
        else:
            for cycle in range(self._cycles, due):
                begin = self._offset + cycle * self.refresh_s
                value += ((energy(begin + slot) - energy(begin)) / slot - value) * share
        self.average_w, self._cycles = value, due

    @property
    def shunt_register(self) -> int:
        """The signed 13-bit count of 40 µV."""
        volts = self.average_w / self.volts * self.shunt_ohm
        return round(min(max(volts, -self.SHUNT_LIMIT), self.SHUNT_LIMIT) / self.SHUNT_STEP)

    @property
    def bus_register(self) -> int:
        """The count of 8 mV."""
        return round(self.volts / self.BUS_STEP)

    @property
    def milliamperes(self) -> int:
        """The driver's value: ``DIV_ROUND_CLOSEST(register · 40000 nV, shunt µΩ)`` mA."""
        nanovolts, microohm = self.shunt_register * 40000, round(self.shunt_ohm * 1e6)
        half = microohm // 2
        return (nanovolts + half) // microohm if nanovolts >= 0 else -((half - nanovolts) // microohm)

    @property
    def millivolts(self) -> int:
        return self.bus_register * 8

    @property
    def watts(self) -> float:
        """The power that a reader computes: mV × mA, in W."""
        return self.millivolts * self.milliamperes * 1e-6


class BlockAverage(Converter):
    """A part that gives the mean over each of its periods, in steps, such as an INA238 (16 averages) or a PMIC's ADC.

    Args:
        refresh_s: Length of a period, s.
        look_s: Length of the part at the period's end that is measured, s; by default the whole period.
        step_w: Smallest step, W.
        start: The time at which the first period began (s).
        watts: The power before ``start``, W.
    """

    def __init__(
        self, *, refresh_s: float, step_w: float, look_s: float | None = None, start: float = 0.0, watts: float = 0.0
    ) -> None:
        self.refresh_s, self._step = refresh_s, step_w
        self._look = refresh_s if look_s is None else look_s
        self._start, self._periods = start, 0
        self.average_w = watts

    def advance(self, end: float, energy: Energy, steady: float | None = None) -> None:  # noqa: ARG002 - one step
        due = math.floor((end - self._start) / self.refresh_s)
        if due > self._periods:
            last = self._start + due * self.refresh_s
            self.average_w = (energy(last) - energy(last - self._look)) / self._look
            self._periods = due

    @property
    def watts(self) -> float:
        return round(self.average_w / self._step) * self._step


class EnergyCounter(Converter):
    """A running total of energy that increases in steps and wraps, such as RAPL's.

    Args:
        step_j: One count of the hardware, J (for most RAPL, 2⁻¹⁴ J, that is, 61 µJ).
        wrap_uj: ``max_energy_range_uj``.
        refresh_s: The interval between changes of the total, s.
        first_uj: The total at the start, µJ.
        start: The time of the start (s).
    """

    def __init__(
        self, *, step_j: float, wrap_uj: int, refresh_s: float = 1e-3, first_uj: int = 0, start: float = 0.0
    ) -> None:
        self.refresh_s = refresh_s
        self._step, self._wrap, self._first = step_j, wrap_uj, first_uj
        self._start = start
        self._joules: float | None = None
        self._begin = 0.0

    def advance(self, end: float, energy: Energy, steady: float | None = None) -> None:  # noqa: ARG002 - one step
        if self._joules is None:
            self._begin = energy(self._start)
        last = self._start + math.floor((end - self._start) / self.refresh_s) * self.refresh_s
        self._joules = energy(last) - self._begin

    @property
    def microjoules(self) -> int:
        counts = math.floor((self._joules or 0.0) / self._step)
        return (self._first + int(counts * self._step * 1e6)) % self._wrap
