"""The Pareto front contains the variants worth choosing: ties count as equal; unknown is neither better nor worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.verdicts import accuracy
from edgeprof.verdicts.cost import Cost
from edgeprof.verdicts.objectives import AccuracyObjective, CostObjective
from edgeprof.verdicts.pareto import _find_circles, front
from tests.profiler.results import samples
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


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from([(0.9, 1.1), (1.0, 1.0), (1.5, 1.6), (1.59, 1.61), (0.2, 5.0), (2.0, 2.1)]),
            st.none() | st.sampled_from([(1.0, 1.0), (0.99, 1.005), (0.5, 0.6), (0.3, 2.0), (0.1, 0.2)]),
            st.none() | st.sampled_from([(0.9, 0.0, None), (0.9, 0.05, 0.01), (0.8, 0.05, 0.5), (0.5, 0.4, None)]),
        ),
        max_size=7,
    )
)
def test_the_arrays_of_many_variants_judge_as_the_rules_for_one_pair(rows):
    def cost(interval):
        return None if interval is None else Cost(sum(interval) / 2, *interval)

    def score(facts):
        if facts is None:
            return None
        value, drop, p = facts
        return samples.accuracy(value, samples=1000, drop=drop, p_value=p)

    energies, latencies = [cost(e) for e, _, _ in rows], [cost(t) for _, t, _ in rows]
    scores = [score(a) for _, _, a in rows]
    for objective, values, against in (
        (CostObjective(energies), energies, Cost.against),
        (CostObjective(latencies), latencies, Cost.against),
        (AccuracyObjective(scores), scores, accuracy.against),
    ):
        for index, mine in enumerate(values):
            better, obstacle = objective.judge(index)
            for other, its in enumerate(values):
                if mine is None and its is None:
                    verdict = None
                elif mine is None or its is None:
                    verdict = "not_comparable"
                else:
                    verdict = against(mine, its)
                assert better[other] == (verdict == "better")
                assert obstacle[other] == (verdict in ("worse", "not_comparable"))


@given(st.integers(0, 9).flatmap(lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n)))
def test_circles_are_those_that_the_transitive_closure_gives(bits):
    count = round(len(bits) ** 0.5)
    edges = np.array(bits, dtype=bool).reshape(count, count)
    reach = edges.copy()
    for middle in range(count):
        reach |= np.outer(reach[:, middle], reach[middle])

    class Beats:
        def __init__(self):
            self.count = count

        def row(self, number):
            return edges[number]

    circles = _find_circles(Beats())
    for a in range(count):
        for b in range(count):
            assert (circles[a] == circles[b]) == (a == b or bool(reach[a, b] and reach[b, a]))
