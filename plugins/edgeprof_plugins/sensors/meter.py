"""External meters by a line protocol: ``--sensor meter:ADDRESS``, or by name from ``meters.toml``.

Address: a serial port (``/dev/ttyUSB0@115200``), a FIFO, ``-`` (standard input), ``tcp:HOST:PORT``, or
``command:PROGRAM``. Lines, keys and units: ``edgeprof.sensing.meter.lines`` and docs/meters.md. ``meters.toml`` in
edgeprof's configuration directory contains a block for each meter (``address``, ``covers``, ``gain``, ``offset``,
``step``, ``interval``, ``average``); these meters are read whenever edgeprof looks for sensors. ``EDGEPROF_METER``
names another address. Refresh: the measured rate of the lines. Traps: the time of a line is that of its arrival unless
it contains ``t``; a meter that stops sending gives no values (none is repeated), and the time counts as a gap.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl, toml_files
from edgeprof.directories import config_directory
from edgeprof.errors import InputError, UnavailableError
from edgeprof.sensing.board.files import SCOPES
from edgeprof.sensing.meter.lines import FACT_KEYS, Facts, LineError, parse_header, parse_line
from edgeprof.sensing.meter.link import Link, silence_error
from edgeprof.sensing.meter.shift import Shift
from edgeprof.sensing.sensor import INSTANTANEOUS, Channel, Filter, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots
    from edgeprof.sensing.meter.lines import Reading
    from edgeprof.sensing.sensor import Kind, Quantity

NAME = "meter"
FILE = "meters.toml"
#: Longest wait for the first line, and time for which lines are read to find out a meter's channels (s).
FIRST_S, LISTEN_S = 5.0, 0.6
#: A meter counts as silent after this many of its intervals, and at least this many seconds.
_SILENT_INTERVALS, _SILENT_S = 5.0, 1.0
#: Fewest lines from which the interval is computed.
_ENOUGH = 5
_MOST_W = 1e5
#: Most lines of a channel that wait to be read; if there are more, the oldest are lost, and that is reported.
_QUEUE = 4096
#: Lines that arrived together (from a buffer on the way) are read at this many times the usual rate.
_CATCH_UP = 2.0


class _Stream:
    """The lines of one meter, by channel; the thread of its link adds them."""

    def __init__(self, address: str, facts: Facts) -> None:
        self.link = Link(address, self._line)
        self.facts = facts
        self.news = threading.Condition()
        self.latest: dict[str, tuple[float, Reading]] = {}
        self.queues: dict[str, deque[tuple[float, Reading]]] = {}
        self.last_s = -math.inf  # time of the last usable line
        self.arrivals: deque[float] = deque(maxlen=64)
        self.wrong: str | None = None  # the last line that could not be parsed
        self.lost = 0  # lines that were not read in time
        self._shifts: dict[str, Shift] = {}

    def _line(self, line: str, now: float) -> None:
        with self.news:
            try:
                facts = parse_header(line, self.facts)
                reading = None if facts else parse_line(line)
            except LineError as error:
                self.wrong = f"{line[:60]!r}: {error}"
                return
            if facts is not None:
                self.facts = facts
            if reading is None:
                return
            name = reading.channel or self.facts.name
            at = now if reading.at is None else self._shifts.setdefault(name, Shift()).place(reading.at, now)
            if name in self.latest and at <= self.latest[name][0]:
                at = math.nextafter(self.latest[name][0], math.inf)
            self.latest[name] = at, reading
            queue = self.queues.setdefault(name, deque(maxlen=_QUEUE))
            self.lost += len(queue) == _QUEUE
            queue.append((at, reading))
            self.last_s = now
            self.arrivals.append(now)
            self.news.notify_all()

    def interval_s(self) -> float | None:
        """The median time between lines of one channel (s); None before there are enough lines."""
        with self.news:
            times, width = list(self.arrivals), max(1, len(self.latest))
        if self.facts.interval_s is not None:
            return self.facts.interval_s
        import statistics  # with decimal and fractions behind it: not for who only looks whether there is a meter

        gaps = [b - a for a, b in zip(times, times[width:], strict=False)]
        return statistics.median(gaps) if len(gaps) >= _ENOUGH - 1 else None

    def wait(self, since: float, seconds: float) -> bool:
        """Wait up to ``seconds`` for a usable line later than ``since``; return whether there is one."""
        with self.news:
            return self.news.wait_for(lambda: self.last_s > since, seconds)


class Meter(Sensor):
    """One meter."""

    name = NAME

    def __init__(self, stream: _Stream, channels: Sequence[Channel], picks: Sequence[tuple[str, str]]) -> None:
        self._stream = stream
        self._channels = tuple(channels)
        self._picks = tuple(picks)
        self._patience = max(_SILENT_S, _SILENT_INTERVALS * (stream.interval_s() or 0.0))
        self._last_read_s = math.nan
        self._lost = 0

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        """Wait for a line, so that the first reading has a value.

        Raises:
            UnavailableError: the meter sends nothing.
        """
        self._stream.link.start()
        if not self._stream.wait(time.monotonic() - self._patience, self._patience):
            raise silence_error(self._stream.link, time.monotonic() - self._stream.last_s)
        with self._stream.news:
            for queue in self._stream.queues.values():
                while len(queue) > 1:
                    queue.popleft()  # sent before the sensor was opened

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        stream = self._stream
        with stream.news:
            age = time.monotonic() - stream.last_s
            if age > self._patience:
                raise silence_error(stream.link, age)
            since = self._last_read_s
            self._last_read_s = time.monotonic()
            lines = {name: self._take(queue, self._last_read_s - since) for name, queue in stream.queues.items()}
            lost, self._lost = stream.lost - self._lost, stream.lost
            for index, (name, field) in enumerate(self._picks):
                values[index], times[index] = _join_lines(lines[name], field)
                if lost:
                    values[index] = math.nan  # lost lines become a gap

    def _take(self, queue: deque[tuple[float, Reading]], elapsed: float) -> list[tuple[float, Reading]]:
        """Take the lines of this read: one line of a meter that is slower than the reads, else all since the last read.

        A faster meter sends several lines between two reads. Lines that were delayed and arrive together are read step
        by step. The newest line stays in the queue, as the present value of a meter that has sent nothing since.
        """
        fresh = len(queue) - 1
        interval = self._stream.interval_s()
        if interval and interval < 0.7 * elapsed:
            count = min(fresh, max(1, math.ceil(_CATCH_UP * elapsed / interval)))
        else:
            count = min(fresh, 1)
        taken = []
        for _ in range(count - 1):
            taken.append(queue[1])
            queue.popleft()
        if count > 0:
            queue.popleft()
        return [*taken, queue[0]]


def _join_lines(lines: Sequence[tuple[float, Reading]], field: str) -> tuple[float, float]:
    """Combine lines into one value and its time: the last value of a counter, else the means of values and times."""
    usable = [(at, value) for at, reading in lines if (value := getattr(reading, field)) is not None]
    if not usable:
        return math.nan, lines[-1][0]
    if field == "joules" or len(usable) == 1:
        return usable[-1][1], usable[-1][0]
    return math.fsum(value for _, value in usable) / len(usable), math.fsum(at for at, _ in usable) / len(usable)


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Find the meters at these addresses (or with these names), else those of the configuration.

    Raises:
        InputError: an address or ``meters.toml`` is not valid.
        UnavailableError: a meter sends nothing, or nothing that is a reading.
    """
    known = configured(config_directory() / FILE)
    if any(addresses):
        wanted = [known.get(address) or (address, Facts()) for address in addresses if address]
    else:
        wanted = list(known.values())
        if os.environ.get("EDGEPROF_METER"):
            wanted.append((os.environ["EDGEPROF_METER"], Facts()))
    return [_connect_meter(address, facts, simulated=roots.is_simulated) for address, facts in wanted]


