"""Progress for notebooks and interactive use: one line on stderr that overwrites itself, only if a user can see it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edgeprof.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class OneLine:
    """A ``Progress`` that writes one line, which the next one overwrites.

    Args:
        shown: Whether to show it; by default on a terminal and in a notebook.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = _is_watched() if shown is None else shown
        self._end_s = 0.0
        self._width = 0

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None:  # noqa: ARG002 - Progress
        """Show the expected duration."""
        self._end_s = time.monotonic() + total_s
        self._draw(f"{lines[-1]} · about {duration(total_s)}")

    def stage(self, text: str, seconds: float) -> None:  # noqa: ARG002 - see Progress
        """Show the current step and the time left."""
        self._draw(f"{text} · {duration(max(0.0, self._end_s - time.monotonic()))} left")

    def extend(self, text: str, seconds: float) -> None:
        """Show why the run takes longer, and allow for it in the time left."""
        self._end_s += seconds
        self.note(text)

    def note(self, text: str) -> None:
        """Show a sentence that is not overwritten."""
        self._draw("")
        if self._shown:
            sys.stderr.write(f"\r{text}\n")

    def end(self) -> None:
        """Clear the line."""
        self._draw("")
        if self._shown:
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _draw(self, text: str) -> None:
        if not self._shown:
            return
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


def _is_watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
