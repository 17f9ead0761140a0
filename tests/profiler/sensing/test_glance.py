"""One reading of every channel: counters become watts, and unknown values stay unknown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from edgeprof.sensing.board.topology import Headline
from edgeprof.sensing.glance import glance
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence


class Scripted(Sensor):
    """A sensor that gives predefined rows, 1 s apart."""

    name = "scripted"

    def __init__(self, channels: Sequence[Channel], *rows: Sequence[float]) -> None:
        self._channels, self._rows, self._time = tuple(channels), list(rows), 0.0

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        self._time += 1.0
        row = self._rows.pop(0)
        for index, value in enumerate(row):
            values[index], times[index] = value, self._time


COUNTER = Channel("rapl", "package-0", "energy", kind="counter", wrap=100.0, plausible=(0.0, 100.0))
POWER = Channel("ina3221", "VDD_IN", "power", plausible=(-60.0, 60.0))


def test_a_counters_power_is_its_rise_over_time() -> None:
    seen = glance([Scripted([COUNTER], [10.0], [14.5])], {}, seconds=0)
    assert seen.watts(COUNTER) == pytest.approx(4.5)


def test_a_counter_that_wrapped_in_between_is_unwrapped() -> None:
    seen = glance([Scripted([COUNTER], [98.0], [3.0])], {}, seconds=0)
    assert seen.watts(COUNTER) == pytest.approx(5.0)


def test_a_counter_that_stands_still_shows_no_power_rather_than_zero() -> None:
    seen = glance([Scripted([COUNTER], [10.0], [10.0])], {}, seconds=0)
    assert seen.watts(COUNTER) is None
    assert seen.total(Headline((COUNTER,), "package")) == (None, "package-0 stood still while it was watched")


@pytest.mark.parametrize("second", [math.nan, 1e4])
def test_a_reading_that_failed_or_cannot_be_leaves_the_one_before(second: float) -> None:
    seen = glance([Scripted([POWER], [4.6], [second])], {}, seconds=0)
    assert seen.watts(POWER) == pytest.approx(4.6)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    seen = glance([Scripted([POWER, COUNTER], [4.6, 1.0], [4.6, 1.0])], {}, seconds=0)
    watts, reason = seen.total(Headline((POWER, COUNTER), "board"))
    assert watts is None
    assert "package-0" in str(reason)


def test_a_sensor_that_breaks_down_shows_nothing_and_harms_nobody() -> None:
    broken = Scripted([COUNTER])  # has no row to give
    seen = glance([broken, Scripted([POWER], [1.0], [2.0])], {}, seconds=0)
    assert seen.values[COUNTER.key] is None
    assert seen.watts(POWER) == pytest.approx(2.0)
