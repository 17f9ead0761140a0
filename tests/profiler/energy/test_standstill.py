"""A stuck sensor gets no figure; a sensor that responds, however coarse or slow, gets one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.online.frozen import Change, find_unanswered
from edgeprof.energy.quote import measure_spans
from edgeprof.energy.standstill import load_changes
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import BLOCK, WINDOW, Span, idle_span

pytestmark = pytest.mark.slow

RAIL = Channel(
    "ina3221", "VDD_IN", "power", scope="module", resolution=0.04, gain_limit=0.01, update_interval_s=840e-6,
    filter=Filter("exponential", tau_s=0.43),
)  # fmt: skip
BUSY = [Span(BLOCK, 0.5, 2.5), *(Span(WINDOW, 7.5 + 2.2 * k, 9.5 + 2.2 * k, 20) for k in range(5))]
WINDOWS, IDLES = BUSY[1:], [idle_span(5.0, 7.0), idle_span(21.0, 23.0)]


def readings(channel: Channel = RAIL, idle_w: float = 4.0, busy_w: float = 12.0):
    """Return the channel's readings of this bench at 25 Hz."""
    fine = np.arange(0.0, 23.5, 1e-3)
    power = np.where([any(s.start_s <= t < s.end_s for s in BUSY) for t in fine], busy_w, idle_w)
    if channel.filter.kind == "exponential":
        keep = math.exp(-1e-3 / channel.filter.tau_s)
        shown = np.empty_like(power)
        level = power[0]
        for i, watts in enumerate(power):
            level = watts + (level - watts) * keep
            shown[i] = level
        power = shown
    times = np.arange(0.02, 23.4, 0.04)
    codes = np.round(power[np.round(times / 1e-3).astype(int)] / channel.resolution)
    return times, codes * channel.resolution


def quoted(times, values, channel: Channel = RAIL, expected_w: float = 0.3):
    return measure_spans(
        [ChannelSeries(channel, times, values)], [], WINDOWS, IDLES, covers="module", rail="VDD_IN", busy=BUSY,
        expected_w=expected_w,
    )  # fmt: skip


def codes(found):
    return {reason.code for reason in found.reasons}


def frozen(times, values, begin: float, end: float):
    stuck = values.copy()
    inside = (times >= begin) & (times < end)
    stuck[inside] = values[np.searchsorted(times, begin)]
    return stuck


def test_a_rail_that_answers_has_a_figure():
    found = quoted(*readings())
    assert "frozen_sensor" not in codes(found)
    assert found.energy.gross.value == pytest.approx(12.0 * 2.0 / 20, rel=2e-3)
    assert found.energy.net.value == pytest.approx(8.0 * 2.0 / 20, rel=3e-3)


@given(begin=st.floats(0.1, 15.0), length=st.floats(5.0, 23.0))
@example(begin=2.5, length=5.0)
@example(begin=2.52, length=5.0)
def test_a_rail_that_sticks_through_a_change_of_the_load_has_none(begin, length):
    """This holds wherever it is stuck, if that time contains a whole window and the pause beside it."""
    times, values = readings()
    found = quoted(times, frozen(times, values, begin, begin + length))
    assert codes(found) == {"frozen_sensor"}
    assert found.energy.gross.value is None
    assert found.energy.net.value is None


def test_a_rail_that_sticks_at_idle_before_anything_ran_is_known_by_the_cores_that_worked():
    times, values = readings()
    stuck = np.full_like(values, values[0])
    assert codes(quoted(times, stuck)) == {"frozen_sensor"}
    # A program that slept proves nothing.
    assert "frozen_sensor" not in codes(quoted(times, stuck, expected_w=0.0))


@pytest.mark.parametrize("busy_w", [4.05, 4.1])
def test_work_that_a_coarse_sensor_cannot_show_is_no_sign_of_a_frozen_one(busy_w):
    coarse = replace(RAIL, resolution=0.38)
    assert "frozen_sensor" not in codes(quoted(*readings(coarse, busy_w=busy_w), coarse))


def test_a_steady_rail_between_two_changes_of_the_load_is_not_frozen():
    steady = replace(RAIL, filter=Filter(), update_interval_s=0.01)
    assert "frozen_sensor" not in codes(quoted(*readings(steady), steady))


def test_a_counter_that_stands_still_while_something_runs_is_frozen():
    counter = Channel("rapl", "package-0", "energy", kind="counter", scope="package", update_interval_s=1e-3)
    times = np.arange(0.0, 23.4, 0.01)
    joules = 10.0 * times
    assert "frozen_sensor" not in codes(quoted(times, joules, counter))
    assert codes(quoted(times, np.minimum(joules, 100.0), counter)) == {"frozen_sensor"}


