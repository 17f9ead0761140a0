"""The integrals: every sample counted, gaps bridged or counted, counters that never fall."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.energy.online.running_sum import History, Meter, Total
from edgeprof.sensing.sensor import Channel, Filter

POWER = Channel("fake", "VIN", "power")
RAPL = Channel("rapl", "package-0", "energy", kind="counter", wrap=100_000.0, provenance="counter")
FREE = Channel("nvml", "gpu0", "energy", kind="counter", provenance="counter")


def played(power, begin: float, end: float):
    """Return ten readings per second from begin to end, both included."""
    count = round(10 * (end - begin))
    return [(begin + n / 10, power(begin + n / 10)) for n in range(count + 1)]


def meter(channel: Channel = POWER, bridge_s: float = 5.0, *readings: tuple[float, float]) -> Meter:
    made = Meter(channel, bridge_s)
    for time, value in readings:
        made.add(time, value)
    return made


def test_power_is_integrated_by_the_straight_line_between_samples() -> None:
    made = meter(POWER, 5.0, (10.0, 2.0), (10.5, 4.0), (10.75, 4.0))
    assert made.joules == pytest.approx(1.5 + 1.0)
    assert (made.gap(10.75), made.watts) == (0.0, 4.0)


def test_a_gap_up_to_the_limit_is_bridged_and_a_longer_one_is_counted_and_left_out() -> None:
    made = meter(POWER, 5.0, (0.0, 2.0), (5.0, 4.0), *played(lambda _: 4.0, 5.1, 9.0))
    assert made.joules == pytest.approx(15.0 + 4.0 * 4.0)
    made = meter(POWER, 5.0, (0.0, 2.0), (0.4, 2.0), (6.4, 4.0), (6.8, 4.0))
    assert made.joules == pytest.approx(0.8 + 1.6)
    assert made.gap(6.8) == pytest.approx(6.0)


def test_a_pause_is_bridged_by_the_mean_on_both_sides_and_not_by_two_samples_of_a_burst() -> None:
    """The result does not depend on the phase of the two samples beside the pause."""
    for shift in range(7):

        def bursts(time: float, shift: int = shift) -> float:
            return 12.0 if (round(10 * time) + shift) % 7 == 0 else 3.0

        made = meter(POWER, 5.0, *played(bursts, 0.0, 10.0))
        before = made.joules
        for reading in played(bursts, 14.0, 20.0):
            made.add(*reading)
        mean = 3.0 + 9.0 / 7
        assert made.joules - before == pytest.approx(10.0 * mean, rel=0.12)


@pytest.mark.parametrize(("period", "most_j"), [(7.0, 2.5), (20.0, 0.5), (60.0, 0.1)])
def test_a_slow_wave_is_bridged_along_its_way(period: float, most_j: float) -> None:
    """Two seconds of 7 ± 5 W, at any phase; with a period of 7 s, the mean of the seconds before would be 8 J off."""
    omega, off = 2 * math.pi / period, []
    for turn in range(16):

        def wave(time: float, phase: float = turn * math.pi / 8) -> float:
            return 7.0 + 5.0 * math.sin(omega * time + phase)

        def joules(time: float, phase: float = turn * math.pi / 8) -> float:
            return 7.0 * time - 5.0 / omega * math.cos(omega * time + phase)

        made = meter(POWER, 5.0, *played(wave, 0.0, 5.0))
        for reading in played(wave, 7.0, 11.0):
            made.add(*reading)
        assert made.time == 11.0
        off.append(made.joules - (joules(11.0) - joules(0.0)))
    assert math.sqrt(math.fsum(e * e for e in off) / len(off)) < most_j


def test_a_load_that_was_switched_is_not_taken_for_one_that_rises() -> None:
    """The power steps from 2 W to 10 W half a second before the pause; the bridge must not extrapolate up to 20 W."""
    made = meter(POWER, 5.0, *played(lambda time: 2.0 if time < 4.5 else 10.0, 0.0, 5.0))
    before = made.state()["joules"]
    for reading in played(lambda _: 10.0, 7.0, 7.5):
        made.add(*reading)
    assert made.state()["joules"] - before < 2.5 * 10.0


def test_while_a_pause_is_being_bridged_nothing_is_shown_of_it_and_an_end_settles_it() -> None:
    made = meter(POWER, 5.0, *played(lambda _: 6.0, 0.0, 2.0))
    for reading in played(lambda _: 6.0, 4.0, 5.0):
        made.add(*reading)
    assert made.shown(5.0) == pytest.approx(12.0)
    assert made.time == pytest.approx(2.0)
    assert made.watts == 6.0
    assert made.state()["joules"] == pytest.approx(30.0)
    made.settle()
    assert (made.shown(5.0), made.time) == (pytest.approx(30.0), pytest.approx(5.0))
    made.settle()
    assert made.shown(5.0) == pytest.approx(30.0)


def test_a_sensor_that_refreshes_every_few_seconds_is_no_row_of_pauses() -> None:
    """For example a battery's gauge: the time between its readings is integrated and is not a gap."""
    slow = Channel("power_supply", "BAT0", "power", update_interval_s=10.0)
    made = meter(slow, 5.0, *((10.0 * n, float(n)) for n in range(7)))
    assert made.joules == pytest.approx(0.5 * 60 * 6)
    assert made.gap(61.0) == 0.0


