"""Whose joules: equal shares at every moment, each joule once, and what cannot be known said to be unknown."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.energy.online.attribution import Attributor, Share
from edgeprof.energy.online.running_sum import History
from edgeprof.worker.span import CALL, Span
from edgeprof_exporters.inferences import OTHER, Inferences
from edgeprof_exporters.messages import Message

KEY = ("m", "v", "r")


def history(seconds: float = 20.0, watts: float = 10.0, start: float = 100.0, gap: tuple[float, float] | None = None):
    made, joules, gap_s = History(), 0.0, 0.0
    for tick in range(int(seconds * 10) + 1):
        time = start + tick / 10
        if tick:
            if gap and gap[0] < time <= gap[1]:
                gap_s += 0.1
            else:
                joules += watts * 0.1
        made.append(time, joules, gap_s)
    return made


def call(start: float, end: float) -> Span:
    return Span(CALL, start, end, 1, key=KEY)


def settled(made: History, *spans: Span, now: float = 130.0) -> list[Share]:
    attributor = Attributor(made)
    for span in spans:
        assert attributor.add(span)
    return attributor.settle(now)


def test_one_window_has_the_energy_of_its_time() -> None:
    (window,) = settled(history(), call(103.0, 105.5))
    assert window.joules == pytest.approx(25.0)
    assert window.is_whole


def test_windows_that_overlap_share_that_time_equally() -> None:
    a, b = settled(history(), call(101.0, 104.0), call(103.0, 105.0))
    assert a.joules == pytest.approx(20.0 + 5.0)
    assert b.joules == pytest.approx(5.0 + 10.0)


def test_a_window_waits_until_others_beside_it_can_have_been_reported() -> None:
    attributor = Attributor(history())
    attributor.add(call(118.5, 119.5))
    assert attributor.settle(120.0) == []
    assert len(attributor.settle(120.6)) == 1


def test_a_late_window_gets_only_what_was_given_to_nobody() -> None:
    made = history()
    attributor = Attributor(made)
    attributor.add(call(102.0, 103.0))
    (early,) = attributor.settle(110.0)
    attributor.add(call(101.0, 104.0))
    (late,) = attributor.settle(110.0)
    assert (early.joules, late.joules) == (pytest.approx(10.0), pytest.approx(20.0))
    assert early.is_whole
    assert not late.is_whole


def test_a_window_over_a_gap_or_before_the_history_is_not_whole() -> None:
    (over,) = settled(history(gap=(102.0, 103.0)), call(101.0, 104.0))
    assert over.joules == pytest.approx(20.0)
    assert not over.is_whole
    (before,) = settled(history(), call(90.0, 101.0))
    assert before.joules == pytest.approx(10.0)
    assert not before.is_whole


def test_without_any_sensor_a_window_does_not_wait_for_ever() -> None:
    (window,) = settled(History(), call(100.0, 101.0), now=200.0)
    assert (window.joules, window.is_whole) == (0.0, False)


windows = st.lists(
    st.tuples(st.floats(100, 119), st.floats(0, 3), st.integers(0, 4)).map(
        lambda w: (w[0], min(w[0] + w[1], 119.9), w[2])
    ),
    max_size=40,
)


@settings(deadline=None)
@given(windows)
def test_no_joule_is_given_twice_however_windows_overlap_and_arrive(given_windows) -> None:
    made = history()
    attributor, done = Attributor(made), []
    for turn in range(5):
        for start, end, arrives in given_windows:
            if arrives == turn:
                attributor.add(call(start, end))
        done += attributor.settle(121.0 + turn)
    done += attributor.settle(140.0)
    assert len(done) == len(given_windows)
    edges = sorted({edge for start, end, _ in given_windows for edge in (start, end)})
    covered = sum(b - a for a, b in itertools.pairwise(edges) if any(s <= a and b <= e for s, e, _ in given_windows))
    assert sum(window.joules for window in done) == pytest.approx(10.0 * covered, abs=1e-6)


def tell(inferences: Inferences, model: str, start: float, end: float, count: int = 1) -> None:
    inferences.take(Message(start, end, count, model, "v", "r"))


def test_joules_per_inference_of_a_batch_and_beside_another_model() -> None:
    inferences = Inferences(history())
    tell(inferences, "yolo", 101.0, 103.0, count=8)
    tell(inferences, "resnet", 102.0, 103.0)
    inferences.settle(125.0, threading.Lock())
    yolo, resnet = (inferences.tallies[name, "v", "r"] for name in ("yolo", "resnet"))
    assert (yolo.count, yolo.joules, yolo.seconds) == (8, pytest.approx(15.0), pytest.approx(16.0))
    assert (resnet.count, resnet.joules) == (1, pytest.approx(5.0))


def test_a_label_bomb_costs_one_series_more_than_the_limit() -> None:
    inferences = Inferences(history(), most_series=10)
    for number in range(5000):
        tell(inferences, f"model-{number}", 101.0, 101.001)
    assert len(inferences.tallies) == 11
    assert inferences.tallies[OTHER].count == 4990
    assert inferences.messages == {"accepted": 10, "malformed": 0, "other": 4990}


def test_a_flood_is_counted_though_its_energy_is_not_known() -> None:
    inferences = Inferences(history())
    for number in range(21_000):
        tell(inferences, "m", 101.0 + number * 1e-4, 101.0 + number * 1e-4 + 1e-5)
    tally = inferences.tallies["m", "v", "r"]
    assert (tally.count, tally.without) == (21_000, 1_000)
    inferences.settle(125.0, threading.Lock())
    assert tally.joules > 0


def test_counts_go_on_from_a_state_and_a_broken_one_is_refused() -> None:
    inferences = Inferences(history())
    tell(inferences, "m", 101.0, 102.0)
    inferences.settle(125.0, threading.Lock())
    later = Inferences(History())
    later.resume(inferences.state())
    assert later.state() == inferences.state()
    broken = inferences.state()
    broken[0][3][4][0] += 1
    with pytest.raises(ValueError, match="counts"):
        Inferences(History()).resume(broken)
