"""Each method on each kind of TFLite layer, wherever its weights lie, against a reconstruction by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("flatbuffers")

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.plugins import PluginHost
from edgeprof_plugins.compressors.tflite.file import TfliteFile
from tests.plugins.compressors.tflite import places

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


def compress(path: Path, chain: str, host: PluginHost, *, isolated: bool = False) -> tuple[Any, dict[str, Any]]:
    made, recipe = make_variant(
        recognise(str(path)), parse_chain(chain), host.of("compressors"), path.parent / "out", isolated=isolated
    )
    return made, recipe[-1]["facts"]


def values_of(path: Path) -> dict[str, Any]:
    with TfliteFile(path) as model:
        return {weight.name: model.values(weight).copy() for weight in model.weights()}


def types_of(path: Path) -> dict[str, str]:
    with TfliteFile(path) as model:
        return {weight.name: weight.dtype for weight in model.weights()}


@pytest.mark.parametrize("name", places.NETS)
def test_pruned_weights_are_those_that_sorting_finds(name: str, tmp_path: Path, host: PluginHost) -> None:
    net = places.NETS[name](5)
    source = net.save(tmp_path / "net.tflite")
    made, facts = compress(source, "prune:amount=0.6", host)
    found = values_of(made.path)
    assert set(found) == set(net.weights)
    for key, values in net.weights.items():
        flat = values.reshape(-1).copy()
        flat[np.argsort(np.abs(flat.astype(float)), kind="stable")[: round(0.6 * flat.size)]] = 0
        assert np.array_equal(found[key].reshape(-1), flat)
    account, size = facts["coverage"], sum(values.size for values in net.weights.values())
    assert account["weights"] == {"changed": size, "total": size + net.others, "share": size / (size + net.others)}
    assert account["macs"] == {"changed": net.macs, "total": net.macs, "share": 1.0}
    assert account["families"][net.family]["weights"] == [size, size]
    assert places.run(made.path).shape == places.run(source).shape


@pytest.mark.parametrize("name", places.NETS)
def test_clustered_weights_are_each_the_nearest_of_n_values(name: str, tmp_path: Path, host: PluginHost) -> None:
    net = places.NETS[name](6)
    made, _ = compress(net.save(tmp_path / "net.tflite"), "cluster:n=8", host)
    for key, shared in values_of(made.path).items():
        codes = np.unique(shared).astype(float)
        assert len(codes) <= 8
        values = net.weights[key].astype(float)
        distances = np.abs(values[..., None] - codes).min(axis=-1)
        assert (np.abs(values - shared) <= distances + 1e-3).all()


@pytest.mark.parametrize("chain", ["int8-dynamic", "int8-weight", "int4-weight", "fp16"])
@pytest.mark.parametrize("name", places.NETS)
def test_a_quantised_variant_runs_and_tells_its_share_or_is_refused_with_a_reason(
    name: str, chain: str, tmp_path: Path, host: PluginHost
) -> None:
    pytest.importorskip("ai_edge_quantizer")
    net = places.NETS[name](7)
    source = net.save(tmp_path / "net.tflite")
    before = types_of(source)
    try:
        made, facts = compress(source, chain, host, isolated=True)  # ai-edge-quantizer keeps files open
    except EdgeprofError as error:
        refused = error.message
    else:
        refused = ""
    if refused:
        assert "Error:" not in refused
        return
    after = types_of(made.path)
    changed = sum(net.weights[key].size for key, kind in before.items() if after[key] != kind)
    assert changed == facts["coverage"]["weights"]["changed"] > 0
    assert places.run(made.path).shape == places.run(source).shape
