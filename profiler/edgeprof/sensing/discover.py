"""Find every sensor. A source that fails does not stop the others, and a channel is available only once it was read."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.errors import EdgeprofError, InputError, unknown
from edgeprof.sensing import corrections
from edgeprof.sensing.board.evidence import is_doubtful
from edgeprof.sensing.board.headline import is_power
from edgeprof.sensing.board.topology import Topology, arrange, identify_board, place_channels
from edgeprof.sensing.renamed import rename_duplicates

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.board.evidence import Looks
    from edgeprof.sensing.board.files import Board
    from edgeprof.sensing.characteristic import Characteristic
    from edgeprof.sensing.sensor import Channel, Sensor
    from edgeprof.sensing.trace import Key

#: How many more times counters are read after the first time, and the limits of the pause (s) before each, which is two
#: refresh intervals of the slowest: each counter has then ticked, and two that are the same meter can be recognised.
_QUICK_LOOKS, _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 3, 0.02, 0.1
#: The pauses (s) of a second round, if a channel stood still while others moved, or did not add up.
_LONG_LOOKS_S = (0.25, 0.25, 0.25, 0.25)


class Failure(NamedTuple):
    """The failure of a whole source; the other sources are used nevertheless."""

    source: str
    reason: str
    remedy: str | None = None


@dataclass(frozen=True)
class Discovery:
    """The sensors, the topology and the failures of one discovery.

    Attributes:
        sensors: The sensors that have something to read, not open, for the sampler.
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
    calibrations: corrections.Calibrations | None = None,
    study: Callable[[Sequence[Sensor]], Mapping[Key, Characteristic]] | None = None,
    among: Collection[str] | None = None,
    preview: Callable[[Topology, Looks], None] | None = None,
) -> Discovery:
    """Ask every source for its sensors, and read each channel once.

    Args:
        host: The plugin host that has the sources.
        roots: The trees to search.
        only: ``--sensor``: the names of the sources to ask, with ``:ADDRESS`` for one that needs the address of its
            device (``meter:/dev/ttyUSB0``); None or empty asks all.
        rail: ``--rail``: the rail that is the headline; None: the board decides.
        calibrations: The calibrations that correct the channels; by default those of the data directory.
        study: Measures the characteristics of each channel (see ``prepare``); None: those that the sources declare.
        among: Only these sources may be asked; None: all.
        preview: Is called with what one reading of each channel tells, before counters are read again.

    Raises:
        InputError: a name in ``only``, or ``rail``, does not exist, or a board file does not follow the form.
        UnavailableError: ``rail`` cannot be read, or nothing answers at an address in ``only``.
    """
    sources = host.of("sensors")
    addresses = _parse_addresses(only or (), sources)
    board = identify_board(roots)
    calibrations = calibrations or corrections.Calibrations()
    failures: list[Failure] = []
    candidates: list[Sensor] = []
    for name, factory in sources.items():
        if (not only or name in addresses) and (among is None or name in among):
            candidates += _ask_source(name, factory, roots, addresses.get(name, []), failures)
    candidates = corrections.apply_calibrations(rename_duplicates(candidates), board, roots, calibrations)
    # An instrument that was named with its address is opened only once, as that may start a program or take seconds.
    instruments = {name for name, places in addresses.items() if places}
    channels, looks, working = _first_looks(candidates, instruments, failures)
    if roots.is_simulated:
        channels = [replace(channel, provenance="simulated") for channel in channels]
    if preview is not None:
        preview(arrange(board, channels, rail, looks=looks), looks)
    _look_at_doubts(board, channels, working, looks)
    channels = corrections.apply_filters(channels, board, roots, calibrations)
    characteristics = study(candidates) if study is not None else {}
    topology = arrange(board, channels, rail, looks=looks, characteristics=characteristics)
    usable = {channel.key for channel in topology.channels if channel.available}
    return Discovery(
        sensors=[sensor for sensor in candidates if any(channel.key in usable for channel in sensor.channels)],
        topology=topology,
        unavailable=[channel for channel in topology.channels if not channel.available],
        failures=failures,
    )


def instruments(host: PluginHost) -> list[str]:
    """The sources that measure whatever they are connected to (``factory.is_instrument``); any other measures this
    machine.
    """
    return [name for name, factory in host.of("sensors").items() if getattr(factory, "is_instrument", False)]


def _takes_address(factory: Callable[..., Iterable[Sensor]]) -> bool:
    import inspect  # noqa: PLC0415 - only for a sensor that is named

    return len(inspect.signature(factory).parameters) > 1


def _ask_source(
    name: str, factory: Callable[..., Iterable[Sensor]], roots: Roots, addresses: list[str], failures: list[Failure]
) -> list[Sensor]:
    """Return the sensors of one source; an empty list if the source fails, which is added to the failures."""
    try:
        return list(factory(roots, addresses) if addresses else factory(roots))
    except EdgeprofError as error:
        if any(addresses):
            raise  # the user named its address, so the measurement makes no sense without it
        failures.append(Failure(name, error.message, error.remedy))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a source may raise anything; the others go on
        failures.append(Failure(name, f"{type(error).__name__}: {error}"))
    return []


