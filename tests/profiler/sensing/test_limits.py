"""Limits of readings: the same rule holds for first readings, windows and running sums."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeprof.energy.integrate import window_energy
from edgeprof.energy.online.running_sum import Meter
from edgeprof.sensing.limits import SENTINELS, counter_rise, plausible_bounds, power_limit, why_impossible
from edgeprof.sensing.sensor import Channel

WRAP_J = 262143.328850
COUNTER = Channel(
    "rapl", "package-0", "energy", kind="counter", scope="package", wrap=WRAP_J, update_interval_s=1e-3, resolution=6e-5
)
#: Name of a fault at one reading → what the counter shows from then on, or once, given its true value (J).
FAULTS = {
    "a reset": lambda joules: 0.001,
    "ten joules back": lambda joules: joules - 10,
    "fifty kilojoules ahead": lambda joules: joules + 50_000,
}
GLITCHES = {"a zero": 0.0, "near the top": WRAP_J - 5}
POWER_W, RATE_HZ = 10.0, 100.0


def true_readings(start_j: float, seconds: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(0.0, seconds, 1 / RATE_HZ)
    return times, (start_j + POWER_W * times) % WRAP_J


def broken(start_j: float, fault: str) -> tuple[np.ndarray, np.ndarray]:
    """Return readings with the fault in their middle."""
    times, joules = true_readings(start_j)
    middle = times.size // 2
    if fault in GLITCHES:
        joules[middle] = GLITCHES[fault]
    else:
        joules[middle:] += FAULTS[fault](joules[middle]) - joules[middle]
    return times, joules


@pytest.mark.parametrize("start_j", [0.0, 100.0, 130_000.0, 200_000.0, WRAP_J - 500])
@pytest.mark.parametrize("fault", [*FAULTS, *GLITCHES])
def test_the_daemon_and_a_window_refuse_alike_what_cannot_have_flowed(start_j: float, fault: str) -> None:
    times, joules = broken(start_j, fault)
    meter = Meter(COUNTER)
    for time, value in zip(times, joules, strict=True):
        meter.add(float(time), float(value))
    true = POWER_W * times[-1]
    assert meter.joules == pytest.approx(true - POWER_W * meter.gap_s, abs=1.0)
    assert 0 < meter.gap_s < 0.1
    inside = window_energy(times, joules, 2.0, 10.0, COUNTER)
    assert inside.joules is None
    assert set(inside.problems) <= {"counter_reset", "counter_jumped"}
    before, after = window_energy(times, joules, 1.0, 4.0, COUNTER), window_energy(times, joules, 7.0, 11.0, COUNTER)
    assert (before.joules, after.joules) == (pytest.approx(30.0, rel=0.01), pytest.approx(40.0, rel=0.01))


@pytest.mark.parametrize("start_j", [WRAP_J - 60.0, WRAP_J - 0.01, WRAP_J - 90.0])
def test_a_true_wrap_is_counted(start_j: float) -> None:
    times, joules = true_readings(start_j)
    meter = Meter(COUNTER)
    for time, value in zip(times, joules, strict=True):
        meter.add(float(time), float(value))
    assert meter.joules == pytest.approx(POWER_W * times[-1], rel=1e-6)
    assert meter.gap_s == 0.0
    assert window_energy(times, joules, 2.0, 10.0, COUNTER).joules == pytest.approx(80.0, rel=0.01)


def test_the_reason_says_whether_it_fell_or_jumped() -> None:
    assert counter_rise(COUNTER, 100.0, 101.0, 0.1) == (1.0, None)
    assert counter_rise(COUNTER, 100.0, 90.0, 0.1)[1] == "counter_reset"
    assert counter_rise(replace(COUNTER, wrap=None), 100.0, 90.0, 0.1)[1] == "counter_reset"
    assert counter_rise(COUNTER, 100.0, 50_100.0, 0.1)[1] == "counter_jumped"


@pytest.mark.parametrize("bits", [0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_a_register_without_a_reading_is_refused_in_every_unit(bits: int, scale: float) -> None:
    watts = bits * scale
    assert watts in SENTINELS
    reason = why_impossible(Channel("hwmon", "x", "power"), watts)
    assert reason is not None
    assert reason.endswith("which is what a register without a reading says")


def test_a_design_limit_bounds_a_power_and_a_generous_one_where_none_is_known() -> None:
    assert plausible_bounds(Channel("x", "a", "power", limit_w=60.0)) == (-60.0, 60.0)
    assert plausible_bounds(Channel("x", "a", "power", plausible=(0.0, 15.0))) == (0.0, 15.0)
    low, high = plausible_bounds(Channel("x", "a", "power"))
    assert -low == high == power_limit(Channel("x", "a", "power")) > 1e4
    assert why_impossible(Channel("x", "a", "power"), 4e6) is not None
    assert why_impossible(Channel("x", "a", "voltage"), math.pi) is None
