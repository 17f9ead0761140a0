"""Which of a model's outputs are top-1 answers that can be compared between variants."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.diagnosis.running import answers_are_classes, top_answer
from edgeprof.evaluation.labels import absent, pairs


def _map(number):
    array = np.empty(1, object)
    array[0] = {number: 1.0}
    return array


@pytest.mark.parametrize(
    ("output", "answers"),
    [
        (lambda number: np.eye(4)[[number]], [0, 1, 2, 3]),
        (lambda number: np.array([number + 5]), [5, 6, 7, 8]),  # the class itself, not the position of the only number
        (lambda number: np.array([[number / 3]]), []),  # a real number is not a class
        (lambda number: np.zeros((1, 2, 2)) + number, []),  # nor are boxes
        (_map, []),
        (lambda number: np.array([str(number)], object), []),
    ],
)
def test_only_classes_are_answers(output, answers):
    found = [top_answer(output(number), 1) for number in range(4)]
    assert found == (answers or [None] * 4)


@pytest.mark.parametrize(
    ("labels", "width", "distributions", "classes"),
    [
        (np.arange(6), 6, False, True),
        (np.arange(6), 4, False, False),  # more classes than scores
        (np.linspace(0, 1, 6), 6, False, False),  # a regression
        (np.eye(6, dtype=int), 6, False, True),
        (np.ones((6, 4)), 4, False, False),  # coordinates
        (pairs([True, False, True], [0, 0, 0]), 6, True, False),  # embeddings
        (absent(6), 213, False, False),  # the meaning of the numbers is unknown
        (absent(6), 6, True, True),  # probabilities
    ],
)
def test_coordinates_have_no_top_answer(labels, width, distributions, classes):
    output = np.zeros((1, width), np.float32)
    assert answers_are_classes(labels, output, distributions=distributions) == classes
