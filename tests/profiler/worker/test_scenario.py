"""The loops of the scenarios, run in this process."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from array import array
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.worker import scenario as s
from edgeprof.worker.scenario import Scenario
from tests.clocks import turn_clock


class Model:
    """A model that sleeps, and records when it was called and by whom."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds = seconds
        self.began: list[float] = []
        self.threads: set[int] = set()
        self.collecting: set[bool] = set()

    def __call__(self) -> None:
        self.began.append(time.monotonic())
        self.threads.add(threading.get_ident())
        self.collecting.add(gc.isenabled())
        time.sleep(self.seconds)


def test_arrivals_are_poisson_and_the_same_for_the_same_seed():
    due = s.poisson_arrivals(100.0, 30.0, seed=7)
    assert due == s.poisson_arrivals(100.0, 30.0, seed=7) != s.poisson_arrivals(100.0, 30.0, seed=8)
    assert list(due) == sorted(due)
    assert due[-1] < 30.0
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert len(due) == pytest.approx(3000, abs=220)  # 4 σ
    spread = fmean((gap - fmean(gaps)) ** 2 for gap in gaps) ** 0.5
    assert spread == pytest.approx(fmean(gaps), rel=0.1)  # exponential: σ is the mean


def test_frames_are_a_whole_number_of_periods():
    assert list(s.frame_times(10.0, 0.35)) == pytest.approx([0.0, 0.1, 0.2])
    assert len(s.frame_times(30.0, 1.0)) == 30
    assert len(s.frame_times(1.0, 0.2)) == 1


@given(rate_hz=st.floats(0.5, 100.0), seconds=st.floats(0.05, 20.0), loop=st.integers(1, 60))
def test_frames_of_whole_loops_keep_their_rate_to_the_last(rate_hz, seconds, loop):
    due = s.frame_times(rate_hz, seconds, loop)
    assert len(due) % loop == 0
    assert len(due) < seconds * rate_hz + loop + 1
    assert list(due) == [k / rate_hz for k in range(len(due))]


def test_a_window_of_whole_loops_lasts_as_long_as_its_frames():
    window = s.run_window(Scenario("periodic", rate_hz=50.0), [Model()], 0.1, 0.001, calls_in_loop=10)
    assert window.due == 10
    assert window.due_s == pytest.approx(0.2)


def test_cameras_send_their_frames_between_one_another_and_each_has_a_thread():
    models = [Model(0.001) for _ in range(2)]
    window = s.run_window(Scenario("periodic", rate_hz=20.0, streams=2), models, 0.5, 0.001)
    assert window.due == 20
    assert [len(model.threads) for model in models] == [1, 1]
    assert window.due_s == pytest.approx(0.5)
    assert list(s.camera_times(s.frame_times(20.0, 0.1), 0.05, 2)) == pytest.approx([0.0, 0.05, 0.025, 0.075])


def test_a_queue_keeps_frames_that_would_be_overtaken_and_their_age_counts():
    dropping = s.run_window(Scenario("periodic", rate_hz=20.0), [Model(0.12)], 1.0, 0.12)
    assert dropping.dropped >= 10
    waiting = s.run_window(Scenario("periodic", rate_hz=20.0, queue=1000), [Model(0.06)], 1.0, 0.06)
    assert waiting.dropped == 0
    assert max(waiting.latencies) > 0.06 + 19 * 0.009  # the last one waited for all before it


def test_a_closed_loop_calls_back_to_back_until_the_time_is_over():
    model = Model()
    window = s.run_window(Scenario(), [model], 0.1, 0.001)
    assert window.calls == len(model.began) == len(window.latencies) + sum(window.waking)
    assert window.span.seconds >= 0.1
    first_s = model.began[sum(window.waking)]
    assert window.span.end_s - first_s == pytest.approx(sum(window.latencies), abs=0.001)  # nothing between two calls
    assert not window.cut_short
    assert window.due is None


