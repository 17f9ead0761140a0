"""The conformance test accepts a sensor that conforms, and names the fault of each that does not."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import pytest

from edgeprof.sensing.sensor import Channel, Filter, Sensor
from edgeprof.testing import check_sensor

POWER = Channel("toy", "VDD", "power", scope="board", role="total", resolution=0.01, plausible=(0.0, 100.0))
ENERGY = Channel("toy", "VDD", "energy", kind="counter", provenance="counter", wrap=1000.0)


class Good(Sensor):
    name = "toy"

    def __init__(self, channels=(POWER, ENERGY), unavailable=()):
        self._channels, self._unavailable = list(channels), list(unavailable)
        self._file = None
        self.energy = 0.0

    @property
    def channels(self):
        return self._channels

    @property
    def unavailable(self):
        return self._unavailable

    def open(self):
        self._file = Path("/dev/null").open("rb")  # noqa: SIM115 - what a sensor does: open once, close at the end

    def read(self, values, times):
        self.energy += 0.5
        for i, channel in enumerate(self._channels):
            values[i] = 5.0 if channel.quantity == "power" else self.energy

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file = None


def test_a_sensor_that_conforms_passes():
    check_sensor(Good())


def test_a_sensor_of_which_nothing_can_be_read_passes_with_its_reasons():
    check_sensor(Good([], [dataclasses.replace(POWER, available=False, reason="disabled by the board")]))


def test_a_counter_that_wraps_passes():
    class Wraps(Good):
        def read(self, values, times):
            super().read(values, times)
            values[1] = self.energy % 2.0

    check_sensor(Wraps([POWER, dataclasses.replace(ENERGY, wrap=2.0)]))


class Leaks(Good):
    kept = []  # noqa: RUF012 - it is the leak

    def close(self):
        if self._file is not None:
            self.kept.append(self._file)
            self._file = None


class OpensEachTime(Good):
    def __init__(self):
        super().__init__()
        self.files = []

    def read(self, values, times):
        super().read(values, times)
        self.files.append(Path("/dev/null").open("rb"))  # noqa: SIM115 - it is what must not be

    def close(self):
        super().close()
        for file in self.files:
            file.close()


def reading(power, energy=1.0, stamp=math.nan):
    class Fixed(Good):
        def read(self, values, times):
            values[0], values[1] = power, next(energy) if hasattr(energy, "__next__") else energy
            times[0] = stamp

    return Fixed


def falling():
    return iter(range(10_000, 0, -1))


BROKEN = {
    "no channel": (lambda: Good([]), "has no channels"),
    "twins": (lambda: Good([POWER, POWER]), "two channels have the same"),
    "unavailable without a reason": (lambda: Good(unavailable=[channel("X", available=False)]), "without a reason"),
    "unavailable but available": (lambda: Good(unavailable=[channel("X")]), "says available=True"),
    "read but unavailable": (lambda: Good([channel("X", available=False)]), "says that it is not available"),
    "energy as a gauge": (lambda: Good([dataclasses.replace(ENERGY, kind="gauge")]), "kind='counter'"),
    "filter without tau": (lambda: Good([channel("X", filter=Filter("exponential"))]), "needs tau_s"),
    "block without length": (lambda: Good([channel("X", filter=Filter("block"))]), "needs length_s"),
    "unknown as zero": (lambda: Good([channel("X", resolution=0.0)]), "unknown is None"),
    "a word of its own": (lambda: Good([channel("X", provenance="guessed")]), "'guessed' is not one of"),
    "implausible": (reading(500.0), "outside its own plausible range"),
    "never a value": (reading(math.nan), "VDD gave no value in any row"),
    "wall clock": (reading(5.0, stamp=time.time() + 1e6), "outside its reading"),
    "a counter that falls": (
        lambda: reading(5.0, falling())([POWER, dataclasses.replace(ENERGY, wrap=None)]),
        "counter without wrap",
    ),
    "a counter beyond its wrap": (reading(5.0, falling()), "beyond its wrap"),
    "a file kept": (Leaks, "files open after close"),
    "a file each time": (OpensEachTime, "opens files while it is read"),
}


def channel(name, **changes):
    return dataclasses.replace(POWER, name=name, **changes)


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_conform_is_named(name):
    make, says = BROKEN[name]
    try:
        with pytest.raises(AssertionError, match=says):
            check_sensor(make())
    finally:
        while Leaks.kept:
            Leaks.kept.pop().close()