def test_a_sum_of_which_no_part_moves_is_frozen():
    times, values = readings()
    parts = [
        ChannelSeries(replace(RAIL, name=name), times, np.full_like(values, values[0])) for name in ("CPU", "GPU")
    ]  # fmt: skip
    found = measure_spans(parts, [], WINDOWS, IDLES, covers="module", rail="CPU + GPU", busy=BUSY, expected_w=0.5)
    assert codes(found) == {"frozen_sensor"}


def test_a_failed_reading_ends_a_standstill():
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    change = Change(2.0, 3.0)
    assert find_unanswered(times, [4.0] * 6, [change], 1.5) == (0.0, 5.0)
    assert find_unanswered(times, [4.0, 4.0, 4.0, math.nan, 4.0, 4.0], [change], 1.5) is None


@given(
    work=st.lists(st.tuples(st.floats(1e-4, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=12),
    shown_s=st.floats(0.05, 0.5),
)
def test_work_is_expected_to_show_only_where_it_and_the_pause_before_it_last_long_enough(work, shown_s):
    """Work without pauses is one stretch, and neither a short pause nor short work is a change that must show."""
    spans, now = [], 5.0
    for seconds, pause_s in work:
        spans.append(Span(BLOCK, now, now + seconds))
        now += seconds + pause_s
    changes = [change.at_s for change in load_changes(spans, [idle_span(now, now + 2.0)], shown_s)]
    for at_s in changes:
        is_busy = [any(span.start_s <= t < span.end_s for span in spans) for t in np.linspace(at_s, at_s + shown_s, 50)]
        before = [any(s.start_s <= t < s.end_s for s in spans) for t in np.linspace(at_s - shown_s, at_s, 50)[:-1]]
        assert np.mean(is_busy) != np.mean(before)
    for span, following in itertools.pairwise(spans):
        if following.start_s - span.end_s < shown_s:
            assert span.end_s not in changes
            assert following.start_s not in changes


def test_windows_without_a_pause_between_them_are_one_load():
    """A coarse rail at a constant load repeats one code from the first window to the last."""
    steady = replace(RAIL, filter=Filter(), update_interval_s=0.01, resolution=1.0)
    windows = [Span(WINDOW, 5.0 + 2.0 * k, 7.0 + 2.0 * k, 20) for k in range(3)]
    times = np.arange(0.0, 14.0, 0.01)
    values = np.where((times >= 5.0) & (times < 11.0), 12.0, 4.0)
    found = measure_spans(
        [ChannelSeries(steady, times, values)], [], windows, [idle_span(0.5, 4.5), idle_span(11.5, 13.5)],
        covers="module", rail="VDD_IN", busy=windows, expected_w=0.3,
    )  # fmt: skip
    assert "frozen_sensor" not in codes(found)


def test_waking_calls_before_a_window_belong_to_its_load():
    steady = replace(RAIL, filter=Filter(), update_interval_s=0.01)
    windows = [Span(WINDOW, 5.0 + 4.0 * k, 7.0 + 4.0 * k, 20) for k in range(3)]
    busy = [*windows, *(Span(BLOCK, window.start_s - 0.6, window.start_s - 0.002) for window in windows)]
    times = np.arange(0.0, 19.0, 0.01)
    values = np.where([any(w.start_s - 0.6 <= t < w.end_s for w in windows) for t in times], 12.0, 4.0)
    found = measure_spans(
        [ChannelSeries(steady, times, values)], [], windows, [idle_span(0.5, 4.0), idle_span(16.5, 18.5)],
        covers="module", rail="VDD_IN", busy=busy, expected_w=0.3,
    )  # fmt: skip
    assert "frozen_sensor" not in codes(found)


def test_a_camera_whose_frames_end_long_before_the_next_is_not_frozen_and_a_stuck_rail_beside_it_is():
    """Windows of 2 s with 1.2 s of work at their beginning: nothing changes at their ends."""
    steady = replace(RAIL, filter=Filter(), update_interval_s=0.01)
    windows = [Span(WINDOW, 5.0 + 4.0 * k, 7.0 + 4.0 * k, 1) for k in range(3)]
    idles = [idle_span(0.5, 4.0), idle_span(16.5, 18.5)]
    times = np.arange(0.0, 19.0, 0.01)
    values = np.where([any(w.start_s <= t < w.start_s + 1.2 for w in windows) for t in times], 12.0, 4.0)

    def measured(values, intermittent):
        return measure_spans(
            [ChannelSeries(steady, times, values)], [], windows, idles, covers="module", rail="VDD_IN",
            busy=windows, expected_w=0.3, intermittent=intermittent,
        )  # fmt: skip

    assert "frozen_sensor" not in codes(measured(values, set(windows)))
    assert codes(measured(values, ())) == {"frozen_sensor"}
    assert codes(measured(np.full_like(values, 4.0), set(windows))) == {"frozen_sensor"}
