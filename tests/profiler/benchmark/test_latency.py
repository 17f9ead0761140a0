"""Percentiles and their bounds: golden values from two published MLPerf logs, and the coverage of the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark.latency import early_stopping_rank, summarise, upper_bound


@pytest.mark.parametrize(
    ("percentile", "fewest"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)]
)
def test_fewest_samples_for_a_percentile(percentile, fewest):
    assert early_stopping_rank(fewest - 1, percentile) == 0
    assert early_stopping_rank(fewest, percentile) == 1


@pytest.mark.parametrize(
    ("count", "percentile", "discarded"),
    [
        (194_667, 0.9, 19_157),  # MLPerf inference v2.0, Xavier NX: "Would discard 19157 highest latency queries"
        (466_850, 0.9, 46_207),  # v2.1, AGX Orin: "Would discard 46207 …"
        (1024, 0.9, 79),
        (1024, 0.95, 34),
        (1024, 0.99, 2),
    ],
)
def test_golden_numbers_of_discarded_samples(count, percentile, discarded):
    assert early_stopping_rank(count, percentile) - 1 == discarded


def test_a_percentile_without_enough_samples_is_unknown_and_not_a_number():
    latency = summarise([np.full(63, 0.001)])
    assert latency is not None
    assert latency.p90_bound is None
    assert latency.p99 is None
    assert latency.p50_bound == latency.p50 == latency.p90 == 0.001


def test_the_bound_is_above_the_true_percentile_in_99_of_100_runs():
    rng = np.random.default_rng(7)
    truth = -np.log(0.1)  # p90 of the exponential distribution
    runs = 2000
    below = sum(upper_bound(np.sort(rng.exponential(size=200)), 0.9) < truth for _ in range(runs))
    assert below / runs <= 0.015


@given(seed=st.integers(0, 2**32), count=st.integers(662, 3000), sigma=st.floats(0, 3))
def test_percentiles_rise_with_the_percentage_and_stay_within_the_samples(seed, count, sigma):
    samples = np.random.default_rng(seed).lognormal(-6, sigma, count)
    latency = summarise([samples[:300], samples[300:]])
    assert latency is not None
    seen = [latency.min, latency.p50, latency.p90, latency.p95, latency.p99, latency.max]
    assert seen == sorted(seen)
    for name in ("p50", "p90", "p95", "p99"):
        assert getattr(latency, name) == pytest.approx(np.quantile(samples, int(name[1:]) / 100), rel=1e-12)
        assert getattr(latency, name) <= getattr(latency, f"{name}_bound") <= latency.max
    assert latency.samples == count


def test_outliers_are_counted_and_kept():
    """A stall a hundred times as long as a call is in the maximum and in the mean, and is reported."""
    rng = np.random.default_rng(1)
    samples = rng.normal(1e-3, 1e-5, 1000)
    samples[500] = 0.1
    latency = summarise([samples])
    assert latency is not None
    assert latency.outliers == 1
    assert latency.max == 0.1
    assert latency.mean == pytest.approx(samples.mean())


def test_equal_latencies_have_no_outliers_and_no_spread():
    latency = summarise([[0.002] * 100])
    assert latency is not None
    assert (latency.outliers, latency.median) == (0, 0.002)
    assert latency.std < 1e-15


def test_the_histogram_holds_every_sample():
    samples = np.random.default_rng(2).lognormal(-7, 0.4, 5000)
    histogram = summarise([samples]).histogram
    assert sum(histogram.counts) == 5000
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert histogram.edges[0] == samples.min()
    assert histogram.edges[-1] == samples.max()


@pytest.mark.parametrize("windows", [[], [[]], [np.empty(0), np.empty(0)]])
def test_no_latency_is_unknown(windows):
    assert summarise(windows) is None
