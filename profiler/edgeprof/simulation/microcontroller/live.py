"""A virtual microcontroller on a pseudo-terminal, with the supply at which it is measured."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, unknown
from edgeprof.simulation.microcontroller.firmware import NETWORKS, Firmware, ResetDuringWorkError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from edgeprof.simulation.microcontroller.faults import Faults

#: The names of the port and the meter in the directory.
PORT, METER = "mcu", "meter"
#: The interval between the meter's readings (s), and the delay of a slow device's lines (s).
_METER_S, _LATE_S = 0.01, 0.05
#: With the fault ``wrap``, the counter starts this many microseconds before it wraps.
_BEFORE_WRAP_US = 400_000
_DRIFT = 1.05


class Supply:
    """The true energy of the device, with one power while it is idle and another while it runs inferences.

    Args:
        idle_w: Power while idle, W.
        busy_w: Power during inferences, W.
    """

    def __init__(self, idle_w: float, busy_w: float) -> None:
        self.idle_w, self.busy_w = idle_w, busy_w
        self._since_s = time.monotonic()
        self._joules, self._is_busy = 0.0, False
        self._lock = threading.Lock()

    def set_busy(self, is_busy: bool) -> None:
        """Set whether the device is busy from now on."""
        with self._lock:
            self._bring_up_to_date()
            self._is_busy = is_busy

    def read(self) -> tuple[float, float]:
        """Return the monotonic time (s), and the joules until then."""
        with self._lock:
            self._bring_up_to_date()
            return self._since_s, self._joules

    def _bring_up_to_date(self) -> None:
        now = time.monotonic()
        self._joules += (now - self._since_s) * (self.busy_w if self._is_busy else self.idle_w)
        self._since_s = now


class LiveMicrocontroller:
    """A device that answers on ``DIR/mcu``, and a meter at its supply that writes to the FIFO ``DIR/meter``.

    Use it as a context manager.

    Args:
        directory: The directory for the port and the meter; created if absent.
        model: The MLPerf Tiny network that it pretends to run.
        latency_s: The duration of one inference, seconds.
        watts: Its power while idle and while busy, W.
        faults: The faults that it simulates.

    Raises:
        InputError: The model does not exist, a number is out of range, or the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        model: str = "ic01",
        latency_s: float = 0.01,
        watts: tuple[float, float] = (0.02, 0.08),
        faults: Faults,
    ) -> None:
        _check(model, latency_s, watts)
        self.directory, self.model, self.latency_s = directory, model, latency_s
        self.supply = Supply(*watts)
        self.inferences = 0
        self._faults = faults
        self._firmware = Firmware(self, model, "edgeprof-virtual", faults)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._master, self._slave, self._wake = -1, -1, -1
        self._started_s = 0.0

    @property
    def port(self) -> Path:
        return self.directory / PORT

    @property
    def meter(self) -> Path:
        return self.directory / METER

    def __enter__(self) -> Self:
        self._make_places()
        interrupt, self._wake = os.pipe()
        self._started_s = time.monotonic()
        self._firmware.boot()
        self._threads = [
            threading.Thread(target=self._serve, args=(interrupt,), name="edgeprof virtual mcu", daemon=True),
            threading.Thread(target=self._talk, name="edgeprof virtual meter", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        os.close(self._wake)
        for thread in self._threads:
            thread.join()
        self.hang_up()
        for place in (self.port, self.meter):
            place.unlink(missing_ok=True)

    def _make_places(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for place in (self.port, self.meter):
                if place.is_symlink() or place.is_fifo():
                    place.unlink()  # of an earlier simulation
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.port.symlink_to(os.ttyname(self._slave))
            os.mkfifo(self.meter)
        except OSError as error:
            self.hang_up()
            raise InputError(
                f"{self.directory} cannot hold a virtual microcontroller: {error.strerror}", remedy="Give a new folder."
            ) from None

    # --- the machine that the firmware runs on ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes to the port's reader; when the buffer is full, unread bytes are lost."""
        if self._faults.happens("slow"):
            self._stop.wait(_LATE_S)
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, data)

    def clock_us(self) -> int:
        """Return the microseconds of the device's own clock, in 32 bits."""
        rate = _DRIFT if "drift" in self._faults.first else 1.0
        start = 2**32 - _BEFORE_WRAP_US if "wrap" in self._faults.first else 0
        return (start + int((time.monotonic() - self._started_s) * rate * 1e6)) % 2**32

    def work(self, inferences: int) -> None:
        """Wait for the duration of this number of inferences, at the busy power."""
        if inferences <= 0:
            return
        self.supply.set_busy(True)
        try:
            if self._stop.wait(inferences * self.latency_s):
                raise ResetDuringWorkError
        finally:
            self.supply.set_busy(False)
        self.inferences += inferences

    def hang_up(self) -> None:
        """Remove the port."""
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1

    # --- threads ------------------------------------------------------------------------------------------------------

    def _serve(self, interrupt: int) -> None:
        try:
            while self._master >= 0 and not self._stop.is_set():
                ready, _, _ = select.select([self._master, interrupt], [], [])
                if interrupt in ready:
                    return
                self._firmware.receive(os.read(self._master, 4096))
        finally:
            os.close(interrupt)

    def _talk(self) -> None:
        """Write the readings of the supply's meter to the FIFO, if a program reads it."""
        while not self._stop.wait(_METER_S):
            try:
                descriptor = os.open(self.meter, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue  # no reader
            try:
                os.write(descriptor, b"#edgeprof name=supply covers=board gain=0 offset=0 simulated=yes\n")
                while not self._stop.wait(_METER_S):
                    now, joules = self.supply.read()
                    with contextlib.suppress(BlockingIOError):
                        os.write(descriptor, f"J={joules:.9f},t={now:.6f}\n".encode())
            except OSError:
                continue  # the reader has gone
            finally:
                os.close(descriptor)


def _check(model: str, latency_s: float, watts: tuple[float, float]) -> None:
    if model not in NETWORKS:
        raise unknown("model of MLPerf Tiny", model, NETWORKS)
    if not 1e-5 <= latency_s <= 60:
        raise InputError(f"--latency {latency_s:g} s is not between 10 µs and 60 s", remedy="As --latency 0.01.")
    if not 0 <= watts[0] <= watts[1] <= 100:
        raise InputError(
            f"--power {watts[0]:g},{watts[1]:g} is not idle and busy watts, the smaller first",
            remedy="As --power 0.02,0.08.",
        )
