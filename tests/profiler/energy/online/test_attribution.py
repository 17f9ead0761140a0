"""Attribution of joules: equal shares at every moment, each joule once, and unknown joules reported as unknown."""

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


def call(start: float, end: float) -> Span:
    return Span(CALL, start, end, 1, key=KEY)


def history(seconds: float = 20.0, watts: float = 10.0, start: float = 100.0, gap: tuple[float, float] | None = None):
    made, joules, gap_s = History(), 0.0, 0.0
    for tick in range(int(seconds * 10) + 1):
        time = start + tick / 10
        if tick:
            if gap and gap[0] < time <= gap[1]:
                gap_s += 0.1
            else:
                joules += watts * 0.1
        made.append(time, joules + 1e-8 * (tick % 2), gap_s)  # a sensor that reads has some noise
    return made


def settled(made: History, *spans: Span, now: float = 130.0) -> list[Share]:
    attributor = Attributor()
    attributor.extend(spans)
    return settle(attributor, made, now)


def settle(attributor: Attributor, made: History, now: float) -> list[Share]:
    return attributor.settle(made.copy_since(attributor.earliest), now)


def test_one_window_has_the_energy_of_its_time() -> None:
    (window,) = settled(history(), call(103.0, 105.5))
    assert window.joules == pytest.approx(25.0)
    assert window.is_whole


def test_windows_that_overlap_share_that_time_equally() -> None:
    a, b = settled(history(), call(101.0, 104.0), call(103.0, 105.0))
    assert a.joules == pytest.approx(20.0 + 5.0)
    assert b.joules == pytest.approx(5.0 + 10.0)


def test_a_window_waits_until_others_beside_it_can_have_been_reported() -> None:
    made, attributor = history(), Attributor()
    attributor.extend([call(118.5, 119.5)])
    assert settle(attributor, made, 120.0) == []
    assert len(settle(attributor, made, 120.6)) == 1


def test_a_late_window_gets_only_what_was_given_to_nobody() -> None:
    made = history()
    attributor = Attributor()
    attributor.extend([call(102.0, 103.0)])
    (early,) = settle(attributor, made, 110.0)
    attributor.extend([call(101.0, 104.0)])
    (late,) = settle(attributor, made, 110.0)
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


@pytest.mark.slow
@settings(deadline=None)
@given(windows)
def test_no_joule_is_given_twice_however_windows_overlap_and_arrive(given_windows) -> None:
    made = history()
    attributor, done = Attributor(), []
    for turn in range(5):
        for start, end, arrives in given_windows:
            if arrives == turn:
                attributor.extend([call(start, end)])
        done += settle(attributor, made, 121.0 + turn)
    done += settle(attributor, made, 140.0)
    assert len(done) == len(given_windows)
    edges = sorted({edge for start, end, _ in given_windows for edge in (start, end)})
    covered = sum(b - a for a, b in itertools.pairwise(edges) if any(s <= a and b <= e for s, e, _ in given_windows))
    assert sum(window.joules for window in done) == pytest.approx(10.0 * covered, abs=1e-6)


@pytest.mark.slow
@settings(deadline=None)
@given(windows, st.integers(0, 2**32))
def test_shares_are_those_of_a_sum_made_moment_by_moment(given_windows, seed) -> None:
    """The oracle divides time at every edge and checks every window; the sweep must give the same result faster."""
    watts = [2 + 10 * ((seed >> (second % 32)) & 1) for second in range(21)]
    made, joules = History(), 0.0
    for tick in range(21):
        made.append(100.0 + tick, joules, 0.0)
        joules += watts[tick]
    spans = [call(start, end) for start, end, _ in given_windows]
    # A window over the whole time leaves no quiet time, so the power between two readings is taken to be constant.
    everywhere = call(100.0, 120.0)
    shares = settled(made, everywhere, *spans)
    assert len(shares) == 1 + len(spans)
    edges = sorted({100.0, 120.0, *range(100, 121), *(e for start, end, _ in given_windows for e in (start, end))})
    for share in shares:
        expected = 0.0
        for a, b in itertools.pairwise(edges):
            if share.span.start_s <= a and b <= share.span.end_s:
                beside = sum(other.span.start_s <= a and b <= other.span.end_s for other in shares)
                expected += watts[int(a - 100)] * (b - a) / beside
        assert share.joules == pytest.approx(expected, abs=1e-6)


def test_energy_is_shared_out_while_nobody_holds_the_engines_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    inferences, lock = Inferences(history()), threading.Lock()
    share = Attributor._share

    def watched(attributor: Attributor, *arguments) -> None:
        assert not lock.locked()
        assert not inferences.lock.locked()
        share(attributor, *arguments)

    monkeypatch.setattr(Attributor, "_share", watched)
    tell(inferences, "m", 101.0, 103.0)
    inferences.settle(125.0, lock)
    assert inferences.tallies["m", "v", "r"].joules == pytest.approx(20.0)


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


@pytest.mark.slow
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
