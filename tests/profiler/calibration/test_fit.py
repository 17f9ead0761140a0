"""The line of a calibration and the time constant of a filter, compared with synthetic truth and with numpy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from edgeprof.calibration.fit import Level, level, line, time_constant
from edgeprof.sensing.sensor import Calibration

POWERS = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0)


def levels(chance: random.Random, u: float, gain: float = 1.05, offset: float = 0.4) -> list[Level]:
    return [Level(x, gain * x + offset + chance.gauss(0, u), u) for x in POWERS]


def test_an_exact_line_is_found_exactly() -> None:
    fitted = line([Level(x, 1.05 * x + 0.4, 0.0) for x in POWERS])
    assert fitted.gain == pytest.approx(1.05, rel=1e-12)
    assert fitted.offset_w == pytest.approx(0.4, rel=1e-9)


def test_the_covariance_is_that_of_weighted_least_squares() -> None:
    made = [Level(x, 1.1 * x + 0.2 + 0.01 * (-1) ** k, 0.01 * (1 + 0.5 * k)) for k, x in enumerate(POWERS)]
    fitted = line(made)
    a = np.array([[one.sensor_w, 1.0] for one in made])
    weights = np.diag([1 / one.u_w**2 for one in made])
    covariance = np.linalg.inv(a.T @ weights @ a)
    residuals = np.array([(one.meter_w - fitted.at(one.sensor_w)) / one.u_w for one in made])
    assert fitted.reduced_chi2 == pytest.approx(float(residuals @ residuals) / 4, rel=1e-6)
    # t(0.975, 4) divided by the normal distribution's quantile
    widened = max(1.0, math.sqrt(fitted.reduced_chi2) * 2.7764451 / 1.9599640)
    assert fitted.u_gain == pytest.approx(widened * math.sqrt(covariance[0, 0]), rel=1e-6)
    assert fitted.u_offset_w == pytest.approx(widened * math.sqrt(covariance[1, 1]), rel=1e-6)
    assert fitted.covariance_w == pytest.approx(widened**2 * covariance[0, 1], rel=1e-6)


@pytest.mark.slow
def test_twice_the_uncertainty_of_a_corrected_power_covers_95_percent() -> None:
    """It holds at the pivot, inside the range and at its end; without the covariance it would fail at the ends."""
    chance = random.Random(3)
    hits = dict.fromkeys((2.0, 7.0, 12.0), 0)
    runs = 1500
    for _ in range(runs):
        f = line(levels(chance, 0.03))
        made = Calibration(f.gain, f.offset_w, f.u_gain, f.u_offset_w, f.covariance_w, 2, 12, 6, "", "")
        for power in hits:
            corrected = f.at(power)
            hits[power] += abs(corrected - (1.05 * power + 0.4)) <= 1.96 * made.u_at(corrected)
    for power, count in hits.items():
        assert 0.93 <= count / runs <= 0.99, power


def test_scatter_about_the_line_beyond_that_of_the_levels_widens_it() -> None:
    straight = line([Level(x, x, 0.01) for x in POWERS])
    bent = line([Level(x, x + 0.02 * x**2, 0.01) for x in POWERS])
    assert bent.reduced_chi2 > 100
    assert bent.u_gain > 10 * straight.u_gain


def test_levels_that_are_too_few_or_all_at_one_power_make_no_line() -> None:
    with pytest.raises(ValueError, match="too few"):
        line([Level(1, 1, 0.1), Level(2, 2, 0.1)])
    with pytest.raises(ValueError, match="one power"):
        line([Level(3.0, 3.0 + k, 0.1) for k in range(5)])


def test_a_load_that_moves_for_both_sides_alike_is_no_scatter() -> None:
    sensor = [5.0, 9.0, 2.0, 7.0]
    assert level(sensor, [2 * s + 1 for s in sensor], gain=2.0).u_w == pytest.approx(0, abs=1e-12)
    assert level(sensor, sensor, gain=2.0).u_w > 1


def steps(tau: float, resolution: float, chance: random.Random, count: int = 6):
    made = []
    for k in range(count):
        low, high = (4.0, 14.0) if k % 2 else (14.0, 4.0)
        times = [0.03 + 0.005 * n for n in range(int(8 * tau / 0.005))]
        values = [high + (low - high) * math.exp(-t / tau) + chance.gauss(0, 0.02) for t in times]
        made.append((times, [round(v / resolution) * resolution for v in values]))
    return made


@pytest.mark.parametrize("tau", [0.0134, 0.1, 0.43, 0.63])
def test_the_time_constant_of_a_filter_shows_in_its_steps(tau: float) -> None:
    found = time_constant(steps(tau, 0.04, random.Random(1)), 0.04)
    assert found is not None
    assert found.steps == 6
    assert abs(found.tau_s - tau) <= max(3 * found.u_s, 0.005)
    assert found.u_s < 0.1 * tau


def test_steps_below_the_sensors_own_are_no_use() -> None:
    assert time_constant(steps(0.43, 0.04, random.Random(1)), 2.0) is None
    assert time_constant(steps(0.43, 0.04, random.Random(1), count=2), 0.04) is None
    assert time_constant([([0.0, 1.0], [1.0, 2.0])] * 5, 0.01) is None