def test_a_gap_that_is_open_counts_while_it_lasts_and_closes_without_a_step_back() -> None:
    made = meter(POWER, 5.0, (0.0, 2.0))
    seen = [made.gap(now) for now in (4.0, 6.0, 8.0)]
    made.add(9.0, 2.0)
    assert [*seen, made.gap(9.0)] == [0.0, 6.0, 8.0, 9.0]


def test_a_counter_wraps_and_its_gaps_lose_nothing() -> None:
    made = meter(RAPL, 5.0, (0.0, 99_990.0), (1.0, 15.0), (60.0, 75.0))
    assert made.joules == pytest.approx(25.0 + 60.0)
    assert made.gap(60.0) == 0.0


def test_a_counter_that_may_have_wrapped_twice_is_a_gap() -> None:
    made = meter(RAPL, 5.0, (0.0, 0.0), (200.0, 5.0), (201.0, 10.0))
    assert made.joules == pytest.approx(5.0)
    assert made.gap(201.0) == pytest.approx(200.0)


def test_a_counter_that_begins_again_loses_that_interval_only() -> None:
    made = meter(FREE, 5.0, (0.0, 500.0), (1.0, 510.0), (2.0, 3.0), (3.0, 13.0))
    assert made.joules == pytest.approx(20.0)
    assert made.gap(3.0) == pytest.approx(1.0)


def test_what_the_network_sees_of_a_processor_counter_changes_once_a_second() -> None:
    """Finer readings would reveal secrets that the processor works on (PLATYPUS)."""
    made = meter(RAPL, 5.0, (0.0, 0.0))
    seen = set()
    for step in range(1, 31):
        made.add(step / 10, float(step))
        seen.add(made.shown(100 + step / 10))
    assert len(seen) <= 4
    assert made.watts == pytest.approx(10.0)


def test_a_counter_is_never_shown_lower_though_the_sensor_reads_below_zero() -> None:
    made = meter(POWER, 5.0, (0.0, 1.0), (0.4, 1.0))
    before = made.shown(0.4)
    made.add(0.8, -3.0)
    assert made.joules < before
    assert made.shown(0.8) == before


@given(st.lists(st.tuples(st.floats(0.001, 20), st.floats(-0.5, 100)), max_size=60), st.floats(0, 10))
def test_shown_joules_and_gaps_only_grow_and_time_is_bridged_or_counted(steps, bridge_s) -> None:
    made, now, shown, gap, bridged = Meter(POWER, bridge_s), 0.0, 0.0, 0.0, 0.0
    for position, (step, watts) in enumerate(steps):
        before, now = now, now + step
        made.add(now, watts)
        if position and now - before <= bridge_s:
            bridged += now - before
        assert made.shown(now) >= shown
        assert made.gap(now) >= gap
        shown, gap = made.shown(now), made.gap(now)
    begun = steps[0][0] if steps else 0.0
    assert gap + bridged == pytest.approx(now - begun, abs=1e-6)


def test_a_resumed_meter_goes_on_and_bridges_a_short_restart() -> None:
    before = meter(POWER, 5.0, *played(lambda _: 6.0, 100.0, 111.0))
    after = Meter(POWER, 5.0)
    after.resume(json.loads(json.dumps(before.state())), 112.0)
    assert not after.is_read
    for reading in played(lambda _: 8.0, 113.0, 117.0):
        after.add(*reading)
    assert after.joules == pytest.approx(before.joules + 2.0 * 7.0 + 4.0 * 8.0)
    assert after.gap(117.0) == 0.0


def test_a_resumed_meter_counts_a_long_restart_as_a_gap_and_a_counter_does_not() -> None:
    sampled, counted = Meter(POWER, 5.0), Meter(FREE, 5.0)
    sampled.resume(meter(POWER, 5.0, (0.6, 6.0), (1.0, 6.0)).state(), 50.0)
    counted.resume(meter(FREE, 5.0, (0.0, 100.0), (1.0, 106.0)).state(), 50.0)
    sampled.add(51.0, 6.0)
    counted.add(51.0, 406.0)
    assert (sampled.joules, sampled.gap(51.0)) == (pytest.approx(2.4), 50.0)
    assert (counted.joules, counted.gap(51.0)) == (306.0, 0.0)


