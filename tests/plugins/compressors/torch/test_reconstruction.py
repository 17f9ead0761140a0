"""PyTorch variants against the same module with weights that are reconstructed here by each method's definition."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof_plugins.compressors import methods
from tests.plugins.compressors.torch import places

FILE = Path(places.__file__)
COMPRESSORS = {name: (lambda name=name: methods.make(name)) for name in methods.METHODS}


def compress(name: str, chain: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    made, recipe = make_variant(recognise(f"{FILE}:{name}"), parse_chain(chain), COMPRESSORS, folder, isolated=False)
    return torch.export.load(made.target).module(), recipe[-1]["facts"]


def largest_factors(weight: torch.Tensor) -> torch.Tensor | None:
    """By numpy's SVD: as many as keep 60 % of the energy, where they are fewer numbers than the matrix."""
    matrix = weight.detach().double().numpy().reshape(len(weight), -1)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(singular**2) / np.sum(singular**2), 0.6)) + 1
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    product = (left[:, :rank] * singular[:rank]) @ right[:rank]
    return torch.from_numpy(product).reshape(weight.shape).to(weight.dtype)


def expect_answer(program: Any, net: torch.nn.Module, exactness: float) -> None:
    with torch.no_grad():
        answer, expected = program(net.example_inputs), net(net.example_inputs)
    assert answer.shape == expected.shape
    assert answer.dtype == expected.dtype
    assert (answer - expected).abs().max() <= exactness * expected.abs().max()


@pytest.mark.parametrize(("first", "kind"), [("", "fp16"), ("export-pt2+", "bf16")], ids=["module", "program"])
@pytest.mark.parametrize("name", ["dense", "grouped", "turned", "lstm", "functional", "attention"])
def test_half_precision_answers_as_the_weights_rounded_to_it(name: str, kind: str, first: str, tmp_path: Path) -> None:
    program, facts = compress(name, first + kind, tmp_path)
    net = getattr(places, name)()
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[kind]
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(value.to(dtype).to(value.dtype))
    # The arithmetic is rounded too, to 11 or 8 bits.
    expect_answer(program, net, {"fp16": 4e-3, "bf16": 4e-2}[kind])
    account = facts["coverage"]
    assert account["weights"]["changed"] == account["weights"]["total"] == sum(v.numel() for v in net.parameters())
    assert account["macs"]["share"] == 1


@pytest.mark.parametrize("name", ["dense", "dense64", "convolution", "attention"])
def test_low_rank_answers_as_the_largest_singular_values_do(name: str, tmp_path: Path) -> None:
    net = getattr(places, name)()
    weights = dict(net.named_parameters())
    factored = {key: largest_factors(weights[key]) for key in net.layers}
    factored = {key: value for key, value in factored.items() if value is not None}
    program, facts = compress(name, "low-rank:energy=0.6", tmp_path)
    assert facts["coverage"]["weights"]["changed"] == sum(value.numel() for value in factored.values())
    with torch.no_grad():
        for key, value in factored.items():
            weights[key].copy_(value)
    expect_answer(program, net, 1e-5)


@pytest.mark.parametrize("name", ["dense", "attention"])
def test_dynamic_int8_answers_nearly_as_the_weights_in_127_steps(name: str, tmp_path: Path) -> None:
    """On x86 without VNNI they have 63: what the file holds is within half a step of either."""
    pytest.importorskip("torchao")
    program, _ = compress(name, "int8-dynamic", tmp_path)
    net = getattr(places, name)()
    codes = [value for value in program.state_dict().values() if value.dtype == torch.int8]
    assert sorted(tuple(value.shape) for value in codes) == sorted(
        tuple(dict(net.named_parameters())[key].shape) for key in net.layers
    )
    with torch.no_grad():
        expect_answer(program, net, 0.05)


