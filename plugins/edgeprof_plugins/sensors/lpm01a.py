"""ST X-NUCLEO-LPM01A (PowerShield), the default meter of MLPerf Tiny: ``--sensor lpm01a:3.3V@/dev/ttyACM1``.

It supplies the device with the voltage that is given (1.8 to 3.3 V) and measures what the device draws. Address: the
voltage, before it ``static:`` for currents up to 200 mA (by default it measures dynamically, to 50 mA), and behind it
``@`` and the port. Protocol: text over USB (ST UM2269, UM2243): ``htc``, ``acqmode``, ``volt``, ``freq``, ``output
energy``, ``format ascii_dec``, ``acqtime inf``, ``trigsrc sw``, ``pwrend on``, ``start``; each is answered by ``ack``
or ``error``. Then comes one line for each sample, ``6409-07`` for 6409 × 10⁻⁷ J, and every 1000 samples a time stamp.
Covers: ``board`` (what hangs on its supply). Refresh: 1 kHz. Traps: the first ``htc`` after plugging it in may be
refused; the device loses its supply when an acquisition ends without ``pwrend on``, so one acquisition runs until the
program ends; samples that were lost on the way show by the time stamps, and the time counts as a gap.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import InputError, UnavailableError
from edgeprof.sensing.meter.shift import Shift
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof.worker.runtime import LoadError
from edgeprof_plugins.runtimes.mcu.port import Port

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "lpm01a"
_ADDRESS = re.compile(r"(?:(static|dynamic):)?([0-9]+(?:\.[0-9]+)?)V?@(/\S+)")
_LOW_V, _HIGH_V = 1.8, 3.3
_MOST_A = {"static": 0.2, "dynamic": 0.05}
#: ST DB3450: ±2 % of the reading in dynamic mode.
_GAIN_LIMIT = 0.02
#: USB's own rate holds whatever is set; this is what MLCommons' runner sets.
_BAUD = 921600
SAMPLE_S = 1e-3
#: How long a command may take to be answered, and how long it may say nothing while it measures (s).
_ANSWER_S, _SILENT_S = 2.0, 1.0
_SAMPLE = re.compile(r"(\d+)([+-]\d\d)")
_STAMP = re.compile(r"TimeStamp: (\d+)s (\d+)ms")
#: The time stamps are whole milliseconds: so many samples may seem to lack.
_ROUNDING = 2


class Stream:
    """One acquisition, from its start until ``close``; a thread adds the samples up.

    Args:
        port: Where the instrument is.
        volts: What it is to supply, V.
        mode: ``static`` or ``dynamic``.

    Raises:
        UnavailableError: there is no such instrument, or it refuses a setting.
    """

    def __init__(self, port: str, volts: float, mode: str) -> None:
        self.place, self.volts, self.mode = port, volts, mode
        self.trouble: str | None = None
        self._lock = threading.Lock()
        self._joules, self._at_s, self._samples, self._lost = 0.0, -math.inf, 0, 0
        self._since_stamp, self._last_stamp_s = 0, math.nan
        self._shift = Shift()
        self._stop = threading.Event()
        try:
            self._port = Port(port, _BAUD)
        except LoadError as error:
            raise UnavailableError(f"the LPM01A: {error.message}", remedy=error.remedy) from None
        try:
            self._configure()
        except LoadError as error:
            self._port.close()
            raise UnavailableError(f"the LPM01A: {error.message}", remedy=error.remedy) from None
        except BaseException:
            self._port.close()
            raise
        self._thread = threading.Thread(target=self._listen, name="edgeprof lpm01a", daemon=True)
        self._thread.start()

    def _configure(self) -> None:
        self._port.drain(0.3, limit_s=2.0)
        if not self._command("htc"):
            self._port.drain(0.3, limit_s=2.0)
            self._require("htc")
        for command in (
            f"acqmode {'stat' if self.mode == 'static' else 'dyn'}",
            f"volt {round(1e3 * self.volts)}m",
            "freq 1k",
            "output energy",
            "format ascii_dec",
            "acqtime inf",
            "trigdelay 0",
            "trigsrc sw",
            "pwrend on",
            "start",
        ):
            self._require(command)

    def _require(self, command: str) -> None:
        """
        Raises:
            UnavailableError: the instrument refuses it, or says nothing.
        """
        if not self._command(command):
            raise UnavailableError(
                f"what is at {self.place} does not take {command!r}",
                remedy="Is it an LPM01A with firmware 1.0.6 or later, and is its jumper on what it is to supply?",
            )

    def _command(self, command: str) -> bool:
        """Whether it acknowledges a command."""
        self._port.write(command.encode() + b"\n")
        deadline = time.monotonic() + _ANSWER_S
        while (line := self._port.read_line(deadline)) is not None:
            words = line.text.replace("PowerShield > ", "")
            if words.startswith(f"ack {command.split(maxsplit=1)[0]}"):
                return True
            if words.startswith("error"):
                return False
        return False

    def _listen(self) -> None:
        try:
            while not self._stop.is_set():
                line = self._port.read_line(time.monotonic() + 0.1)
                if line is not None:
                    self._take(line.text, line.time_s)
        except LoadError as error:
            self.trouble = error.message

    def _take(self, text: str, now: float) -> None:
        sample, stamp = _SAMPLE.fullmatch(text), _STAMP.match(text)
        with self._lock:
            if sample is not None:
                self._samples += 1
                self._since_stamp += 1
                self._joules += int(sample[1]) * 10.0 ** int(sample[2])
                self._at_s = self._shift.place(self._samples * SAMPLE_S, now)
            elif stamp is not None:
                self._compare(int(stamp[1]) + 1e-3 * int(stamp[2]))
            elif text.startswith("error") or "completed" in text:
                self.trouble = f"it ended the acquisition: {text[:60]}"

    def _compare(self, stamp_s: float) -> None:
        """Hold the samples that came since the last time stamp against the time that has passed."""
        expected = round((stamp_s - self._last_stamp_s) / SAMPLE_S) if math.isfinite(self._last_stamp_s) else None
        if expected is not None and abs(expected - self._since_stamp) > _ROUNDING:
            self._lost += 1
            self._samples += expected - self._since_stamp
        self._last_stamp_s, self._since_stamp = stamp_s, 0

    def row(self) -> tuple[float, float, int]:
        """Joules since the start, the monotonic time (s) up to which, and how often samples were lost.

        Raises:
            UnavailableError: nothing comes any more.
        """
        with self._lock:
            row = self._joules, self._at_s, self._lost
        age = time.monotonic() - row[1]
        if self.trouble is not None or age > _SILENT_S:
            raise UnavailableError(
                f"the LPM01A at {self.place} measures nothing" + (f": {self.trouble}" if self.trouble else ""),
                remedy="Plug it out and in; more than it can give stops it (--sensor lpm01a:static:3.3V@PORT).",
            )
        return row

    def wait(self) -> None:
        """Wait for the first sample.

        Raises:
            UnavailableError: none comes.
        """
        deadline = time.monotonic() + _ANSWER_S
        while not math.isfinite(self._at_s) and self.trouble is None and time.monotonic() < deadline:
            time.sleep(10 * SAMPLE_S)
        self.row()

    def close(self) -> None:
        """End the acquisition; what hangs on its supply stays supplied."""
        self._stop.set()
        self._thread.join(2.0)
        with contextlib.suppress(LoadError):
            self._port.write(b"stop\n")
            self._port.write(b"hrc\n")
        self._port.close()


class PowerShield(Sensor):
    """One instrument."""

    name = NAME

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lost = 0
        most_w = _MOST_A[stream.mode] * stream.volts
        self._channels = (
            Channel(
                NAME,
                "lpm01a",
                "energy",
                kind="counter",
                scope="board",
                role="total",
                provenance="measured",
                gain_limit=_GAIN_LIMIT,
                update_interval_s=SAMPLE_S,
                limit_w=1.2 * most_w,
                location=stream.place,
                note=f"supplies {stream.volts:g} V",
            ),
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        self._stream.wait()
        self._lost = self._stream.row()[2]

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        joules, at_s, lost = self._stream.row()
        values[0] = joules if lost == self._lost else math.nan  # what was lost is a gap, and never joules
        times[0], self._lost = at_s, lost


_streams: dict[str, Stream] = {}


def disconnect() -> None:
    """End every acquisition of this process."""
    while _streams:
        _streams.popitem()[1].close()


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """The instruments that were asked for: without a voltage none may switch a device on.

    Raises:
        InputError: an address that does not say voltage and port.
        UnavailableError: there is no such instrument, or it does not do as it is told.
    """
    if not addresses or not roots.is_live:
        return []
    return [PowerShield(_connect(address)) for address in addresses]


def _connect(address: str) -> Stream:
    mode, volts, port = parse(address)
    known = _streams.get(port)
    if known is not None and (known.trouble or (known.mode, known.volts) != (mode, volts)):
        _streams.pop(port).close()
        known = None
    if known is None:
        if not _streams:
            atexit.register(disconnect)
        known = _streams[port] = Stream(port, volts, mode)
    return known


def parse(address: str) -> tuple[str, float, str]:
    """Mode, volts and port of an address.

    Raises:
        InputError: it is none.
    """
    match = _ADDRESS.fullmatch(address)
    volts: Any = float(match[2]) if match else math.nan
    if match is None or not _LOW_V <= volts <= _HIGH_V:
        raise InputError(
            f"lpm01a:{address} does not say voltage and port",
            remedy="As lpm01a:3.3V@/dev/ttyACM1, or lpm01a:static:3.3V@/dev/ttyACM1 (1.8 to 3.3 V).",
        )
    return match[1] or "dynamic", volts, match[3]


find.is_instrument = True  # type: ignore[attr-defined]  # discover asks the factory


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
