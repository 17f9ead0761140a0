"""A metric for which a lower value is better is handled correctly everywhere that variants are compared."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.benchmark import assemble
from edgeprof.cli.compare import _accuracy_text as compared
from edgeprof.evaluation.metric import Score
from edgeprof.reporters import registry, view
from edgeprof.results import schema
from edgeprof.verdicts import compare, pareto
from edgeprof.verdicts.across import across
from edgeprof.verdicts.gate import Limits, check
from edgeprof.verdicts.recommend import budgets, recommend
from tests.profiler.results import samples


def study(worse=22.0):
    """Return a baseline with a perplexity of 20, and a variant with another perplexity and half the joules."""
    result = samples.study()
    del result.variants[2:]
    result.comparisons = []
    for variant, value in zip(result.variants, (20.0, worse), strict=True):
        variant.accuracy = schema.Accuracy("perplexity", value, (value - 0.5, value + 0.5), 40, higher_is_better=False)
    rng = np.random.default_rng(0)
    spread = rng.normal(0, 0.2, 500)
    records = [type("Record", (), {"score": Score(v, None, 40, replicates=v + spread)}) for v in (20.0, worse)]
    assemble.pair_accuracies(result.variants, records)
    result.comparisons = [compare.compare(result.variants[1], result.variants[0])]
    result.pareto = pareto.front(result.variants)
    return result


def test_a_rise_is_a_drop():
    worse, better = study(22.0).variants[1].accuracy, study(18.0).variants[1].accuracy
    assert (worse.drop, better.drop) == (2.0, -2.0)
    assert worse.p_value < 0.01  # paired: the same resamples
    text = view.accuracy_text(study(22.0).variants[1])
    assert text.startswith("perplexity +2")
    assert "(less is better, p = 0.004" in text
    assert view.accuracy_text(study(18.0).variants[1]).startswith("perplexity −2")


def test_the_gate_holds_a_share_of_the_baseline_against_the_limit():
    for limit, passed in ((0.05, False), (0.15, True)):
        found = check(study(), Limits(max_accuracy_drop=limit))[-1]
        assert (found.quantity, found.value, found.passed) == ("perplexity rise", pytest.approx(0.1), passed)
    assert all(c.passed for c in check(study(18.0), Limits(max_accuracy_drop=0.0)))


def test_the_gate_against_another_result_turns_the_interval_too():
    before, after = study(20.0), study(22.0)
    found = check(after, Limits(max_accuracy_drop=0.01), against=across(before, after))[-1]
    assert not found.passed
    assert found.value == pytest.approx(0.1)
    assert 0 < found.ci95[0] < 0.1 < found.ci95[1]


def test_the_front_and_the_budget():
    alike = study(22.0)
    alike.variants[1].energy_j_per_inference = alike.variants[0].energy_j_per_inference
    alike.variants[1].windows, alike.variants[1].latency_s = alike.variants[0].windows, alike.variants[0].latency_s
    assert pareto.front(alike.variants) == [alike.variants[0].name]
    result = study(22.0)
    strict, mild = (budgets(result, Limits(max_accuracy_drop=limit)) for limit in (0.01, 0.2))
    assert recommend(result, strict).variant == result.variants[0].name
    assert recommend(result, mild).variant == result.variants[1].name
    assert "perplexity +2" in recommend(result, mild).reason


def test_the_page_says_which_way_is_better():
    result = study()
    page = registry.render([result], ".html")
    assert "perplexity (less is better)" in page
    assert "2200" not in page  # no percentage


def test_compare_says_worse_where_it_rose():
    result = study()
    text = compared(result.comparisons[0].accuracy_difference, result.variants[1].accuracy)
    assert text.startswith("perplexity +2.0")
    assert text.endswith("worse")
