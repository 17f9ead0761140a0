"""A window's joules compared with the known integrals of waveforms, for every kind of reading."""

from __future__ import annotations

import itertools
import math
from array import array

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeprof.energy.integrate import ChannelSeries, window_energy
from edgeprof.energy.quote import measure_spans
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import WINDOW, Span

INSTANT = Channel("s", "RAIL", "power")
COUNTER = Channel("s", "PKG", "energy", kind="counter", update_interval_s=0.001)
TAU = 0.43


def exponential(step: float | None = None, tau: float = TAU) -> Channel:
    return Channel(
        "ina3221", "VDD_IN", "power", resolution=step, update_interval_s=0.00084,
        filter=Filter("exponential", tau_s=tau),
    )  # fmt: skip


def block(length: float, update: float | None = None) -> Channel:
    return Channel("s", "AVG", "power", update_interval_s=update or length, filter=Filter("block", length_s=length))


def jittered(rng: np.random.Generator, start: float, end: float, interval: float = 0.01) -> np.ndarray:
    """Return sampling times with the jitter of a busy machine."""
    times = np.arange(start, end, interval)
    return times + rng.uniform(0, interval / 5, times.size)


def step_load(start: float, end: float, idle: float, busy: float):
    """Return the running integral, and the filtered reading, of a power that is ``busy`` only in the window."""

    def joules(t):
        return idle * t + (busy - idle) * np.clip(t - start, 0, end - start)

    def filtered(t, tau):
        inside = np.clip(t - start, 0, end - start)
        after = np.clip(t - end, 0, None)
        return idle + (busy - idle) * (1 - np.exp(-inside / tau)) * np.exp(-after / tau)

    return joules, filtered


watts = st.floats(0.1, 100)
edges = st.sampled_from(["steady", "interpolated"])


@given(power=watts, start=st.floats(1, 2), length=st.floats(0.1, 5), edge=edges, seed=st.integers(0, 100))
def test_constant_power_is_exact_for_every_kind_of_reading(power, start, length, edge, seed):
    t = jittered(np.random.default_rng(seed), 0, 8)
    truth = power * length
    for channel in (INSTANT, exponential(), block(0.02)):
        found = window_energy(t, np.full(t.size, power), start, start + length, channel, edges=edge)
        assert found.joules == pytest.approx(truth, rel=1e-9)
        assert found.problems == ()
    counted = window_energy(t, 1000 + power * t, start, start + length, COUNTER, edges=edge)
    assert counted.joules == pytest.approx(truth, rel=1e-6)


@given(a=st.floats(1, 10), b=st.floats(-1, 1), start=st.floats(1, 2), length=st.floats(0.2, 4), seed=st.integers(0, 50))
def test_a_ramp_is_exact_where_edges_are_interpolated(a, b, start, length, seed):
    assume(a + b * 8 > 0)
    t = jittered(np.random.default_rng(seed), 0, 8)
    truth = a * length + b / 2 * ((start + length) ** 2 - start**2)
    found = window_energy(t, a + b * t, start, start + length, INSTANT, edges="interpolated")
    assert found.joules == pytest.approx(truth, rel=1e-9)


@given(
    cuts=st.lists(st.floats(1, 9), min_size=2, max_size=6, unique=True), seed=st.integers(0, 100),
    kind=st.sampled_from(["instant", "exponential", "block", "counter"]),
)  # fmt: skip
def test_adjacent_windows_add_up(cuts, seed, kind):
    """The energies of the parts of a waveform add up to that of the whole, wherever it is cut."""
    cuts = sorted(cuts)
    assume(min(np.diff(cuts)) > 0.05)
    rng = np.random.default_rng(seed)
    t = jittered(rng, 0, 10)
    power = rng.uniform(1, 20, t.size)
    channel = {"instant": INSTANT, "exponential": exponential(), "block": block(0.03), "counter": COUNTER}[kind]
    values = np.cumsum(power) * 0.01 if kind == "counter" else power

    def joules(start, end):
        return window_energy(t, values, start, end, channel, edges="interpolated").joules

    parts = math.fsum(joules(a, b) for a, b in itertools.pairwise(cuts))
    assert parts == pytest.approx(joules(cuts[0], cuts[-1]), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["instant", "exponential", "counter"])
