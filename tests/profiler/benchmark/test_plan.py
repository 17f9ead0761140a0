"""Presets, overrides and the interleaved order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark.plan import PRESETS, make_plan
from edgeprof.errors import InputError


def test_default_preset_is_five_windows_of_five_seconds():
    plan = make_plan()
    assert (plan.windows, plan.window_s, plan.idle_s) == (5, 5.0, 5.0)


def test_a_slow_sensor_lengthens_the_window_to_fifty_periods():
    assert make_plan(refresh_s=0.43).window_s == pytest.approx(21.5)


def test_a_window_that_was_asked_for_is_never_lengthened():
    assert make_plan(window_s=1.0, refresh_s=0.43).window_s == 1.0


def test_quick_takes_about_six_seconds_a_variant():
    assert 4 < make_plan(preset="quick").seconds(1, interleaved=True) < 9


def test_mlperf_tiny_is_five_windows_of_ten_seconds_and_their_median():
    plan = make_plan(preset="mlperf-tiny")
    assert (plan.windows, plan.window_s, plan.statistic) == (5, 10.0, "median")


@given(windows=st.integers(1, 20), variants=st.integers(1, 6))
def test_every_variant_gets_every_window_once_and_rounds_alternate(windows, variants):
    order = list(make_plan(windows=windows).order(variants))
    assert sorted(order) == [(w, v) for w in range(windows) for v in range(variants)]
    # A linear drift costs all variants the same over an even number of rounds.
    even = [(position, v) for position, (w, v) in enumerate(order) if w < windows // 2 * 2]
    sums = {v: sum(p for p, member in even if member == v) for v in range(variants)}
    assert len(set(sums.values())) == 1


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"preset": "quikc"}, "quick"),
        ({"scenario": "singel-stream"}, "single-stream"),
        ({"scenario": "server"}, "--rate"),
        ({"rate_hz": 5.0}, "--scenario"),
        ({"streams": 4}, "multi-stream"),
        ({"windows": 0}, "1 to 1000"),
        ({"window_s": 0.0}, "0.05"),
        ({"batch": 0}, "1 to 65536"),
    ],
)
def test_what_cannot_be_planned_says_what_can(kwargs, words):
    with pytest.raises(InputError) as caught:
        make_plan(**kwargs)
    assert words in (caught.value.remedy or "")


def test_every_preset_can_be_planned():
    assert {make_plan(preset=name).preset for name in PRESETS} == set(PRESETS)