@pytest.mark.parametrize("name", s.SCENARIOS)
def test_nothing_runs_directly_before_a_window_or_after_it(name):
    models = [Model(0.002) for _ in range(2)]
    scenario = Scenario(name, rate_hz=50.0, streams=2)
    begin_s = time.monotonic()
    window = s.run_window(scenario, models[: scenario.threads], 0.1, 0.002, quiet_s=0.05)
    end_s = time.monotonic()
    assert window.span.start_s - begin_s >= 0.05
    assert end_s - window.span.end_s >= 0.05
    for began_s in itertools.chain.from_iterable(model.began for model in models):
        assert window.span.start_s <= began_s <= window.span.end_s


@pytest.mark.parametrize("name", s.SCENARIOS)
@given(
    now_s=st.floats(1.0, 1e6), offset_s=st.floats(0.0, 0.1), period_s=st.floats(0.01, 2.0), quiet_s=st.floats(0.0, 1.0)
)
def test_a_window_starts_at_its_phase(name, now_s, offset_s, period_s, quiet_s):
    clock = [now_s]

    def sleep(seconds):
        clock[0] += max(0.0, seconds)

    def call():
        clock[0] += 0.01

    def read_clock():
        clock[0] += 1e-7
        return clock[0]

    with pytest.MonkeyPatch.context() as patch:
        turn_clock(patch, monotonic=read_clock, sleep=sleep)
        scenario = Scenario(name, rate_hz=50.0)
        window = s.run_window(scenario, [call], 0.1, 0.01, quiet_s=quiet_s, phase=s.Phase(offset_s, period_s))
    off_s = (window.span.start_s - offset_s) % period_s
    assert min(off_s, period_s - off_s) < 1e-5
    assert quiet_s <= window.span.start_s - now_s <= quiet_s + period_s + 1e-5
    assert clock[0] - window.span.end_s >= quiet_s - 1e-9


@pytest.mark.parametrize("name", s.SCENARIOS)
def test_the_calls_in_which_a_model_wakes_up_count_and_have_no_latency(name):
    models = [Model(0.002) for _ in range(2)]
    scenario = Scenario(name, rate_hz=100.0, streams=2)
    window = s.run_window(scenario, models[: scenario.threads], 0.3, 0.002)
    assert sum(window.waking) > 0
    assert window.span.count == window.calls == len(window.latencies) + sum(window.waking)
    assert window.calls == sum(len(model.began) for model in models)
    asleep = s.run_window(scenario, models[: scenario.threads], 0.3, 2.0)  # calls of seconds wake up by themselves
    assert sum(asleep.waking) == 0
    assert asleep.calls == len(asleep.latencies)
    brief = s.run_window(scenario, models[: scenario.threads], 0.04, 0.002)
    assert 2 * sum(brief.waking) <= brief.calls or brief.calls < 4


def test_one_call_that_is_longer_than_the_window_is_made_nevertheless():
    window = s.run_window(Scenario(), [Model(0.05)], 0.01, 0.05)
    assert window.calls == 1
    assert window.span.end_s - window.span.start_s >= 0.05


def test_a_full_buffer_ends_the_window_early_and_says_so():
    window = s.run_window(Scenario(), [lambda: None], 60.0, 1.0)
    assert window.cut_short
    assert window.calls == len(s.stamps_for(60.0, 1.0)) - 1
    assert window.span.end_s - window.span.start_s < 60.0


def test_the_garbage_collector_rests_in_a_window_and_works_afterwards():
    model = Model()
    assert gc.isenabled()
    for name in s.SCENARIOS:
        s.run_window(Scenario(name, rate_hz=200.0), [model], 0.02, 0.001)
        assert gc.isenabled()
    assert model.collecting == {False}


def test_streams_run_at_once_each_in_its_thread():
    models = [Model(0.01) for _ in range(4)]
    window = s.run_window(Scenario("multi-stream", streams=4), models, 0.2, 0.01)
    assert len(set().union(*(model.threads for model in models))) == 4
    assert window.calls == sum(len(model.began) for model in models)
    assert window.busy_s > 2 * (window.span.end_s - window.span.start_s)


