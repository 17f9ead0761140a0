"""int8 weights of PyTorch's dense layers by torchao: stored as integers, close to the originals, or refused."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.compression.variant import settings
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")

from edgeprof_plugins.compressors.torch.weight_only import Int8Weight  # noqa: E402 - it needs PyTorch

# Importing it takes seconds, which a process that runs other tests need not take.
pytestmark = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")

NET = """
import torch

def dense():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    net.example_inputs = torch.randn(2, 64)
    return net

def convolution():
    net = torch.nn.Conv2d(3, 4, 3)
    net.example_inputs = torch.randn(1, 3, 8, 8)
    return net
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nets") / "weight_only_nets.py"
    path.write_text(NET)
    return path


@pytest.mark.slow
def test_a_program_holds_integers_and_its_outputs_are_nearly_those_of_the_module(nets: Path, tmp_path: Path) -> None:
    source, target = nets.parent / f"{nets.name}:dense", tmp_path / "int8.pt2"
    facts = Int8Weight().apply(source, target, settings(Int8Weight(), {"exclude": "2"}), None)
    assert facts["layers"] == 1
    assert facts["excluded"] == ["2"]
    assert facts["sqnr_db"]["0"] > 40
    assert facts["coverage"]["weights"]["changed"] == 64 * 32
    program = torch.export.load(str(target))
    kinds = {str(value.dtype): value.numel() for value in program.state_dict.values() if value.numel() == 64 * 32}
    assert kinds == {"torch.int8": 64 * 32}
    namespace: dict = {}
    exec(NET, namespace)
    net = namespace["dense"]()
    x = torch.randn(5, 64)
    with torch.no_grad():
        assert np.allclose(program.module()(x).numpy(), net(x).numpy(), atol=0.02)


def test_a_model_without_dense_layers_and_a_group_that_fits_none_are_refused(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8-weight finds no dense layer"):
        Int8Weight().apply(
            nets.parent / f"{nets.name}:convolution", tmp_path / "out.pt2", settings(Int8Weight(), {}), None
        )
