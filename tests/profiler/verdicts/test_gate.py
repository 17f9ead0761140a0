"""Limits for CI: a proven violation fails, a missing figure fails, and an uncertain one fails only if strict."""

from __future__ import annotations

import pytest

from edgeprof.results import schema
from edgeprof.verdicts.across import across
from edgeprof.verdicts.gate import Limits, check
from tests.profiler.results import samples


def of(checks, variant="int8-static", quantity=None):
    found = [c for c in checks if c.variant.endswith(variant) and (quantity is None or c.quantity == quantity)]
    assert len(found) == 1, found
    return found[0]


def energy_limit(limit, **flags):
    return of(check(samples.study(), Limits(max_j=limit), **flags))


def test_a_value_within_and_beyond_its_limit():
    assert energy_limit(0.006).passed
    assert not energy_limit(0.005).passed


def test_an_interval_that_reaches_over_the_limit_is_unsure_and_fails_only_the_strict():
    """5.12 ± 0.11 mJ against 5.2 mJ."""
    found = energy_limit(0.0052)
    assert found.passed
    assert found.unsure
    assert not energy_limit(0.0052, strict=True).passed
    assert energy_limit(0.0053, strict=True).passed


@pytest.mark.parametrize(
    ("limits", "value"),
    [
        (Limits(max_p99_s=0.001), 0.00098 * 1.13 * 1.02),
        (Limits(max_rss_bytes=2**20), 39_800_000),
        (Limits(max_size_bytes=1000), 98496),
        (Limits(max_accuracy_drop=0.001), 0.005),
    ],
)
def test_every_limit_can_fail_and_says_the_figure(limits, value):
    found = of(check(samples.study(), limits))
    assert not found.passed
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "limits", "words"),
    [
        ("no_sensor", Limits(max_j=1.0), "nothing measures power"),
        ("degraded", Limits(max_p99_s=10.0), "320 requests are too few"),
        ("no_sensor", Limits(max_accuracy_drop=0.5), "no accuracy was measured"),
        ("one", Limits(max_accuracy_drop=0.5), "give --baseline"),
    ],
)
def test_a_missing_number_fails_with_its_reason(kind, limits, words):
    found = [c for c in check(samples.ALL[kind](), limits) if not c.passed]
    assert len(found) == 1
    assert words in found[0].reason
    assert found[0].value is None


def test_missing_memory_and_size_fail_too():
    result = samples.one()
    result.variants[0].memory_bytes = None
    result.variants[0].model.size_bytes = None
    found = check(result, Limits(max_rss_bytes=1e12, max_size_bytes=1e12))
    assert [c.passed for c in found] == [False, False]


def test_a_failed_variant_fails_every_gate():
    found = of(check(samples.failed(), Limits(max_size_bytes=1e12)), "int4-weight")
    assert not found.passed
    assert "SIGSEGV" in found.reason


@pytest.mark.parametrize(("kind", "quantity"), [("degraded", "status"), ("interrupted", "completeness")])
def test_what_is_not_clean_fails_only_the_strict(kind, quantity):
    limits = Limits(max_size_bytes=1e12)
    for strict in (False, True):
        found = [c for c in check(samples.ALL[kind](), limits, strict=strict) if c.quantity == quantity]
        assert [c.passed for c in found] == [not strict]


def test_strict_takes_no_estimates():
    limits = Limits(max_j=1.0)
    assert all(c.passed for c in check(samples.estimated(), limits))
    assert not any(c.passed for c in check(samples.estimated(), limits, strict=True))


def test_an_empty_result_fails():
    assert [c.passed for c in check(samples.result([]), Limits(max_j=1.0))] == [False]


def test_only_the_named_variants_are_asked():
    found = check(samples.study(), Limits(max_j=0.006), names=["int8-static"])
    assert [c.variant for c in found] == ["resnet8 int8-static"]


def branch_with(ratio, low, high):
    """Return a comparison with exactly this energy ratio: the rule is tested, not the statistics."""
    branch = samples.study()
    against = across(samples.study(), branch)
    against.pairs[1].comparison.energy_ratio = schema.Ratio(value=ratio, ci95=(low, high))
    return branch, against


