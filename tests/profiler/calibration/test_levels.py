"""Levels of a calibration: a sensor that does not respond to the load gives no line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.calibration.levels import fit_levels
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.errors import InputError
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import idle_span

OWN = Channel("ina3221", "VDD_IN", "power", resolution=0.04, update_interval_s=0.01)
METER = Channel("meter", "meter", "power", resolution=0.001, update_interval_s=0.01)
HOLDS = [idle_span(3.0 + 5.0 * k, 7.0 + 5.0 * k) for k in range(6)]


def seen(gain: float, stuck: tuple[float, float] | None = None):
    rng = np.random.default_rng(1)
    times = np.arange(0.0, 34.0, 0.01)
    power = 4.0 + 2.0 * np.clip((times - 2.0) // 5.0, 0, 5)
    meter = ChannelSeries(METER, times, gain * power + rng.normal(0, 0.02, times.size))
    codes = np.round((power + rng.normal(0, 0.03, times.size)) / 0.04) * 0.04
    if stuck is not None:
        inside = (times >= stuck[0]) & (times < stuck[1])
        codes[inside] = codes[np.searchsorted(times, stuck[0])]
    return [ChannelSeries(OWN, times, codes)], meter


def test_a_sensor_that_answers_has_a_line():
    own, meter = seen(1.03)
    levels, line = fit_levels(own, meter, HOLDS)
    assert len(levels) == 6
    assert line.gain == pytest.approx(1.03, abs=0.01)


@pytest.mark.parametrize("stuck", [(0.0, 34.0), (10.0, 20.0), (25.0, 34.0)])
def test_one_that_sticks_while_the_meter_sees_the_load_move_has_none(stuck):
    own, meter = seen(1.03, stuck)
    with pytest.raises(InputError, match=r"VDD_IN repeated one value for .* while the meter saw the load move"):
        fit_levels(own, meter, HOLDS)


@pytest.mark.slow
@given(phase=st.floats(0.0, 4.0))
@settings(max_examples=8, deadline=None)
def test_a_load_may_change_at_any_time_in_holds_that_follow_each_other(phase):
    """A sensor behind a filter repeats one value before and after each step, but it does respond."""
    from scipy.signal import lfilter  # seconds, which a process that runs other tests need not take

    times = np.arange(0.0, 26.0, 0.01)
    power = np.array([4.0, 8.0, 12.0, 14.0, 10.0, 6.0])[((times + phase) // 4).astype(int) % 6]
    filtered = lfilter([0.01 / 0.43], [1, 0.01 / 0.43 - 1], power, zi=[power[0] * (1 - 0.01 / 0.43)])[0]
    channel = replace(OWN, filter=Filter("exponential", tau_s=0.43))
    own = [ChannelSeries(channel, times, np.round(filtered / 0.04) * 0.04)]
    holds = [idle_span(float(k), float(k + 1)) for k in range(24)]
    levels, _ = fit_levels(own, ChannelSeries(METER, times, power), holds)
    assert len(levels) == 24
    stuck = [ChannelSeries(channel, times, np.full(times.size, 8.0))]
    with pytest.raises(InputError, match="VDD_IN repeated one value"):
        fit_levels(stuck, ChannelSeries(METER, times, power), holds)
