"""The stored calibrations of this device's channels, and their application to channels and readings.

They are a file of the data directory, which ``edgeprof calibrate`` writes.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError
from edgeprof.sensing.sensor import Calibration, Channel, WrappedSensor
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.roots import Roots
    from edgeprof.sensing.board.topology import Board
    from edgeprof.sensing.sensor import Sensor
    from edgeprof.sensing.trace import Key

FILE = "calibrations.json"
_VERSION = 1
#: A measured time constant applies if the declared one differs by at most this (relative) from that at the measurement.
_SAME_SETTING = 0.01
#: The largest relative uncertainty of a fitted time constant that is stored, and the least stated limit of a filter for
#: which it is.
_SURE, _DRIVERS_LIMIT = 0.03, 0.1


@dataclass(frozen=True)
class MeasuredFilter:
    """A measured time constant of an exponential filter.

    Attributes:
        tau_s: The time constant, in seconds.
        u_s: Its standard uncertainty, in seconds.
        declared_s: The time constant that the driver's settings gave then, in seconds; the measurement applies while
            they give the same.
        date: The date in ISO 8601.
        steps: The number of steps or falls that it was fitted to.
    """

    tau_s: float
    u_s: float
    declared_s: float
    date: str
    steps: int


@dataclass(frozen=True)
class Entry:
    """The stored calibration of one channel of one board.

    Attributes:
        board: The id of the board, and whether it is simulated: ``jetson-orin-nano`` or ``simulated jetson-orin-nano``.
        sensor: The name of the source.
        channel: The name of the rail.
        line: The line between the channel and a meter; None if none was measured.
        filter: The time constant of its filter; None if none was measured.
    """

    board: str
    sensor: str
    channel: str
    line: Calibration | None = None
    filter: MeasuredFilter | None = None

    @property
    def name(self) -> str:
        return f"{self.board}/{self.sensor}/{self.channel}"


class Calibrations:
    """All entries of one data directory.

    Args:
        directory: The directory; by default ``EDGEPROF_DATA_DIR``, or else the platform's data directory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        """The file of calibrations."""
        if self._directory is None:
            from edgeprof.results.place import data_dir  # noqa: PLC0415 - needed only here

            self._directory = data_dir()
        return self._directory / FILE

    def entries(self) -> list[Entry]:
        """All stored entries, in the order of their names.

        Raises:
            InputError: the file cannot be read; ignoring it would silently change every joule.
        """
        path = self.path
        try:
            entries = _parse_entries(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or f"it does not hold calibrations ({error})"
            raise InputError(
                f"{path} cannot be used: {why}",
                remedy="Mend its permissions, or begin anew: edgeprof calibrate --forget all",
            ) from None
        return sorted(entries, key=lambda entry: entry.name)

    def put(self, entry: Entry) -> None:
        """Store an entry; parts that it does not have are taken from an older entry of the same channel.

        Raises:
            InputError: the file cannot be written.
        """
        entries = {old.name: old for old in self.entries()}
        old = entries.get(entry.name)
        if old is not None:
            entry = replace(entry, line=entry.line or old.line, filter=entry.filter or old.filter)
        entries[entry.name] = entry
        self._write(entries.values())

    def forget(self, name: str) -> list[Entry]:
        """Delete the entries that a name means: ``all``, the full name of a channel, or the end of it (``VDD_IN``).

        Returns:
            The deleted entries; empty if none has that name.

        Raises:
            InputError: the file cannot be read or written.
        """
        if name == "all":
            try:
                dropped = self.entries()
            except InputError:
                dropped = []
            self._write([])
            return dropped
        entries = self.entries()
        dropped = [entry for entry in entries if f"/{entry.name}".endswith(f"/{name}")]
        if dropped:
            self._write(entry for entry in entries if entry not in dropped)
        return dropped

    def _write(self, entries: Iterable[Entry]) -> None:
        text = json.dumps({"version": _VERSION, "entries": [asdict(entry) for entry in entries]}, indent=2)
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, (text + "\n").encode(), mode=0o600)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}", remedy="Set EDGEPROF_DATA_DIR to a place of yours."
            ) from None


class Uncalibrated(Calibrations):
    """An empty set of calibrations, for the sensors' own readings."""

    def entries(self) -> list[Entry]:
        return []


def _parse_entries(text: str) -> list[Entry]:
    content = json.loads(text)
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']}")
    return [_parse_entry(block) for block in content["entries"]]


def _parse_entry(block: dict[str, Any]) -> Entry:
    line, measured = block.get("line"), block.get("filter")
    return Entry(
        board=block["board"],
        sensor=block["sensor"],
        channel=block["channel"],
        line=None if line is None else Calibration(**line),
        filter=None if measured is None else MeasuredFilter(**measured),
    )


def board_name(board: Board, roots: Roots) -> str:
    """The name of a board in entries; a virtual board has another name than the real one."""
    name = board.id if board.is_known else board.model or board.name
    return f"simulated {name}" if roots.is_simulated else name


