"""Long names are shortened in the middle in texts for people, and never in files for programs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.reporters import console, csv_rows, html_page, json_text, markdown
from edgeprof.reporters.names import MOST, short_names, shortened, with_short_names
from edgeprof.reporters.terminal import Style
from edgeprof.results import schema
from tests.profiler.results import samples

LONG = "efficientnet-b0-noisy-student-imagenet-1k-pruned+prune-structured(amount=0.5)+int8-static"


def renamed(name: str = LONG) -> schema.Result:
    """Return the study with a long name for the recommended variant, and a reason that mentions it."""
    result = samples.study()
    old = result.variants[1].name
    result.variants[1].name = name
    for comparison in result.comparisons:
        comparison.variant = name if comparison.variant == old else comparison.variant
    result.pareto = [name if n == old else n for n in result.pareto]
    result.recommendation = None
    result.reasons = [
        schema.Reason(
            code="x", message=f"{name} was slow (see /data/{name}.log)", remedy=f"edgeprof diagnose {name}.onnx"
        )
    ]
    return result


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=90), unique=True, max_size=12))
def test_short_names_differ_where_names_do_and_keep_both_ends(names: list[str]) -> None:
    short = short_names(names)
    assert len(set(short.values())) == len(names)
    for name in names:
        head, dots, tail = short[name].partition("…")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert bool(dots) == (short[name] != name)
        assert len(name) > MOST or short[name] == name


@pytest.mark.parametrize("most", [5, 20, 33])
def test_a_shortened_name_has_the_length_that_was_asked_for(most: int) -> None:
    assert len(shortened("x" * 34, most)) == most


def test_names_that_fit_leave_the_result_as_it_is() -> None:
    result = with_short_names(samples.study())
    assert with_short_names(result) is result
    assert [v.name for v in result.variants] == [v.name for v in samples.study().variants]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_console_tells_the_full_name_once_and_fits_its_width(width: int) -> None:
    text = console.render(renamed(), Style(width=width))
    assert text.count(f"is {LONG}") == 1
    assert text.count(LONG) == 3  # that line, the path of the log, and the remedy's command
    assert all(len(line) <= width for line in text.splitlines() if LONG not in line)


def test_the_verdict_and_its_marks_are_those_of_the_full_names() -> None:
    whole, short = console.render(renamed()), console.render(samples.study())
    assert whole.count("◆ best") == short.count("◆ best") == 1
    assert [line.split("◆")[1] for line in whole.splitlines() if "◆" in line] == [" best"]


def test_page_and_markdown_shorten_and_tell_the_full_name() -> None:
    for text in (html_page.render([renamed()]), markdown.render([renamed()]).replace("\\", "")):
        assert shortened(LONG) in text
        assert LONG in text
    assert f"edgeprof diagnose {LONG}.onnx" in html_page.render([renamed()])


def test_files_for_programs_have_the_full_names() -> None:
    assert LONG in csv_rows.render([renamed()])
    assert "…" not in json_text.render([renamed()])
