"""Throttling and drift as the run itself shows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark.health import clock_drift, decimate, span, warming_slowdown


def test_a_clock_that_falls_by_more_than_three_percent_is_named_with_both_values():
    reason = clock_drift([1.5e9, 1.5e9, 1.4e9], "cpu0")
    assert reason is not None
    assert reason.code == "clock_drift"
    assert "1500 to 1400 MHz" in reason.message


@pytest.mark.parametrize("medians", [[], [None, None], [1.5e9], [1.5e9, 1.49e9], [1.5e9, 1.6e9], [None, 1.5e9, 1.5e9]])
def test_a_steady_rising_or_unknown_clock_is_no_drift(medians):
    assert clock_drift(medians, "cpu0") is None


def test_slower_and_warmer_is_throttling():
    reason = warming_slowdown([1.0, 1.02, 1.05, 1.08], [50.0, 60.0, 70.0, 80.0])
    assert reason is not None
    assert reason.code == "throttled"


def test_slower_at_the_same_temperature_is_not_called_throttling():
    assert warming_slowdown([1.0, 1.02, 1.05, 1.08], [50.0, 50.1, 50.0, 50.2]) is None
    assert warming_slowdown([1.0, 1.02, 1.05, 1.08], [None, None, None, None]) is None


def test_span_leaves_out_what_is_outside_or_failed():
    inside = span([0, 1, 2, 3, 4], [9, 1, math.nan, 3, 9], 1, 3)
    assert (inside.mean, inside.low, inside.high, inside.median) == (2.0, 1.0, 3.0, 2.0)
    assert span([0, 1], [math.nan, 1], -1, 0.5).mean is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=400), st.integers(2, 50))
def test_decimation_keeps_the_time_order_and_stays_within_the_values(values, points):
    times, means = decimate(np.arange(len(values)) * 0.01, values, points)
    assert len(times) == len(means) <= max(points, len(values))
    assert times == sorted(times)
    known = [m for m in means if m is not None]
    assert known
    assert min(values) - 1e-9 <= min(known) <= max(known) <= max(values) + 1e-9
