"""The line protocol of external meters: one line a reading, for any meter that a few lines of a program can reach.

A line is a number (watts), or words ``key=value`` between blanks or commas:

    12.34
    W=12.34 V=12.01 A=1.027
    t=1761.250 W=12.34 ch=supply
    J=8241.7

Keys: ``W`` watts, ``V`` volts, ``A`` amperes (V and A without W: their product), ``J`` joules of a running total,
``ch`` a channel's name where there are several, ``t`` the meter's own seconds (any origin): readings are then placed by
it, and the delay of the line does not matter as long as it is steady. A line that begins with ``#`` is a comment; one
that begins with ``#edgeprof`` says what the meter is: ``#edgeprof name=ut61 covers=board gain=0.5% offset=0.01
step=0.001 interval=0.1 average=0.1``. Docs: docs/meters.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

#: What a line may say of a reading, and what a header may say of the meter.
READING_KEYS = ("W", "V", "A", "J", "t", "ch")
FACT_KEYS = ("name", "covers", "gain", "offset", "step", "interval", "average", "simulated")
_HEADER = "#edgeprof"


@dataclass(frozen=True)
class Facts:
    """What a meter is.

    Attributes:
        name: Of its channel, where its lines name none.
        covers: What it sees: ``wall``, ``board``, ``module`` …
        gain_limit: Half-width of its relative error; None if unknown.
        offset_w: Half-width of its additive error, W.
        step: Its smallest step, W.
        interval_s: How often it has something new.
        average_s: What a reading is the mean of, seconds before it.
        is_simulated: Whether no instrument but a program makes its readings up.
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
    """One line's reading; None for what it does not say."""

    channel: str | None
    watts: float | None
    volts: float | None
    amperes: float | None
    joules: float | None
    at: float | None


class LineError(ValueError):
    """A line that is neither a reading nor a comment; the message says what is wrong with it."""


def parse_header(line: str, facts: Facts) -> Facts | None:
    """What a header line adds to the facts; None for any other line.

    Raises:
        LineError: an unknown key or a value that is none.
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
    """The reading of a line; None for an empty line or a comment.

    Raises:
        LineError: it is neither.

    >>> parse("12.5").watts, parse("V=5,A=2").watts, parse("# hello")
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
