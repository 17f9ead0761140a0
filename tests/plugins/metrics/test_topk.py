"""Top-k counts what a person would count, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof_plugins.metrics.topk import TopK


@given(seed=st.integers(0, 1000), levels=st.integers(2, 20))
def test_top1_is_argmax_even_where_int8_outputs_are_equal(seed, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-levels, levels, (50, 7)).astype(np.int8)
    labels = rng.integers(0, 7, 50)
    assert TopK(1).score({"o": scores}, labels).correct.tolist() == (scores.argmax(axis=1) == labels).tolist()


@given(seed=st.integers(0, 1000))
def test_more_candidates_never_lose(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(40, 12)), rng.integers(0, 12, 40)
    values = [TopK(k).score({"o": scores}, labels).value for k in (1, 2, 3, 5, 10, 12)]
    assert values == sorted(values)
    assert values[-1] == 1.0


def test_dimensions_of_one_and_one_hot_labels_are_fine():
    scores = np.eye(3).reshape(3, 1, 1, 3)
    assert TopK(1).score({"o": scores}, np.array([[0], [1], [0]])).value == pytest.approx(2 / 3)
    assert TopK(1).score({"o": np.eye(3)}, np.eye(3)).value == 1.0


@pytest.mark.parametrize(
    ("outputs", "labels", "words"),
    [
        ({"boxes": np.zeros((2, 4)), "scores": np.zeros((2, 3))}, [0, 1], "boxes, scores"),
        ({"o": np.zeros((2, 1))}, [0, 1], r"shape \(2, 1\)"),
        ({"o": np.zeros((2, 3, 3))}, [0, 1], r"shape \(2, 3, 3\)"),
        ({"o": np.zeros((2, 3))}, [0, 3], "0 to 2"),
        ({"o": np.zeros((2, 3))}, [0, -1], "from -1"),
        ({"o": np.zeros((2, 3))}, [0.5, 1], "whole numbers"),
        ({"o": np.zeros((2, 3))}, [0, 1, 2], "do not fit"),
    ],
)
def test_what_is_no_classification_is_refused(outputs, labels, words):
    with pytest.raises(InputError, match=words):
        TopK(1).score(outputs, np.asarray(labels))


def test_more_candidates_than_classes_are_refused():
    with pytest.raises(InputError, match="at least 5 classes"):
        TopK(5).score({"o": np.zeros((2, 3))}, np.array([0, 1]))