_streams: dict[str, _Stream] = {}


def disconnect() -> None:
    """Close the link to every meter of this process; a meter that is asked for again is opened again."""
    while _streams:
        _streams.popitem()[1].link.close()


def _connect_meter(address: str, facts: Facts, *, simulated: bool) -> Sensor:
    stream = _streams.get(address)
    if stream is None:
        stream = _streams[address] = _Stream(address, facts)
    stream.link.start()
    if not stream.wait(time.monotonic() - _SILENT_S, FIRST_S):
        if stream.wrong is not None:
            raise UnavailableError(
                f"the meter at {address} sends a line that is not a reading, {stream.wrong}",
                remedy="docs/meters.md describes the lines; a port may need its speed: /dev/ttyX@9600.",
            )
        raise silence_error(stream.link, FIRST_S)
    end = time.monotonic() + LISTEN_S
    while len(stream.arrivals) < _ENOUGH * max(1, len(stream.latest)) and time.monotonic() < end:
        stream.wait(stream.last_s, max(0.0, end - time.monotonic()))
    channels, picks = [], []
    with stream.news:
        latest = dict(stream.latest)
    for name, (_, reading) in latest.items():
        for quantity, field in (("power", "watts"), ("energy", "joules"), ("voltage", "volts"), ("current", "amperes")):
            if getattr(reading, field) is not None:
                channels.append(_meter_channel(name, quantity, stream, address))  # type: ignore[arg-type]  # a Quantity
                picks.append((name, field))
    # The meter of a simulated board is simulated too, and a virtual meter says that it is one.
    is_play = simulated or stream.facts.is_simulated
    return Meter(stream, [replace(c, provenance="simulated") if is_play else c for c in channels], picks)


