"""The area under the ROC curve, held to a count of all pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof_plugins.metrics.auc import Auc

SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=15).filter(
    lambda samples: len({label for _, label in samples}) == 2
)


def pairs_in_order(scores, positive) -> float:
    above = [scores[i] for i in range(len(scores)) if positive[i]]
    below = [scores[i] for i in range(len(scores)) if not positive[i]]
    pairs = list(itertools.product(above, below))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_it_is_the_share_of_pairs_that_are_in_order(samples) -> None:
    scores, labels = (np.array(column) for column in zip(*samples, strict=True))
    value = Auc().score({"y": scores.astype(np.float32)}, labels.astype(np.int64)).value
    assert value == pytest.approx(pairs_in_order(scores, labels))


def test_several_classes_are_each_held_against_all_others() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(90) % 3
    scores = rng.random((90, 3)) + np.eye(3)[labels]
    score = Auc().score({"y": scores}, labels)
    expected = np.mean([pairs_in_order(scores[:, k], labels == k) for k in range(3)])
    assert score.value == pytest.approx(expected)
    assert score.ci95[0] <= score.value <= score.ci95[1] <= 1.0


@pytest.mark.parametrize(
    ("outputs", "labels", "says"),
    [
        ({"y": np.zeros((3, 2))}, np.zeros(3, int), "two classes"),
        ({"y": np.zeros((3, 2))}, np.array([0, 1, 2]), "label 2 is none of the 2 classes"),
        ({"y": np.zeros((3, 1)), "z": np.zeros((3, 1))}, np.array([0, 1, 1]), "one output"),
        ({"y": np.zeros((3, 2, 2))}, np.array([0, 1, 1]), "one score per class"),
    ],
)
def test_what_it_cannot_judge_is_a_sentence(outputs, labels, says) -> None:
    with pytest.raises(InputError, match=says):
        Auc().score(outputs, labels)
