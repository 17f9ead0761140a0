"""The lines that a command prints, passed on as they come, with the time of each.

The command's stdout is a terminal of its own (a pseudo-terminal), because programs keep back what they print into a
pipe; what it prints goes to this process's stdout, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

#: A line without an end is looked at up to here (bytes).
_LONGEST = 65536


class OutputLines:
    """The stdout of commands, as a context manager: ``descriptor`` is what they write to.

    Attributes:
        lines: CLOCK_MONOTONIC seconds and text of each line so far; complete when the context is left.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self.descriptor = -1
        self._reading = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._reading, self.descriptor = pty.openpty()
        modes = termios.tcgetattr(self.descriptor)
        modes[1] &= ~termios.OPOST  # a line's end stays as it was printed
        termios.tcsetattr(self.descriptor, termios.TCSANOW, modes)
        self._thread = threading.Thread(target=self._pass_on, name="edgeprof-output", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)
        if self._thread is not None:
            self._thread.join(5.0)  # what the command left running may hold its stdout open
        if self._thread is None or not self._thread.is_alive():
            os.close(self._reading)

    def _pass_on(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._reading, 65536)
            except OSError:  # nobody writes any more
                data = b""
            now = time.monotonic()
            if not data:
                break
            with contextlib.suppress(OSError, ValueError):  # the reader of our own stdout may be gone
                sys.stdout.flush()
                os.write(sys.stdout.fileno(), data)
            *whole, rest = (rest + data).split(b"\n")
            self.lines += [(now, line.decode("utf-8", "replace").rstrip("\r")) for line in whole]
            rest = rest[-_LONGEST:]
        if rest:
            self.lines.append((now, rest.decode("utf-8", "replace")))
