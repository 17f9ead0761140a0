"""Spans of a known power, measured with the readings of a synthetic sampler."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.energy import spans as joining
from edgeprof.energy.estimate import CoreWatts
from edgeprof.energy.recording import Recording
from edgeprof.errors import InputError
from edgeprof.sensing.sensor import Channel
from edgeprof.sensing.trace import Series
from edgeprof.worker.span import BLOCK, WINDOW, Span

RAIL = Channel("toy", "VDD", "power", provenance="measured", gain_limit=0.01)


class Sampled:
    """A sampler whose channel read ``watts(t)`` each 10 ms from 0 to 100 s."""

    def __init__(self, watts: Any) -> None:
        times = np.arange(0.0, 100.0, 0.01)
        self._series = Series(times, np.array([watts(t) for t in times]))  # type: ignore[arg-type]
        self.channels = [RAIL]

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def trace(self) -> Sampled:
        return self

    def series(self, _key: Any) -> Series:
        return self._series

    readings = series


def recorded(watts: Any = lambda _t: 5.0, *, channels: Any = (RAIL,), **choices: Any) -> Recording:
    headline = SimpleNamespace(channels=channels, covers="board", rail="VDD" if channels else None, reason="no sensor")
    return Recording(SimpleNamespace(headline=headline, channels=channels), Sampled(watts), **choices)  # type: ignore[arg-type]


def block(start_s: float, end_s: float, count: int = 1, unit: str = "frame", key: str = "work") -> Span:
    return Span(BLOCK, start_s, end_s, count, unit, (key,))


def test_two_kinds_of_work_have_the_joules_of_their_own_power():
    recording = recorded(lambda t: 8.0 if int(t) % 2 == 0 else 3.0)
    for second in range(10, 20):
        key, count = ("heavy", 10) if second % 2 == 0 else ("light", 4)
        recording.add(block(second + 0.05, second + 0.95, count, key=key))
    assert recording.recorded_keys() == [("heavy",), ("light",)]
    assert recording.quote("heavy").value == pytest.approx(8.0 * 0.9 / 10, rel=1e-6)
    assert recording.quote("light").value == pytest.approx(3.0 * 0.9 / 4, rel=1e-6)
    with pytest.raises(InputError, match="no span is named ''"):
        recording.quote()


@pytest.mark.slow
def test_short_spans_that_fill_their_time_are_joined_and_those_that_do_not_are_refused():
    full, sparse = recorded(), recorded()
    for number in range(2000):
        full.add(block(10 + number * 1e-3, 10 + number * 1e-3 + 0.995e-3))
        sparse.add(block(10 + number * 1e-3, 10 + number * 1e-3 + 0.5e-3))
    quote = full.quote("work")
    assert quote.value == pytest.approx(5.0 * 1e-3, rel=0.01)
    assert quote.count == 2000
    assert len(quote.windows) == joining.STRETCHES
    assert [reason.code for reason in quote.reasons if reason.code == "joined"]
    assert {"few_samples", "no_samples"} & {reason.code for reason in sparse.quote("work").reasons}


def test_windows_are_never_joined_because_their_scatter_is_what_is_wanted():
    spans = [Span(WINDOW, k * 0.01, k * 0.01 + 0.01, 1) for k in range(20)]
    assert joining.join_short_spans(spans, 0.08) == (spans, None)


def test_spans_that_count_different_units_say_so():
    recording = recorded()
    recording.add(block(10.0, 11.0, unit="frame"))
    recording.add(block(12.0, 13.0, unit="token"))
    assert "mixed_units" in {reason.code for reason in recording.quote("work").reasons}


def test_an_estimate_is_made_of_the_spans_cpu_time_only_where_it_is_asked_for():
    silent, stated = recorded(channels=()), recorded(channels=(), core_watts=CoreWatts(4.0))
    for recording in (silent, stated):
        recording.add(block(10.0, 11.0, 2), cpu_s=0.5)
    assert silent.quote().provenance == "none"
    assert stated.quote().value == pytest.approx(4.0 * 0.5 / 2)
    stated.add(block(12.0, 13.0, 2), cpu_s=0.5, is_elsewhere=True)
    assert [reason.code for reason in stated.quote().reasons] == ["no_cpu_time"]


spans_of_one_key = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0.001, 5), st.integers(1, 9)), min_size=1, max_size=30
)


@given(spans_of_one_key)
def test_merging_keeps_the_union_of_time_and_every_unit(drawn):
    spans = sorted((block(start, start + length, count) for start, length, count in drawn), key=lambda s: s.start_s)
    merged, _ = joining.merge_overlaps([(span, None) for span in spans])
    assert sum(span.count for span in merged) == sum(span.count for span in spans)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(merged))
    for span in spans:
        assert any(whole.start_s <= span.start_s and span.end_s <= whole.end_s for whole in merged)
    edges = {edge for span in spans for edge in (span.start_s, span.end_s)}
    assert {edge for whole in merged for edge in (whole.start_s, whole.end_s)} <= edges


@given(spans_of_one_key, st.floats(0.001, 2))
def test_joined_stretches_lie_within_the_spans_and_never_add_units(drawn, least_s):
    spans = sorted((block(start, start + length, count) for start, length, count in drawn), key=lambda s: s.start_s)
    spans, _ = joining.merge_overlaps([(span, None) for span in spans])
    result, reason = joining.join_short_spans(spans, least_s)
    assert sum(span.count for span in result) <= sum(span.count for span in spans)
    assert result[0].start_s >= spans[0].start_s
    assert result[-1].end_s <= spans[-1].end_s
    if reason is None:
        assert result == spans
    else:
        assert sum(s.seconds for s in result) * joining.LEAST_FILL <= sum(s.seconds for s in spans) + 1e-9
