"""Characterisation finds what a channel does, reports what it cannot find, and refuses impossible values."""

from __future__ import annotations

import json
import math
import random
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeprof.roots import Roots
from edgeprof.sensing.boot import FILE, BootCache
from edgeprof.sensing.characteristic import annotate_channels
from edgeprof.sensing.characterize import characterise, check_counter, smallest_step
from edgeprof.sensing.sensor import Filter
from edgeprof.sensing.trace import Series

from .fakes import FakeClock, Scripted, power

KEY = ("fake", "rail", "power")


def found_of(script, channels=None, seconds=2.0, takes=0.0001):
    """Characterise a sensor whose row is ``script(t)``, t seconds after the start."""
    clock = FakeClock(3600)
    sensor = Scripted(lambda n: script(clock.now() - 1000), channels, clock=clock, takes=takes)
    found = characterise(sensor, seconds, clock=clock)
    assert sensor.closed >= 1
    return found


def one(script, channel=None, **more):
    (found,) = found_of(lambda t: [script(t)], [channel or power()], **more).values()
    return found


def noisy(refresh, step=0.04, seed=1, hold=0.0):
    """Return a script of readings that refresh every ``refresh`` s; ``hold`` is the share of repeated values."""
    rng = random.Random(seed)
    values = [5.0]

    def at(time):
        while len(values) <= time / refresh:
            values.append(values[-1] if rng.random() < hold else 5 + step * (len(values) % 2 + 2 * rng.randrange(9)))
        return values[int(time / refresh)]

    return at


@pytest.mark.parametrize("refresh", [0.0066, 0.047, 0.1])
def test_the_refresh_is_the_gap_between_changes(refresh):
    found = one(noisy(refresh), seconds=4.0)
    assert found.update_interval_s == pytest.approx(refresh, rel=0.1)
    assert found.effective_rate_hz == pytest.approx(1 / refresh, rel=0.1)
    assert found.step == pytest.approx(0.04)
    assert found.plausible
    assert found.reason is None


def test_a_source_that_often_finds_the_same_value_again_still_shows_its_refresh():
    assert one(noisy(0.02, hold=0.5), seconds=5.0).update_interval_s == pytest.approx(0.02, rel=0.1)


def test_a_source_quicker_than_it_can_be_read_refreshes_at_least_that_often():
    found = one(noisy(0.00001), takes=0.002)
    assert found.update_interval_s == pytest.approx(0.0025, rel=0.1)


def test_a_slow_read_is_not_taken_for_a_slow_source_of_something_else():
    assert one(noisy(0.047), takes=0.0226, seconds=6.0).update_interval_s == pytest.approx(0.047, rel=0.2)


def test_a_signal_that_hardly_changes_hides_its_refresh_and_it_is_said():
    found = one(lambda t: 5.0 if t < 1 else 5.04)
    assert found.update_interval_s is None
    assert found.reason == "1 changes in 2.0 s are too few to tell its refresh"
    assert found.plausible


def test_changes_at_irregular_times_are_not_called_a_refresh():
    rng = random.Random(3)
    edges = [0.0]
    while edges[-1] < 6:
        edges.append(edges[-1] + rng.uniform(0.01, 0.2))
    found = one(lambda t: float(sum(edge <= t for edge in edges) % 2), seconds=5.0)
    assert found.update_interval_s is None
    assert "irregular" in found.reason


@pytest.mark.parametrize(
    ("value", "quantity"),
    [(4294967.295, "power"), (65535.0, "voltage"), (-256.0, "temperature"), (1e7, "power"), (-1.0, "energy")],
)
def test_sentinels_and_impossible_values_are_refused_with_the_value(value, quantity):
    found = one(lambda t: value, power(quantity=quantity))
    assert not found.plausible
    assert f"{value:g}" in found.reason


def test_a_value_beyond_the_boards_limit_is_refused():
    assert not one(lambda t: 80.0 + (t > 1), power(plausible=(-1.0, 60.0))).plausible


def test_minus_one_step_near_zero_is_ordinary_noise():
    assert one(lambda t: -0.392 if int(t * 10) % 2 else 0.0).plausible


def test_a_channel_that_never_reads_is_not_plausible_and_its_neighbour_is():
    found = found_of(lambda t: [math.nan, 5.0], [power("off"), power("on")])
    assert not found["fake", "off", "power"].plausible
    assert found["fake", "off", "power"].reason.endswith("readings failed")
    assert found["fake", "on", "power"].plausible


def test_a_sensor_that_raises_is_a_finding_and_not_an_error():
    def script(number):
        raise OSError(110, "Connection timed out")

    sensor = Scripted(script)
    found = characterise(sensor, 1.0, clock=FakeClock(60))
    assert not found[KEY].plausible
    assert found[KEY].reason == "TimeoutError: [Errno 110] Connection timed out"
    assert sensor.closed == 1


def test_a_counter_that_falls_is_no_counter_unless_it_wraps_once():
    counter = power(quantity="energy", kind="counter")
    falling = one(lambda t: 100 - t, counter)
    assert falling.reason == "it is called a counter but falls"
    wrapping = power(quantity="energy", kind="counter", wrap=10.0)
    assert one(lambda t: (9 + t) % 10, wrapping).plausible


def both(watts, scale=1.0, refresh=0.001):
    """Return a counter that ticks every ``refresh`` s (in steps of 61 µJ) and its power channel."""
    channels = [power(quantity="energy", kind="counter"), power()]
    found = found_of(
        lambda t: [round(scale * watts * refresh * int(t / refresh) / 61e-6) * 61e-6, watts + 0.01 * (int(t * 50) % 2)],
        channels,
        seconds=3.0,
    )
    return found["fake", "rail", "energy"]


