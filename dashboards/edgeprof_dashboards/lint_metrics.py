"""A lint of metric names and labels, stricter than ``promtool check metrics``.

The rules follow Prometheus' naming practices and its guide to writing exporters: base units as plural suffixes,
``_total`` for counters, no labels that belong to the scrape configuration. promtool accepts ``_milliwatts``,
``_percent`` and ``_joule_total``; this lint does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Base unit → the words that are often used in its place.
_INSTEAD = {
    "joules": ("joule", "millijoules", "mj", "kwh", "wh", "watthours"),
    "watts": ("watt", "milliwatts", "microwatts", "mw", "kilowatts"),
    "volts": ("volt", "millivolts", "mv"),
    "amperes": ("ampere", "amps", "amp", "milliamps", "ma"),
    "celsius": ("degrees", "fahrenheit", "kelvin", "millicelsius", "temp"),
    "bytes": ("byte", "kilobytes", "megabytes", "kb", "mb", "kib", "mib", "bits"),
    "seconds": ("second", "milliseconds", "microseconds", "ms", "us", "ns", "minutes", "hours", "days"),
    "hertz": ("hz", "khz", "mhz", "ghz"),
    "ratio": ("percent", "percentage", "pct"),
}
_WRONG = {word: unit for unit, words in _INSTEAD.items() for word in words}
#: Labels that the scrape configuration sets, and labels that are too generic ("Writing exporters", section Labels).
#: ``stage`` is allowed: the series ``edgeprof_stage…`` use it for the stages of an application.
BANNED = frozenset(
    ("job", "instance", "type", "zone", "region", "cluster", "az", "dc", "service", "env", "owner", "site")
)
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_SAMPLE = re.compile(
    r'(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(?P<value>\S+)(?P<rest>.*)'
)
#: Prefixes of metrics that a client library names.
_FOREIGN = ("process_", "python_")


@dataclass
class Family:
    """One metric family of an exposition.

    Attributes:
        samples: One tuple (name, labels, value, rest of the line after the value) for each sample.
    """

    name: str
    kind: str = "untyped"
    text: str = ""
    samples: list[tuple[str, dict[str, str], float, str]] = field(default_factory=list)


def read(exposition: str) -> list[Family]:
    """Return the families of a text exposition (0.0.4 or OpenMetrics), in their order.

    Raises:
        ValueError: a line is neither a comment nor a sample.
    """
    families: dict[str, Family] = {}
    for number, line in enumerate(exposition.splitlines(), start=1):
        words = line.split(maxsplit=3)
        if line.startswith("#"):
            if len(words) >= 3 and words[1] in ("TYPE", "HELP"):
                family = families.setdefault(words[2], Family(words[2]))
                value = words[3] if len(words) == 4 else ""
                if words[1] == "TYPE":
                    family.kind = value
                else:
                    family.text = value
            continue
        if not words:
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is no sample: {line[:80]!r}")
        labels = dict(_LABEL.findall(match["labels"] or ""))
        family = _family_of(families, match["name"])
        family.samples.append((match["name"], labels, float(match["value"]), match["rest"].strip()))
    return list(families.values())


def _family_of(families: dict[str, Family], name: str) -> Family:
    for suffix in ("", "_total", "_info", "_bucket", "_sum", "_count", "_created"):
        stem = name.removesuffix(suffix) if suffix else name
        if stem in families and name.endswith(suffix):
            return families[stem]
    return families.setdefault(name, Family(name))


def lint(exposition: str, prefix: str = "edgeprof_") -> list[str]:
    """Return what is wrong with the names and labels of an exposition, one sentence for each fault.

    Args:
        exposition: Text format 0.0.4 or OpenMetrics.
        prefix: The prefix that every name must have, except the metrics about the process itself.

    Raises:
        ValueError: the text is not an exposition.
    """
    findings: list[str] = []
    for family in read(exposition):
        if family.name.startswith(_FOREIGN):
            continue
        findings += [f"{family.name}: {text}" for text in (*_of_family(family, prefix), *_of_labels(family))]
    return findings


def _of_family(family: Family, prefix: str) -> Iterator[str]:
    if not family.name.startswith(prefix):
        yield f"does not begin with {prefix}"
    if not _NAME.fullmatch(family.name):
        yield "is not snake_case"
    if not family.text:
        yield "has no HELP"
    if family.kind == "untyped":
        yield "has no TYPE"
    words = family.name.removesuffix("_total").removesuffix("_info").split("_")
    for before, word in zip(["", *words], words, strict=False):
        if word in _WRONG and before != "per":  # a unit is plural, but singular after "per"
            yield f"says {word}; the base unit is {_WRONG[word]}"
    if family.kind == "gauge" and "timestamp" in words and words[-2:] != ["timestamp", "seconds"]:
        yield "is a time, and does not end in _timestamp_seconds"
    yield from _of_suffixes(family)
    yield from _of_values(family)


def _of_suffixes(family: Family) -> Iterator[str]:
    for name in sorted({name for name, *_ in family.samples} or {family.name}):
        if name.endswith("_created"):
            yield "exposes _created, a second series for nothing"
        elif family.kind == "counter" and not name.endswith("_total"):
            yield f"is a counter, and {name} does not end in _total"
        elif family.kind != "counter" and name.endswith("_total"):
            yield f"has the type {family.kind}, and {name} ends in _total"


def _of_values(family: Family) -> Iterator[str]:
    if family.name.endswith("_ratio") and any(not 0 <= value <= 1 for _, _, value, _ in family.samples):
        yield "is a ratio, and has a value outside 0 to 1"
    if family.kind == "counter" and any(value < 0 for _, _, value, _ in family.samples):
        yield "is a counter below 0"
    if any(rest and not rest.startswith("#") for *_, rest in family.samples):
        yield "has a timestamp of its own"


def _of_labels(family: Family) -> list[str]:
    findings: dict[str, None] = {}
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    names = {tuple(sorted(set(labels) - {"le", "quantile"})) for _, labels, _, _ in family.samples}
    if len(names) > 1:
        findings["has samples with different labels"] = None
    for name, labels, _, _ in family.samples:
        key = (name, tuple(sorted(labels.items())))
        if key in seen:
            findings[f"has {name}{labels} twice"] = None
        seen.add(key)
        for label, value in labels.items():
            if label in BANNED:
                findings[f"has the label {label}, which belongs to the scrape configuration"] = None
            if label.startswith("__") or not _NAME.fullmatch(label):
                findings[f"has the label {label}, which is not snake_case"] = None
            if label == "le" and family.kind != "histogram":
                findings["has the label le and is no histogram"] = None
            if label in ("rail", "sensor", "pool") and value.lower() in ("total", "all", "sum"):
                findings[f"has a row {label}={value!r} that a sum over {label} counts again"] = None
            if label != "le" and len(value) > 200:
                findings[f"has a value of {label} with {len(value)} characters"] = None
    return list(findings)
