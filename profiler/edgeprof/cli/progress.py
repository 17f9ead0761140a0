"""Progress of a benchmark on stderr: a bar with the time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, TextIO

from edgeprof.reporters.plain import ERRORS
from edgeprof.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REFRESH_S = 0.5
_BAR_CELLS = 24


class Bar:
    """Progress of a bench (see ``bench.Progress``).

    Args:
        stream: The stream to draw on, stderr.
        quiet: Whether to print nothing but notes.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self.is_terminal = stream.isatty()
        self._deaf = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._total_s = self._done_s = 0.0
        self._stage, self._stage_s, self._stage_start = "", 0.0, time.monotonic()
        self._live: Callable[[], str] = str
        self._printed_lines: set[str] = set()

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None:
        if self.quiet:
            return
        # A study runs many benchmarks, each with its own duration; the lines about the device are printed only once.
        self._total_s, self._live, self._done_s, self._stage_s = total_s, live, 0.0, 0.0
        self._stop.clear()
        for line in lines[:-1]:
            if line not in self._printed_lines:
                self._say(f"{line}\n")
        self._printed_lines.update(lines[:-1])
        self._say(f"{lines[-1]} · about {duration(total_s)}\n")
        if self.is_terminal:
            self._ticker = threading.Thread(target=self._tick, name="edgeprof-progress", daemon=True)
            self._ticker.start()

    def stage(self, text: str, seconds: float) -> None:
        with self._lock:
            self._done_s += self._stage_s
            self._stage, self._stage_s, self._stage_start = text, seconds, time.monotonic()
        if not self.quiet and not self.is_terminal:
            self._say(f"{text} · {duration(max(0.0, self._total_s - self._done_s))} left\n")

    def extend(self, text: str, seconds: float) -> None:
        with self._lock:
            self._total_s += seconds
        self.note(text)

    def note(self, text: str) -> None:
        with self._lock:
            self._clear()
            self._say(f"{text}\n")

    def end(self) -> None:
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            self._clear()

    def _tick(self) -> None:
        while not self._stop.wait(_REFRESH_S):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        within = min(self._stage_s, time.monotonic() - self._stage_start)
        done = min(1.0, (self._done_s + within) / self._total_s) if self._total_s else 0.0
        left = max(0.0, self._total_s - self._done_s - within)
        eighths = round(done * _BAR_CELLS * 8)
        full, part = divmod(eighths, 8)
        bar = "█" * full + (" ▏▎▍▌▋▊▉"[part] if full < _BAR_CELLS else "")
        words = " · ".join(w for w in (self._stage, self._live(), f"{duration(left)} left") if w)
        line = f"▕{bar:<{_BAR_CELLS}}▏ {words}"
        encoding = self.stream.encoding or "ascii"
        line = line.encode(encoding, ERRORS).decode(encoding)
        self._say("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])

    def _clear(self) -> None:
        if self.is_terminal and not self.quiet:
            self._say("\r\x1b[K")

    def _say(self, text: str) -> None:
        """Write a text; once the terminal is gone, write nothing more: a progress bar must not fail a measurement."""
        if self._deaf:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self._deaf = True
