"""Two results are two runs: intervals include the scatter between runs, which is measured if there are repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprof.verdicts.across import across
from edgeprof.verdicts.between_runs import STATED, between_runs
from tests.profiler.results import samples

pytestmark = pytest.mark.slow


def run(number: int, factor: float = 1.0):
    """Return the study with every figure scaled, as another run of the same bench."""
    result = samples.study()
    result.id = f"run-{number}"
    for variant in result.variants:
        energy = variant.energy_j_per_inference
        if energy is None or energy.gross.value is None:
            continue
        energy.gross.value *= factor
        energy.gross.windows = [value * factor for value in energy.gross.windows]
        for window in variant.windows:
            window.energy_j = window.energy_j and window.energy_j * factor
    return result


def test_without_repeats_a_value_is_stated_and_said():
    found = across(run(0), run(1, 1.004))
    assert (found.between.u, found.between.runs) == (STATED, 0)
    assert "assumed" in found.between.sentence()
    low, high = found.pairs[0].comparison.energy_ratio.ci95
    assert math.log(high / low) / 2 >= 1.96 * math.sqrt(2) * STATED * 0.99


def test_repeats_measure_it():
    found = between_runs([run(0, 1.0), run(1, 1.01)], [run(2, 0.99), run(3, 1.02)])
    assert found.u == pytest.approx(np.std(np.log([1.0, 1.01, 0.99, 1.02]), ddof=1), rel=1e-6)
    assert found.runs == 4
    assert "4 stored runs" in found.sentence()


def test_runs_of_another_device_or_model_are_no_repeats():
    foreign = [run(2, 0.9), run(3, 1.1)]
    foreign[0].host.fingerprint = "another"
    for variant in foreign[1].variants:
        variant.model.sha256 = "0" * 64
    assert between_runs([run(0), run(1)], foreign).runs == 0


def test_a_result_compared_with_itself_differs_by_nothing():
    found = across(run(0), run(0))
    assert found.between.u == 0


@pytest.mark.parametrize("between", [0.003, 0.01])
def test_no_change_is_seldom_called_one(between):
    """If runs scatter by the stated amount or less, at most one verdict in twenty may be false, not one in four."""
    rng = np.random.default_rng(3)
    wrong = 0
    for number in range(40):
        a, b = (run(2 * number + k, float(np.exp(between * rng.normal()))) for k in (0, 1))
        wrong += across(a, b).pairs[0].comparison.verdict != "tied"
    assert wrong <= 4
