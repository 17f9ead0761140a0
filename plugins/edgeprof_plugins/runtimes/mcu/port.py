"""A serial port, by the standard library's termios: lines with the time of their arrival, and writes with a deadline.

pyserial is not used: the worker may run under a Python that lacks it, and the time of a line must be taken when its
bytes are read. Python 3.6 grammar. Source: termios(3), tty_ioctl(4) (TIOCEXCL), the kernel's usb-serial
(latency_timer).
"""

import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
import time
from typing import Any, List, NamedTuple, Optional

from edgeprof.worker.runtime import LoadError

BAUD = 115200
#: Longest input without the end of a line (bytes); a longer one is discarded.
_LONGEST = 4096
#: Longest delay of bytes in a USB adapter, if its driver does not report it (s): the FTDI driver's default.
USB_LATENCY_S = 0.016

Line = NamedTuple("Line", [("text", str), ("time_s", float)])


class PortError(LoadError):
    """The port cannot be used, or has disappeared."""


class Port:
    """One end of a serial line, which no other program can open meanwhile.

    Args:
        path: Path of the device file.
        baud: Bits per second.

    Raises:
        PortError: there is no such port, it is not a serial port, or another program uses it.
    """

    def __init__(self, path: str, baud: int = BAUD) -> None:
        self.path, self.baud = path, baud
        self.damaged = 0  # discarded bytes that are not text
        self._pending = b""
        self._lines: List[Line] = []
        self._descriptor = -1
        speed = getattr(termios, "B{}".format(baud), None)
        if speed is None or baud <= 0:
            raise PortError(
                "{} is not a baud rate of serial ports".format(baud), "Write it as mcu:/dev/ttyACM0@115200."
            )
        self._descriptor = _open(path)
        try:
            self._claim()
            _make_raw(self._descriptor, speed)
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        if not os.isatty(self._descriptor):
            raise PortError("{} is not a serial port".format(self.path), "Name the device's port: ls /dev/serial/by-id")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.ioctl(self._descriptor, termios.TIOCEXCL)
        except OSError:
            raise PortError(
                "{} is in use by another program".format(self.path), "Close the serial monitor or the other bench."
            ) from None

    def write(self, data: bytes, limit_s: float = 5.0) -> None:
        """Write all bytes.

        Args:
            data: The bytes.
            limit_s: Longest time for all of them (s).

        Raises:
            PortError: the port has disappeared, or accepts nothing.
        """
        rest = data
        deadline = time.monotonic() + limit_s
        while rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._descriptor], [], left)[1]:
                raise PortError(
                    "{} accepts no bytes any more".format(self.path), "Unplug the device and plug it in again."
                )
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from None

    def read_line(self, deadline_s: float) -> Optional[Line]:
        """Read the next line without its end, with the time of its end; None if none arrives before the deadline.

        Raises:
            PortError: the port has disappeared.
        """
        while not self._lines:
            left = deadline_s - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return None
            self._receive()
        return self._lines.pop(0)

    def drain(self, quiet_s: float, limit_s: float = 10.0) -> bool:
        """Discard input until none arrives for ``quiet_s``; return whether that happened within ``limit_s``.

        Raises:
            PortError: the port has disappeared.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self._lines, self._pending = [], b""
            if not select.select([self._descriptor], [], [], quiet_s)[0]:
                return True
            self._receive()
        self._lines, self._pending = [], b""
        return False

    def _receive(self) -> None:
        try:
            chunk = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(error) from None
        now = time.monotonic()
        if not chunk:
            raise self._gone(None)
        parts = (self._pending + chunk).split(b"\n")
        self._pending = parts.pop()
        if len(self._pending) > _LONGEST:
            self.damaged += len(self._pending)
            self._pending = b""
        self._lines.extend(Line(self._text(part), now) for part in parts)

    def _text(self, data: bytes) -> str:
        clean = bytes(byte for byte in data if 32 <= byte < 127)
        self.damaged += len(data.rstrip(b"\r")) - len(clean)
        return clean.decode("ascii").strip()

    def _gone(self, error: Optional[OSError]) -> PortError:
        why = "it hung up" if error is None or error.errno == errno.EIO else str(error.strerror)
        return PortError("{} is gone: {}".format(self.path, why), "Check its cable and its supply.")

    @property
    def unfinished(self) -> str:
        """The input after the end of the last line."""
        return bytes(byte for byte in self._pending if 32 <= byte < 127).decode("ascii").strip()

    def report_delay_s(self, characters: int) -> float:
        """Longest delay of the end of a line (s): it is sent bit by bit, and USB adds its latency."""
        return _usb_latency_s(self.path) + 10.0 * characters / self.baud

    def close(self) -> None:
        """Release the port. Calling it twice is safe."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # the port may have disappeared
                fcntl.ioctl(descriptor, termios.TIOCNXCL)
            os.close(descriptor)


def _open(path: str) -> int:
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise PortError("{} is not a serial port".format(path), "Name the device's port: ls /dev/serial/by-id")
        return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        remedy = "Name the device's port: ls /dev/serial/by-id"
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "sudo usermod -aG dialout $USER, and log in again"
        elif error.errno == errno.EBUSY:
            remedy = "Close the serial monitor or the other bench."
        raise PortError("{} cannot be opened: {}".format(path, error.strerror), remedy) from None


def _make_raw(descriptor: int, speed: int) -> None:
    characters: List[Any] = [b"\0"] * 32
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    settings: List[Any] = [termios.IGNPAR, 0, control, 0, speed, speed, characters]
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def _usb_latency_s(path: str) -> float:
    """The latency of the adapter (s), if its driver reports it (FTDI), else the default."""
    name = os.path.basename(os.path.realpath(path))
    try:
        with open("/sys/class/tty/{}/device/latency_timer".format(name)) as file:
            return max(0.001, int(file.read()) * 1e-3)
    except (OSError, ValueError):
        return USB_LATENCY_S
