"""A rail whose voltage sags with its current: the product of the two averages is too large, and is corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.quote import measure_spans
from edgeprof.energy.sag import excess_w, sag_of
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import WINDOW, Span

TAU_S, STEP_A, CYCLE_S = 0.43, 0.008, 0.86e-3
RAIL = Channel(
    "ina3221", "VDD_IN", "power", resolution=0.04, gain_limit=0.01, update_interval_s=CYCLE_S,
    filter=Filter("exponential", tau_s=TAU_S, tau_limit=0.01),
)  # fmt: skip


def shown(ohm: float, seed: int = 0):
    """Return times, filtered volts and amperes, and the excess reading (W): 4 W, then bursts of 17 W on 6 W."""
    rng = np.random.default_rng(seed)
    fine = np.arange(0.0, 40.0, CYCLE_S)
    watts = np.where(fine < 5.0, 4.0, np.where(fine % 0.1 < 0.03, 17.0, 6.0))
    amperes = watts / 5.0 if ohm == 0 else (5.0 - np.sqrt(25.0 - 4 * ohm * watts)) / (2 * ohm)
    keep = np.exp(-CYCLE_S / TAU_S)
    filtered, level = np.empty_like(amperes), amperes[0]
    for index, value in enumerate(amperes):
        level = value + (level - value) * keep
        filtered[index] = level
    too_much = ohm * float(((amperes - filtered)[fine > 8.0] ** 2).mean())
    times = (np.arange(int(40.0 / 0.04)) + rng.uniform(0, 0.99, int(40.0 / 0.04))) * 0.04
    seen = filtered[np.minimum((times / CYCLE_S).astype(int), fine.size - 1)]
    return times, np.round((5.0 - ohm * seen) / 8e-3) * 8e-3, np.round(seen / STEP_A) * STEP_A, too_much


@pytest.mark.parametrize("ohm", [0.02, 0.06])
def test_what_sagging_adds_is_known_to_a_third_and_taken_off(ohm: float) -> None:
    times, volts, amperes, too_much = shown(ohm)
    sag = sag_of(volts, amperes)
    assert sag is not None
    assert sag.ohm == pytest.approx(ohm, rel=0.15)
    working = times > 8.0
    excess = excess_w(times[working], (volts * amperes)[working], TAU_S, 0.04, sag)
    assert 0.5 * too_much < excess < 1.2 * too_much
    series = ChannelSeries(RAIL, times, volts * amperes)
    windows = [Span(WINDOW, 8.0 + 4 * k, 12.0 + 4 * k, 40) for k in range(5)]
    plain = measure_spans([series], [], windows, [], covers=None, rail=None).energy.gross
    mended = measure_spans([replace(series, sag=sag)], [], windows, [], covers=None, rail=None).energy.gross
    assert plain.value - mended.value == pytest.approx(0.1 * excess, rel=0.2)
    assert mended.budget.model == pytest.approx(0.3 * (plain.value - mended.value))


def test_a_voltage_that_stays_or_wanders_by_itself_tells_no_resistance() -> None:
    times, volts, amperes, _ = shown(0.0)
    assert sag_of(volts, amperes) is None
    assert sag_of(5.0 - 0.06 * amperes[times > 8.0], amperes[times > 8.0]) is None  # ripple alone
    wandering = 5.0 + 0.05 * np.sin(np.arange(amperes.size) / 50.0)
    assert sag_of(wandering, amperes) is None


def test_readings_too_far_apart_to_show_the_filters_input_take_nothing_off() -> None:
    times, volts, amperes, _ = shown(0.06)
    sag = sag_of(volts, amperes)
    assert sag is not None
    assert excess_w(times[::6], (volts * amperes)[::6], TAU_S, 0.04, sag) == 0.0
