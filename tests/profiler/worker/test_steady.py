"""The detection of the end of a warm-up (measurement.md, A3)."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from edgeprof.worker import steady


def series(count: int, seed: int, noise: float = 0.02) -> list[float]:
    chance = random.Random(seed)
    return [1e-3 * (1 + chance.gauss(0, noise)) for _ in range(count)]


def share(make, runs: int = 40) -> float:
    return sum(steady.judge(make(seed)).steady for seed in range(runs)) / runs


def test_noise_about_a_level_is_steady_in_nearly_all_runs():
    assert share(lambda seed: series(1000, seed)) >= 0.9


def test_spikes_do_not_look_like_a_warm_up():
    def spiky(seed: int) -> list[float]:
        chance = random.Random(seed + 1000)
        return [y * 3 if chance.random() < 0.005 else y for y in series(1000, seed)]

    verdicts = [steady.judge(spiky(seed)) for seed in range(40)]
    assert sorted(v.discard for v in verdicts)[20] <= 30  # mean-batched MSER cuts up to 440 here
    assert sum(v.steady for v in verdicts) >= 36


def test_a_decaying_start_is_cut_off_and_the_level_is_that_of_the_rest():
    values = [y * (1 + 2 * 2.718 ** (-i / 20)) for i, y in enumerate(series(1000, 1))]
    verdict = steady.judge(values)
    assert verdict.steady
    assert 40 <= verdict.discard <= 200
    assert verdict.latency_s == pytest.approx(1e-3, rel=0.01)


def test_a_step_is_cut_off_where_it_is():
    values = [y * (1.5 if i < 100 else 1.0) for i, y in enumerate(series(1000, 2))]
    assert 95 <= steady.judge(values).discard <= 150


def test_slow_drift_is_not_steady_and_told_with_numbers():
    def drifting(seed: int) -> list[float]:
        return [y * (1 + 0.05 * i / 1000) for i, y in enumerate(series(1000, seed))]

    assert share(drifting) <= 0.05
    verdict = steady.judge(drifting(0))
    assert 0.02 <= verdict.trend <= 0.06  # 5 % over all, half of it over what MSER keeps at least
    assert "rose by" in verdict.reason
    assert "p = " in verdict.reason


def test_a_drift_too_small_to_matter_is_steady():
    values = [1e-3 * (1 + 0.004 * i / 1000) for i in range(1000)]
    verdict = steady.judge(values)
    assert verdict.p_value < 0.01
    assert verdict.steady


def test_a_series_that_settles_only_at_its_end_is_not_steady():
    values = [y * (3 if i < 480 else 1) for i, y in enumerate(series(1000, 3))]
    verdict = steady.judge(values)
    assert not verdict.steady
    assert "still settling after 1000 inferences" in verdict.reason


def test_ten_values_can_be_judged():
    assert steady.judge([1.0] * 10) == (True, 0, 1.0, 0.0, 1.0, None)
    assert not steady.judge([1.0 + 0.1 * i for i in range(10)]).steady


def test_no_values_cannot():
    with pytest.raises(ValueError, match="no latencies"):
        steady.judge([])


@pytest.mark.parametrize("seed", range(5))
def test_the_trend_test_agrees_with_kendalls_tau_and_sens_slope(seed):
    chance = random.Random(seed)
    values = [chance.gauss(0.02 * i, 1) for i in range(60)]
    if seed == 4:
        values = [round(y) for y in values]  # ties
    expected = stats.kendalltau(range(60), values, method="asymptotic").pvalue
    assert steady.mann_kendall(values) == pytest.approx(expected, rel=0.1)  # scipy makes no continuity correction
    assert steady.median_slope(values) == pytest.approx(stats.theilslopes(values).slope)


def test_mser_is_the_minimum_that_its_definition_names():
    values = [5.0, 4.0, 1.0, 1.2, 0.9, 1.1, 1.0, 0.8, 1.1, 1.0]

    def score(d: int) -> float:
        rest = values[d:]
        mean = sum(rest) / len(rest)
        return sum((y - mean) ** 2 for y in rest) / len(rest) ** 2

    assert steady.mser(values) == min(range(5), key=score) == 2