@pytest.mark.parametrize("length", [0.2, 1.0, 5.0])
def test_a_step_of_power_at_the_edges_costs_no_joule(kind, length):
    """Work begins and ends with the window: averaged over sampling phases, no energy is lost to the idle beside it."""
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        start = 5 + rng.uniform(0, 0.01)
        joules, filtered = step_load(start, start + length, idle=4.0, busy=17.0)
        t = jittered(rng, 3, start + length + 1)
        if kind == "counter":
            channel, values = COUNTER, np.floor(joules(np.floor(t / 0.001) * 0.001) / 15e-6) * 15e-6
        elif kind == "exponential":
            channel, values = exponential(), filtered(t, TAU)
        else:
            channel, values = INSTANT, np.where((t >= start) & (t <= start + length), 17.0, 4.0)
        ratios.append(window_energy(t, values, start, start + length, channel).joules / (17 * length))
    assert np.mean(ratios) == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("length", "spread"), [(0.03, 0.05), (0.1, 0.011), (0.5, 0.0025), (1.0, 0.0012)])
def test_bursts_behind_an_exponential_filter_keep_their_energy(length, spread):
    """τ = 0.43 s, 100 mW steps, 100 Hz: unbiased, and the spread comes from the step, as stated in the budget."""
    rng = np.random.default_rng(5)
    ratios, promised = [], []
    for _ in range(200):
        start = 5 + rng.uniform(0, 0.01)
        _, filtered = step_load(start, start + length, idle=4.0, busy=17.0)
        t = jittered(rng, 4, start + length + 1)
        found = window_energy(t, np.round(filtered(t, TAU) / 0.1) * 0.1, start, start + length, exponential(0.1))
        ratios.append(found.joules / (17 * length))
        promised.append(math.hypot(found.u_sync, found.u_resolution, found.u_filter) / (17 * length))
    assert np.mean(ratios) == pytest.approx(1, abs=max(0.001, spread / 3))
    assert np.std(ratios) < spread * 1.2
    assert np.std(ratios) < 1.5 * np.mean(promised)
    naive = window_energy(t, filtered(t, TAU), start, start + length, INSTANT).joules / (17 * length)
    assert naive < np.mean(ratios) - 0.05


@pytest.mark.parametrize(("length", "problems"), [(0.012, ()), (0.005, ("few_samples",))])
def test_a_burst_shorter_than_the_readings_is_found_beside_it(length, problems):
    """The filter still shows it after its end; a window without any reading inside is reported."""
    start = 5.003
    _, filtered = step_load(start, start + length, idle=4.0, busy=17.0)
    t = np.arange(4, 6, 0.01)
    found = window_energy(t, filtered(t, TAU), start, start + length, exponential(0.1))
    assert found.problems == problems
    assert found.u_filter > 0
    assert found.joules == pytest.approx(17 * length, rel=0.02)


@given(phase=st.floats(0, 1), periods=st.integers(3, 30))
def test_block_averages_that_tile_a_square_wave_are_exact(phase, periods):
    """A sensor that averages 100 ms and is read every 100 ms misses nothing of a faster square wave."""
    t = phase * 0.1 + np.arange(0, 10, 0.1)
    values = np.full(t.size, 5.5)  # the mean of any whole number of periods of a 1 W / 10 W square
    found = window_energy(t, values, 2.0, 2.0 + 0.1 * periods, block(0.1))
    assert found.joules == pytest.approx(5.5 * 0.1 * periods)


def test_a_block_average_belongs_to_the_time_before_it():
    """Averages over 1 s show a step at 5 s in the second after it; the window from 5 s on has all of its joules."""
    t = np.arange(0, 20, 0.1)
    values = 10 + 10 * np.clip(t - 5, 0, 1)  # the mean of the second before t, of a step from 10 W to 20 W at 5 s
    after = window_energy(t, values, 5.0, 15.0, block(1.0, 0.1))
    assert after.joules == pytest.approx(200, rel=1e-3)
    both = window_energy(t, values, 1.0, 15.0, block(1.0, 0.1), edges="interpolated")
    assert both.joules == pytest.approx(40 + 200, rel=1e-3)


