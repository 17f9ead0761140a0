"""What a diagnosis compares: top-1 answers, where classes are answered."""

from __future__ import annotations

import contextlib

import pytest

from edgeprof.diagnosis.running import check_same_inputs
from edgeprof.errors import InputError
from edgeprof.worker.runtime import ANY_SHAPE, TensorSpec


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
