"""ExecuTorch through edgeprof's contract."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions
from tests import models

pytest.importorskip("executorch", reason="ExecuTorch is not installed here: make test-runtimes")

from edgeprof_plugins.runtimes.executorch import ExecuTorch

#: What ExecuTorch and its dependencies say of one another, of which its users can do nothing.
pytestmark = pytest.mark.filterwarnings("ignore")
CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    """y = 2x + 1, lowered to XNNPACK."""
    torch = pytest.importorskip("torch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(models.affine_module(), (torch.zeros(1, 4),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = tmp_path_factory.mktemp("executorch") / "affine.pte"
    path.write_bytes(program.buffer)
    return path


def test_conforms_and_gives_the_right_answer(affine):
    check_runtime(ExecuTorch(), affine, feeds={"input_0": X}, expected={"output_0": 2 * X + 1}, options=CPU)


def test_a_published_program_runs(shared_data):
    session = ExecuTorch().load(str(shared_data / "formats/executorch/model.pte"), CPU)
    (answer,) = session.run({"input_0": np.ones((1, 1, 1024, 1024), "float32")}).values()
    assert answer.shape == (1, 10)
    assert np.isfinite(answer).all()


def test_operators_are_told_apart_inside_of_the_backend_too(affine):
    profile = ExecuTorch().load(str(affine), CPU).profile_operators({"input_0": X}, 5)
    assert profile.operators
    assert sum(one.seconds for one in profile.operators) <= 1.05 * profile.seconds


def test_a_program_that_is_cut_off_is_refused(affine, tmp_path):
    cut = tmp_path / "cut.pte"
    cut.write_bytes(affine.read_bytes()[:-64])
    with pytest.raises(LoadError, match=r"cut\.pte is cut off"):
        ExecuTorch().load(str(cut), CPU)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "npu"}, "no device 'npu'"),
        ({"batch": 2}, "batch of an ExecuTorch program is fixed"),
        ({"options": {"method": "backward"}}, "no method backward"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(affine, changes, says):
    with pytest.raises(LoadError, match=says):
        ExecuTorch().load(str(affine), CPU._replace(**changes))
