"""What a diagnosis compares: top-1 answers, where classes are answered."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from edgeprof.diagnosis.running import check_same_inputs, top_answers
from edgeprof.errors import InputError
from edgeprof.evaluation.labels import pairs
from edgeprof.evaluation.samples import Samples
from edgeprof.worker.runtime import ANY_SHAPE, TensorSpec

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
    assert top_answers(Answering(*shape), [TensorSpec("x", (1, 6), "float32", None)], data).tolist() == answers


@pytest.mark.parametrize(
    ("mine", "baseline", "same"),
    [
        ((1, 32, 32, 3), (None, 3, 32, 32), True),  # layout and batch
        ((1, 28, 28), (None, 1, 28, 28), True),
        ((1, 3, 240, 320), (1, 1, 28, 28), False),
        ((1, 3, 224, 224), (None, 3, None, None), True),  # open
        (ANY_SHAPE, (1, 3, 8, 8), True),
    ],
)
def test_a_model_is_not_compared_with_one_that_takes_other_inputs(mine, baseline, same):
    specs = [[TensorSpec("x", shape, "float32", None)] for shape in (mine, baseline)]
    with contextlib.nullcontext() if same else pytest.raises(InputError, match="where its baseline takes"):
        check_same_inputs(*specs)