@given(wrap=st.floats(50, 500), offset=st.floats(0, 1), power=st.floats(5, 20))
def test_a_counter_may_wrap_within_and_between_windows(wrap, offset, power):
    t = np.arange(0, 60, 0.01)
    values = np.mod(offset * wrap + power * t, wrap)
    channel = Channel("rapl", "package-0", "energy", kind="counter", update_interval_s=0.001, wrap=wrap)
    found = window_energy(t, values, 3.0, 53.0, channel)
    assert found.joules == pytest.approx(power * 50, rel=1e-4)
    assert found.problems == ()


def test_a_counter_that_starts_again_for_no_reason_is_no_measurement():
    t = np.arange(0, 10, 0.01)
    values = np.where(t < 5, 100 + t, t - 5)
    assert window_energy(t, values, 2, 8, COUNTER).problems == ("counter_reset",)
    assert window_energy(t, values, 2, 8, COUNTER).joules is None
    assert window_energy(t, values, 6, 8, COUNTER).joules == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("update", [0.1, 0.001])
def test_counter_error_is_what_its_staleness_allows(update):
    """A counter that refreshes every 100 ms or 1 ms, read at 100 Hz: its error stays within what is stated."""
    rng = np.random.default_rng(11)
    channel = Channel("nvml", "gpu", "energy", kind="counter", update_interval_s=update)
    errors, stated = [], []
    for _ in range(200):
        start = 5 + rng.uniform(0, 0.1)
        joules, _ = step_load(start, start + 2, idle=20.0, busy=200.0)
        t = jittered(rng, 3, start + 3)
        phase = rng.uniform(0, update)
        found = window_energy(t, joules(np.floor((t - phase) / update) * update + phase), start, start + 2, channel)
        errors.append(found.joules - 400)
        stated.append(found.u_sync)
    assert abs(np.mean(errors)) < 0.4 * np.std(errors) + 0.02
    assert np.std(errors) < 1.6 * np.mean(stated)
    assert np.std(errors) / 400 < 0.005


def test_a_failed_reading_is_a_gap_and_not_a_zero():
    t = np.arange(0, 10, 0.01)
    values = np.full(t.size, 7.0)
    values[(t > 4) & (t < 4.2)] = math.nan
    found = window_energy(t, values, 3, 6, INSTANT)
    assert found.joules == pytest.approx(21)
    assert found.problems == ("gaps",)
    assert found.max_gap_s == pytest.approx(0.2, abs=0.02)
    assert window_energy(t, values, 6, 9, INSTANT).problems == ()


@pytest.mark.parametrize(("lost", "problems"), [(0.08, ()), (0.3, ("gaps",))])
def test_a_gap_behind_a_filter_is_one_when_it_is_long_for_the_filter(lost, problems):
    _, filtered = step_load(5.0, 7.0, idle=4.0, busy=17.0)
    t = np.arange(3, 9, 0.01)
    t = t[(t < 5.5) | (t > 5.5 + lost)]
    found = window_energy(t, filtered(t, TAU), 5.0, 7.0, exponential())
    assert found.problems == problems
    assert found.joules == pytest.approx(34, rel=1e-3 if lost < 0.1 else 1e-2)


@pytest.mark.parametrize("channel", [block(0.1), Channel("s", "C", "energy", kind="counter", update_interval_s=0.1)])
def test_a_window_that_holds_no_whole_refresh_is_not_measured_by_it(channel):
    """A slow reading of a window of 50 ms is mostly about the time beside the window."""
    t = np.arange(3, 7, 0.1)
    values = np.where((t > 5.05) & (t < 5.15), 10.0, 4.0) if channel.quantity == "power" else 4 * t
    found = window_energy(t, values, 5.03, 5.08, channel)
    assert found.joules is None
    assert found.problems == ("few_samples",)


def test_a_counter_counts_on_while_nobody_looks():
    t = np.arange(3, 9, 0.01)
    t = t[(t < 5.5) | (t > 5.9)]
    found = window_energy(t, 100 + 17 * t, 5.0, 7.0, COUNTER)
    assert found.problems == ()
    assert found.joules == pytest.approx(34, rel=1e-3)


