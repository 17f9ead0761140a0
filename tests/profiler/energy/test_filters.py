"""The time constant of a filter, fitted to falling readings: simulated falls, whole benches, and a real Orin NX."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.energy.filters import fit_decay, fit_filters, rests, with_time_constant
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import BLOCK, WINDOW, Span

RECORDINGS = Path(__file__).parents[4] / "shared/data/recordings/orin-nx"
RAIL = Channel(
    "ina3221", "VDD_IN", "power", resolution=0.04, update_interval_s=840e-6, location="i2c 1-0040 channel 1",
    filter=Filter("exponential", tau_s=0.43, tau_limit=0.1),
)  # fmt: skip
BUSY = [Span(BLOCK, 1.0, 4.0), *(Span(WINDOW, 12.0 + 2.2 * k, 14.0 + 2.2 * k, 20) for k in range(3))]
END_S = 26.0


def falling(tau: float, amplitude: float, tail_w: float = 0.0, seed: int = 0):
    """Return a bench behind a filter with the time constant ``tau``, read at 25 Hz; the idle power has a slow tail."""
    rng = np.random.default_rng(seed)
    fine = np.arange(0.0, END_S, 1e-3)
    work = np.zeros(fine.size, bool)
    since = np.full(fine.size, math.inf)
    for span in BUSY:
        work |= (fine >= span.start_s) & (fine < span.end_s)
        after = fine >= span.end_s
        since[after] = fine[after] - span.end_s
    power = 4.0 + np.where(work, amplitude, tail_w * np.exp(-since / 3.0))
    keep, level, shown = math.exp(-1e-3 / tau), power[0], np.empty_like(power)
    for i, watts in enumerate(power):
        level = watts + (level - watts) * keep
        shown[i] = level
    times = (np.arange(0, int(END_S / 0.04) - 1) + rng.uniform(0, 0.9, int(END_S / 0.04) - 1)) * 0.04
    values = np.round(shown[(times / 1e-3).astype(int)] / 0.04) * 0.04
    return ChannelSeries(RAIL, times, values)


def found_in(series):
    return fit_filters([series], rests(BUSY, END_S, 0.3))


@pytest.mark.parametrize("tau", [0.39, 0.43, 0.47])
def test_a_time_constant_within_the_drivers_limits_is_found_and_not_remarked(tau):
    (series,), constants, reasons = found_in(falling(tau, 8.0))
    (constant,) = constants.values()
    assert constant.tau_s == pytest.approx(tau, rel=0.01)
    assert abs(constant.tau_s - tau) < 3 * constant.u_s
    assert constant.falls >= 2
    assert series.channel.filter.tau_s == constant.tau_s
    assert reasons == []


@pytest.mark.parametrize("tau", [0.107, 0.215, 0.63, 0.86])
def test_one_that_contradicts_the_driver_is_used_and_said(tau):
    (series,), _, reasons = found_in(falling(tau, 8.0))
    assert [reason.code for reason in reasons] == ["filter_contradicted"]
    assert series.channel.filter.tau_s == pytest.approx(tau, rel=0.02)


@pytest.mark.slow
@given(tau=st.floats(0.3, 0.6), amplitude=st.floats(1.0, 15.0), tail=st.floats(0.0, 0.3), seed=st.integers(0, 99))
def test_the_interval_holds_the_truth_even_where_the_idle_settles_slowly(tau, amplitude, tail, seed):
    """A tail of 3 s bends the fall; the slope term absorbs most of it, and the second fit widens the uncertainty."""
    _, constants, _ = found_in(falling(tau, amplitude, tail * amplitude / 4, seed))
    for constant in constants.values():
        assert abs(constant.tau_s - tau) < max(4 * constant.u_s, 0.03 * tau)


def test_a_fall_of_a_few_steps_shows_nothing_and_the_drivers_word_stays():
    (series,), constants, reasons = found_in(falling(0.63, 0.2))
    assert constants == {}
    assert reasons == []
    assert series.channel == RAIL


def test_what_was_measured_before_and_better_stays():
    series = falling(0.43, 8.0)
    known = replace(RAIL, filter=replace(RAIL.filter, tau_limit=0.001))
    (kept,), constants, _ = found_in(replace(series, channel=known))
    assert kept.channel == known
    assert with_time_constant(known, *constants.values()) == known


def test_a_sensor_without_a_filter_is_left_alone():
    plain = replace(falling(0.43, 8.0), channel=replace(RAIL, filter=Filter()))
    assert found_in(plain)[0] == [plain]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings of the Orin NX are not here")
def test_a_real_orin_nx_falls_as_its_driver_says():
    """512 × 6 × 140 µs = 0.43 s: each recording begins with the fall after its program has started (E2FL, MIT)."""
    constants, steps = [], []
    for path in sorted(RECORDINGS.glob("*.csv")):
        times, watts = recording(path)
        steps.append(smallest(watts))
        rise = np.flatnonzero(np.diff(watts) > 0.06)
        end = min(int(rise[0]) if rise.size else watts.size, int(np.searchsorted(times, 1.0)))
        decayed = fit_decay(times[:end], watts[:end], 0.1, 2.0, beside="nothing")
        if decayed is not None and end > 50:
            constants.append(decayed[0])
    assert len(constants) >= 15
    assert 0.38 < np.median(constants) < 0.47
    assert np.quantile(constants, 0.1) > 0.3
    assert np.quantile(constants, 0.9) < 0.6
    # 40 µV over 5 mΩ at 5.07 V is the step that the plugin states.
    assert np.median(steps) == pytest.approx(0.0406, abs=0.0015)


def recording(path: Path):
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    times = np.array([datetime.fromisoformat(row[0]).timestamp() for row in rows])
    return times - times[0], np.array([float(row[1]) for row in rows]) * 1e-3


def smallest(watts):
    """Return the usual difference (W) of neighbouring codes; a voltage that toggles by 8 mV causes smaller ones."""
    gaps = np.diff(np.unique(np.round(watts, 4)))
    return float(np.median(gaps[gaps > 0.02]))


@pytest.mark.parametrize("off", [0.92, 1.0, 1.08])
def test_a_fall_that_is_seen_for_two_and_a_half_time_constants_shows_the_longer_ones_too(off):
    """1024 averages of 1.1 ms, an idle of 2 s after 15 s of settling; a lower limit would exclude the longer half."""
    tau, rng = 6.76 * off, np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 17.0, 170))
    y = np.round((4.0 + 7.0 * np.exp(-t / tau)) / 0.04) * 0.04
    rail = replace(RAIL, filter=Filter("exponential", tau_s=6.76, tau_limit=0.1), update_interval_s=6.6e-3)
    (series,), constants, _ = fit_filters([ChannelSeries(rail, t, y)], [(0.0, 17.0)])
    (constant,) = constants.values()
    assert constant.tau_s == pytest.approx(tau, rel=0.03)
    assert series.channel.filter.tau_s == constant.tau_s
