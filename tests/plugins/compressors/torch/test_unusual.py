"""Weights that are NaN, empty, infinite or shared: each method counts right, or says why it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof_plugins.compressors import methods

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSORS = {name: (lambda name=name: methods.make(name)) for name in methods.METHODS}
METHODS = (
    "int8-static",
    "int8-dynamic",
    "fp16",
    "bf16",
    "prune",
    "prune-2:4",
    "prune-structured:amount=0.5,round_to=1",
    "low-rank:energy=0.5",
    "cluster:n=8",
)
ROWS, WIDTH, MIDDLE = 4, 16, 24


class Tied(nn.Module):
    """x·Wᵀ, again ·Wᵀ, then another matrix of the same shape, then a smaller one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.b.weight = self.a.weight
        self.last = nn.Linear(WIDTH, MIDDLE)
        self.example_inputs = torch.randn(ROWS, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


class Masked(nn.Module):
    """Two dense layers, and a mask with an infinite and a large value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, MIDDLE), nn.Linear(MIDDLE, MIDDLE)
        mask = torch.zeros(MIDDLE)
        mask[1], mask[2] = -torch.inf, torch.finfo(torch.float32).min
        self.register_buffer("mask", mask)
        self.example_inputs = torch.randn(ROWS, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.b(self.a(x)) + self.mask, -1)


class Empty(nn.Module):
    """A dense layer beside one without inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(WIDTH, MIDDLE)
        self.none = nn.Parameter(torch.empty(0, MIDDLE))
        self.example_inputs = torch.randn(ROWS, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + x[:, :0] @ self.none


class Spoilt(Tied):
    """One NaN and one infinite value."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.c.weight[0, 0], self.c.weight[1, 1] = torch.nan, torch.inf


def __getattr__(name: str) -> Any:
    """The factories, as ``test_unusual.py:tied``."""
    if name not in {"tied", "masked", "empty", "spoilt"}:
        raise AttributeError(name)

    def make() -> nn.Module:
        torch.manual_seed(3)
        module: nn.Module = globals()[name.capitalize()]()
        return module.eval()

    return make


def net(name: str) -> Any:
    return __getattr__(name)()


def compress(name: str, chain: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    if chain.startswith("int8"):
        pytest.importorskip("torchao")
    if chain.startswith("prune-structured"):
        pytest.importorskip("torch_pruning")
    data = None
    if chain.startswith("int8-static"):
        np.savez(folder / "x.npz", x=np.random.default_rng(0).standard_normal((32, WIDTH)).astype(np.float32))
        data = load_dataset(str(folder / "x.npz"), PluginHost())
    made, recipe = make_variant(
        recognise(f"{__file__}:{name}"), parse_chain(chain), COMPRESSORS, folder / "out", data,
        isolated=False, least_share=0.0,
    )  # fmt: skip
    return torch.export.load(made.target).module(), recipe[-1]["facts"]


def refusal(name: str, chain: str, folder: Path) -> EdgeprofError:
    with pytest.raises(EdgeprofError) as raised:
        compress(name, chain, folder)
    assert " failed on " not in raised.value.message
    assert "\n" not in raised.value.message
    return raised.value


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_not_finite_are_refused_with_their_number(method: str, tmp_path: Path) -> None:
    error = refusal("spoilt", method, tmp_path)
    assert "NaN or infinite: 2 of 256 in c.weight" in error.message
    assert error.remedy


@pytest.mark.parametrize("method", ["fp16", "bf16", "prune", "cluster:n=8", "low-rank:energy=0.5"])
def test_infinite_values_of_a_mask_stay_infinite_and_large_ones_do_not_become_so(method: str, tmp_path: Path) -> None:
    program, _ = compress("masked", method, tmp_path)
    with torch.no_grad():
        answer = program(net("masked").example_inputs)
    assert not answer[:, 1:3].any()
    (mask,) = [value for value in program.state_dict().values() if value.shape == (MIDDLE,) and value.isinf().any()]
    assert mask.isinf().tolist() == [k == 1 for k in range(MIDDLE)]


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_several_layers_count_once_and_their_arithmetic_each_time(method: str, tmp_path: Path) -> None:
    program, facts = compress("tied", method, tmp_path)
    account, square, last = facts["coverage"], WIDTH * WIDTH, WIDTH * MIDDLE
    assert account["weights"]["total"] == 2 * square + last + 3 * WIDTH + MIDDLE
    assert account["macs"]["total"] == ROWS * (3 * square + last)
    weights, macs = 2 * square + last, ROWS * (3 * square + last)
    if method in {"fp16", "bf16"} or method.startswith("prune-structured"):
        weights = account["weights"]["total"] if "16" in method else account["weights"]["changed"]
    if method.startswith("low-rank"):  # a factor for each layer would need more space than the shared matrix
        weights, macs = weights - square, macs - 2 * ROWS * square
    assert (account["weights"]["changed"], account["macs"]["changed"]) == (weights, macs)
    with torch.no_grad():
        assert program(net("tied").example_inputs).shape == (ROWS, MIDDLE)


@pytest.mark.parametrize("method", ["int8-static", "int8-dynamic"])
@pytest.mark.parametrize(("name", "macs"), [("a", 1), ("b", 1), ("c", 1)])
def test_an_excluded_layer_is_the_one_that_stays_in_float(method: str, name: str, macs: int, tmp_path: Path) -> None:
    """Three layers of one shape, two of them with one matrix: shapes alone would not tell them apart."""
    _, facts = compress("tied", f"{method}:exclude={name}", tmp_path)
    account = facts["coverage"]
    assert account["macs"]["total"] - account["macs"]["changed"] == macs * ROWS * WIDTH * WIDTH
    (left,) = [entry for reason, entry in account["left"].items() if "float" in reason]
    assert left["names"] == ["c.weight" if name == "c" else "a.weight"]


def test_a_layer_that_shares_its_weights_with_an_excluded_one_is_excluded_too(tmp_path: Path) -> None:
    program, facts = compress("tied", "fp16:exclude=a", tmp_path)
    changed = 2 * WIDTH * WIDTH + WIDTH * MIDDLE + 3 * WIDTH + MIDDLE - WIDTH * WIDTH - 2 * WIDTH
    assert facts["coverage"]["weights"]["changed"] == changed
    module = net("tied")
    with torch.no_grad():
        assert torch.allclose(program(module.example_inputs), module(module.example_inputs), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_layers_without_values_are_left_alone(method: str, tmp_path: Path) -> None:
    if method.startswith("prune-structured"):
        refusal("empty", method, tmp_path)  # its only channels are the model's outputs
        return
    program, facts = compress("empty", method, tmp_path)
    account = facts["coverage"]
    size = WIDTH * MIDDLE
    assert account["weights"]["total"] == size + MIDDLE
    assert account["weights"]["changed"] == (size + MIDDLE if "16" in method else size)
    with torch.no_grad():
        assert torch.isfinite(program(net("empty").example_inputs)).all()
