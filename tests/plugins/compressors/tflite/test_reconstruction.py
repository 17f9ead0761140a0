"""Quantised TFLite variants against the same network with weights that are reconstructed here from the file's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")

from ai_edge_litert import schema_py_generated as schema

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from tests.plugins.compressors.tflite import places

if TYPE_CHECKING:
    from pathlib import Path

    Array = places.Array

#: Method → steps on either side of zero.
STEPS = {"int8-weight": 127, "int8-dynamic": 127, "int4-weight": 7, "fp16": 0}
#: Kinds of layers that every one of these methods changes, and those that fp16 leaves.
ALL = ["a dense layer", "a convolution", "weights in branches"]
MOST = ["a depthwise convolution", "a transposed convolution", "a product with constant weights"]
CHANGED = {"int8-weight": ALL + MOST, "int8-dynamic": ALL + MOST, "int4-weight": [*ALL, MOST[-1]], "fp16": ALL}


def compress(path: Path, chain: str, data: Any = None) -> tuple[Path, dict[str, Any]]:
    made, recipe = make_variant(
        recognise(str(path)), parse_chain(chain), PluginHost().of("compressors"), path.parent / "out", data
    )
    assert made.path is not None
    return made.path, recipe[-1]["facts"]


def stored(path: Path, name: str, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A weight's values as the file means them, and the step of each."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensor = next(
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.name.decode() == name and model.buffers[tensor.buffer].data is not None
    )
    raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if tensor.type == schema.TensorType.FLOAT16:
        return raw.view(np.float16).reshape(shape).astype(np.float32), np.zeros(shape)
    if tensor.type == schema.TensorType.INT4:
        codes = np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)[: np.prod(shape)].astype(np.int8)
        codes = np.where(codes > 7, codes - 16, codes).reshape(shape)
    else:
        assert tensor.type == schema.TensorType.INT8
        codes = raw.view(np.int8).reshape(shape)
    scales, sizes = np.asarray(tensor.quantization.scale, np.float32), [1] * len(shape)
    assert not np.any(tensor.quantization.zeroPoint)
    if scales.size > 1:
        sizes[tensor.quantization.quantizedDimension] = -1
    steps = np.broadcast_to(scales.reshape(sizes), shape)
    return (codes * steps).astype(np.float32), steps


def replaced(net: places.Model, values: dict[str, Array]) -> places.Model:
    """The network with other weights."""
    for graph in net.packed.subgraphs:
        for tensor in graph.tensors:
            if tensor.name.decode() in values:
                data = values[tensor.name.decode()].astype(np.float32).tobytes()
                net.packed.buffers[tensor.buffer].data = np.frombuffer(data, np.uint8)
    return net


@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in CHANGED.items() for name in names])
def test_a_variant_answers_as_the_network_with_the_weights_that_its_file_holds(
    method: str, name: str, tmp_path: Path
) -> None:
    net = places.NETS[name](11)
    source = net.save(tmp_path / "net.tflite")
    variant, facts = compress(source, method)
    account, size = facts["coverage"], sum(values.size for values in net.weights.values())
    assert account["weights"] == {"changed": size, "total": size + net.others, "share": size / (size + net.others)}
    assert account["macs"] == {"changed": net.macs, "total": net.macs, "share": 1.0}
    wanted = {}
    for key, values in net.weights.items():
        wanted[key], steps = stored(variant, key, values.shape)
        if STEPS[method]:
            assert (np.abs(wanted[key] - values) <= 0.501 * steps).all()
            assert steps.max() == pytest.approx(np.abs(values).max() / STEPS[method], rel=1e-5)
        else:
            assert np.array_equal(wanted[key], values.astype(np.float16))
    expected = places.run(replaced(places.NETS[name](11), wanted).save(tmp_path / "expected.tflite"))
    answer = places.run(variant)
    assert answer.shape == expected.shape
    # What is computed in integers loses half a step of its activations too.
    exactness = 0.03 if method == "int8-dynamic" else 1e-5
    assert np.abs(answer - expected).max() <= exactness * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in ALL + MOST if name != "weights in branches"])
def test_static_int8_stores_ranges_of_the_samples_and_weights_within_half_a_step(name: str, tmp_path: Path) -> None:
    net = places.NETS[name](13)
    graph = net.packed.subgraphs[0]
    shape = graph.tensors[graph.inputs[0]].shape
    x = np.random.default_rng(0).standard_normal((24, *shape[1:])).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    source = net.save(tmp_path / "net.tflite")
    variant, facts = compress(source, "int8-static", load_dataset(str(tmp_path / "x.npz"), PluginHost()))
    account = facts["coverage"]
    assert account["weights"]["changed"] == sum(values.size for values in net.weights.values())
    assert account["macs"] == {"changed": net.macs, "total": net.macs, "share": 1.0}
    wanted = {}
    for key, values in net.weights.items():
        wanted[key], steps = stored(variant, key, values.shape)
        assert (np.abs(wanted[key] - values) <= 0.501 * steps).all()
        assert steps.max() == pytest.approx(np.abs(values).max() / 127, rel=1e-5)
    model = schema.ModelT.InitFromPackedBuf(variant.read_bytes(), 0)
    (quantised,) = [
        tensor.quantization
        for tensor in model.subgraphs[0].tensors
        if tensor.name.decode().startswith("x") and tensor.type == schema.TensorType.INT8
    ]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    assert quantised.scale[0] == pytest.approx((high - low) / 255, rel=1e-4)
    assert quantised.zeroPoint[0] == pytest.approx(-128 - low / quantised.scale[0], abs=0.51)
    expected = places.run(replaced(places.NETS[name](13), wanted).save(tmp_path / "expected.tflite"))
    # The inputs and outputs lose half a step each.
    assert np.abs(places.run(variant) - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("chain", ["int8-dynamic:exclude=y", "int8-weight:exclude=y", "fp16:exclude=y"])
def test_an_excluded_layer_keeps_its_weights_and_is_told_as_excluded(chain: str, tmp_path: Path) -> None:
    net = places.NETS["a dense layer"](12)
    main = places.Graph.__new__(places.Graph)
    main.model, main.graph = net, net.packed.subgraphs[0]
    w = places.draw(3, places.OUTER, places.OUTER)
    hidden, z = main.graph.outputs[0], main.tensor("z", (places.ROWS, places.OUTER))
    options = places.schema.FullyConnectedOptionsT()
    main.operator("FULLY_CONNECTED", [hidden, main.weight("v", w), -1], [z], options)
    main.graph.outputs = [z]
    variant, facts = compress(net.save(tmp_path / "net.tflite"), chain)
    account = facts["coverage"]
    assert account["left"]["excluded"]["names"] == ["y"]
    assert account["weights"]["changed"] == w.size
    model = schema.ModelT.InitFromPackedBuf(variant.read_bytes(), 0)
    types = {tensor.name.decode(): tensor.type for tensor in model.subgraphs[0].tensors}
    assert types["w"] == schema.TensorType.FLOAT32
