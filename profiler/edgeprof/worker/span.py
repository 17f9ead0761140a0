"""A span: a stretch of work with a beginning, an end and a count.

The same type is used from end to end: the worker sends spans, the daemon receives them, and a ``Recording`` integrates
power over them. Python 3.6 grammar and the standard library.
"""

from typing import NamedTuple, Tuple

#: Kinds of spans that edgeprof itself makes; other programs may use kinds of their own.
WINDOW = "window"  # calls of one workload, over and over
IDLE = "idle"  # no work, the model loaded
COMMAND = "command"  # one run of a program
CALL = "call"  # one call that an application reported
BLOCK = "block"  # a block of a user's own code
PHASE = "phase"  # a part of a program's run that its output names


class Span(NamedTuple):
    """A stretch of work.

    Attributes:
        kind: What sort of stretch it is: ``window``, ``idle``, ``command`` …
        start_s: When it began, in seconds of CLOCK_MONOTONIC.
        end_s: When it ended, in seconds of the same clock.
        count: How many units of work were done in it.
        unit: What was counted: ``inference``, ``output token``, ``frame`` …
        key: The names by which the span is looked up: a variant, a workload …
        edge_s: By how much each end may differ from that of the work, in seconds: 0 if the work was timed where it ran.
    """

    kind: str
    start_s: float
    end_s: float
    count: int = 1  # type: ignore[assignment]  # the name says it; nobody counts equal fields of a span
    unit: str = "inference"
    key: Tuple[str, ...] = ()
    edge_s: float = 0.0

    @property
    def seconds(self) -> float:
        """The length of the span in seconds."""
        return self.end_s - self.start_s

    @property
    def middle_s(self) -> float:
        """The time halfway between its beginning and its end, in seconds of CLOCK_MONOTONIC."""
        return (self.start_s + self.end_s) / 2


def idle_span(start_s: float, end_s: float) -> Span:
    """A stretch without work."""
    return Span(IDLE, start_s, end_s, 0, "")
