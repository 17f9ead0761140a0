"""The conversation with an X-NUCLEO-LPM01A: its settings, and the samples that it sends (protocol: see lpm01a)."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time

from edgeprof.errors import UnavailableError
from edgeprof.sensing.meter.shift import Shift
from edgeprof.worker.runtime import LoadError
from edgeprof_plugins.runtimes.mcu.port import Port

#: Over USB the baud rate has no effect; this is the one that MLCommons' runner sets.
_BAUD = 921600
#: Time between two samples (s).
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

    sample_s = SAMPLE_S

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
