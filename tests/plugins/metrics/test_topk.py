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
        ({"o": np.zeros((2, 3))}, [np.nan, 1], "whole numbers"),
        ({"o": np.zeros((2, 3))}, [0, 1, 2], "do not fit"),
    ],
)
def test_what_is_no_classification_is_refused(outputs, labels, words):
    with pytest.raises(InputError, match=words):
        TopK(1).score(outputs, np.asarray(labels))


def test_more_candidates_than_classes_are_refused():
    with pytest.raises(InputError, match="at least 5 classes"):
        TopK(5).score({"o": np.zeros((2, 3))}, np.array([0, 1]))


def test_maps_from_class_to_score_are_judged_by_their_keys():
    """What scikit-learn's ZipMap answers: classes that are no places in a row."""
    maps = np.empty(3, object)
    maps[:] = [{3: 0.1, 7: 0.9}, {3: 0.8, 7: 0.2}, {3: 0.5, 7: 0.5}]
    assert TopK(1).score({"p": maps}, np.array([7, 7, 3])).correct.tolist() == [True, False, True]
    words = np.empty(1, object)
    words[:] = [{"cat": 0.2, "dog": 0.8}]
    assert TopK(1).score({"p": words}, np.array(["dog"])).correct.tolist() == [True]
    with pytest.raises(InputError, match="no class of the model"):
        TopK(1).score({"p": maps}, np.array([7, 7, 4]))


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        (np.array([1, 0, 2]), np.array([1, 0, 1], np.uint8)),
        (np.array([[1], [0], [2]], np.int64), np.array([1.0, 0.0, 1.0])),
        (np.array(["b", "a", "c"], object), np.array(["b", "a", "b"])),
    ],
)
def test_an_output_that_is_the_class_is_judged_as_it_is(answers, labels):
    assert TopK(1).score({"label": answers}, labels).correct.tolist() == [True, True, False]


def test_words_against_numbers_are_refused():
    with pytest.raises(InputError, match="of another kind"):
        TopK(1).score({"label": np.array(["a"], object)}, np.array([1]))
    with pytest.raises(InputError, match="labels are words"):
        TopK(1).score({"scores": np.zeros((1, 3))}, np.array(["a"]))


def test_one_answer_tells_whether_all_labels_are_classes():
    with pytest.raises(InputError, match="labels go from 0 to 9"):
        TopK(1).rehearse({"y": np.zeros((1, 5))}, np.arange(10))
    TopK(1).rehearse({"y": np.zeros((1, 10))}, np.arange(10))
