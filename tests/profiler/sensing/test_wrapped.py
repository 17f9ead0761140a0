"""A sensor that stands for another one answers everything as that one does."""

from __future__ import annotations

import threading

import pytest

from edgeprof.energy.online.watch import _Tapped
from edgeprof.sensing.corrections import Calibrated
from edgeprof.sensing.renamed import Renamed
from edgeprof.sensing.sensor import Channel, Sensor, WrappedSensor

#: What is made of the other methods, and needs no wrapping.
DERIVED = {"read_once"}


class Card(Sensor):
    """A graphics card, which knows how much of its memory a process uses."""

    name = "card"
    slow = True
    channels = (Channel("card", "total", "power"),)
    unavailable = (Channel("card", "hotspot", "temperature", available=False, reason="broken"),)

    def read(self, values, times):
        values[0] = 7.0

    def process_memory_bytes(self, pid):
        return 1000 + pid


def test_everything_that_a_sensor_answers_is_passed_on() -> None:
    answers = {name for name, member in vars(Sensor).items() if callable(member) or isinstance(member, property)}
    public = {name for name in answers if not name.startswith("_")}
    assert public - DERIVED <= vars(WrappedSensor).keys()


@pytest.mark.parametrize(
    "wrap",
    [
        WrappedSensor,
        lambda sensor: Renamed(sensor, ["total", "hotspot"]),
        lambda sensor: Calibrated(sensor, {}),
        lambda sensor: _Tapped(sensor, {}, threading.Lock()),
    ],
    ids=["wrapped", "renamed", "calibrated", "tapped"],
)
def test_the_memory_of_a_process_is_known_through_every_wrapper(wrap) -> None:
    """A calibrated card had lost it."""
    card, wrapped = Card(), wrap(Card())
    assert wrapped.process_memory_bytes(7) == 1007
    assert (wrapped.name, wrapped.slow) == (card.name, card.slow)
    assert list(wrapped.channels) == list(card.channels)
    assert list(wrapped.unavailable) == list(card.unavailable)
    assert wrapped.read_once() == {"total/power": 7.0}
