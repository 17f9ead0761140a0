"""A result of thousands of variants: every row is present, and the charts show as much as is visible."""

from __future__ import annotations

import msgspec
import pytest

from edgeprof.reporters import html_page
from tests.profiler.results import samples


@pytest.mark.slow
def test_charts_of_many_variants_show_the_first_and_what_nothing_beats_and_say_so() -> None:
    some = samples.many(12)
    variants = [
        msgspec.structs.replace(some.variants[n % 12], name=f"v{n}" if n else some.variants[0].name) for n in range(400)
    ]
    result = msgspec.structs.replace(some, variants=variants, comparisons=[], pareto=["v399"], recommendation=None)
    page = html_page.render([result])
    assert page.count("<tr class=") == 400
    assert f"Drawn are {html_page.MOST_DRAWN} of 400 variants" in page
    assert page.count("<circle") <= 3 * html_page.MOST_DRAWN
    assert "<title>v399" in page
