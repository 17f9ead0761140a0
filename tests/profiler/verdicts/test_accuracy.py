"""Wilson's interval and McNemar's test are compared with scipy and with published values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeprof.evaluation.metric import wilson
from edgeprof.results.schema import Accuracy
from edgeprof.verdicts.accuracy import bootstrap_p, difference, drop_scale, mcnemar


@given(st.integers(1, 20_000), st.floats(0, 1))
def test_wilson_agrees_with_scipy(samples, share):
    correct = int(share * samples)
    expected = stats.binomtest(correct, samples).proportion_ci(0.95, method="wilson")
    assert wilson(correct, samples) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_stays_inside_at_the_ends():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(10, 10)[0] < 1.0


@pytest.mark.parametrize(("samples", "half"), [(500, 0.026), (1000, 0.019), (10_000, 0.0059)])
def test_wilson_half_width_at_ninety_percent(samples, half):
    low, high = wilson(round(0.9 * samples), samples)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(("correct", "samples"), [(1, 0), (-1, 5), (6, 5)])
def test_what_is_no_proportion_is_refused(correct, samples):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(correct, samples)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_agrees_with_the_exact_binomial_test(b, c, both):
    baseline = np.array([True] * b + [False] * c + [True] * both)
    variant = np.array([False] * b + [True] * c + [True] * both)
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(baseline, variant) == pytest.approx(expected, abs=1e-9)


def test_half_a_point_in_200_samples_is_not_significant():
    """171 against 170 of 200 with three disagreements proves nothing."""
    baseline = np.array([True] * 171 + [False] * 29)
    variant = baseline.copy()
    variant[[0, 1]] = False
    variant[199] = True
    assert mcnemar(baseline, variant) == 1.0


def test_different_samples_are_not_paired():
    with pytest.raises(ValueError, match="same samples"):
        mcnemar([True], [True, False])


def test_scores_of_different_metrics_have_no_difference():
    one = Accuracy(metric="top1", value=0.9, ci95=(0.8, 0.95), samples=10)
    assert difference(one, Accuracy(metric="top5", value=0.9, ci95=None, samples=10)) is None
    assert difference(one, Accuracy(metric="top1", value=0.8, ci95=None, samples=10)).ci95 is None


def lower(value, *, drop=None, ci95=None):
    return Accuracy("perplexity", value, ci95, 40, drop=drop, higher_is_better=False)


def test_what_a_rise_costs_where_less_is_better():
    assert drop_scale(lower(22.0, drop=2.0), 2.0) == pytest.approx(1 / 20)
    assert drop_scale(Accuracy("top1", 0.8, None, 40), 0.1) == 1.0
    assert drop_scale(lower(0.0), 0.0) is None
    assert not lower(0.5).is_ratio  # no percentage, although it lies between 0 and 1


def test_the_bootstrap_pairs_resamples():
    rng = np.random.default_rng(3)
    base = rng.normal(20, 5, 500)
    assert bootstrap_p(base, base) == 1.0
    # Each interval alone is wide, and yet every resample says the same.
    assert bootstrap_p(base, base + 0.1 + rng.normal(0, 0.01, 500)) < 0.01
    assert bootstrap_p(base, base + rng.normal(0, 1, 500)) > 0.05
    assert bootstrap_p(base, base[:100]) is None
    assert bootstrap_p([np.nan, 1.0], [1.0, np.nan]) is None
