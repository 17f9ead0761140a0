"""``edgeprof.sensors``: every channel of this device and its present value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.plugins import PluginHost, sensor_points
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.glance import glance

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from edgeprof.sensing.sensor import Channel


@dataclass(frozen=True)
class SensorReading:
    """A channel and its present value.

    Attributes:
        channel: The channel: ``sensor``, ``name``, ``quantity``, ``unit``, ``scope``, ``provenance`` …
        value: The value in the channel's unit; None if it cannot be read, and ``channel.reason`` explains why.
        power_w: Only for a power or energy channel: the power in watts; None if unknown.
        in_headline: Whether joules are quoted from this channel.
    """

    channel: Channel
    value: float | None
    power_w: float | None
    in_headline: bool


def sensors(
    only: Sequence[str] | None = None,
    *,
    rail: str | None = None,
    sysfs_root: str | os.PathLike[str] | None = None,
    procfs_root: str | os.PathLike[str] | None = None,
) -> list[SensorReading]:
    """Read every channel of this device once, which takes a quarter of a second.

    Args:
        only: Only these sources.
        rail: The rail to use as the headline; by default the board's own total.
        sysfs_root: Read a captured or simulated tree instead of /sys.
        procfs_root: Read a captured or simulated tree instead of /proc.

    Raises:
        InputError: A source or rail does not exist.
    """
    discovery = discover(
        PluginHost.from_environment(points=sensor_points()), Roots.resolve(sysfs_root, procfs_root), only, rail
    )
    seen = glance(discovery.sensors, discovery.topology.by_key())
    headline = {channel.key for channel in discovery.topology.headline.channels}
    return [
        SensorReading(
            channel=channel,
            value=seen.values.get(channel.key),
            power_w=seen.watts(channel) if channel.quantity in {"power", "energy"} else None,
            in_headline=channel.key in headline,
        )
        for channel in discovery.topology.channels
    ]
