"""The uncertainty of a window from the sensor's step, compared with the errors at random levels between two steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprof.energy.window import Window, level_energy
from edgeprof.sensing.sensor import Channel, Filter

STEP_W, TAU_S, INTERVAL_S = 0.38, 0.43, 0.04
RAIL = Channel("ina3221", "VDD_GPU_SOC", "power", resolution=STEP_W, filter=Filter("exponential", tau_s=TAU_S))

#: Name → (the signal (W) over time for a level, how far the estimate may be off).
SHAPES = {
    "a level": (lambda t, level, phase: level + 0 * t, 0.9, 1.1),
    "a filter that settles": (lambda t, level, phase: level - 4.5 * np.exp(-t / TAU_S), 0.8, 1.5),
    "one that settles over a few steps": (lambda t, level, phase: level - 0.9 * np.exp(-t / TAU_S), 0.8, 1.5),
    "ripple of one step": (lambda t, level, phase: level + STEP_W * np.sin(61 * t + phase), 0.7, 1.6),
    "ripple of three steps": (lambda t, level, phase: level + 3 * STEP_W * np.sin(61 * t + phase), 0.7, 1.8),
}


@pytest.mark.parametrize("window_s", [2.0, 5.0])
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_levels_uncertainty_is_what_rounding_really_costs(name: str, window_s: float) -> None:
    signal, low, high = SHAPES[name]
    rng = np.random.default_rng(7)
    t = np.arange(0, window_s, INTERVAL_S)
    t = t + rng.uniform(0, 0.9 * INTERVAL_S, t.size)
    errors, stated = [], []
    for level in 8.5 + STEP_W * (np.arange(100) + rng.uniform(0, 1, 100)) / 100:
        true = signal(t, level, rng.uniform(0, 2 * math.pi))
        read = np.round(true / STEP_W) * STEP_W
        errors.append((read - true).mean() * window_s)
        stated.append(level_energy(Window(t, read, 0.0, window_s, RAIL, INTERVAL_S), read))
    ratio = math.sqrt(np.mean(np.square(stated)) / np.mean(np.square(errors)))
    assert low < ratio < high


def test_two_levels_in_turn_add_as_squares_and_noise_over_several_codes_averages_out() -> None:
    t = np.arange(0, 5.0, INTERVAL_S)
    whole = 5.0 * STEP_W / math.sqrt(12)
    in_turn = np.where(t % 1 < 0.5, 23, 11) * STEP_W
    plain = Window(t, in_turn, 0.0, 5.0, Channel("x", "y", "power", resolution=STEP_W), INTERVAL_S)
    assert level_energy(plain, in_turn) == pytest.approx(whole / math.sqrt(2), rel=0.1)
    noisy = np.round(np.random.default_rng(1).normal(23, 3, t.size)) * STEP_W
    assert level_energy(plain, noisy) < 0.4 * whole
