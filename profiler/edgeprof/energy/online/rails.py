"""The readings of a machine's rails at one moment, and what is known of them before a watch begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.sensing.board.evidence import Looks
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.sensor import Channel


class RailReading(NamedTuple):
    """One rail at one moment.

    Attributes:
        channel: The channel, as annotated by the topology.
        watts: The power at the last reading (W); None if there is none.
        joules: The energy since the watch began (J), without gaps.
        gap_s: How many seconds are missing from ``joules``.
    """

    channel: Channel
    watts: float | None
    joules: float
    gap_s: float


class Marked(NamedTuple):
    """The energy of the headline between a mark and now.

    Attributes:
        seconds: The length of that time.
        joules: Its energy (J); None where a part of the headline has no reading.
        expanded_uncertainty: U = 2·u of ``joules`` (J), from the stated limits of gain and offset, and from the two
            ends, each of which lies anywhere between two readings; None where no limits are stated.
    """

    seconds: float
    joules: float | None
    expanded_uncertainty: float | None


class Preview:
    """The rails of a machine after one reading of each channel, as ``Watch`` shows them later.

    Args:
        topology: The channels with their place on the board.
        looks: The reading of each channel.
    """

    def __init__(self, topology: Topology, looks: Looks) -> None:
        self.topology = topology
        self._values = {key: readings[-1][1] for key, readings in looks.items()}

    def rails(self) -> list[RailReading]:
        """All rails; a counter has no power yet."""
        return [
            RailReading(rail, None if rail.kind == "counter" else self._value(rail), 0.0, 0.0)
            for rail in power_rails(self.topology)
        ]

    def total(self) -> RailReading | None:
        """The sum of the headline; None if nothing measures a total."""
        return sum_of_headline(self.topology, self.rails())

    def others(self) -> list[tuple[Channel, float]]:
        """The readings of all channels that are no power."""
        values = [(channel, self._value(channel)) for channel in self.topology.channels if not is_electric(channel)]
        return [(channel, value) for channel, value in values if value is not None]

    def marked(self) -> Marked:
        """No energy was measured yet."""
        return Marked(0.0, None, None)

    def _value(self, channel: Channel) -> float | None:
        value = self._values.get(channel.key, math.nan)
        return value if math.isfinite(value) else None


def power_rails(topology: Topology) -> list[Channel]:
    """The channel of each readable rail: its counter where it has one, otherwise its power."""
    rails = [c for c in topology.channels if c.quantity in {"power", "energy"} and c.available]
    counted = {(c.sensor, c.name) for c in rails if c.quantity == "energy"}
    return [c for c in rails if c.quantity == "energy" or (c.sensor, c.name) not in counted]


def is_electric(channel: Channel) -> bool:
    """Whether a channel is a rail's power, energy, voltage or current."""
    return channel.quantity in {"power", "energy", "voltage", "current"}


def sum_of_headline(topology: Topology, rails: Sequence[RailReading]) -> RailReading | None:
    """The sum of the headline; None if nothing measures a total. Its watts are None while a part has no reading."""
    headline = topology.headline.channels
    readings = {reading.channel.key: reading for reading in rails}
    parts = [readings[channel.key] for channel in headline if channel.key in readings]
    if not parts or len(parts) < len(headline):
        return None
    watts = [part.watts for part in parts]
    return RailReading(
        parts[0].channel,
        None if None in watts else math.fsum(w for w in watts if w is not None),
        math.fsum(part.joules for part in parts),
        max(part.gap_s for part in parts),
    )
