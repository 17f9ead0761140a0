"""A serial port, by the standard library's termios: lines with the time at which they came, and writes that wait.

Not pyserial: the worker may run under a Python that lacks it, and the time of a line is to be taken where its bytes are
read. Python 3.6 grammar. Source: termios(3), tty_ioctl(4) (TIOCEXCL), the kernel's usb-serial (latency_timer).
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
#: What comes without the end of a line is thrown away beyond this (bytes).
_LONGEST = 4096
#: How late a USB adapter hands bytes over, at most, where nothing says better (s): the FTDI driver's default.
USB_LATENCY_S = 0.016

Line = NamedTuple("Line", [("text", str), ("time_s", float)])


class PortError(LoadError):
    """The port cannot be used, or went away."""


class Port:
    """One end of a serial line; nobody else may open it meanwhile.

    Args:
        path: Of the device file.
        baud: Bits per second.

    Raises:
        PortError: there is no such port, it is no serial port, or somebody else has it.
    """

    def __init__(self, path: str, baud: int = BAUD) -> None:
        self.path, self.baud = path, baud
        self.damaged = 0  # bytes that are no text, thrown away
        self._pending = b""
        self._lines: List[Line] = []
        self._descriptor = -1
        speed = getattr(termios, "B{}".format(baud), None)
        if speed is None or baud <= 0:
            raise PortError("{} is no baud rate that serial ports have".format(baud), "As mcu:/dev/ttyACM0@115200.")
        self._descriptor = _open(path)
        try:
            self._claim()
            _make_raw(self._descriptor, speed)
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        if not os.isatty(self._descriptor):
            raise PortError("{} is no serial port".format(self.path), "Name the device's port: ls /dev/serial/by-id")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.ioctl(self._descriptor, termios.TIOCEXCL)
        except OSError:
            raise PortError(
                "{} is in use by another program".format(self.path), "Close the serial monitor or the other bench."
            ) from None

    def write(self, data: bytes, limit_s: float = 5.0) -> None:
        """
        Raises:
            PortError: the port is gone, or takes nothing.
        """
        rest = data
        deadline = time.monotonic() + limit_s
        while rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._descriptor], [], left)[1]:
                raise PortError("{} takes no bytes any more".format(self.path), "Plug the device out and in.")
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error) from None

    def read_line(self, deadline_s: float) -> Optional[Line]:
        """The next line without its end, and when its end was there; None where none came until then.

        Raises:
            PortError: the port is gone.
        """
        while not self._lines:
            left = deadline_s - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return None
            self._receive()
        return self._lines.pop(0)

    def drain(self, quiet_s: float, limit_s: float = 10.0) -> bool:
        """Throw away what comes, until nothing came for so long; whether that was so before the limit.

        Raises:
            PortError: the port is gone.
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
        return PortError("{} is gone: {}".format(self.path, why), "Look at its cable and its supply.")

    @property
    def unfinished(self) -> str:
        """What came behind the end of the last line."""
        return bytes(byte for byte in self._pending if 32 <= byte < 127).decode("ascii").strip()

    def report_delay_s(self, characters: int) -> float:
        """How late the end of a line may be seen here (s): it is sent bit by bit, and USB hands it over in turn."""
        return _usb_latency_s(self.path) + 10.0 * characters / self.baud

    def close(self) -> None:
        """Give the port back; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # a port that hung up
                fcntl.ioctl(descriptor, termios.TIOCNXCL)
            os.close(descriptor)


def _open(path: str) -> int:
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise PortError("{} is no serial port".format(path), "Name the device's port: ls /dev/serial/by-id")
        return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        remedy = "Name the device's port: ls /dev/serial/by-id"
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "sudo usermod -aG dialout $USER, and log in again"
        elif error.errno == errno.EBUSY:
            remedy = "Close the serial monitor or the other bench."
        raise PortError("{} does not open: {}".format(path, error.strerror), remedy) from None


def _make_raw(descriptor: int, speed: int) -> None:
    characters: List[Any] = [b"\0"] * 32
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    settings: List[Any] = [termios.IGNPAR, 0, control, 0, speed, speed, characters]
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def _usb_latency_s(path: str) -> float:
    """The adapter's own figure, where its driver tells (FTDI)."""
    name = os.path.basename(os.path.realpath(path))
    try:
        with open("/sys/class/tty/{}/device/latency_timer".format(name)) as file:
            return max(0.001, int(file.read()) * 1e-3)
    except (OSError, ValueError):
        return USB_LATENCY_S
