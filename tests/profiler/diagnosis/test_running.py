"""The comparisons of a diagnosis that run models."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from edgeprof.diagnosis.running import _batch_error, check_same_inputs
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
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


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda x: x.sum(axis=1), 0.0),
        (lambda x: x.sum(axis=1) - x.mean(), 1.0),  # of the whole batch
        (lambda x: np.array(["cat"] * len(x), object), None),
        (lambda x: np.array([{0: 0.5}] * len(x), object), None),
        (lambda x: x.mean(), None),  # a loss
        (lambda x: x[:, :0], None),
        (lambda _: None, None),  # an optional output
    ],
)
def test_a_batch_is_held_against_its_samples_where_these_are_answered_by_numbers(tmp_path, answer, error):
    np.savez(tmp_path / "data.npz", x=np.arange(24, dtype="float32").reshape(8, 3))
    data = load_dataset(str(tmp_path / "data.npz"), PluginHost.from_environment(), {})
    worker = SimpleNamespace(infer=lambda feeds: {"y": answer(feeds["x"])})
    found = _batch_error(worker, [TensorSpec("x", (None, 3), "float32", None)], data)
    assert (found is None) if error is None else (found > 0.05) == (error > 0)
