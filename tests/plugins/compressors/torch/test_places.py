"""Each method on each kind of PyTorch layer, as a module and as a program, against a reconstruction by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof_plugins.compressors import methods
from tests.plugins.compressors.torch import places

FILE = Path(places.__file__)
COMPRESSORS = {name: (lambda name=name: methods.make(name)) for name in methods.METHODS}


def compress(name: str, chain: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variant's weights by name, and what its last step did."""
    made, recipe = make_variant(recognise(f"{FILE}:{name}"), parse_chain(chain), COMPRESSORS, folder, isolated=False)
    return torch.export.load(made.target).state_dict, recipe[-1]["facts"]


@pytest.mark.parametrize("name", places.NETS)
@pytest.mark.parametrize("first", ["", "export-pt2+"], ids=["module", "program"])
def test_pruned_weights_are_those_that_sorting_finds(name: str, first: str, tmp_path: Path) -> None:
    net = getattr(places, name)()
    weights = {key: value.detach().double().numpy() for key, value in net.named_parameters()}
    state, facts = compress(name, f"{first}prune:amount=0.6,scope=layer", tmp_path)
    for key in net.layers:
        flat = weights[key].reshape(-1).copy()
        flat[np.argsort(np.abs(flat), kind="stable")[: round(0.6 * flat.size)]] = 0
        # A program calls a function's weights by the layer that takes its place.
        found = state[key] if key in state else next(v for v in state.values() if v.shape == weights[key].shape)
        assert np.array_equal(found.detach().double().numpy().reshape(-1), flat), key
        assert found.dtype == dict(net.named_parameters())[key].dtype
    account = facts["coverage"]
    changed = sum(weights[key].size for key in net.layers)
    assert account["weights"]["changed"] == changed
    assert account["weights"]["total"] == sum(values.size for values in weights.values())
    batch = 2 if first and net.example_inputs.shape[0] == 1 else 1
    activations = sum(f["macs"][1] for key, f in account["families"].items() if "activations" in key)
    assert account["macs"]["total"] == net.macs * batch
    assert account["macs"]["changed"] == net.macs * batch - activations
    assert (activations > 0) is (name == "attention")


@pytest.mark.parametrize("name", places.NETS)
def test_two_of_four_are_zero_along_what_is_summed_over(name: str, tmp_path: Path) -> None:
    """Of a transposed convolution and of x @ W that is the first dimension."""
    net = getattr(places, name)()
    inner = {"turned": [0], "functional": [0, 1]}.get(name, [1] * len(net.layers))
    sizes = [dict(net.named_parameters())[key].shape[axis] for key, axis in zip(net.layers, inner, strict=True)]
    if all(size % 4 for size in sizes):
        with pytest.raises(EdgeprofError, match="multiple of 4 input channels"):
            compress(name, "prune-2:4", tmp_path)
        return
    state, _ = compress(name, "prune-2:4", tmp_path)
    for key, axis in zip(net.layers, inner, strict=True):
        groups = np.moveaxis(state[key].detach().double().numpy(), axis, -1).reshape(-1, 4)
        assert ((groups == 0).sum(axis=1) == 2).all(), key


def test_what_half_precision_and_low_rank_changed_is_what_is_stored_otherwise(tmp_path: Path) -> None:
    state, facts = compress("convolution", "bf16", tmp_path)
    assert facts["coverage"]["weights"]["share"] == 1
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    state, facts = compress("attention", "low-rank:rank=4", tmp_path)
    assert facts["coverage"]["weights"]["changed"] == 3 * places.INNER * places.OUTER
    assert not any(tuple(value.shape) == (places.OUTER, places.INNER) for value in state.values())


@pytest.mark.parametrize(("name", "share"), [("dense", 1.0), ("lstm", 0.0), ("attention", None)])
def test_dynamic_int8_counts_what_its_program_computes_in_integers(name: str, share: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    if share == 0:
        with pytest.raises(EdgeprofError, match=r"int8-dynamic (finds nothing|would change)"):
            compress(name, "int8-dynamic", tmp_path)
        return
    _, facts = compress(name, "int8-dynamic", tmp_path)
    found = facts["coverage"]["macs"]
    projections = 3 * places.STEPS * places.INNER * places.OUTER
    assert found["share"] == pytest.approx(share or projections / (projections + 2 * places.STEPS**2 * places.OUTER))
