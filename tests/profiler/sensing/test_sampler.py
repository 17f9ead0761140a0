"""The sampler meets its deadlines and counts missed ones, and no sensor can disturb another."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.sensing.sampler import Sampler

from .fakes import FakeClock, Scripted, finite, power

KEY = ("fake", "rail", "power")


def only(sampler):
    (stats,) = sampler.stats()
    return stats


def test_a_quick_sensor_is_read_at_every_deadline():
    clock = FakeClock(1.0)
    sampler = clock.run(Sampler([Scripted(lambda n: [float(n)])], 100, clock=clock, phase=None))
    got = sampler.trace.series(KEY)
    assert list(got.values) == [float(n) for n in range(101)]
    assert [time - 1000 for time in got.times] == pytest.approx([0.01 * n for n in range(101)])
    stats = only(sampler)
    assert (stats.samples, stats.missed, stats.failed) == (101, 0, 0)
    assert stats.rate_hz == pytest.approx(100)
    assert stats.max_gap_s == pytest.approx(0.01)


def test_missed_deadlines_are_counted_and_skipped_and_never_made_up_for():
    clock = FakeClock(1.0)
    stall = Scripted(lambda n: [1.0], clock=clock, takes=lambda n: 0.034 if n == 10 else 0.0)
    sampler = clock.run(Sampler([stall], 100, clock=clock, phase=None))
    got = sampler.trace.series(KEY)
    # Deadlines 11, 12, 13 passed during read 10; the next one is deadline 14, on the old grid.
    assert got.times[11] - 1000 == pytest.approx(0.14)
    assert min(b - a for a, b in itertools.pairwise(got.times)) > 0.009
    stats = only(sampler)
    assert (stats.samples, stats.missed) == (98, 3)
    assert stats.max_gap_s == pytest.approx(0.027)  # from deadline 9 to the middle of the stalled read


def test_the_time_of_a_reading_is_the_middle_of_the_call():
    clock = FakeClock(0.05)
    sampler = clock.run(Sampler([Scripted(lambda n: [1.0], clock=clock, takes=0.002)], 100, clock=clock, phase=None))
    assert sampler.trace.series(KEY).times[0] - 1000 == pytest.approx(0.001)


def test_a_source_with_time_stamps_of_its_own_is_believed_unless_they_are_impossible():
    clock = FakeClock(0.1)

    class Stamping(Scripted):
        def read(self, values, times):
            super().read(values, times)
            times[0] = clock.now() - 0.004
            times[1] = clock.now() + 3600 if self.reads % 2 else 5.0  # the future; another clock

    sampler = clock.run(
        Sampler([Stamping(lambda n: [1.0, 2.0], [power("a"), power("b")])], 100, clock=clock, phase=None)
    )
    assert sampler.trace.series(("fake", "a", "power")).times[3] - 1000 == pytest.approx(0.026)
    assert sampler.trace.series(("fake", "b", "power")).times[3] - 1000 == pytest.approx(0.03)


def test_a_failed_or_impossible_reading_is_nan_and_is_told_once_with_its_reason():
    channels = [power("good"), power("bad"), power("wild", plausible=(0.0, 50.0))]
    clock = FakeClock(0.99)
    sensor = Scripted(lambda n: [1.0, math.nan, 4294967.295 if n == 3 else 5.0], channels)
    sampler = clock.run(Sampler([sensor], 100, clock=clock, phase=None))
    good, bad, wild = sampler.stats()
    assert (good.samples, good.missed, good.reason) == (100, 0, None)
    assert (bad.samples, bad.missed, bad.failed) == (0, 100, 100)
    assert bad.reason == "all 100 readings failed"
    assert bad.rate_hz is None
    assert bad.max_gap_s is None
    assert (wild.samples, wild.failed) == (99, 1)
    assert wild.reason == "1 of 100 readings were outside 0 to 50 W and refused"
    assert wild.max_gap_s == pytest.approx(0.02)
    assert math.isnan(sampler.trace.series(("fake", "wild", "power")).values[3])


def test_each_channel_has_its_own_count_and_gap_when_failures_come_and_go():
    clock = FakeClock(0.99)
    sensor = Scripted(lambda n: [1.0, math.nan if 40 <= n < 45 else 1.0], [power("steady"), power("gone")])
    steady, gone = clock.run(Sampler([sensor], 100, clock=clock, phase=None)).stats()
    assert (steady.samples, steady.missed) == (100, 0)
    assert (gone.samples, gone.missed, gone.failed) == (95, 5, 5)
    assert steady.max_gap_s == pytest.approx(0.01)
    assert gone.max_gap_s == pytest.approx(0.06)
    assert gone.rate_hz == pytest.approx(94 / 0.99)
    assert gone.reason == "5 of 100 readings failed"


def test_a_sensor_with_nothing_to_read_is_not_read():
    clock = FakeClock(0.5)
    sensor = Scripted(lambda n: [1.0], [power(available=False, reason="NC")])
    clock.run(Sampler([sensor, Scripted(lambda n: [1.0])], 100, clock=clock, phase=None))
    assert (sensor.opened, sensor.reads) == (0, 0)


def test_infinity_is_never_a_reading():
    clock = FakeClock(0.1)
    sampler = clock.run(Sampler([Scripted(lambda n: [math.inf])], 100, clock=clock, phase=None))
    assert only(sampler).samples == 0


def test_a_sensor_that_raises_is_retried_with_growing_pauses_and_reopened_and_harms_nobody():
    def break_down(number):
        raise OSError(19, "No such device")

    clock = FakeClock(10.0)
    bad = Scripted(break_down, [power(name="bad")], name="bad")
    good = Scripted(lambda n: [1.0])
    sampler = clock.run(Sampler([bad, good], 100, clock=clock, phase=None))
    stats = {stats.key: stats for stats in sampler.stats()}
    assert (stats[KEY].samples, stats[KEY].missed) == (1001, 0)
    broken = stats["bad", "rail", "power"]
    assert (broken.samples, broken.missed) == (0, 1001)
    assert 10 <= bad.reads <= 20
    assert bad.opened > 3
    assert [(f.sensor, f.reason) for f in sampler.failures()] == [("bad", "OSError: [Errno 19] No such device")]
    assert broken.reason.endswith("readings failed: OSError: [Errno 19] No such device")


def test_a_sensor_that_comes_back_is_sampled_again():
    def script(number):
        if 10 <= number < 14:
            raise OSError(5, "Input/output error")
        return [1.0]

    clock = FakeClock(2.0)
    sensor = Scripted(script)
    sampler = clock.run(Sampler([sensor], 100, clock=clock, phase=None))
    stats = only(sampler)
    assert stats.samples + stats.missed == 201
    assert stats.samples > 150
    assert stats.failed == 4
    assert stats.max_gap_s == pytest.approx(0.01 * (1 + 1 + 2 + 4 + 8))
    assert sensor.opened == 3  # anew before each attempt from the third failure on


def test_a_sensor_that_cannot_be_opened_yet_is_tried_again():
    class Late(Scripted):
        def open(self):
            super().open()
            if self.opened < 4:
                raise FileNotFoundError("/sys/gone")

    clock = FakeClock(1.0)
    sampler = clock.run(Sampler([Late(lambda n: [1.0])], 100, clock=clock, phase=None))
    assert only(sampler).samples > 80


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values, times: values.append(1.0),
        lambda values, times: values.__setitem__(5, 1.0),
        lambda values, times: values.__setitem__(0, None),
        lambda values, times: sys.exit("bye"),
    ],
)
def test_a_sensor_that_misuses_its_row_is_isolated_with_a_reason(spoil):
    class Rude(Scripted):
        def read(self, values, times):
            super().read(values, times)
            spoil(values, times)

    clock = FakeClock(0.5)
    good = Scripted(lambda n: [2.0], [power(name="good")], name="good")
    sampler = clock.run(Sampler([Rude(lambda n: [1.0]), good], 100, clock=clock, phase=None))
    assert [f.sensor for f in sampler.failures()] == ["fake"]
    assert {s.key[0]: s.samples for s in sampler.stats()} == {"fake": 0, "good": 51}


def test_a_source_is_read_no_more_often_than_it_has_something_new():
    def count(slow, **changes):
        clock = FakeClock(10.0)
        sensor = Scripted(lambda n: [float(n)], [power(**changes)], slow=slow)
        clock.run(Sampler([sensor], 100, clock=clock, phase=None))
        return sensor.reads

    assert count(slow=True, update_interval_s=0.1) == 101
    assert count(slow=False, update_interval_s=0.1) == 501  # several times per refresh, to find when it ticked
    assert count(slow=False, update_interval_s=0.001) == 1001
    assert count(slow=False, quantity="temperature") == 101  # a slow quantity
    assert count(slow=False, quantity="temperature", update_interval_s=5.0) == 9


def test_the_topologys_channels_replace_the_sensors_own():
    clock = FakeClock(1.0)
    own = [power("a"), power("b")]
    known = {
        own[0].key: power("a", scope="module", role="total"),
        own[1].key: power("b", available=False, reason="a constant"),
    }
    sampler = clock.run(Sampler([Scripted(lambda n: [1.0, 2.0], own)], 100, known, clock=clock, phase=None))
    assert [(c.name, c.scope) for c in sampler.trace.channels] == [("a", "module")]
    assert list(sampler.latest()) == [own[0].key]
    assert [s.key for s in sampler.stats()] == [own[0].key]


def test_a_source_that_cannot_keep_the_rate_settles_at_one_that_it_can():
    clock = FakeClock(10.0)
    blocking = Scripted(lambda n: [float(n)], slow=True, clock=clock, takes=0.43)
    sampler = clock.run(Sampler([blocking], 100, clock=clock, phase=None))
    stats = only(sampler)
    assert blocking.reads == pytest.approx(10 / (1.25 * 0.43), abs=3)
    assert stats.missed <= 5 * 43  # until it was known
    assert stats.max_gap_s < 2 * 0.55


def test_one_stall_does_not_change_the_rate():
    clock = FakeClock(10.0)
    stalled_once = Scripted(lambda n: [float(n)], clock=clock, takes=lambda n: 0.495 if n == 100 else 0.0)
    stats = only(clock.run(Sampler([stalled_once], 100, clock=clock, phase=None)))
    assert stats.missed == 49
    assert stats.samples + stats.missed == 1001


def test_a_channel_of_little_interest_does_not_speed_up_a_slow_source():
    clock = FakeClock(10.0)
    sensor = Scripted(lambda n: [1.0, 2.0], [power(update_interval_s=0.1), power("hot", quantity="temperature")])
    clock.run(Sampler([sensor], 100, clock=clock, phase=None))
    assert sensor.reads == 501


def test_latest_is_the_newest_reading_and_empty_before_the_first():
    clock = FakeClock(0.1)
    sampler = Sampler([Scripted(lambda n: [float(n)])], 100, clock=clock, phase=None)
    assert sampler.latest() == {}
    clock.run(sampler)
    assert sampler.latest() == {KEY: (pytest.approx(1000.1), 10.0)}


def test_the_wall_clock_may_step_without_a_trace_of_it(monkeypatch):
    wall = itertools.cycle([2e9, 0.0, -5.0])
    monkeypatch.setattr(time, "time", lambda: next(wall))
    begin = time.monotonic()
    with Sampler([Scripted(lambda n: [1.0])], 200) as sampler:
        reached = wait_for(lambda: only(sampler).samples >= 20)
    assert reached
    times = sampler.trace.series(KEY).times
    assert begin <= times[0] < times[-1] <= time.monotonic()


def wait_for(condition, seconds=20.0):
    """Wait until a condition is true, and return whether it became true within ``seconds``."""
    waiting = threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        waiting.wait(0.005)
    return False


def test_each_slow_sensor_has_a_thread_of_its_own_and_blocks_nobody():
    gate = threading.Event()

    class Blocked(Scripted):
        def read(self, values, times):
            gate.wait(30)
            super().read(values, times)

    blocked = Blocked(lambda n: [1.0], [power(name="blocked")], name="blocked", slow=True)
    quick = [Scripted(lambda n: [1.0]), Scripted(lambda n: [2.0], [power(name="two")], name="two")]
    sampler = Sampler([blocked, *quick], 200)
    starter = threading.Thread(target=sampler.start)
    starter.start()
    try:
        assert wait_for(lambda: quick[0].reads > 20)
        assert blocked.reads == 0
    finally:
        gate.set()
        starter.join()
        sampler.stop()
    assert quick[0].threads == quick[1].threads
    assert len(quick[0].threads) == 1
    assert not blocked.threads & quick[0].threads


def test_a_sensor_that_turns_out_to_be_slow_moves_to_a_thread_of_its_own():
    nap = threading.Event()

    class Sleepy(Scripted):
        def read(self, values, times):
            nap.wait(0.06)
            super().read(values, times)

    sleepy = Sleepy(lambda n: [1.0], [power(name="sleepy")], name="sleepy")
    quick = Scripted(lambda n: [1.0])
    with Sampler([sleepy, quick], 100) as sampler:
        assert wait_for(lambda: len(sleepy.threads) == 2 and sleepy.reads >= 3)
        assert wait_for(lambda: quick.reads >= 10)
    assert len(quick.threads) == 1
    assert sleepy.closed >= sleepy.opened == 2
    assert finite(sampler.trace.series(("sleepy", "rail", "power")).values)


def test_start_returns_when_everything_was_read_once_and_stop_ends_every_thread():
    before = threading.active_count()
    sensors = [Scripted(lambda n: [1.0], [power(name=f"s{i}")], name=f"s{i}", slow=i > 1) for i in range(4)]
    sampler = Sampler(sensors, 100)
    sampler.start()
    assert len(sampler.latest()) == 4
    sampler.stop()
    sampler.stop()
    assert threading.active_count() == before
    assert all(sensor.opened == 1 and sensor.closed >= 1 for sensor in sensors)
    with pytest.raises(RuntimeError, match="once"):
        sampler.start()


def test_stopping_at_any_moment_leaves_no_thread_and_no_open_sensor():
    before = threading.active_count()
    for _ in range(30):
        sensors = [Scripted(lambda n: [1.0], name="a"), Scripted(lambda n: [1.0], name="b", slow=True)]
        sampler = Sampler(sensors, 1000)
        starter = threading.Thread(target=sampler.start)
        starter.start()
        sampler.stop()
        starter.join()
        sampler.stop()
        assert threading.active_count() == before
        assert all(sensor.closed >= sensor.opened for sensor in sensors)


def test_stop_before_start_and_no_sensors_at_all_are_harmless():
    sampler = Sampler([], 100)
    sampler.stop()
    assert sampler.stats() == []
    with Sampler([], 100) as empty:
        assert empty.latest() == {}


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="rate_hz"):
        Sampler([], rate)


def test_the_cost_of_sampling_is_told():
    with Sampler([Scripted(lambda n: [1.0])], 500) as sampler:
        assert wait_for(lambda: only(sampler).samples >= 50)
    cost = sampler.cost()
    assert 0 < cost.cpu_ratio < 1
    assert 2**20 < cost.rss_bytes < 2**36


def test_a_wrong_cpu_or_a_right_one_never_stops_the_sampling():
    mine = min(os.sched_getaffinity(0))
    for cpu in (mine, 4095, -1):
        with Sampler([Scripted(lambda n: [1.0])], 100, cpu=cpu) as sampler:
            assert wait_for(lambda s=sampler: only(s).samples >= 2)


def test_it_samples_while_every_core_is_busy():
    spin = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        with Sampler([Scripted(lambda n: [1.0])], 100) as sampler:
            assert wait_for(lambda: only(sampler).samples >= 30)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    # The number of missed deadlines is not tested, because other programs may use the machine's cores too.
    assert only(sampler).failed == 0


def test_sampling_imports_neither_numpy_nor_psutil():
    code = (
        "import sys, edgeprof.sensing.sampler, edgeprof.sensing.trace, edgeprof.sensing.characterize\n"
        "print([m for m in ('numpy', 'psutil', 'msgspec', 'platformdirs', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(["ok", "nan", "raise", "stall"]), min_size=1, max_size=60),
    st.sampled_from([10, 100, 333, 1000]),
)
def test_every_deadline_is_either_a_sample_or_missed_and_times_strictly_increase(script, rate):
    clock = FakeClock(40 / rate)

    def read(number):
        what = script[number % len(script)]
        if what == "raise":
            raise OSError("no")
        return [math.nan if what == "nan" else float(number)]

    def takes(number):
        return 2.7 / rate if script[number % len(script)] == "stall" and rate > 99 else 0.0

    # Stalls are shorter than those of a "slow" sensor, whose rate, and so the number of deadlines, would change.
    sensor = Scripted(read, clock=clock, takes=lambda n: min(takes(n), 0.0049))
    sampler = clock.run(Sampler([sensor], rate, clock=clock, phase=None))
    stats = only(sampler)
    assert stats.samples + stats.missed == math.floor((clock.now() - 1000) * rate + 1e-6) + 1
    times = sampler.trace.series(KEY).times
    assert all(a < b for a, b in itertools.pairwise(times))
    assert len(finite(sampler.trace.series(KEY).values)) == stats.samples
    if set(script) == {"ok"}:
        assert stats.missed == 0