def _parse_addresses(
    only: Sequence[str], sources: Mapping[str, Callable[..., Iterable[Sensor]]]
) -> dict[str, list[str]]:
    """Return source → the addresses from ``--sensor SOURCE:ADDRESS``; empty for a plain ``--sensor SOURCE``."""
    devices: dict[str, list[str]] = {}
    for text in only:
        name, colon, address = text.partition(":")
        if name not in sources:
            raise unknown("sensor", name, sources)
        devices.setdefault(name, [])
        addressed = _takes_address(sources[name])
        if not colon:
            # An empty address shows sources that are asked only if they are named that they were named.
            devices[name] += [""] if addressed else []
            continue
        if not addressed:
            raise InputError(f"the sensor {name} takes no address, as in {text!r}", remedy=f"Use --sensor {name}.")
        if not address:
            raise InputError(f"{text!r} has no address after the colon", remedy="As --sensor meter:/dev/ttyUSB0.")
        devices[name].append(address)
    return devices


def _first_looks(
    sensors: Sequence[Sensor], instruments: Collection[str], failures: list[Failure]
) -> tuple[list[Channel], dict[Key, list[tuple[float, float]]], list[Sensor]]:
    """Read all channels once; return the channels, their readings, and the sensors that can be read again."""
    channels: list[Channel] = []
    looks: dict[Key, list[tuple[float, float]]] = {}
    working: list[Sensor] = []
    for sensor in sensors:
        readable = _read_first_row(sensor, looks, failures)
        channels += readable
        channels += [replace(channel, available=False) for channel in sensor.unavailable]
        if any(channel.available for channel in readable) and sensor.name not in instruments:
            working.append(sensor)
    return channels, looks, working


def _look_at_doubts(
    board: Board, channels: Sequence[Channel], working: Sequence[Sensor], looks: dict[Key, list[tuple[float, float]]]
) -> None:
    """Read counters several times more; all sensors for longer if a channel stands still or does not add up."""
    counting = [sensor for sensor in working if any(is_power(c) and c.kind == "counter" for c in sensor.channels)]
    _look_again(counting, [_pause_between_looks(counting)] * _QUICK_LOOKS, looks)
    if is_doubtful(place_channels(board, channels), looks):
        _look_again(working, _LONG_LOOKS_S, looks)


def _pause_between_looks(sensors: Sequence[Sensor]) -> float:
    """The pause (s) between two quick readings of counters; one with an unknown refresh may be slow."""
    refreshes = [
        _LONGEST_PAUSE_S if channel.update_interval_s is None else channel.update_interval_s
        for sensor in sensors
        for channel in sensor.channels
        if is_power(channel) and channel.kind == "counter"
    ]
    return min(max(2 * max(refreshes, default=0.0), _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


def _look_again(
    sensors: Sequence[Sensor], pauses: Sequence[float], looks: dict[Key, list[tuple[float, float]]]
) -> None:
    """Read more rows of these sensors, except slow ones, which are read only once."""
    opened = [sensor for sensor in sensors if not sensor.slow and _can_open(sensor)]
    try:
        for pause in pauses if opened else ():
            time.sleep(pause)
            for sensor in opened:
                with suppress(Exception, SystemExit):  # it was read before, or was reported as failed
                    _read_row(sensor, looks)
    finally:
        for sensor in opened:
            with suppress(Exception, SystemExit):
                sensor.close()


def _can_open(sensor: Sensor) -> bool:
    try:
        sensor.open()
    except (Exception, SystemExit):  # noqa: BLE001 - see discover
        return False
    return True


def _read_row(sensor: Sensor, looks: dict[Key, list[tuple[float, float]]]) -> None:
    """Read one row of an open sensor into ``looks``."""
    channels = list(sensor.channels)
    values, times = [math.nan] * len(channels), [math.nan] * len(channels)
    before = time.monotonic()
    sensor.read(values, times)
    middle = 0.5 * (before + time.monotonic())
    for channel, value, at in zip(channels, values, times, strict=True):
        looks.setdefault(channel.key, []).append((middle if math.isnan(at) else at, value))


def _read_first_row(
    sensor: Sensor, looks: dict[Key, list[tuple[float, float]]], failures: list[Failure]
) -> list[Channel]:
    """Read one row of a sensor into ``looks``; return its channels, all unavailable if the sensor failed as a whole."""
    channels = list(sensor.channels)
    if not channels:
        return []
    try:
        sensor.open()
        try:
            _read_row(sensor, looks)
        finally:
            sensor.close()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see discover
        message = error.message if isinstance(error, EdgeprofError) else f"{type(error).__name__}: {error}"
        failures.append(Failure(sensor.name, message, getattr(error, "remedy", None)))
        return [replace(channel, available=False, reason=message) for channel in channels]
    return channels