def test_after_a_reboot_the_pause_is_nobodys() -> None:
    after = Meter(POWER, 5.0)
    after.resume(meter(POWER, 5.0, (1000.0, 6.0), (1000.5, 6.0)).state(), None)
    after.add(20.0, 5.0)
    assert (after.joules, after.gap(20.0)) == (3.0, 0.0)


@pytest.mark.parametrize(
    "state",
    [
        {"joules": math.nan, "gap_s": 0.0, "time": None, "value": 0.0, "edge": None},
        {"joules": -1.0, "gap_s": 0.0, "time": None, "value": 0.0},
        {"joules": 1.0, "gap_s": math.inf, "time": None, "value": 0.0},
        {"joules": 1.0},
    ],
)
def test_a_state_that_is_none_is_refused(state) -> None:
    with pytest.raises((ValueError, LookupError)):
        Meter(POWER).resume(state, None)


def test_the_whole_device_is_the_sum_of_its_parts_and_unknown_where_one_has_a_gap() -> None:
    a, b = Meter(POWER, 1.0), Meter(Channel("fake", "VDD", "power"), 1.0)
    total = Total([a, b], History())
    for time in (0.0, 0.5, 1.0):
        for one, watts in ((a, 3.0), (b, 1.0)):
            one.add(time, watts)
            total.advance(one)
    assert total.shown(1.0) == pytest.approx(4.0)
    for time in (1.5, 2.0, 2.5):  # b has no readings: a alone is not the whole device
        a.add(time, 3.0)
        total.advance(a)
    assert total.shown(2.5) == pytest.approx(4.0)
    for one in (a, b):
        one.add(3.0, 2.0)
        total.advance(one)
    assert total.shown(3.0) == pytest.approx(4.0)
    assert total.gap_s == pytest.approx(2.0)


def test_the_whole_device_takes_a_bridged_pause_in_once_and_over_an_end_within_it() -> None:
    a, b = Meter(POWER, 5.0), Meter(Channel("fake", "VDD", "power"), 5.0)
    total = Total([a, b], History())

    def play(begin: float, end: float) -> None:
        for time, watts in played(lambda _: 3.0, begin, end):
            for one in (a, b):
                one.add(time, watts)
                total.advance(one)

    play(0.0, 2.0)
    play(4.0, 5.0)
    assert total.shown(5.0) == pytest.approx(12.0)
    kept = total.state()
    assert kept["joules"] == pytest.approx(30.0)
    play(5.1, 8.0)
    assert total.shown(8.0) == pytest.approx(48.0)
    assert total.gap_s == 0.0
    (t0, t1, *_), (e0, e1, *_), *_ = total.history.copy_since(3.0)
    assert e0 + (3.0 - t0) / (t1 - t0) * (e1 - e0) == pytest.approx(18.0)  # spread over the pause, for what ran in it
    later = Total([a, b], History())
    later.resume(kept)
    later.begin()
    assert later.shown(8.0) == pytest.approx(30.0)


def test_history_is_bounded_and_copies_what_is_asked_for() -> None:
    history = History(keep_s=10.0)
    for tick in range(1000):
        history.append(tick / 10, 5.0 * tick / 10, 0.0)
    everything = history.copy_since(-math.inf)
    assert everything.times[-1] - everything.first <= 21.0
    part = history.copy_since(95.05)
    assert (part.times[0], part.times[-1]) == (95.0, 99.9)
    assert list(part.joules) == [pytest.approx(5.0 * time) for time in part.times]


def test_the_energy_that_an_exponential_filter_has_yet_to_show_is_in_the_history_and_not_in_the_counter() -> None:
    slow = Channel("ina3221", "VDD_IN", "power", filter=Filter("exponential", tau_s=0.5))
    meter, history = Meter(slow), History()
    total = Total([meter], history)
    for tick in range(301):  # 10 W from the beginning on, as the filter shows it
        meter.add(tick / 100, 10.0 * (1 - math.exp(-tick / 50)))
        total.advance(meter)
    curve = history.copy_since(0.0)
    assert curve.joules[-1] - curve.joules[0] == pytest.approx(30.0, rel=1e-3)
    assert total.shown(3.0) == pytest.approx(30.0 - 0.5 * 10.0 * (1 - math.exp(-6)), rel=1e-3)


@pytest.mark.parametrize("joules", [1e300, math.inf, math.nan, -1.0])
def test_a_state_of_joules_that_no_device_uses_is_refused(joules: float) -> None:
    state = {"joules": joules, "gap_s": 0.0, "time": None, "value": 1.0}
    with pytest.raises(ValueError, match="cannot be"):
        Meter(POWER).resume(state, None)
    with pytest.raises(ValueError, match="cannot be"):
        Total([], History()).resume(state)
