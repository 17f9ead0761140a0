"""The interface by which a benchmark reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Progress(Protocol):
    """Receives the progress of a benchmark: the command line draws a bar, tests store a list."""

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None:
        """The run begins: its headlines, its expected seconds, and a function that returns live values."""

    def stage(self, text: str, seconds: float) -> None:
        """A step begins that takes about ``seconds``."""

    def note(self, text: str) -> None:
        """Show a sentence on a separate line."""

    def end(self) -> None:
        """The run has ended, successfully or not."""
