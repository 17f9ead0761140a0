"""Someone who watches a bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Watcher:
    """A Progress that remembers; ``at`` is told each stage as it begins."""

    def __init__(self, at: Callable[[str], None] | None = None) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.lines: Sequence[str] = ()
        self.live = ""
        self.ended = False
        self._at = at

    def begin(self, lines, total_s, live):
        self.lines, self._live = lines, live

    def stage(self, text, seconds):
        self.stages.append(text)
        if text.startswith("window"):
            self.live = self._live()
        if self._at is not None:
            self._at(text)

    def note(self, text):
        self.notes.append(text)

    def end(self):
        self.ended = True
