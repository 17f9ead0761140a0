"""Finding every sensor: each source in its own try, each channel proven by a value before it counts as available."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import EdgeprofError, InputError, unknown
from edgeprof.sensing import corrections as calibration
from edgeprof.sensing.board.topology import Topology, arrange, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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


def discover(
    host: PluginHost,
    roots: Roots,
    only: Sequence[str] | None = None,
    rail: str | None = None,
    *,
    kept: calibration.Calibrations | None = None,
) -> Discovery:
    """Ask every source what it finds.

    Args:
        host: Holds the sources.
        roots: Where to look.
        only: ``--sensor``: names of the sources to ask, with ``:ADDRESS`` for those that have to be told where their
            device is (``meter:/dev/ttyUSB0``); None or empty asks all.
        rail: ``--rail``: which rail is the headline; None leaves it to the board.
        kept: The calibrations that channels are corrected by; those of the data directory by default.

    Raises:
        InputError: a name in ``only``, or ``rail``, that does not exist; a board file that does not follow the form.
        UnavailableError: ``rail`` cannot be read, or nothing answers at an address in ``only``.
    """
    sources = host.of("sensors")
    addresses = _addresses(only or (), sources)
    board = identify(roots)
    kept = kept or calibration.Calibrations()
    sensors: list[Sensor] = []
    channels: list[Channel] = []
    values: dict[tuple[str, str, str], float] = {}
    failures: list[Failure] = []
    for name, factory in sources.items():
        if only and name not in addresses:
            continue
        try:
            found = list(factory(roots, addresses[name]) if addresses.get(name) else factory(roots))
        except EdgeprofError as error:
            if any(addresses.get(name, ())):
                raise  # it was asked for by its address: without it there is nothing to go on with
            failures.append(Failure(name, error.message, error.remedy))
            continue
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a source may raise anything; the others go on
            failures.append(Failure(name, f"{type(error).__name__}: {error}"))
            continue
        for sensor in calibration.apply(found, board, roots, kept):
            readable = _tried(sensor, values, failures)
            channels += readable
            channels += [replace(channel, available=False) for channel in sensor.unavailable]
            if readable:
                sensors.append(sensor)
    if roots.is_simulated:
        channels = [replace(channel, provenance="simulated") for channel in channels]
    # What is plausible for a rail is known once it has its place on the board.
    channels = calibration.filtered(channels, board, roots, kept)
    judged = [_judged(channel, values.get(channel.key)) for channel in arrange(board, channels).channels]
    topology = arrange(board, judged, rail)
    usable = {channel.key for channel in topology.channels if channel.available}
    return Discovery(
        sensors=[sensor for sensor in sensors if any(channel.key in usable for channel in sensor.channels)],
        topology=topology,
        unavailable=[channel for channel in topology.channels if not channel.available],
        failures=failures,
    )


def _addresses(only: Sequence[str], sources: Mapping[str, Callable[..., Iterable[Sensor]]]) -> dict[str, list[str]]:
    """Source → where ``--sensor SOURCE:ADDRESS`` says that its devices are; none for a plain ``--sensor SOURCE``."""
    found: dict[str, list[str]] = {}
    for text in only:
        name, colon, address = text.partition(":")
        if name not in sources:
            raise unknown("sensor", name, sources)
        found.setdefault(name, [])
        addressed = len(inspect.signature(sources[name]).parameters) > 1
        if not colon:
            # Sources that are asked only when they are named see by this that they were.
            found[name] += [""] if addressed else []
            continue
        if not addressed:
            raise InputError(f"the sensor {name} takes no address, as in {text!r}", remedy=f"Use --sensor {name}.")
        if not address:
            raise InputError(f"{text!r} has no address after the colon", remedy="As --sensor meter:/dev/ttyUSB0.")
        found[name].append(address)
    return found


def _tried(sensor: Sensor, into: dict[tuple[str, str, str], float], failures: list[Failure]) -> list[Channel]:
    """Read one row of the sensor into ``into``; its channels, all of them unavailable where it fails as a whole."""
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see discover
        message = error.message if isinstance(error, EdgeprofError) else f"{type(error).__name__}: {error}"
        failures.append(Failure(sensor.name, message, getattr(error, "remedy", None)))
        return [replace(channel, available=False, reason=message) for channel in channels]
    into.update({channel.key: value for channel, value in zip(channels, values, strict=True)})
    return channels


def _judged(channel: Channel, value: float | None) -> Channel:
    """The channel, unavailable where it gave no plausible value."""
    if channel.quantity not in _PROVEN_BY_ONE or not channel.available or value is None:
        return channel
    low, high = channel.plausible
    if math.isnan(value):
        return replace(channel, available=False, reason=channel.reason or "a reading failed")
    if not low <= value <= high:
        reason = f"it reads {value:.6g} {channel.unit}, outside {low:g} to {high:g}"
        return replace(channel, available=False, reason=reason)
    return channel