@pytest.mark.parametrize("scale", [1.0, 0.9, 1.1])
def test_a_counter_that_agrees_with_the_power_beside_it_is_trusted(scale):
    assert both(8.0, scale).plausible


@pytest.mark.parametrize("scale", [0.5, 2.0, 1000.0])
def test_a_counter_that_disagrees_with_the_power_beside_it_is_not(scale):
    found = both(8.0, scale)
    assert not found.plausible
    assert "while the power of the same source adds up to" in found.reason


def test_a_coarse_counter_is_given_the_benefit_of_its_resolution():
    counter = power(quantity="energy", kind="counter", resolution=1.0)
    ticks = Series(array("d", range(10)), array("d", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    gauge = Series(array("d", range(10)), array("d", [1.3] * 10))
    assert check_counter(counter, ticks, power(), gauge) is None
    assert check_counter(power(quantity="energy", kind="counter"), ticks, power(resolution=0.0), gauge) is None
    strong = Series(array("d", range(10)), array("d", [9.0] * 10))
    assert check_counter(counter, ticks, power(), strong) is not None


def test_a_filtered_power_that_lags_does_not_condemn_the_counter():
    ticks = Series(array("d", range(10)), array("d", [20.0 * n for n in range(10)]))
    lagging = Series(array("d", range(10)), array("d", [2.0 + 2 * n for n in range(10)]))
    counter = power(quantity="energy", kind="counter")
    assert check_counter(counter, ticks, power(), lagging) is not None
    assert check_counter(counter, ticks, power(filter=Filter("block", length_s=5.0)), lagging) is None


@example(1, 9, [0, 1])
@given(st.integers(1, 10**6), st.integers(0, 9), st.lists(st.integers(0, 1000), min_size=2, unique=True))
def test_the_step_divides_every_difference(unit, digits, multiples):
    values = [unit * m / 10**digits for m in multiples]
    step = smallest_step(values)
    for value in values:
        times = (value - values[0]) / step
        assert times == pytest.approx(round(times), abs=1e-3)
    assert step * 10**digits >= unit * (1 - 1e-6) or max(values) * 10**digits > 1e11


def test_the_step_of_numbers_that_are_no_decimals_is_their_smallest_difference():
    assert smallest_step([math.pi, math.e, math.sqrt(2)]) == pytest.approx(math.pi - math.e)
    assert smallest_step([1.0, math.nan, 1.0]) is None


def test_findings_fill_in_what_the_driver_does_not_declare_and_take_out_what_cannot_be():
    declared = power("quick", update_interval_s=0.001, resolution=0.04)
    unknown = power("unknown")
    counter = power("counter", quantity="energy", kind="counter", update_interval_s=0.02)
    wrong = power("wrong")
    found = found_of(
        lambda t: [noisy(0.05)(t), noisy(0.05)(t), float(int(t / 0.1)), 4294967.295],
        [declared, unknown, counter, wrong],
        seconds=3.0,
    )
    channels = annotate_channels([declared, unknown, counter, wrong, power("stranger")], found)
    assert channels[declared.key] == declared
    assert channels[unknown.key].update_interval_s == pytest.approx(0.05, rel=0.1)
    assert channels[unknown.key].resolution == pytest.approx(0.04)
    assert channels[counter.key].update_interval_s == pytest.approx(0.1, rel=0.1)
    assert not channels[wrong.key].available
    assert "4.29497e+06 W" in channels[wrong.key].reason
    assert channels["fake", "stranger", "power"] == power("stranger")


@pytest.fixture
def tree(tmp_path):
    boot = tmp_path / "proc" / "sys" / "kernel" / "random" / "boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("11111111-aaaa\n")
    return Roots(sysfs=tmp_path / "sys", procfs=tmp_path / "proc")


def test_findings_are_kept_until_the_next_boot(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))

    def reads(**changes):
        sensor = Scripted(lambda n: [float(n)], [power(**changes)])
        found = characterise(sensor, 0.1, cache=BootCache(tree), clock=FakeClock(60))
        return sensor.reads, found

    first, found = reads()
    assert first > 0
    assert reads() == (0, found)
    assert reads(location="i2c 1-0041")[0] > 0  # another chip
    assert reads() == (0, found)
    (tree.procfs / "sys" / "kernel" / "random" / "boot_id").write_text("22222222-bbbb\n")
    assert reads()[0] > 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', "\x00\xff"])
def test_a_spoilt_cache_is_passed_over_and_mended(tree, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    sensor = Scripted(lambda n: [float(n)])
    characterise(sensor, 0.1, cache=BootCache(tree, tmp_path), clock=FakeClock(60))
    assert sensor.reads > 0
    assert json.loads((tmp_path / FILE).read_text())["boot"] == "11111111-aaaa"


def test_a_cache_that_cannot_be_written_costs_nothing(tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = characterise(
        Scripted(lambda n: [float(n)]), 0.1, cache=BootCache(tree, tmp_path / "file"), clock=FakeClock(60)
    )
    assert found[KEY].plausible


def test_a_tree_without_a_boot_id_is_not_cached(tmp_path):
    characterise(Scripted(lambda n: [1.0]), 0.1, cache=BootCache(Roots(procfs=tmp_path), tmp_path), clock=FakeClock(60))
    assert not (tmp_path / FILE).exists()