def dequantised(program: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The 8-bit weights of a program times their scales, and the scale of each, from its graph."""
    found = []
    for node in program.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            codes, scales, zeros = (getattr(program, str(argument.target)) for argument in node.args[:3])
            assert codes.dtype == torch.int8
            assert not zeros.any()
            shape = [1] * codes.dim()
            shape[node.args[3]] = -1
            steps = scales.reshape(shape).expand(codes.shape)
            found.append((codes * steps, steps))
    return found


@pytest.mark.parametrize("name", ["dense", "convolution", "attention"])
def test_static_int8_holds_each_weight_within_half_a_step_of_its_channel(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    net = getattr(places, name)()
    x = np.random.default_rng(0).standard_normal((32, *net.example_inputs.shape[1:])).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    made, recipe = make_variant(
        recognise(f"{FILE}:{name}"), parse_chain("int8-static"), COMPRESSORS, tmp_path / "out",
        load_dataset(str(tmp_path / "x.npz"), PluginHost()), isolated=False,
    )  # fmt: skip
    program, weights = torch.export.load(made.target).module(), dict(net.named_parameters())
    stored = dequantised(program)
    for key in net.layers:
        before = weights[key].detach()
        others = tuple(range(1, before.dim()))
        (values, steps) = next(
            pair for pair in stored if pair[0].shape == before.shape and ((pair[0] - before).abs() <= pair[1]).all()
        )
        assert ((values - before).abs() <= 0.501 * steps).all()
        # torchao divides the range by the 255 steps from -128 to 127.
        largest = before.abs().amax(dim=others, keepdim=True)
        assert torch.allclose(steps, (largest / 127.5).expand(before.shape), rtol=1e-4)
        with torch.no_grad():
            weights[key].copy_(values)
    account = recipe[-1]["facts"]["coverage"]
    assert account["weights"]["changed"] == sum(weights[key].numel() for key in net.layers)
    products = 2 * places.ROWS * places.STEPS**2 * places.OUTER if name == "attention" else 0
    assert account["macs"]["total"] == net.macs
    assert account["macs"]["changed"] == net.macs - products
    expect_answer(program, net, 0.1)  # the inputs are rounded too, to 7 bits where 8 would saturate


def shared_of(program: Any, key: str) -> torch.Tensor:
    state = program.state_dict()
    return state[key] if key in state else state[key.replace(".", "_")]


@pytest.mark.parametrize("name", ["dense", "dense64", "convolution", "lstm"])
def test_clustered_weights_are_the_nearest_of_n_and_the_program_answers_with_them(name: str, tmp_path: Path) -> None:
    program, facts = compress(name, "cluster:n=6", tmp_path)
    net = getattr(places, name)()
    weights = dict(net.named_parameters())
    for key in net.layers:
        shared, before = shared_of(program, key).detach(), weights[key].detach()
        codes = torch.unique(shared)
        assert len(codes) <= 6
        distances = (before[..., None] - codes).abs().min(dim=-1).values
        assert ((before - shared).abs() <= distances + 1e-6).all()
        with torch.no_grad():
            weights[key].copy_(shared)
    expect_answer(program, net, 1e-5)
    assert facts["coverage"]["weights"]["changed"] == sum(weights[key].numel() for key in net.layers)


@pytest.mark.parametrize("chain", ["prune:amount=0.6,scope=layer", "cluster:n=6"])
@pytest.mark.parametrize("name", ["dense", "lstm"])
def test_torchscript_holds_the_weights_that_the_definition_gives(name: str, chain: str, tmp_path: Path) -> None:
    made, recipe = make_variant(
        recognise(f"{FILE}:{name}"), parse_chain(f"export-torchscript+{chain}"), COMPRESSORS, tmp_path, isolated=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        program = torch.jit.load(made.target)
    net, state = getattr(places, name)(), program.state_dict()
    changed = 0
    for key in net.layers:
        before = dict(net.named_parameters())[key].detach()
        found = state[key] if key in state else next(v for v in state.values() if v.shape == before.shape)
        changed += before.numel()
        if chain.startswith("prune"):
            flat = before.reshape(-1).clone()
            flat[torch.argsort(flat.abs(), stable=True)[: round(0.6 * flat.numel())]] = 0
            assert torch.equal(found.reshape(-1), flat)
        else:
            assert len(torch.unique(found)) <= 6
    assert recipe[-1]["facts"]["coverage"]["weights"]["changed"] == changed
    with torch.no_grad():
        assert program(net.example_inputs).shape == net(net.example_inputs).shape


@pytest.mark.parametrize("method", ["fp16", "bf16", "int8-dynamic"])
def test_an_excluded_layer_keeps_its_weights_and_is_told_as_excluded(method: str, tmp_path: Path) -> None:
    if method == "int8-dynamic":
        pytest.importorskip("torchao")
    program, facts = compress("attention", f"{method}:exclude=layer.k", tmp_path)
    net = places.attention()
    key = net.layers[1]
    # To the last bit: an excluded layer is not rounded on the way.
    assert torch.equal(shared_of(program, key), dict(net.named_parameters())[key])
    (reason,) = [reason for reason, entry in facts["coverage"]["left"].items() if key in entry["names"]]
    assert "excluded" in reason
    assert facts["coverage"]["weights"]["changed"] == 2 * places.INNER * places.OUTER


def test_every_refusal_of_float64_says_what_to_do(tmp_path: Path) -> None:
    for method in ("fp16", "int8-dynamic"):
        with pytest.raises(EdgeprofError) as raised:
            compress("dense64", method, tmp_path)
        assert "float" in (raised.value.remedy or "")