def test_a_failing_stream_fails_the_window():
    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        s.run_window(Scenario("multi-stream", streams=2), [Model(), broken], 0.05, 0.001)
    assert gc.isenabled()


@pytest.mark.parametrize("name", ["server", "periodic"])
def test_a_stall_is_paid_for_by_every_call_that_waited(name):
    """Coordinated omission: one stall of 100 ms at 50 calls/s delays about five calls, not one."""
    calls = 0

    def stalls_once() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            time.sleep(0.1)

    window = s.run_window(Scenario(name, rate_hz=50.0, seed=1), [stalls_once], 0.6, 0.001)
    delayed = sum(latency > 0.015 for latency in window.latencies)
    dropped = window.due - window.calls
    assert delayed + dropped >= 4
    if name == "server":
        assert dropped == 0


def test_a_server_calls_when_due_and_not_before():
    model = Model(0.0)
    window = s.run_window(Scenario("server", rate_hz=100.0, seed=3), [model], 0.3, 0.001)
    due = s.poisson_arrivals(100.0, 0.3, 3)
    assert window.calls == window.due == len(due)
    for began, offset in zip(model.began, due, strict=True):
        assert began >= window.span.start_s + offset
    assert window.span.end_s - window.span.start_s >= 0.3 - 1e-6  # less a rounding; the idle end is part of it


def test_a_server_that_cannot_keep_up_leaves_calls_undone_and_ends_in_time():
    window = s.run_window(Scenario("server", rate_hz=1000.0), [Model(0.01)], 0.2, 0.01)
    assert window.calls < 0.5 * window.due
    assert window.span.end_s - window.span.start_s < 2.0
    assert max(window.latencies) > 0.1  # the queue grows all the time


def test_more_servers_share_one_queue():
    models = [Model(0.02) for _ in range(4)]
    window = s.run_window(Scenario("server", rate_hz=100.0, streams=4), models, 0.4, 0.02)
    assert window.calls == window.due
    assert all(model.began for model in models)


def test_frames_are_done_on_time_and_the_window_is_a_whole_number_of_periods():
    model = Model(0.001)
    window = s.run_window(Scenario("periodic", rate_hz=20.0), [model], 0.42, 0.001)
    assert window.calls == window.due == 8
    assert window.span.end_s - window.span.start_s == pytest.approx(0.4)
    for k, began in enumerate(model.began):
        assert began >= window.span.start_s + k / 20.0
    assert window.busy_s < 0.5 * (window.span.end_s - window.span.start_s)


def test_a_camera_too_fast_for_the_model_loses_frames_and_the_rest_are_late():
    window = s.run_window(Scenario("periodic", rate_hz=200.0), [Model(0.012)], 0.3, 0.012)
    assert window.due == 60
    assert 5 <= window.calls <= 25
    assert window.late == len(window.latencies)  # 12 ms is longer than the period of 5 ms
    assert max(window.latencies[2:-2]) < 1.0  # overtaken frames do not queue up


def test_waiting_ends_after_the_deadline_and_not_before():
    due = time.monotonic() + 0.02
    assert due <= s.wait_until(due)
    past = time.monotonic()
    assert s.wait_until(past - 1.0) >= past


def test_buffers_hold_twice_what_is_expected_and_have_a_limit():
    assert len(s.stamps_for(1.0, 0.01)) >= 200
    assert len(s.stamps_for(1e9, 0.0)) <= s.MAX_STAMPS + 64


def test_time_stamps_are_the_clocks_own():
    stamps = array("d", [0.0] * 4)
    before = time.monotonic()
    assert s.closed_loop(lambda: None, 60.0, stamps) == 3
    assert before <= stamps[0] <= stamps[1] <= stamps[2] <= stamps[3] <= time.monotonic()
