"""A stream of lines from a meter: a serial port, a FIFO, standard input, a TCP port, or a command's output.

Each link has one thread, which reads lines as they arrive and passes each on with its time. A link outlives
``Sensor.close``, because a stream cannot be rewound and the programs behind some take seconds to start; ``Link.close``
ends it. Only the thread closes the descriptor that it reads: if another thread closed it, its number could be reused
for another file, whose bytes would then be read.
"""

from __future__ import annotations

import atexit
import os
import select
import stat
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgeprof.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

BAUD = 115200
#: How long a TCP connection may take, and how often a link that broke is tried again (s).
_CONNECT_S, _RETRY_S = 5.0, 1.0
#: The longest line of a meter, in bytes; longer ones are dropped.
_LONGEST = 4096


class Link:
    """Lines from an address, until it is closed or the process ends.

    Args:
        address: ``/dev/ttyUSB0`` or ``/dev/ttyUSB0@9600``; the path of a FIFO; ``-`` for standard input;
            ``tcp:HOST:PORT``; ``command:PROGRAM ARG…``.
        on_line: Called in the link's thread with each line and the monotonic time (s) at which its end arrived.

    Raises:
        InputError: the address has none of these forms.
    """

    def __init__(self, address: str, on_line: Callable[[str, float], None]) -> None:
        self.address, self._on_line = address, on_line
        self._open = _make_opener(address)
        #: Why no lines arrive now, as a clause; None while they may.
        self.trouble: str | None = "it was not opened yet"
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None  # the child's stderr
        self._words = b""  # the last that it wrote there
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake = -1  # the writing end of the pipe that interrupts a read

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            # A daemon: a meter that says nothing must not keep the program from ending.
            interrupt, self._wake = os.pipe()
            self._thread = threading.Thread(
                target=self._run, args=(interrupt,), name=f"edgeprof meter {self.address}", daemon=True
            )
            self._thread.start()

    def close(self, wait_s: float = 2.0) -> None:
        """End the thread and the program behind the link; a wait for the writer of a FIFO is left running."""
        if self._thread is None:
            return
        self._stopping.set()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
        self._thread.join(wait_s)

    def _run(self, interrupt: int) -> None:
        try:
            self._read_until_stopped(interrupt)
        finally:
            os.close(interrupt)

    def _read_until_stopped(self, interrupt: int) -> None:
        while not self._stopping.is_set():
            try:
                descriptor = self._open(self)
            except OSError as error:
                self.trouble = f"{self.address}: {error.strerror or error}"
            else:
                self.trouble = None
                try:
                    self._read(descriptor, interrupt)
                    self.trouble = f"{self.address} has ended"
                except OSError as error:
                    self.trouble = f"{self.address}: {error.strerror or error}"
                finally:
                    if descriptor > 2:
                        with suppress(OSError):
                            os.close(descriptor)
                    self._reap()
            if self.address == "-":
                return  # standard input that has ended cannot be opened again
            self._stopping.wait(_RETRY_S)

    def _read(self, descriptor: int, interrupt: int) -> None:
        rest = b""
        poll = select.poll()
        for number in (descriptor, interrupt, *([] if self._errors is None else [self._errors.fileno()])):
            poll.register(number, select.POLLIN)
        while self._wait_for_bytes(poll, descriptor, interrupt) and (chunk := os.read(descriptor, 65536)):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._on_line(line.decode("utf-8", errors="replace").strip("\r\0 "), now)
            if len(rest) > _LONGEST:
                rest = b""

    def _wait_for_bytes(self, poll: select.poll, descriptor: int, interrupt: int) -> bool:
        """Wait for bytes or an end of the stream; False where the link is being closed."""
        while True:
            ready = dict(poll.poll())
            if interrupt in ready:
                return False
            if self._errors is not None and self._errors.fileno() in ready and not self._keep_last_words():
                poll.unregister(self._errors.fileno())
            if descriptor in ready:
                return True

    def _keep_last_words(self) -> bool:
        """Keep the end of what the program has written to its stderr; False at the end of that stream."""
        assert self._errors is not None
        part = self._errors.read(65536)
        self._words = (self._words + (part or b""))[-_LONGEST:]
        return part != b""

    def _reap(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            import subprocess  # noqa: PLC0415 - see _command

            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(2)
            self._keep_last_words()
            assert self._errors is not None
            self._errors.close()
            self._errors = None
            if child.returncode:
                lines = [line for line in self._words.decode("utf-8", "replace").split("\n") if line.strip()]
                last = f": {lines[-1].strip()[:200]}" if lines else ""
                self.trouble = f"{self.address} ended with status {child.returncode}{last}"

    def _command(self, argv: list[str]) -> int:
        import subprocess  # noqa: PLC0415 - for a meter that is a program

        # A session of its own, so that Ctrl-C does not reach it. It is ended with this process; if this process is
        # killed, its output breaks.
        # Its stderr is not this process's, which may be a terminal: what it says there is text for an error message.
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._child, self._errors, self._words = child, child.stderr, b""
        atexit.register(child.terminate)
        assert child.stdout is not None
        assert child.stderr is not None
        os.set_blocking(child.stderr.fileno(), False)
        descriptor = os.dup(child.stdout.fileno())
        child.stdout.close()
        return descriptor


def _make_opener(address: str) -> Callable[[Link], int]:
    """Return the function that opens the address and returns a file descriptor."""
    if address == "-":
        return lambda _link: sys.stdin.fileno()
    if address.startswith("command:"):
        import shlex  # noqa: PLC0415 - only for a meter behind a program

        try:
            argv = shlex.split(address.removeprefix("command:"))
        except ValueError as error:
            raise InputError(f"the meter's address {address!r} is no command: {error}") from None
        if not argv:
            raise InputError(f"the meter's address {address!r} names no command")
        return lambda link: link._command(argv)  # noqa: SLF001 - it keeps the child
    if address.startswith("tcp:"):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InputError(f"the meter's address {address!r} is not tcp:HOST:PORT", remedy="As tcp:127.0.0.1:5555.")
        return lambda _link: _connect_tcp(host.strip("[]"), int(port))
    path, at, baud = address.partition("@")
    if at and not baud.isdecimal():
        raise InputError(f"{baud!r} in {address!r} is no baud rate", remedy="As /dev/ttyUSB0@115200.")
    speed = int(baud) if at else BAUD
    if getattr(termios, f"B{speed}", None) is None:
        raise InputError(f"{speed} is no baud rate that serial ports have", remedy="As /dev/ttyUSB0@115200.")
    return lambda _link: _open_device(Path(path), speed)


def _connect_tcp(host: str, port: int) -> int:
    import socket  # noqa: PLC0415 - only for a meter behind a network

    connection = socket.create_connection((host, port), timeout=_CONNECT_S)
    connection.settimeout(None)
    return connection.detach()


def _open_device(path: Path, baud: int) -> int:
    """Open a serial port in raw mode, a FIFO, or anything else that can be read like one."""
    # Non-blocking, so that a port without a carrier opens; reads are to block.
    kind = path.stat().st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        raise OSError(0, "is a file and no meter; a record is for edgeprof calibrate --against FILE.csv")
    waits = os.O_NONBLOCK if stat.S_ISCHR(kind) else 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | waits)
    if os.isatty(descriptor):
        speed: int = getattr(termios, f"B{baud}")
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        settings: list[Any] = [termios.IGNPAR, 0, control, 0, speed, speed, _control_bytes()]
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        termios.tcflush(descriptor, termios.TCIFLUSH)
    os.set_blocking(descriptor, True)
    return descriptor


def _control_bytes() -> list[bytes | int]:
    characters: list[bytes | int] = [b"\0"] * 32
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return characters


def silence_error(link: Link, seconds: float) -> UnavailableError:
    """Return the error for a meter that has sent no usable line for so many seconds."""
    why = f" ({link.trouble})" if link.trouble else ""
    return UnavailableError(
        f"the meter at {link.address} said nothing for {seconds:.3g} s{why}",
        remedy="See what it says: docs/meters.md has the lines that it should.",
    )
