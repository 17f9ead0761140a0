"""The trace returns every reading once, in order, and nothing that was not read."""

from __future__ import annotations

import itertools
import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.sensing.trace import BLOCK_ROWS, REPEAT, Record, Series, Trace, deduplicate

from .fakes import power


def series(pairs):
    times, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Series(array("d", times), array("d", values))


def pairs(of):
    return list(zip(of.times, of.values, strict=True))


def changes(of):
    """Return time and value of every reading that differs from the one before."""
    found, last = [], math.nan
    for time, value in pairs(of):
        if value != last:
            found.append((time, value))
        last = value
    return found


readings = st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan]), max_size=60).map(
    lambda values: series([(0.01 * index, value) for index, value in enumerate(values)])
)
channels = st.builds(
    lambda kind, refresh: power(kind=kind, update_interval_s=refresh),
    st.sampled_from(["gauge", "counter"]),
    st.sampled_from([None, 0.001, 0.01, 0.03, 0.1, 1.0]),
)


def test_rows_beyond_one_block_come_back_as_they_went_in():
    record = Record([power("a"), power("b")], 0.01)
    rows = 3 * BLOCK_ROWS + 7
    for index in range(rows):
        record.append(array("d", [index, -index]), 100 + index)
    trace = Trace([record])
    for sign, name in ((1, "a"), (-1, "b")):
        got = trace.series(("fake", name, "power"))
        assert list(got.times) == [100 + index for index in range(rows)]
        assert list(got.values) == [sign * index for index in range(rows)]


def test_series_are_seen_by_numpy_without_a_copy():
    record = Record([power()], 0.01)
    record.append(array("d", [5.0]), 1.0)
    got = Trace([record]).series(("fake", "rail", "power"))
    view = np.asarray(got.values)
    assert view.dtype == np.float64
    assert not view.flags.owndata
    assert view.tolist() == [5.0]


def test_a_reading_whose_time_stamp_is_not_later_than_the_last_is_the_same_reading():
    record = Record([power("a"), power("b")], 0.01)
    for row, (time_a, time_b) in enumerate([(1.0, 1.5), (1.0, 2.5), (0.5, 3.5), (4.0, 4.5)]):
        record.append(array("d", [row, row]), 10.0 + row, array("d", [time_a, time_b]))
    trace = Trace([record])
    assert pairs(trace.series(("fake", "a", "power"))) == [(1.0, 0.0), (4.0, 3.0)]
    assert pairs(trace.series(("fake", "b", "power"))) == [(1.5, 0.0), (2.5, 1.0), (3.5, 2.0), (4.5, 3.0)]


def test_a_source_may_begin_to_stamp_its_readings_midway():
    record = Record([power()], 0.01)
    record.append(array("d", [1.0]), 1.0)
    record.append(array("d", [2.0]), 2.0, array("d", [1.9]))
    record.append(array("d", [3.0]), 3.0)
    assert pairs(record.column(0)) == [(1.0, 1.0), (1.9, 2.0), (3.0, 3.0)]


def test_a_source_that_stamps_now_and_then_costs_no_block_per_row():
    record = Record([power()], 0.01)
    for index in range(BLOCK_ROWS):
        record.append(array("d", [index]), float(index), array("d", [index + 0.5]) if index % 2 else None)
    assert len(record._blocks) <= 2
    assert pairs(record.column(0)) == [(index + 0.5 * (index % 2), index) for index in range(BLOCK_ROWS)]


def test_old_rows_are_let_go_when_a_limit_is_set_and_recent_ones_stay():
    record = Record([power()], 0.01, keep_s=100.0)
    for index in range(10 * BLOCK_ROWS):
        record.append(array("d", [index]), float(index))
    got = record.column(0)
    assert got.times[0] > 10 * BLOCK_ROWS - 100 - 3 * BLOCK_ROWS
    assert got.times[0] <= 10 * BLOCK_ROWS - 100
    assert got.times[-1] == 10 * BLOCK_ROWS - 1


def test_channels_that_are_not_available_are_not_in_the_trace():
    trace = Trace([Record([power("a"), power("b", available=False, reason="NC")], 0.01)])
    assert [channel.name for channel in trace.channels] == ["a"]
    with pytest.raises(KeyError):
        trace.series(("fake", "b", "power"))


def test_a_counter_keeps_the_first_time_that_each_value_was_seen_and_the_last_reading():
    channel = power(quantity="energy", kind="counter", update_interval_s=0.1)
    got = deduplicate(series([(0.0, 1), (0.1, 1), (0.2, 2), (0.3, 2), (0.4, 2), (0.5, 3), (0.6, 3)]), channel, 0.01)
    assert pairs(got) == [(0.0, 1), (0.2, 2), (0.5, 3), (0.6, 3)]


def test_a_steady_gauge_is_no_gap_because_a_repeat_after_its_refresh_is_a_new_reading():
    channel = power(update_interval_s=0.1)
    got = deduplicate(series([(0.01 * index, 7.0) for index in range(101)]), channel, 0.01)
    assert max(b - a for a, b in itertools.pairwise(got.times)) <= (REPEAT + 0.11) * 0.1
    assert len(got) < 10


def test_nothing_is_left_out_where_the_refresh_is_unknown_or_as_quick_as_the_sampling():
    got = series([(0.01 * index, 7.0) for index in range(50)])
    assert deduplicate(got, power(), 0.01) is got
    assert deduplicate(got, power(update_interval_s=0.01), 0.01) is got


@given(readings, channels)
def test_deduplication_never_loses_a_change_nor_the_last_reading(read, channel):
    kept = deduplicate(read, channel, 0.01)
    assert [c for c in changes(kept) if not math.isnan(c[1])] == [c for c in changes(read) if not math.isnan(c[1])]
    assert list(kept.times[-1:]) == list(read.times[-1:])


@given(readings, channels)
def test_deduplication_invents_nothing_keeps_order_and_every_failed_reading(read, channel):
    kept = deduplicate(read, channel, 0.01)
    assert all(a < b for a, b in itertools.pairwise(kept.times))
    before = dict(zip(read.times, map(str, read.values), strict=True))
    assert all(before[time] == str(value) for time, value in pairs(kept))
    assert sum(map(math.isnan, kept.values)) == sum(map(math.isnan, read.values))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-5, 5)), max_size=50))
def test_times_of_a_series_strictly_increase_whatever_stamps_the_source_gives(rows):
    record = Record([power()], 0.01)
    for time, value in rows:
        record.append(array("d", [value]), 0.0, array("d", [time]))
    got = record.column(0)
    assert all(a < b for a, b in itertools.pairwise(got.times))
    assert (len(got) > 0) == (len(rows) > 0)
