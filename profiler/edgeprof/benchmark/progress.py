"""The interface by which a benchmark reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.benchmark.plan import Plan
    from edgeprof.results import schema
    from edgeprof.sensing.board.headline import Headline


class Progress(Protocol):
    """Receives the progress of a benchmark: the command line draws a bar, tests store a list."""

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None:
        """The run begins: its headlines, its expected seconds, and a function that returns live values."""

    def stage(self, text: str, seconds: float) -> None:
        """A step begins that takes about ``seconds``."""

    def extend(self, text: str, seconds: float) -> None:
        """Show why the run takes ``seconds`` longer than it was expected to take at its beginning."""

    def note(self, text: str) -> None:
        """Show a sentence on a separate line."""

    def end(self) -> None:
        """The run has ended, successfully or not."""


def headlines(host: schema.Host, headline: Headline, plan: Plan, count: int, *, interleaved: bool) -> list[str]:
    """Return the two lines above the progress: the device with its power rail, and what is measured on it.

    Args:
        host: The device.
        headline: The rails that are quoted.
        plan: The plan of the run.
        count: How many variants are measured.
        interleaved: Whether they are all loaded at once and take turns.
    """
    power = f"{headline.rail} covers the {headline.covers}" if headline.rail else headline.reason
    board = " · ".join(
        part for part in (host.board, host.power_mode, host.os, f"{host.cores} × {host.cpu}", power) if part
    )
    order = "" if count == 1 else ", interleaved A B … B A" if interleaved else ", one after the other (memory)"
    variants, windows = _counted(count, "variant"), _counted(plan.windows, "window")
    what = f"{variants} × {windows} × {plan.window_s:g} s"
    return [board, what + order]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"
