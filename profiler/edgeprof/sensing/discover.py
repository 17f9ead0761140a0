"""Finding every sensor: each source in its own try, each channel proven by a value before it counts as available."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import EdgeprofError, unknown
from edgeprof.sensing.board import Topology, arrange, identify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Channel, Sensor

#: Of these, a first reading that fails says that there is nothing; others (a load between two readings) need a second.
_PROVEN_BY_ONE = frozenset({"power", "energy", "voltage", "current", "temperature"})


class Failure(NamedTuple):
    """A source that failed as a whole: shown once, and the rest goes on."""

    source: str
    reason: str
    remedy: str | None = None


@dataclass(frozen=True)
class Discovery:
    """What was found.

    Attributes:
        sensors: Those with something to read, closed; for the sampler.
        topology: The board, all channels with their place on it (give ``topology.by_key()`` to the sampler), and the
            headline.
        unavailable: Channels that exist and cannot be read, with reason and remedy.
        failures: Sources that failed as a whole.
    """

    sensors: list[Sensor]
    topology: Topology
    unavailable: list[Channel]
    failures: list[Failure]


def discover(host: PluginHost, roots: Roots, only: Sequence[str] | None = None, rail: str | None = None) -> Discovery:
    """Ask every source what it finds.

    Args:
        host: Holds the sources.
        roots: Where to look.
        only: ``--sensor``: names of the sources to ask; None or empty asks all.
        rail: ``--rail``: which rail is the headline; None leaves it to the board.

    Raises:
        InputError: a name in ``only``, or ``rail``, that does not exist; a board file that does not follow the form.
        UnavailableError: ``rail`` cannot be read.
    """
    sources = host.of("sensors")
    for name in only or ():
        if name not in sources:
            raise unknown("sensor", name, sources)
    board = identify(roots)
    sensors: list[Sensor] = []
    channels: list[Channel] = []
    failures: list[Failure] = []
    for name, factory in sources.items():
        if only and name not in only:
            continue
        try:
            found = list(factory(roots))
        except EdgeprofError as error:
            failures.append(Failure(name, error.message, error.remedy))
            continue
        except Exception as error:  # noqa: BLE001 - a source may raise anything; the others go on
            failures.append(Failure(name, f"{type(error).__name__}: {error}"))
            continue
        for sensor in found:
            readable = _proven(sensor, failures)
            channels += readable
            channels += [replace(channel, available=False) for channel in sensor.unavailable]
            if any(channel.available for channel in readable):
                sensors.append(sensor)
    if roots.is_simulated:
        channels = [replace(channel, provenance="simulated") for channel in channels]
    topology = arrange(board, channels, rail)
    unavailable = [channel for channel in topology.channels if not channel.available]
    return Discovery(sensors, topology, unavailable, failures)


def _proven(sensor: Sensor, failures: list[Failure]) -> Iterable[Channel]:
    """The sensor's channels, those without a plausible value marked as unavailable."""
    channels = list(sensor.channels)
    if not channels:
        return []
    values, times = [math.nan] * len(channels), [math.nan] * len(channels)
    try:
        sensor.open()
        try:
            sensor.read(values, times)
        finally:
            sensor.close()
    except Exception as error:  # noqa: BLE001 - see discover
        message = error.message if isinstance(error, EdgeprofError) else f"{type(error).__name__}: {error}"
        failures.append(Failure(sensor.name, message, getattr(error, "remedy", None)))
        return [replace(channel, available=False, reason=message) for channel in channels]
    return [_judged(channel, value) for channel, value in zip(channels, values, strict=True)]


def _judged(channel: Channel, value: float) -> Channel:
    if channel.quantity not in _PROVEN_BY_ONE or not channel.available:
        return channel
    low, high = channel.plausible
    if math.isnan(value):
        return replace(channel, available=False, reason=channel.reason or "a reading failed")
    if not low <= value <= high:
        reason = f"it reads {value:.6g} {channel.unit}, outside {low:g} to {high:g}"
        return replace(channel, available=False, reason=reason)
    return channel