def _meter_channel(name: str, quantity: Quantity, stream: _Stream, address: str) -> Channel:
    facts = stream.facts
    power = quantity in {"power", "energy"}
    kind: Kind = "counter" if quantity == "energy" else "gauge"
    averaged = facts.average_s is not None and quantity == "power"
    return Channel(
        NAME,
        name,
        quantity,
        kind=kind,
        scope=facts.covers,
        role="total" if power else None,
        provenance="counter" if quantity == "energy" else "measured",
        resolution=facts.step if quantity == "power" else None,
        gain_limit=facts.gain_limit if power else None,
        offset_limit=facts.offset_w if quantity == "power" else None,
        update_interval_s=stream.interval_s(),
        filter=Filter("block", length_s=facts.average_s) if averaged else INSTANTANEOUS,
        plausible=(-_MOST_W, _MOST_W) if quantity == "power" else (-math.inf, math.inf),
        location=address,
    )


def configured(path: Path) -> dict[str, tuple[str, Facts]]:
    """Read the meters of ``meters.toml``: name → address and facts.

    Raises:
        InputError: the file is not valid.
    """
    if not path.exists():
        return {}
    text = toml_files.read_text(path)
    blocks = toml_files.parse(text, path, remedy='A block is [NAME] with address = "/dev/ttyUSB0".')
    return {name: _block_facts(name, block, path, text) for name, block in blocks.items()}


def _block_facts(name: str, block: Any, path: Path, text: str) -> tuple[str, Facts]:
    allowed = ("address", *FACT_KEYS[1:])
    where = f"{path}, line {_line_of(text, name)}, [{name}]"
    if not isinstance(block, dict):
        raise InputError(f"{where}: a meter is a block", remedy=f"Allowed keys: {', '.join(allowed)}.")
    for key in block:
        if key not in allowed:
            raise InputError(
                f"{path}, line {_line_of(text, name, key)}, [{name}]: unknown key {key!r}",
                remedy=f"Allowed keys: {', '.join(allowed)}.",
            )
    if not isinstance(block.get("address"), str):
        raise InputError(f"{where}: a meter needs an address", remedy='As address = "/dev/ttyUSB0@115200".')
    words = " ".join(f"{key}={value}" for key, value in block.items() if key != "address")
    try:
        facts = parse_header(f"#edgeprof name={name} {words}", Facts())
    except LineError as error:
        raise InputError(f"{where}: {error}", remedy="Numbers in SI units; gain may be in %.") from None
    assert facts is not None
    if facts.covers not in SCOPES:
        raise InputError(f"{where}: covers = {facts.covers!r} is unknown", remedy=f"Allowed: {', '.join(SCOPES)}.")
    return block["address"], facts


def _line_of(text: str, name: str, key: str | None = None) -> int:
    inside, line_number = False, 1
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            inside = bare.startswith(f"[{name}]")
            line_number = number if inside else line_number
        if inside and key is not None and bare.startswith(key):
            return number
    return line_number


find.is_instrument = True  # type: ignore[attr-defined]  # discover asks the factory


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
