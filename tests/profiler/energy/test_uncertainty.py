"""The quantiles are compared with scipy's, and the arithmetic of budgets is tested."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from edgeprof.energy.uncertainty import Component, betainc, combine_components, mean_and_error, t_cdf, t_quantile

positive = st.floats(0.05, 1e5)


@given(a=positive, b=positive, x=st.floats(0, 1))
def test_incomplete_beta_agrees_with_scipy(a, b, x):
    assert betainc(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@given(p=st.floats(0.001, 0.999), nu=st.floats(1, 1e4))
def test_t_quantile_agrees_with_scipy_for_any_degrees_of_freedom(p, nu):
    assert t_quantile(p, nu) == pytest.approx(stats.t.ppf(p, nu), rel=1e-7, abs=1e-9)


@given(t=st.floats(-50, 50), nu=st.floats(1, 1000))
def test_t_cdf_agrees_with_scipy(t, nu):
    assert t_cdf(t, nu) == pytest.approx(stats.t.cdf(t, nu), rel=1e-7, abs=1e-12)


def test_t_with_infinite_degrees_of_freedom_is_normal():
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert t_cdf(1.959964, math.inf) == pytest.approx(0.975, abs=1e-6)


@pytest.mark.parametrize("call", [lambda: betainc(0, 1, 0.5), lambda: betainc(1, 1, 1.5), lambda: t_quantile(1, 5)])
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call()


def test_type_a_alone_keeps_its_degrees_of_freedom():
    """With K windows and no other component, the interval is the plain t-interval."""
    total = combine_components([Component("repeatability", 0.2, 4)])
    assert total.nu == pytest.approx(4)
    assert total.k == pytest.approx(2.776, abs=1e-3)
    assert total.expanded == pytest.approx(0.2 * total.k)


def test_welch_and_satterthwaite_as_in_the_gum():
    """GUM H.1.6: the end gauge, u_c 31.71 nm, ν_eff 16.7 from 25 (ν 18), 9.7 (25.6), 2.9 (50), 16.6 (2) …"""
    total = combine_components([
        Component("gain", 25, 18), Component("sync", 9.7, 25.6), Component("offset", 2.9, 50),
        Component("resolution", 16.6, 2),
    ])  # fmt: skip
    assert total.u == pytest.approx(31.7, abs=0.1)
    assert total.nu == pytest.approx(16.7, abs=0.6)


def test_lines_of_one_name_are_added_as_squares():
    budget = combine_components([Component("idle", 3.0), Component("idle", 4.0), Component("gain", 1.0)]).budget
    assert budget.idle == pytest.approx(5.0)
    assert budget.gain == 1.0
    assert budget.offset is None


def test_an_empty_budget_claims_no_uncertainty_and_does_not_fail():
    total = combine_components([])
    assert (total.u, total.nu) == (0.0, math.inf)


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=20))
def test_standard_error_agrees_with_scipy(values):
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(sum(values) / len(values))
    assert error == pytest.approx(stats.sem(values), rel=1e-6, abs=1e-9)


def test_one_value_has_no_spread_to_speak_of():
    assert mean_and_error([3.0]) == (3.0, None)