@pytest.mark.parametrize(
    ("ratio", "passed", "unsure", "strict"),
    [
        ((1.042, 1.031, 1.054), False, False, False),  # the whole interval is beyond
        ((1.032, 1.011, 1.054), True, True, False),  # significant, but perhaps within the allowed change
        ((1.032, 0.990, 1.075), True, True, False),  # perhaps only noise
        ((1.010, 1.005, 1.015), True, False, True),  # worse, but within the allowed change
        ((1.010, 0.990, 1.030), True, True, False),  # within it, but the interval extends beyond
        ((0.900, 0.880, 0.920), True, False, True),  # better
        ((0.752, 0.442, 1.280), True, True, False),  # perhaps better, but nothing is proven
    ],
)
def test_a_regression_fails_where_its_whole_interval_is_beyond_the_limit(ratio, passed, unsure, strict):
    branch, against = branch_with(*ratio)
    limits = Limits(max_regression=0.02)
    found = of(check(branch, limits, against=against), quantity="energy regression")
    assert (found.passed, found.unsure) == (passed, unsure)
    assert found.value == pytest.approx(ratio[0] - 1)
    assert of(check(branch, limits, against=against, strict=True), quantity="energy regression").passed is strict


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("unsure_passes", [False, True])
def test_what_is_unsure_passes_or_fails_as_it_was_said(strict, unsure_passes):
    branch, against = branch_with(1.032, 1.011, 1.054)
    found = check(branch, Limits(max_regression=0.02), against=against, strict=strict, unsure_passes=unsure_passes)
    assert of(found, quantity="energy regression").passed is unsure_passes


def test_a_regression_too_small_to_matter_passes_and_says_so():
    branch, against = branch_with(1.008, 1.006, 1.010)
    limits = Limits(max_regression=0.0, min_effect=0.01)
    found = of(check(branch, limits, against=against, strict=True), quantity="energy regression")
    assert found.passed
    assert "--min-effect 1 %" in found.reason
    assert not of(check(branch, Limits(max_regression=0.0), against=against), quantity="energy regression").passed


def test_energy_that_the_baseline_had_must_not_vanish():
    branch = samples.study()
    branch.variants[1].energy_j_per_inference = None
    found = of(
        check(branch, Limits(max_regression=0.02), against=across(samples.study(), branch)),
        quantity="energy regression",
    )
    assert not found.passed
    assert found.value is None


def test_without_energy_on_both_sides_latency_is_what_can_regress():
    found = check(
        samples.no_sensor(), Limits(max_regression=0.02), against=across(samples.no_sensor(), samples.no_sensor())
    )
    assert [(c.quantity, c.passed) for c in found] == [("latency regression", True)]


def test_a_context_that_cannot_be_compared_fails():
    branch = samples.study()
    branch.host.power_mode = "MAXN"
    found = check(branch, Limits(max_regression=0.02), against=across(samples.study(), branch))
    assert not any(c.passed for c in found)
    assert all("power_mode" in c.reason for c in found)


def test_a_variant_that_vanished_or_is_new_fails_only_the_strict():
    limits = Limits(max_regression=0.02)
    gone = check(samples.one(), limits, against=across(samples.study(), samples.one()))
    assert [c.quantity for c in gone if c.unsure] == ["presence", "presence"]
    new = check(samples.study(), limits, against=across(samples.one(), samples.study()))
    assert all(c.passed for c in gone + new)
    strict = check(samples.study(), limits, against=across(samples.one(), samples.study()), strict=True)
    assert not all(c.passed for c in strict)


def test_a_drop_from_another_result_has_an_interval():
    branch = samples.study()
    branch.variants[1].accuracy = samples.accuracy(0.80, drop=0.055)
    found = of(
        check(branch, Limits(max_accuracy_drop=0.01), against=across(samples.study(), branch)), quantity="accuracy drop"
    )
    assert not found.passed
    assert found.value == pytest.approx(0.05)
    assert found.ci95[0] < 0.05 < found.ci95[1]