@pytest.mark.parametrize("channel", [INSTANT, exponential(), block(0.02), COUNTER])
def test_a_window_without_readings_is_unknown(channel):
    t = np.arange(0, 3, 0.01)
    values = 100 + t
    assert window_energy(t, values, 5, 6, channel).joules is None
    assert window_energy(t, values, 5, 6, channel).problems == ("no_samples",)
    assert window_energy([], [], 5, 6, channel).joules is None
    assert window_energy(t, np.full(t.size, math.nan), 1, 2, channel).joules is None


def test_a_trace_that_ends_in_the_first_half_of_the_window_is_no_measurement():
    t = np.arange(0, 3, 0.01)
    found = window_energy(t, np.full(t.size, 5.0), 2.5, 6, INSTANT)
    assert found.joules is None
    assert "gaps" in found.problems


def test_a_sensor_slower_than_the_window_gives_what_it_can_and_says_so():
    t = np.arange(0, 10, 1.0)
    found = window_energy(t, np.full(t.size, 5.0), 4.2, 4.6, INSTANT)
    assert found.problems == ("few_samples",)
    assert found.joules == pytest.approx(2.0)


def test_a_step_that_never_moves_is_not_averaged_away():
    """A reading that stays at one code has the same rounding error, however often it is read."""
    t = np.arange(0, 20, 0.01)
    channel = Channel("s", "R", "power", resolution=0.04)
    still = window_energy(t, np.full(t.size, 5.0), 2, 12, channel)
    moving = window_energy(t, 5 + 0.04 * (np.arange(t.size) % 2), 2, 12, channel)
    assert still.u_resolution == pytest.approx(10 * 0.04 / math.sqrt(12))
    assert moving.u_resolution < still.u_resolution / 20


def test_arrays_of_the_standard_library_are_taken_as_they_are():
    times, values = array("d", [0.0, 1.0, 2.0, 3.0]), array("d", [2.0, 2.0, 2.0, 2.0])
    assert window_energy(times, values, 0.5, 2.5, INSTANT).joules == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("channel", "start", "end"),
    [(Channel("s", "T", "temperature"), 0, 1), (INSTANT, 1, 1), (Channel("s", "E", "energy"), 0, 1)],
)
def test_what_cannot_be_a_window_of_energy_is_refused(channel, start, end):
    with pytest.raises(ValueError, match=r"no length|neither power"):
        window_energy([0.0, 1.0], [1.0, 1.0], start, end, channel)


def test_times_and_values_must_pair_up():
    with pytest.raises(ValueError, match="one length"):
        window_energy([0.0, 1.0], [1.0], 0, 1, INSTANT)


def test_jumps_between_slow_readings_are_in_the_uncertainty():
    """A square wave of 1 s, read 21 times per second (the Pi 5's PMIC): edges lie anywhere between two readings."""
    gauge = Channel("pmic", "SOC", "power")
    errors, stated = [], []
    for phase in np.linspace(0, 0.047, 40, endpoint=False):
        t = np.arange(0, 7, 0.047) + phase
        watts = np.where((t % 1.0) < 0.5, 7.0, 2.0)
        found = window_energy(t, watts, 1.0, 6.0, gauge)
        errors.append(found.joules - 5 * 4.5)
        stated.append(found.u_sync)
    assert np.std(errors) < 2 * np.mean(stated)
    assert np.mean(stated) > 0.05


def test_the_limit_of_the_time_constant_is_the_channels_own() -> None:
    times = np.arange(0.0, 3.0, 0.01)
    values = 4.0 + 10.0 * (1 - np.exp(-np.maximum(times - 1.0, 0.0) / 0.43))

    def filter_line(limit: float | None) -> float:
        shape = Filter("exponential", tau_s=0.43, tau_limit=limit)
        series = ChannelSeries(Channel("ina3221", "VDD_IN", "power", filter=shape), times, values)
        return measure_spans(
            [series], [], [Span(WINDOW, 1.0, 2.0)], [], covers=None, rail=None
        ).energy.gross.budget.filter

    assert filter_line(0.47) == pytest.approx(4.7 * filter_line(0.1), rel=1e-6)
    assert filter_line(None) == filter_line(0.1) > 0
