"""ST X-NUCLEO-LPM01A (PowerShield), the default meter of MLPerf Tiny: ``--sensor lpm01a:3.3V@/dev/ttyACM1``.

It supplies the device with the given voltage (1.8 to 3.3 V) and measures what the device draws. The address is the
voltage, ``@`` and the port; a prefix ``static:`` allows currents up to 200 mA (by default it measures dynamically, up
to 50 mA). Protocol: text over USB (ST UM2269, UM2243): ``htc``, ``acqmode``, ``volt``, ``freq``, ``output energy``,
``format ascii_dec``, ``acqtime inf``, ``trigsrc sw``, ``pwrend on``, ``start``; each is answered by ``ack`` or
``error``. Then it sends one line for each sample, ``6409-07`` for 6409 × 10⁻⁷ J, and a time stamp every 1000 samples.
Covers: ``board`` (what it supplies). Refresh: 1 kHz. Traps: the first ``htc`` after plugging it in may be refused; the
device loses its supply if an acquisition ends without ``pwrend on``, so one acquisition runs until the program ends;
lost samples are recognised by the time stamps, and their time counts as a gap.
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
#: Over USB the baud rate has no effect; this is the one that MLCommons' runner sets.
_BAUD = 921600
SAMPLE_S = 1e-3
#: Longest wait for the answer to a command, and longest silence while it measures (s).
_ANSWER_S, _SILENT_S = 2.0, 1.0
_SAMPLE = re.compile(r"(\d+)([+-]\d\d)")
_STAMP = re.compile(r"TimeStamp: (\d+)s (\d+)ms")
#: Number of samples that may seem to be missing, since the time stamps are in whole milliseconds.
_ROUNDING = 2


class Stream:
    """One acquisition, from its start until ``close``; a thread adds up the samples.

    Args:
        port: Path of the instrument's port.
        volts: Voltage that it supplies (V).
        mode: ``static`` or ``dynamic``.

    Raises:
        UnavailableError: there is no instrument, or it refuses a setting.
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
        """Send a command that must be acknowledged.

        Raises:
            UnavailableError: the instrument refuses the command, or does not answer.
        """
        if not self._command(command):
            raise UnavailableError(
                f"the device at {self.place} refuses {command!r}",
                remedy="Is it an LPM01A with firmware 1.0.6 or later, and is its jumper set to the supplied device?",
            )

    def _command(self, command: str) -> bool:
        """Send a command; return whether it is acknowledged."""
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
        """Compare the number of samples since the last time stamp with the time that has passed."""
        expected = round((stamp_s - self._last_stamp_s) / SAMPLE_S) if math.isfinite(self._last_stamp_s) else None
        if expected is not None and abs(expected - self._since_stamp) > _ROUNDING:
            self._lost += 1
            self._samples += expected - self._since_stamp
        self._last_stamp_s, self._since_stamp = stamp_s, 0

    def row(self) -> tuple[float, float, int]:
        """Joules since the start, the monotonic time (s) up to which they were counted, and the number of losses.

        Raises:
            UnavailableError: the instrument sends nothing any more.
        """
        with self._lock:
            row = self._joules, self._at_s, self._lost
        age = time.monotonic() - row[1]
        if self.trouble is not None or age > _SILENT_S:
            raise UnavailableError(
                f"the LPM01A at {self.place} measures nothing" + (f": {self.trouble}" if self.trouble else ""),
                remedy="Unplug it and plug it in again. Too large a current stops it: --sensor lpm01a:static:3.3V@PORT",
            )
        return row

    def wait(self) -> None:
        """Wait for the first sample.

        Raises:
            UnavailableError: no sample arrives.
        """
        deadline = time.monotonic() + _ANSWER_S
        while not math.isfinite(self._at_s) and self.trouble is None and time.monotonic() < deadline:
            time.sleep(10 * SAMPLE_S)
        self.row()

    def close(self) -> None:
        """End the acquisition; the device stays supplied."""
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
        values[0] = joules if lost == self._lost else math.nan  # lost samples become a gap
        times[0], self._lost = at_s, lost


_streams: dict[str, Stream] = {}


def disconnect() -> None:
    """End every acquisition of this process."""
    while _streams:
        _streams.popitem()[1].close()


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Find the instruments that the user asked for; without a voltage no device may be switched on.

    Raises:
        InputError: an address does not contain voltage and port.
        UnavailableError: there is no such instrument, or it refuses a command.
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
    """Parse an address into mode, voltage (V) and port.

    Raises:
        InputError: the address has another form.
    """
    match = _ADDRESS.fullmatch(address)
    volts: Any = float(match[2]) if match else math.nan
    if match is None or not _LOW_V <= volts <= _HIGH_V:
        raise InputError(
            f"lpm01a:{address} does not give a voltage and a port",
            remedy="Write it as lpm01a:3.3V@/dev/ttyACM1 or lpm01a:static:3.3V@/dev/ttyACM1 (1.8 to 3.3 V).",
        )
    return match[1] or "dynamic", volts, match[3]


find.is_instrument = True  # type: ignore[attr-defined]  # discover asks the factory


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
