"""Shorten long names in the middle: the beginning and the end of a chain of compressors identify it best."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from edgeprof.verdicts.recommend import recommendation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeprof.results.schema import Comparison, Reason, Recommendation, Result, Variant

#: Most characters of a name on a page, or in a table that has room.
MOST = 34
ELLIPSIS = "…"
#: Where a name in prose may begin, and what after it makes it a part of a path or of another name.
_BEGINNING = re.compile(r"(?<![\w/.])")
_CONTINUATION = re.compile(r"[\w/]|\.\w")


def shortened(name: str, most: int = MOST) -> str:
    """Shorten a name of more than ``most`` characters in the middle.

    >>> shortened("efficientnet-b0-ns+prune+int8-static", 21)
    'efficientn…nt8-static'
    """
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}{ELLIPSIS}{name[len(name) - (most - 1 - head) :]}"


def short_names(names: Iterable[str], most: int = MOST) -> dict[str, str]:
    """Name → its short form of about ``most`` characters; different names stay different."""
    different = list(dict.fromkeys(names))
    room = most
    while True:
        short = {name: shortened(name, room) for name in different}
        if len(set(short.values())) == len(different):
            return short
        room += 1 if room < 3 * most else room // 8  # ends at the latest where no name is shortened


def with_short_names(result: Result, most: int = MOST) -> Result:
    """Copy a result for display, in which every variant has a name of about ``most`` characters.

    Remedies are not changed: they contain commands, which need the full names.
    """
    if result.recommendation is None:  # computed once, instead of by each sentence that needs it
        result = msgspec.structs.replace(result, recommendation=recommendation_of(result))
    short = short_names((variant.name for variant in result.variants), most)
    if all(name == full for full, name in short.items()):
        return result
    in_text = _replacer(short)
    return msgspec.structs.replace(
        result,
        variants=[_shorten_variant(variant, short, in_text) for variant in result.variants],
        comparisons=[_shorten_comparison(comparison, short, in_text) for comparison in result.comparisons],
        pareto=[short.get(name, name) for name in result.pareto],
        recommendation=_shorten_recommendation(result.recommendation, short, in_text),
        reasons=[_shorten_reason(reason, in_text) for reason in result.reasons],
    )


def shortened_pairs(result: Result, most: int = MOST) -> list[tuple[str, str]]:
    """The short and the full name of each variant whose name ``with_short_names`` shortens."""
    short = short_names((variant.name for variant in result.variants), most)
    return [(name, full) for full, name in short.items() if name != full]


def _replacer(short: dict[str, str]) -> Callable[[str], str]:
    """Return a function that replaces names in prose, unless they are part of a path or of another name."""
    # One pattern of all names would be tried name by name at each place of each text: minutes for thousands of names.
    replacements = {name: replacement for name, replacement in short.items() if name != replacement}
    lengths = sorted({len(name) for name in replacements}, reverse=True)
    beginnings = {name[: lengths[-1]] for name in replacements}

    def replace(text: str) -> str:
        parts, end = [], 0
        for place in _BEGINNING.finditer(text):
            at = place.start()
            if at < end or text[at : at + lengths[-1]] not in beginnings:
                continue
            for length in lengths:
                name = text[at : at + length]
                if name in replacements and not _CONTINUATION.match(text, at + length):
                    parts += [text[end:at], replacements[name]]
                    end = at + length
                    break
        return "".join([*parts, text[end:]])

    return replace


def _shorten_variant(variant: Variant, short: dict[str, str], in_text: Callable[[str], str]) -> Variant:
    reasons = [_shorten_reason(reason, in_text) for reason in variant.reasons]
    return msgspec.structs.replace(variant, name=short[variant.name], reasons=reasons)


def _shorten_comparison(comparison: Comparison, short: dict[str, str], in_text: Callable[[str], str]) -> Comparison:
    return msgspec.structs.replace(
        comparison,
        variant=short.get(comparison.variant, comparison.variant),
        baseline=short.get(comparison.baseline, comparison.baseline),
        reason=in_text(comparison.reason) if comparison.reason else comparison.reason,
    )


def _shorten_recommendation(
    recommendation: Recommendation | None, short: dict[str, str], in_text: Callable[[str], str]
) -> Recommendation | None:
    if recommendation is None:
        return None
    return msgspec.structs.replace(
        recommendation,
        variant=None if recommendation.variant is None else short.get(recommendation.variant, recommendation.variant),
        reason=in_text(recommendation.reason),
        ties=[short.get(name, name) for name in recommendation.ties],
    )


def _shorten_reason(reason: Reason, in_text: Callable[[str], str]) -> Reason:
    return msgspec.structs.replace(reason, message=in_text(reason.message))
