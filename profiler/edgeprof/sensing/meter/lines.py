"""The line protocol of external meters: one line for each reading, so that a short program can connect any meter.

A line is a number (watts), or words ``key=value`` that are separated by blanks or commas:

    12.34
    W=12.34 V=12.01 A=1.027
    t=1761.250 W=12.34 ch=supply
    J=8241.7

The keys are: ``W`` watts; ``V`` volts; ``A`` amperes (without W, the power is V times A); ``J`` joules of a running
total; ``ch`` the name of a channel if there are several; ``t`` the meter's own time in seconds, from any origin. With
``t``, the delay of a line does not matter as long as it is steady. A line that begins with ``#`` is a comment. One that
begins with ``#edgeprof`` is a header that describes the meter: ``#edgeprof name=ut61 covers=board gain=0.5% offset=0.01
step=0.001 interval=0.1 average=0.1``. See docs/meters.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

#: The keys of a reading's line, and those of a header.
READING_KEYS = ("W", "V", "A", "J", "t", "ch")
FACT_KEYS = ("name", "covers", "gain", "offset", "step", "interval", "average", "simulated")
_HEADER = "#edgeprof"


@dataclass(frozen=True)
class Facts:
    """The description of a meter.

    Attributes:
        name: The name of its channel, if its lines name none.
        covers: What it measures: ``wall``, ``board``, ``module`` …
        gain_limit: Half-width of its relative error; None if unknown.
        offset_w: Half-width of its additive error, in W.
        step: Its smallest step, in W.
        interval_s: The interval at which it has a new value, in seconds.
        average_s: A reading is the mean over this many seconds before it.
        is_simulated: Whether a program invents its readings, so that no instrument measures.
    """

    name: str = "meter"
    covers: str = "wall"
    gain_limit: float | None = None
    offset_w: float | None = None
    step: float | None = None
    interval_s: float | None = None
    average_s: float | None = None
    is_simulated: bool = False


class Reading(NamedTuple):
    """The reading of one line; a field is None if the line does not contain it."""

    channel: str | None
    watts: float | None
    volts: float | None
    amperes: float | None
    joules: float | None
    at: float | None


class LineError(ValueError):
    """A line is neither a reading nor a comment; the message gives the reason."""


def parse_header(line: str, facts: Facts) -> Facts | None:
    """Return the facts with those of a header line added; None for any other line.

    Raises:
        LineError: a key is unknown, or a value is invalid.
    """
    if not line.startswith(_HEADER):
        return None
    given = _split_words(line[len(_HEADER) :], FACT_KEYS)
    for key, field in (
        ("gain", "gain_limit"),
        ("offset", "offset_w"),
        ("step", "step"),
        ("interval", "interval_s"),
        ("average", "average_s"),
    ):
        if key in given:
            facts = replace(facts, **{field: _parse_number(key, given[key])})  # type: ignore[arg-type]  # all are floats
    simulated = given.get("simulated", "yes" if facts.is_simulated else "no")
    if simulated not in ("yes", "no"):
        raise LineError(f"simulated={simulated} is neither yes nor no")
    return replace(
        facts,
        name=given.get("name", facts.name),
        covers=given.get("covers", facts.covers),
        is_simulated=simulated == "yes",
    )


def parse_line(line: str) -> Reading | None:
    """Return the reading of a line; None for an empty line or a comment.

    Raises:
        LineError: the line is neither a reading nor a comment.

    >>> parse_line("12.5").watts, parse_line("V=5,A=2").watts, parse_line("# hello")
    (12.5, 10.0, None)
    """
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    if "=" not in line:
        return Reading(None, _parse_number("W", line), None, None, None, None)
    words = _split_words(line, READING_KEYS)
    numbers = {key: _parse_number(key, words[key]) for key in ("W", "V", "A", "J", "t") if key in words}
    watts = numbers.get("W")
    if watts is None and "V" in numbers and "A" in numbers:
        watts = numbers["V"] * numbers["A"]
    if watts is None and "J" not in numbers:
        raise LineError("it has neither W, nor V and A, nor J")
    return Reading(
        words.get("ch"), watts, numbers.get("V"), numbers.get("A"), numbers.get("J"), numbers.get("t")
    )  # fmt: skip


def _split_words(text: str, allowed: tuple[str, ...]) -> dict[str, str]:
    words = {}
    for word in text.replace(",", " ").split():
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise LineError(f"{word!r} is not key=value")
        if key not in allowed:
            raise LineError(f"the key {key!r} is not one of {', '.join(allowed)}")
        words[key] = value
    return words


def _parse_number(key: str, text: str) -> float:
    percent = text.endswith("%") and key == "gain"
    try:
        value = float(text[:-1]) / 100 if percent else float(text)
    except ValueError:
        raise LineError(f"{key}={text} is not a number") from None
    if not math.isfinite(value):
        raise LineError(f"{key}={text} is not a finite number")
    return value
