"""An observer of a bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.reasons import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.results.schema import Variant


class Watcher:
    """A Progress that records its calls; ``at`` is called with each stage when it begins."""

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

    def extend(self, text, seconds):
        self.notes.append(text)

    def note(self, text):
        self.notes.append(text)

    def end(self):
        self.ended = True


def status_apart_from_load(variant: Variant) -> str:
    """Return the status that the variant would have on a machine without other load: this test suite is such a load."""
    degrading = {code for reason in variant.reasons if (code := Code(reason.code)).severity.name == "DEGRADES"}
    return "ok" if variant.status == "degraded" and degrading == {Code.COMPETING_LOAD} else variant.status
