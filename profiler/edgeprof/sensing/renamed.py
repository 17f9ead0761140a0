"""Rename channels of different sensors that have the same name, so that no two readings share a key."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprof.sensing.sensor import Channel, Sensor, WrappedSensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Renamed(WrappedSensor):
    """A sensor whose channels have other names.

    Args:
        sensor: The sensor that is read.
        names: A name for each of its channels, with the unreadable channels last.
    """

    def __init__(self, sensor: Sensor, names: Sequence[str]) -> None:
        super().__init__(sensor)
        channels = [*sensor.channels, *sensor.unavailable]
        renamed = [replace(channel, name=name) for channel, name in zip(channels, names, strict=True)]
        self._channels = tuple(renamed[: len(sensor.channels)])
        self._unavailable = tuple(renamed[len(sensor.channels) :])

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self._unavailable


def rename_duplicates(sensors: Sequence[Sensor]) -> list[Sensor]:
    """Rename the channels that share their key with another channel.

    Most sources give different names to different chips; this is for two devices of a source that does not. A new name
    contains the place of the channel, or its number among channels of the same name if no place is known.
    """
    channels = [(index, channel) for index, sensor in enumerate(sensors) for channel in _all_channels(sensor)]
    counts = Counter(channel.key for _, channel in channels)
    if all(count == 1 for count in counts.values()):
        return list(sensors)
    names: list[list[str]] = [[] for _ in sensors]
    taken: Counter[tuple[str, str, str]] = Counter()
    for index, channel in channels:
        name = channel.name
        if counts[channel.key] > 1:
            place = channel.chip or channel.location
            name = f"{name}@{place.removeprefix('i2c ')}" if place else name
            taken[(channel.sensor, name, channel.quantity)] += 1
            number = taken[(channel.sensor, name, channel.quantity)]
            name = name if number == 1 and place else f"{name} #{number}"
        names[index].append(name)
    return [
        sensor if names[index] == [channel.name for channel in _all_channels(sensor)] else Renamed(sensor, names[index])
        for index, sensor in enumerate(sensors)
    ]


def _all_channels(sensor: Sensor) -> list[Channel]:
    return [*sensor.channels, *sensor.unavailable]
