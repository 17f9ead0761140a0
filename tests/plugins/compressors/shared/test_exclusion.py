"""``exclude=auto``: the fewest layers in float that keep the budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.exclusion import Judge, decibels, search

if TYPE_CHECKING:
    from collections.abc import Sequence


@given(count=st.integers(1, 40), needed=st.integers(0, 41))
def test_as_few_layers_as_possible_stay_in_float_and_the_worst_first(count: int, needed: int) -> None:
    truth = [np.eye(2)]
    judge = Judge(truth, np.array([0, 1]), 0.0, 20.0)
    levels = {f"layer{i}": float((i * 7) % 41) for i in range(count)}
    asked = 0

    def alone() -> dict[str, float]:
        nonlocal asked
        asked += 1
        return levels

    def attempt(excluded: Sequence[str]) -> tuple[Path, list[np.ndarray]]:
        return Path(str(len(excluded))), truth if len(excluded) >= needed else [np.ones((2, 2))]

    if needed >= count:
        with pytest.raises(InputError, match=f"with all {count} layers in float"):
            search("int8-static", judge, alone, attempt)
        return
    made, facts = search("int8-static", judge, alone, attempt)
    assert made == Path(str(needed))
    assert facts["excluded"] == sorted(levels, key=lambda name: levels[name])[:needed]
    assert set(facts["why"]) == set(facts["excluded"])
    assert facts["search"]["tried"][str(needed)] == 0
    assert asked == (needed > 0)


def test_what_variants_are_held_against_depends_on_what_there_is() -> None:
    answers = [np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])]
    other = [np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])]
    labelled = Judge(answers, np.array([1, 1, 0, 0]), 0.2, 20.0)
    assert (labelled.by, labelled.look(other)) == ("accuracy_drop", -0.25)  # it is right more often
    plain = Judge(answers, None, 0.2, 20.0)
    assert (plain.by, plain.look(other), plain.fits(0.25)) == ("disagreement", 0.25, False)
    boxes = Judge([np.ones((4, 5, 4))], None, 0.2, 20.0)
    assert (boxes.by, boxes.look([np.full((4, 5, 4), 1.1)])) == ("sqnr_db", pytest.approx(20.0))
    assert boxes.look([np.ones((4, 5, 4))]) == np.inf


def test_answers_that_are_no_numbers_never_fit() -> None:
    broken = [np.full((2, 3), np.nan)]
    for judge in (
        Judge([np.zeros((2, 3))], np.array([0, 0]), 0.99, 0.0),
        Judge([np.zeros((2, 3))], None, 0.99, 0.0),
        Judge([np.ones((2, 3)), np.ones((2, 3))], None, 0.99, 0.0),
    ):
        assert not judge.fits(judge.look(broken * len(judge.truth)))
    assert decibels(0.0, 1.0) == -np.inf
