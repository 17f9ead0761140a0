r"""What an application sends for each call of a model: one datagram, text, made by ``edgeprof.track`` or by anybody.

``EP1 <start> <end> <count>\\t<model>\\t<variant>\\t<runtime>``: CLOCK_MONOTONIC nanoseconds, the number of inferences
in the call, three labels in UTF-8. docs/exporter.md has it for callers in C and C++.
"""

from __future__ import annotations

from typing import NamedTuple

#: The longest datagram (bytes).
MOST_BYTES = 1024
#: The longest label (characters).
MOST_LABEL = 100
#: The most inferences in one call, and the longest call (s): anything beyond is an error of the sender.
MOST_COUNT, MOST_SECONDS = 1_000_000, 86_400.0
#: How far in the future an end may lie (s): a clock that is read on another core.
_AHEAD_S = 1.0


class Message(NamedTuple):
    """One call: monotonic seconds, how many inferences, of what."""

    start: float
    end: float
    inferences: int
    model: str
    variant: str
    runtime: str


def parse(data: bytes, now: float) -> Message | None:  # noqa: PLR0911 - each is one thing that a message must have
    """A datagram's message; None if it is not one, whatever it is.

    Args:
        data: As it came; at most ``MOST_BYTES``.
        now: Monotonic s, to refuse times that cannot be.
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
    """Whether a text can be a label's value: short, and every character printable."""
    return len(text) <= MOST_LABEL and text.isprintable()
