"""What of a model's outputs is a top-1 answer that a variant's can be compared with."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.diagnosis.running import top_answers
from edgeprof.evaluation.samples import Samples
from edgeprof.worker.runtime import TensorSpec

DATA = Samples("toy", np.arange(4), np.arange(4, dtype=np.float32).reshape(4, 1).__getitem__, {})
INPUTS = [TensorSpec("x", ("n", 1), "float32", None)]


class Answering:
    def __init__(self, output):
        self.output = output

    def infer(self, feeds):
        return {"first": self.output(int(feeds["x"][0, 0]))}


def _map(number):
    array = np.empty(1, object)
    array[0] = {number: 1.0}
    return array


@pytest.mark.parametrize(
    ("output", "answers"),
    [
        (lambda number: np.eye(4)[[number]], [0, 1, 2, 3]),
        (lambda number: np.array([number + 5]), [5, 6, 7, 8]),  # the class itself, not the place of the only number
        (lambda number: np.array([[number / 3]]), []),  # a real number is no class
        (lambda number: np.zeros((1, 2, 2)) + number, []),  # nor are boxes
        (_map, []),
        (lambda number: np.array([str(number)], object), []),
    ],
)
def test_only_classes_are_answers(output, answers):
    assert top_answers(Answering(output), INPUTS, DATA).tolist() == answers
