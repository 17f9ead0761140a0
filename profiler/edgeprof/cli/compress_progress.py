"""Progress of a compressor that trains or calibrates, on stderr: one line that is redrawn, or plain lines in a file."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from edgeprof.reporters.plain import ERRORS
from edgeprof.units import duration

#: Seconds between two drawings on a terminal, and between two lines elsewhere.
_DRAWN_S, _LINES_S = 0.2, 10.0


class Reports:
    """A sink for ``compression.progress.shown_by``; the time left is extrapolated from the pace so far.

    Use it as a context manager: the line is erased at the end.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream, self._quiet = stream, quiet
        self._terminal = stream.isatty()
        self._shown = self._started = time.monotonic()
        self._first: float | None = None
        self._last = 1.0
        self._drawn = False

    def __enter__(self) -> Reports:  # noqa: PYI034 - Self is not in the typing of 3.10
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._write("\r\x1b[K")

    def __call__(self, text: str, done: float) -> None:
        now = time.monotonic()
        if done < self._last:  # another step of the chain has begun
            self._started, self._first = now, done
        self._last = done
        if self._quiet or now - self._shown < (_DRAWN_S if self._terminal else _LINES_S):
            return
        self._shown = now
        gained = done - (self._first or 0.0)
        left = (now - self._started) * (1 - done) / gained if gained > 0 else None
        line = text if left is None else f"{text} · {duration(left)} left"
        if self._terminal:
            encoding = self._stream.encoding or "ascii"
            line = line.encode(encoding, ERRORS).decode(encoding)[: shutil.get_terminal_size().columns - 1]
            self._drawn = True
            self._write(f"\r\x1b[K{line}")
        else:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._quiet = True  # nobody is listening any more; the work goes on