class Calibrated(WrappedSensor):
    """A sensor whose power and energy are corrected at the moment they are read.

    A power becomes gain × power + offset. A counter of energy becomes gain × energy + offset × the time at which it
    ticked, so that its differences are those of the corrected power.

    Args:
        sensor: The sensor that is read.
        lines: Channel name → the calibration.
    """

    def __init__(self, sensor: Sensor, lines: dict[str, Calibration]) -> None:
        super().__init__(sensor)
        self._lines = lines
        self._origin = math.nan
        self._ticks: dict[int, tuple[float, float]] = {}  # counter → its raw value and when that was first read
        self._channels: tuple[Channel, ...] = ()
        self._todo: list[tuple[int, bool, Calibration]] = []

    @property
    def channels(self) -> Sequence[Channel]:
        if not self._channels:
            self._channels = tuple(self._correct_channel(channel) for channel in self.wrapped.channels)
            self._todo = [
                (index, channel.kind == "counter", channel.calibration)
                for index, channel in enumerate(self._channels)
                if channel.calibration is not None
            ]
        return self._channels

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        self.wrapped.read(values, times)
        if not self._channels:
            len(self.channels)
        for index, counts, line in self._todo:
            raw = values[index]
            if not counts:
                values[index] = line.gain * raw + line.offset_w
                continue
            ticked, at = self._ticks.get(index, (math.nan, math.nan))
            if raw == raw and raw != ticked:  # noqa: PLR0124 - NaN is not equal to itself
                at = times[index] if math.isfinite(times[index]) else time.monotonic()
                if math.isnan(self._origin):
                    self._origin = at
                self._ticks[index] = raw, at
            values[index] = line.gain * raw + line.offset_w * (at - self._origin)

    def _correct_channel(self, channel: Channel) -> Channel:
        line = self._lines.get(channel.name)
        if line is None or not channel.tells_joules:
            return channel
        low, high = (line.gain * limit + line.offset_w for limit in channel.plausible)
        counts = channel.kind == "counter"
        return replace(
            channel,
            calibration=line,
            gain_limit=None,
            offset_limit=None,
            resolution=None if channel.resolution is None else channel.resolution * line.gain,
            wrap=None if channel.wrap is None else channel.wrap * line.gain,
            plausible=(-math.inf, math.inf) if counts else (min(low, high), max(low, high)),
        )


def apply_calibrations(
    sensors: Sequence[Sensor], board: Board, roots: Roots, calibrations: Calibrations | None = None
) -> list[Sensor]:
    """Wrap the sensors that have calibrations, so that their readings are corrected.

    Raises:
        InputError: the file of calibrations cannot be read.
    """
    where = board_name(board, roots)
    lines: dict[str, dict[str, Calibration]] = {}
    for entry in (calibrations or Calibrations()).entries():
        if entry.board == where and entry.line is not None:
            lines.setdefault(entry.sensor, {})[entry.channel] = entry.line
    return [
        Calibrated(sensor, lines[sensor.name])
        if any(channel.name in lines.get(sensor.name, {}) for channel in sensor.channels)
        else sensor
        for sensor in sensors
    ]


def apply_filters(
    channels: Sequence[Channel], board: Board, roots: Roots, calibrations: Calibrations | None = None
) -> list[Channel]:
    """Replace the time constants of channels that the driver's settings give by measured ones.

    Raises:
        InputError: the file of calibrations cannot be read.
    """
    where = board_name(board, roots)
    measured = {
        (entry.sensor, entry.channel): entry.filter
        for entry in (calibrations or Calibrations()).entries()
        if entry.board == where and entry.filter is not None
    }
    return [_with_filter(channel, measured.get((channel.sensor, channel.name))) for channel in channels]


def keep_fitted(
    channels: Iterable[Channel],
    fits: Mapping[Key, MeasuredFilter],
    where: str,
    calibrations: Calibrations | None = None,
) -> list[str]:
    """Store time constants that a benchmark fitted, for channels whose time constant comes from the driver's settings.

    Time constants that ``edgeprof calibrate --filter`` measured stay, because they have a narrower limit.

    Args:
        channels: The channels as they were sampled.
        fits: The fitted time constants by channel.
        where: The name of the board (``board_name``).
        calibrations: Where they are stored; by default in the data directory.

    Returns:
        The names of the channels whose time constants were stored; none if the file cannot be read or written.
    """
    calibrations = calibrations or Calibrations()
    names = []
    for channel in channels:
        fit = fits.get(channel.key)
        limit = channel.filter.tau_limit
        if fit is None or fit.u_s > _SURE * fit.tau_s or (limit is not None and limit < _DRIVERS_LIMIT):
            continue
        try:
            calibrations.put(Entry(where, channel.sensor, channel.name, filter=fit))
        except InputError:  # this bench has its figures anyway; the next bench fits the time constants again
            return []
        names.append(channel.name)
    return names


def _with_filter(channel: Channel, measured: MeasuredFilter | None) -> Channel:
    declared = channel.filter.tau_s
    if measured is None or declared is None or channel.filter.kind != "exponential":
        return channel
    if abs(declared - measured.declared_s) > _SAME_SETTING * measured.declared_s:
        return channel
    limit = math.sqrt(3) * measured.u_s / measured.tau_s
    return replace(channel, filter=replace(channel.filter, tau_s=measured.tau_s, tau_limit=limit))
