"""Converters follow the data sheets of the parts: averaging, steps, limits and wraps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.simulation.chip import BlockAverage, EnergyCounter, Ina3221
from edgeprof.simulation.waveform import constant, parse


def orin(**changes: object) -> Ina3221:
    return Ina3221(**({"shunt_ohm": 0.005, "volts": 5.0} | changes))  # type: ignore[arg-type]


def test_the_step_response_is_the_exponential_of_the_datasheet() -> None:
    """SBOS576 §7.4.1: the rest is (1 − 1/N)ⁿ after n cycles, which is an exponential with tau = N × cycle."""
    chip = orin(watts=4.0)
    assert chip.tau_s == pytest.approx(0.43, abs=0.001)
    step = constant(17.0)
    for time in (0.05, 0.1, 0.43, 1.0, 2.0):
        chip.advance(time, step.energy)
        assert chip.average_w == pytest.approx(17 - 13 * math.exp(-time / chip.tau_s), abs=0.03)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.001, 3))
def test_the_short_cut_for_steady_power_gives_what_the_cycles_give(before: float, power: float, time: float) -> None:
    slow, quick = orin(watts=before, samples=64), orin(watts=before, samples=64)
    slow.advance(time, constant(power).energy)
    quick.advance(time, constant(power).energy, steady=power)
    assert quick.average_w == pytest.approx(slow.average_w, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("length", [0.02, 0.1, 0.5, 2.0])
def test_the_share_of_a_burst_inside_its_own_window_is_what_theory_says(length: float) -> None:
    """reference: 20 ms 2.3 %, 100 ms 11 %, 500 ms 41 %, 2 s 79 %: 1 − (tau/L)(1 − exp(−L/tau))."""
    chip, waveform = orin(), parse(f"burst:0W,10W,{length},{length + 10}")
    chip.advance(10.0, waveform.energy)
    total, step = 0.0, chip.refresh_s
    for cycle in range(round(length / step)):
        chip.advance(10.0 + cycle * step, waveform.energy)
        total += chip.average_w * step
    x = length / chip.tau_s
    assert total / (10 * length) == pytest.approx(1 - (1 - math.exp(-x)) / x, abs=0.01)


def test_currents_come_in_steps_of_the_shunt() -> None:
    """5 mΩ: 8 mA, 40 mW at 5 V."""
    assert {orin(watts=w / 100).milliamperes % 8 for w in range(400, 500)} == {0}
    assert orin(watts=5.0).watts == pytest.approx(5.0, abs=0.020001)
    assert orin(watts=5.0).millivolts == 5000


@given(st.integers(-4095, 4095), st.sampled_from([1000, 2000, 5000, 10000, 20000]))
def test_milliamperes_round_as_the_driver_does(register: int, microohm: int) -> None:
    """DIV_ROUND_CLOSEST of C: halves away from zero."""
    chip = orin(shunt_ohm=microohm * 1e-6, watts=register * 40e-6 / (microohm * 1e-6) * 5.0)
    assert chip.shunt_register == register
    exact = register * 40000 / microohm
    assert chip.milliamperes == math.copysign(math.floor(abs(exact) + 0.5), exact)


def test_negative_power_keeps_its_sign_and_one_step_is_minus_one_step() -> None:
    chip = orin(shunt_ohm=0.002, volts=19.6, watts=-0.4)
    assert chip.shunt_register == -1
    assert chip.milliamperes == -20
    assert chip.watts == pytest.approx(-0.392)


def test_it_clips_at_its_range() -> None:
    assert orin(shunt_ohm=0.002, watts=5000.0).milliamperes == 81900
    assert orin(shunt_ohm=0.002, watts=-5000.0).milliamperes == -81900


def test_without_averaging_it_shows_the_last_conversion_only() -> None:
    """With its reset defaults, it measures for 1.1 ms in each 6.6 ms."""
    chip = orin(samples=1, conversion_s=1.1e-3)
    assert chip.refresh_s == pytest.approx(6.6e-3)
    assert chip.tau_s == 0
    chip.advance(1.0, parse("square:1W,9W,2s").energy)
    assert chip.average_w == pytest.approx(1.0)
    chip.advance(1.008, parse("square:1W,9W,2s").energy)
    assert chip.average_w == pytest.approx(9.0)


def test_channels_of_one_chip_look_one_after_the_other() -> None:
    """The later of two channels sees a change between their conversions one cycle earlier."""
    chips = [orin(samples=1, conversion_s=1.1e-3, position=p) for p in (0, 2)]
    step = parse("square:1W,9W,4ms")
    for chip in chips:
        chip.advance(0.0066, step.energy)
    # Channel 1 measured during 0–1.1 ms (low), channel 3 during 4.4–5.5 ms (low again, second period).
    assert [chip.average_w for chip in chips] == [pytest.approx(1), pytest.approx(1)]
    chips[0].advance(0.0078, step.energy)
    assert chips[0].average_w == pytest.approx(9, abs=0.01)


def test_a_block_average_gives_the_mean_of_each_finished_period() -> None:
    part, waveform = BlockAverage(refresh_s=0.05, step_w=0.002, watts=3.0), parse("square:1W,9W,20ms")
    part.advance(0.049, waveform.energy)
    assert part.watts == 3.0
    part.advance(0.05, waveform.energy)
    assert part.watts == pytest.approx((3 * 0.01 * 1 + 2 * 0.01 * 9) / 0.05, abs=0.001)


@given(st.floats(0, 100), st.floats(0, 20))
def test_a_counter_counts_all_energy_in_its_steps(power: float, time: float) -> None:
    counter = EnergyCounter(step_j=2**-14, wrap_uj=10**12, first_uj=5_000_000)
    counter.advance(time, constant(power).energy)
    assert counter.microjoules == pytest.approx(5e6 + power * time * 1e6, abs=62 + power * 1000)


def test_a_counter_wraps_to_zero_at_its_range() -> None:
    counter = EnergyCounter(step_j=2**-14, wrap_uj=262_143_328_850, first_uj=262_143_000_000)
    counter.advance(1.0, constant(10.0).energy)
    assert counter.microjoules == pytest.approx(10e6 - 328_850, abs=100)
