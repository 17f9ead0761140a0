"""The text about a language model below its table, in every report."""

from __future__ import annotations

import msgspec

from edgeprof.reporters import console, html_page, markdown
from edgeprof.reporters.language_text import language_lines
from edgeprof.results.schema import Closure, Language, Ratio, TokenTime
from tests.profiler.results import samples

TIME = TokenTime(mean=0.02, p50=0.02, p90=None, p99=None, samples=9)
KNOWN = Language(
    prompt_tokens=512,
    generated_tokens=128,
    depth=64,
    bits_per_weight=6.351,
    ttft_s=msgspec.structs.replace(TIME, p50=0.41),
    tpot_s=TIME,
    itl_s=msgspec.structs.replace(TIME, p99=0.031),
    closure=Closure(energy=Ratio(value=0.994, ci95=(0.971, 1.018))),
)
LINE = (
    "512 prompt tokens behind 64, 128 generated; 6.35 bits per weight; TTFT 410 ms; "
    "TPOT 20.0 ms; ITL 20.0 ms (p99 31.0 ms); the phases of a request make 0.994 (0.971–1.018) of its joules."
)


def test_a_line_says_what_is_known_and_nothing_of_what_is_not() -> None:
    (variant, *_) = samples.one().variants
    assert language_lines([variant]) == []
    known = msgspec.structs.replace(variant, name="q4", language=KNOWN)
    bare = msgspec.structs.replace(known, language=Language(prompt_tokens=8, generated_tokens=1, closure=Closure()))
    assert language_lines([known, bare]) == [f"q4: {LINE}", "q4: 8 prompt tokens, 1 generated."]


def test_every_report_has_it() -> None:
    result = samples.one()
    result.variants[0].language = KNOWN
    for text in (console.render(result), markdown.render([result]), html_page.render([result])):
        assert "bits per weight; TTFT" in " ".join(text.split())
