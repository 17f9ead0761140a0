"""One verdict: for any result, every table, page, file and command gives the same verdict."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.reporters import answer, registry, view
from edgeprof.results import document, schema
from edgeprof.study.outcome import Outcome
from edgeprof.verdicts import gate
from edgeprof.verdicts.accuracy import has_dropped
from edgeprof.verdicts.compare import compare
from edgeprof.verdicts.gate import Limits
from edgeprof.verdicts.recommend import budgets, judge, recommendation_of, recommended_variant
from tests.profiler.results import samples
from tests.profiler.synthetic import variant

# Ties, near ties and clear differences are all likely.
JOULES = st.sampled_from([1.0, 1.005, 1.02, 1.5, 4.0, 4.03, 4.08, 10.0])
SPREADS = st.sampled_from([0.0, 0.004, 0.05])


def windows(value: float, spread: float) -> list[float]:
    return [value * (1 + spread * step) for step in (-1, 0.5, 1, -0.5, 0)]


@st.composite
def measured_variants(draw, name: str, judged: bool) -> schema.Variant:
    joules = windows(draw(JOULES), draw(SPREADS)) if draw(st.integers(0, 9)) else None
    made = variant(
        name,
        joules,
        windows(draw(JOULES) / 100, draw(SPREADS)),
        accuracy=(0.9 if name == "baseline" else draw(st.sampled_from([0.9, 0.899, 0.85, 0.5])), 1000)
        if judged
        else None,
        status=draw(st.sampled_from(["ok", "ok", "ok", "degraded", "failed"])),
    )
    made.model.size_bytes = draw(st.sampled_from([100, 200, 500]))
    if made.accuracy is not None:
        made.accuracy.drop = 0.9 - made.accuracy.value
        made.accuracy.p_value = draw(st.sampled_from([0.5, 0.001, None])) if made.accuracy.drop else None
    if made.status == "failed":
        made = msgspec.structs.replace(made, energy_j_per_inference=None, latency_s=None, windows=[], accuracy=None)
    return made


@st.composite
def results(draw) -> schema.Result:
    judged = draw(st.booleans())
    count = draw(st.integers(1, 4))
    variants = [draw(measured_variants(name, judged)) for name in ("baseline", "a", "b", "c")[:count]]
    made = samples.result(variants, traces=[])
    made.comparisons = [compare(one, variants[0]) for one in variants[1:]]
    return made


LIMITS = st.one_of(
    st.just(Limits()),
    st.builds(
        Limits,
        max_j=st.sampled_from([None, 1.01, 4.5]),
        max_accuracy_drop=st.sampled_from([None, 0.01, 0.2]),
        max_size_bytes=st.sampled_from([None, 150, 300]),
    ),
)


def rows_of_csv(result: schema.Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(registry.render([result], ".csv"))))


def named_by_every_surface(result: schema.Result) -> dict[str, list[str]]:
    """Return surface → the names of the variants that it recommends."""
    names = [v.name for v in result.variants]
    marked = [name for name, mark in zip(names, view.marks(result), strict=True) if re.match("◆ (?!degraded)", mark)]
    page = registry.render([result], ".html")
    rows = [row for row in page.split("<tr") if 'class="badge best"' in row]
    badges = [re.findall(r'class="swatch[^>]*></span>(\w+)', row)[0] for row in rows]
    stored = json.loads(registry.render([result], ".json"))["recommendation"]
    headline = answer.headline(result)
    spoken = re.match(r"No variant is better than (\w+) |(\w+) ", headline)
    return {
        "table": marked,
        "page": badges,
        "csv": [row["variant"] for row in rows_of_csv(result) if row["recommended"] == "True"],
        **({"json": [stored["variant"]] if stored["praise"] else []} if stored else {}),
        "headline": [spoken[1] or spoken[2]] if spoken else [],
    }


def assert_one_verdict(result: schema.Result) -> None:
    recommendation = recommendation_of(result)
    expected = [recommendation.variant] if recommendation.praise else []
    surfaces = named_by_every_surface(result)
    if not surfaces["headline"]:  # nothing may be known that a sentence could say
        del surfaces["headline"]
    assert surfaces == dict.fromkeys(surfaces, expected)
    assert set(expected) <= set(result.pareto)
    marked = [
        v.name
        for v, mark in zip(result.variants, view.marks(result), strict=True)
        if mark[:1] in {view.BEST, view.FRONT}
    ]
    assert marked == (result.pareto if len(result.variants) > 1 else [])
    assert [row["variant"] for row in rows_of_csv(result) if row["pareto"] == "True"] == result.pareto


@pytest.mark.slow
@given(results(), LIMITS)
@settings(max_examples=50, deadline=None)
def test_no_surface_disagrees_with_another(result, limits):
    checks = budgets(result, limits)
    judge(result, checks)
    assert_one_verdict(result)
    outcome = Outcome("net.onnx", Path(), result, checks, limits, [], {}, fresh=True)
    recommendation = result.recommendation
    assert outcome.as_json()["recommendation"] == msgspec.to_builtins(recommendation)
    shipped = re.match(r"ship (\w+): ", outcome.verdict())
    assert (shipped and shipped[1]) == recommendation.variant
    assert_one_verdict(document.from_json(document.to_json(outcome.whole())))
    if recommendation.variant is not None and limits != Limits():
        failing = [c for c in gate.check(result, limits, names=[recommendation.variant]) if not c.passed]
        assert [c for c in failing if c.variant != "the run"] == []


@given(results())
@settings(max_examples=40, deadline=None)
def test_a_comparison_never_contradicts_the_recommendation(result):
    """The recommended variant is not worse than the baseline in what decided, and has no proven loss of accuracy."""
    judge(result)
    recommendation, chosen = result.recommendation, recommended_variant(result)
    if chosen is None or result.variants[0].status == "failed":
        return
    compared = next((c for c in result.comparisons if c.variant == chosen.name), None)
    if compared is not None:
        ratio = compared.energy_ratio if recommendation.criterion == "energy" else compared.latency_ratio
        assert ratio is None or schema.sense(ratio) != "worse"
    else:
        assert recommendation.untouched
        kinder = [v for v in result.variants[1:] if v.status != "failed" and not has_dropped(v.accuracy)]
        verdicts = {c.variant: schema.sense(c.energy_ratio) for c in result.comparisons if c.energy_ratio}
        if recommendation.criterion == "energy":
            assert not [v.name for v in kinder if verdicts.get(v.name) == "better" and v.name in result.pareto]


@pytest.mark.slow
@given(results())
@settings(max_examples=40, deadline=None)
def test_a_file_without_a_recommendation_is_judged_by_the_same_rule(result):
    judge(result)
    stored, result.recommendation = result.recommendation, None
    assert recommendation_of(document.from_json(document.to_json(result))) == stored
    assert_one_verdict(result)


def test_the_front_and_the_choice_agree_where_files_differ_and_costs_nearly_do():
    """4.00 J in 500 B and 4.08 J in 200 B: once, ◆ best marked one of them, and the other was recommended."""
    made = samples.result(
        [variant(n, windows(j, 0.0), accuracy=(0.9, 1000)) for n, j in (("baseline", 10), ("a", 4.0), ("b", 4.08))]
    )
    made.variants[1].model.size_bytes, made.variants[2].model.size_bytes = 500, 200
    made.comparisons = [compare(one, made.variants[0]) for one in made.variants[1:]]
    judge(made)
    assert_one_verdict(made)
    assert made.recommendation.variant == "a"


def test_an_untouched_baseline_that_wins_is_said():
    made = samples.result([variant(n, windows(j, 0.0), accuracy=(0.9, 1000)) for n, j in (("baseline", 4), ("a", 10))])
    made.comparisons = [compare(made.variants[1], made.variants[0])]
    judge(made)
    assert made.recommendation.untouched
    assert view.marks(made) == ["◆ best", ""]
    assert answer.answer(made).startswith("No variant is better than baseline")


def test_accuracy_is_not_traded_for_joules_unless_a_budget_says_how_much():
    made = samples.study()
    made.variants[1].accuracy.p_value = 0.001
    judge(made)
    assert made.recommendation.variant != "int8-static"
    assert "int8-static" in made.recommendation.reason
    judge(made, budgets(made, Limits(max_accuracy_drop=0.01)))
    assert made.recommendation.variant == "int8-static"


@pytest.mark.parametrize(
    ("energy", "latency", "drop", "p_value", "words"),
    [
        (0.68, 0.667, 0, None, "needs 0.680 ± 0.014 times the energy of baseline, is 1.5 times as fast and as accurate (85.0 %)."),  # noqa: E501 - the sentence whole
        (0.68, 1.0, 0.005, 0.56, "is as fast and as accurate (85.0 %, not distinguishable)."),
        (0.68, 1.3, -0.02, 0.01, "takes 1.3 times as long as baseline and is 2.0 points more accurate (85.0 %)."),
    ],
)  # fmt: skip
def test_the_headline_reads_as_a_person_says_it(energy, latency, drop, p_value, words):
    made = samples.study()
    del made.variants[2:]
    made.variants[1].accuracy.drop, made.variants[1].accuracy.p_value = drop, p_value
    made.comparisons = [samples.comparison("int8-static", energy, latency)]
    judge(made)
    assert answer.headline(made).endswith(words)
