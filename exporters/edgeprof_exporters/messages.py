r"""The datagram that an application sends for each call of a model, by ``edgeprof.track`` or by its own code.

It is the text ``EP1 <start> <end> <count>\\t<model>\\t<variant>\\t<runtime>``: times in nanoseconds of CLOCK_MONOTONIC,
the number of inferences in the call, and three labels in UTF-8. docs/exporter.md describes it for C and C++.
"""

from __future__ import annotations

from typing import NamedTuple

#: Largest datagram (bytes).
MOST_BYTES = 1024
#: Longest label (characters).
MOST_LABEL = 100
#: Most inferences in one call, and longest call (s); larger values are errors of the sender.
MOST_COUNT, MOST_SECONDS = 1_000_000, 86_400.0
#: Largest time by which an end may lie in the future (s), since clocks of different cores may differ.
_AHEAD_S = 1.0


class Message(NamedTuple):
    """One call: its start and end (monotonic s), its number of inferences, and its labels."""

    start: float
    end: float
    inferences: int
    model: str
    variant: str
    runtime: str


def parse(data: bytes, now: float) -> Message | None:  # noqa: PLR0911 - each is one thing that a message must have
    """Parse a datagram; None if it is not a valid message. Any bytes are allowed.

    Args:
        data: The datagram.
        now: The present (monotonic s), to refuse impossible times.
    """
    if len(data) > MOST_BYTES or not data.startswith(b"EP1 "):
        return None
    try:
        head, *labels = data.decode("utf-8").removesuffix("\n").split("\t")
        _, start_ns, end_ns, number = head.split(" ")
        if not (start_ns.isascii() and end_ns.isascii() and number.isascii()):
            return None
        # isdecimal: int() would take signs, underscores and blanks
        if not (start_ns.isdecimal() and end_ns.isdecimal() and number.isdecimal()):
            return None
        if max(len(start_ns), len(end_ns), len(number)) > 20:
            return None
        start, end, count = int(start_ns) / 1e9, int(end_ns) / 1e9, int(number)
    except ValueError:
        return None
    if not (1 <= count <= MOST_COUNT and start <= end <= now + _AHEAD_S and end - start <= MOST_SECONDS):
        return None
    if len(labels) != 3 or not all(map(is_label, labels)) or not labels[0]:
        return None
    return Message(start, end, count, *labels)


def is_label(text: str) -> bool:
    """Whether a text may be the value of a label: it is short, and every character is printable."""
    return len(text) <= MOST_LABEL and text.isprintable()
