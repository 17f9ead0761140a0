"""What a diagnosis compares: top-1 answers, where classes are answered."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.evaluation.labels import pairs
from edgeprof.evaluation.samples import Samples
from edgeprof.explain import _answers
from edgeprof.workload.runtime import TensorSpec

X = np.eye(6, dtype=np.float32)


class Answering:
    """A worker whose outputs have this shape behind the batch."""

    def __init__(self, *shape):
        self.shape = shape

    def infer(self, feeds):
        return {"out": feeds["x"].reshape(1, *self.shape)}


@pytest.mark.parametrize(
    ("shape", "labels", "answers"),
    [
        ((6,), np.arange(6), [0, 1, 2, 3, 4, 5]),
        ((1, 1, 6), np.arange(6), [0, 1, 2, 3, 4, 5]),
        ((3, 2), np.arange(6), []),  # boxes, or tokens
        ((6,), pairs([True, False, True], [0, 0, 0]), []),  # embeddings
    ],
)
def test_only_classes_have_a_top_1_answer(shape, labels, answers):
    data = Samples("six", labels, X.__getitem__, {})
    assert _answers(Answering(*shape), [TensorSpec("x", (1, 6), "float32", None)], data).tolist() == answers
