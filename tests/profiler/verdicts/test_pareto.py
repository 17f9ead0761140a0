"""The Pareto front contains the variants worth choosing: ties count as equal; unknown is neither better nor worse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.verdicts.pareto import front
from tests.profiler.synthetic import variant


def around(value):
    return [value * f for f in (0.99, 1.0, 1.01, 1.0, 0.995)]


def test_a_variant_that_is_clearly_worse_in_one_and_better_in_none_falls_out():
    good = variant("good", around(1.0), around(1.0), accuracy=(0.9, 1000))
    bad = variant("bad", around(2.0), around(1.0), accuracy=(0.9, 1000))
    assert front([bad, good]) == ["good"]


def test_a_trade_keeps_both():
    accurate = variant("accurate", around(2.0), around(2.0), accuracy=(0.95, 10_000))
    quick = variant("quick", around(1.0), around(1.0), accuracy=(0.80, 10_000))
    assert front([accurate, quick]) == ["accurate", "quick"]


def test_an_accuracy_within_the_interval_is_a_tie_and_saves_nobody():
    """85.5 % against 85.0 % of 200 samples is not a significant difference, but twice the joules is."""
    baseline = variant("baseline", around(2.0), around(2.0), accuracy=(0.855, 200))
    int8 = variant("int8", around(1.0), around(1.0), accuracy=(0.85, 200))
    assert front([baseline, int8]) == ["int8"]


def test_two_that_are_tied_in_everything_both_stay():
    assert front([variant("a", around(1.0), around(1.0)), variant("b", around(1.001), around(1.0))]) == ["a", "b"]


def test_ties_are_not_transitive_and_a_circle_stays_whole():
    """a beats b on joules, b beats c on accuracy, c beats a on latency, all else tied by wide intervals."""
    wide = [0.1, 3.0, 0.1, 3.0, 1.5]
    a = variant("a", around(1.0), around(2.0), accuracy=(2 / 3, 3))
    b = variant("b", around(1.5), wide, accuracy=(0.9, 1000))
    c = variant("c", wide, around(1.0), accuracy=(0.8, 1000))
    assert front([a, b, c]) == ["a", "b", "c"]
    assert front([a, b]) == ["a"]
    assert front([b, c]) == ["b"]
    assert front([c, a]) == ["c"]


def test_an_unknown_accuracy_neither_wins_nor_loses():
    known = variant("known", around(2.0), around(2.0), accuracy=(0.9, 1000))
    unknown = variant("unknown", around(1.0), around(1.0))
    assert front([known, unknown]) == ["known", "unknown"]


def test_failed_and_invalid_variants_are_no_choice():
    ok = variant("ok", around(2.0))
    failed, invalid = variant("f", around(1.0), status="failed"), variant("i", around(1.0), status="invalid")
    assert front([ok, failed, invalid]) == ["ok"]
    assert front([failed]) == []


def test_nothing_measured_is_no_front():
    assert front([variant("empty")]) == []
    assert front([]) == []


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.floats(0.1, 10), st.floats(0.1, 10), st.integers(0, 100)), min_size=1, max_size=6
    )
)  # fmt: skip
def test_there_is_always_a_front(points):
    variants = [variant(str(i), around(j), around(s), accuracy=(a / 100, 100)) for i, (j, s, a) in enumerate(points)]
    names = front(variants)
    assert names
    assert set(names) <= {v.name for v in variants}
