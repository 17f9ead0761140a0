"""What a converter shows of the true power: when it looks, how it averages, in which steps it counts.

Each class stands for one rail of one part. ``advance`` is told how much true energy has flowed and moves on by as many
conversions as the real part would have made; the properties are then what its registers hold.
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
        """Make all conversions that are finished at ``end`` (s, the clock of ``energy``).

        Args:
            end: Until when.
            energy: The rail's true energy over time.
            steady: Its power (W), where that has not changed since the last call; many cycles then cost as much as one.
        """


class Ina3221(Converter):
    """One channel of a TI INA3221.

    The part converts shunt 1, bus 1, shunt 2 ... in turn and begins again; a channel therefore looks at its current for
    one conversion time of each cycle. The averaging is a running one: each cycle ``new = old + (x − old)/samples``
    (datasheet SBOS576 §7.4.1), an exponential filter of time constant samples × cycle. Registers: shunt voltage in
    steps of 40 µV, ±163.8 mV; bus voltage in steps of 8 mV.

    Args:
        shunt_ohm: The resistor in the rail.
        volts: The rail's voltage, taken as steady; it is put on the register's grid, so that only the current is
            rounded.
        samples: Averages: 1, 4, 16, 64, 128, 256, 512 or 1024.
        conversion_s: Time of one conversion, s (140 µs to 8.244 ms).
        channels: How many channels are enabled.
        position: Which of them this is, from 0.
        start: When the part was switched on (s).
        watts: The power that it has settled to at ``start``.
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
        """Time constant of the running average, s; 0 without averaging."""
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
        """As the driver gives it: ``DIV_ROUND_CLOSEST(register · 40000 nV, shunt µΩ)`` mA."""
        nanovolts, microohm = self.shunt_register * 40000, round(self.shunt_ohm * 1e6)
        half = microohm // 2
        return (nanovolts + half) // microohm if nanovolts >= 0 else -((half - nanovolts) // microohm)

    @property
    def millivolts(self) -> int:
        return self.bus_register * 8

    @property
    def watts(self) -> float:
        """What a reader makes of it: mV × mA."""
        return self.millivolts * self.milliamperes * 1e-6


class BlockAverage(Converter):
    """A part that gives the mean over each of its periods, in steps: INA238 (16 averages), a PMIC's slow ADC.

    Args:
        refresh_s: Length of a period, s.
        look_s: For how much of its end the part looks; the whole period by default.
        step_w: Smallest step, W.
        start: When the first period began (s).
        watts: The power before ``start``.
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
    """A running total of energy that steps and wraps: RAPL.

    Args:
        step_j: One count of the hardware, J (RAPL: 2⁻¹⁴ J, 61 µJ, on most).
        wrap_uj: ``max_energy_range_uj``.
        refresh_s: How often the total moves, s.
        first_uj: Where it stands at the start.
        start: When it started (s).
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
