"""What a bench tells of itself while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Progress(Protocol):
    """Who watches; the command line draws a bar, tests keep a list."""

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None:
        """The run starts: what will be said first, how long it should take, and what moves meanwhile."""

    def stage(self, text: str, seconds: float) -> None:
        """A step begins that takes about ``seconds``."""

    def note(self, text: str) -> None:
        """Show a sentence that is worth a line of its own."""

    def end(self) -> None:
        """The run has ended, in whatever way."""
