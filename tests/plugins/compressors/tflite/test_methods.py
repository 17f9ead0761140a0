"""The TFLite compressors, on MLPerf Tiny's ResNet and its own 200 images."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof.testing import check_compressor
from edgeprof_plugins.compressors.tflite.file import TfliteFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


@pytest.fixture
def resnet(shared_data: Path, tmp_path: Path) -> Path:
    return shutil.copy(shared_data / "mlperf-tiny/ic01/pretrainedResnet.tflite", tmp_path / "resnet.tflite")


@pytest.fixture(scope="module")
def images(shared_data: Path, host: PluginHost) -> Any:
    options = {"raw": "uint8", "shape": "32x32x3", "dtype": "float32", "limit": "60"}
    return load_dataset(str(shared_data / "mlperf-tiny/ic01/data"), host, options)


def top1(path: str, images: Any) -> float:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    right = []
    for batch, label in zip(images.batches(1), images.labels, strict=True):
        interpreter.set_tensor(source, batch[""])
        interpreter.invoke()
        right.append(interpreter.get_tensor(sink).argmax() == label)
    return float(np.mean(right))


@pytest.mark.parametrize(
    ("chain", "size", "drop"),
    [
        ("int8-dynamic", 0.35, 0.05),
        ("int8-weight", 0.35, 0.05),
        ("int4-weight", 0.2, 0.6),
        ("int8-static", 0.4, 0.05),
        ("int8-static:activations=int16", 0.4, 0.05),
        ("fp16", 0.6, 0.02),
        ("prune:amount=0.1", 1.0, 0.1),
        ("cluster:n=64", 1.0, 0.2),
        ("int8-static+prune:amount=0.1+cluster:n=32", 0.4, 0.4),
    ],
)
def test_a_variant_keeps_its_accuracy(
    chain: str, size: float, drop: float, resnet: Path, images: Any, host: PluginHost
) -> None:
    if "int" in chain or "fp16" in chain:
        pytest.importorskip("ai_edge_quantizer")
    source = recognise(str(resnet))
    made, recipe = make_variant(source, parse_chain(chain), host.of("compressors"), resnet.parent / "out", images)
    assert made.size_bytes <= size * source.size_bytes
    assert top1(made.target, images) >= top1(source.target, images) - drop
    assert recipe[0]["facts"]


@pytest.mark.parametrize("name", ["prune", "cluster", "int8-dynamic", "int8-static"])
def test_every_compressor_keeps_the_contract(name: str, resnet: Path, images: Any, host: PluginHost) -> None:
    if name.startswith("int"):
        pytest.importorskip("ai_edge_quantizer")
    check_compressor(host.get("compressors", name)().for_format("tflite"), resnet, data=images)


def test_pruning_and_clustering_reach_quantised_weights(resnet: Path, host: PluginHost) -> None:
    pytest.importorskip("ai_edge_quantizer")
    made, recipe = make_variant(
        recognise(str(resnet)),
        parse_chain("int8-dynamic+prune+cluster:n=8"),
        host.of("compressors"),
        resnet.parent / "o",
    )
    assert recipe[1]["facts"]["reached"] == pytest.approx(0.5, abs=0.02)
    with TfliteFile(made.path) as model:
        assert {w.dtype for w in model.weights()} == {"int8"}
        assert all(len(np.unique(model.values(w))) <= 8 for w in model.weights())
        del model


def test_what_is_quantised_already_is_refused(shared_data: Path, tmp_path: Path, host: PluginHost) -> None:
    pytest.importorskip("ai_edge_quantizer")
    source = recognise(str(shared_data / "mlperf-tiny/ic01/pretrainedResnet_quant.tflite"))
    with pytest.raises(InputError, match="has no float32 weights to quantise"):
        make_variant(source, parse_chain("int8-dynamic"), host.of("compressors"), tmp_path)


def test_the_layers_that_quantising_breaks_are_found_and_left_in_float(
    resnet: Path, images: Any, host: PluginHost
) -> None:
    """One channel is so loud that the others of its tensor are lost in its steps; the layer after makes up for it."""
    pytest.importorskip("ai_edge_quantizer")
    with TfliteFile(resnet, writable=True) as model:
        first, second = [w for w in model.weights() if w.op == "CONV_2D"][1:3]
        loud, after = model.values(first), model.values(second)
        loud[0] *= 2000
        after[..., 0] /= 2000
        del loud, after
    made, recipe = make_variant(
        recognise(str(resnet)),
        parse_chain("int8-static:exclude=auto,max_drop=0.05,samples=20"),
        host.of("compressors"),
        resnet.parent / "out",
        images,
    )
    facts = recipe[0]["facts"]
    assert 2 <= len(facts["excluded"]) <= 4
    assert facts["search"]["tried"]["0"] > 0.05
    assert top1(made.target, images) >= top1(str(resnet), images) - 0.05
    with TfliteFile(made.path) as model:
        assert sum(w.dtype == "float32" for w in model.weights()) == len(facts["excluded"])
        assert sum(w.dtype == "int8" for w in model.weights()) > 4


def test_a_file_from_before_2020_is_quantised_as_one_of_today(resnet: Path, host: PluginHost) -> None:
    """Operators' codes in the old field only: the quantiser would take each for an addition."""
    pytest.importorskip("ai_edge_quantizer")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(resnet.read_bytes(), 0)
    for code in model.operatorCodes:
        code.builtinCode = 0
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    old = resnet.with_name("old.tflite")
    old.write_bytes(bytes(builder.Output()))
    made, _ = make_variant(recognise(str(old)), parse_chain("int8-dynamic"), host.of("compressors"), resnet.parent)
    with TfliteFile(made.path) as model:
        assert model.dtypes() == {"int8": 10}


def test_ranges_are_those_of_all_samples(shared_data: Path, tmp_path: Path, host: PluginHost) -> None:
    """One value a sample: a range that is averaged over samples would hold next to none of them."""
    pytest.importorskip("ai_edge_quantizer")
    from edgeprof_plugins.runtimes.litert import graph

    source = shared_data / "tflm-hello-world/hello_world_float.tflite"
    x = np.linspace(0, 6.28, 32, dtype="float32").reshape(-1, 1)
    np.savez(tmp_path / "x.npz", x=x, y=np.sin(x[:, 0]))
    data = load_dataset(str(tmp_path / "x.npz"), host)
    made, _ = make_variant(
        recognise(str(source)), parse_chain("int8-static"), host.of("compressors"), tmp_path / "out", data
    )
    answers = [outputs[0].item() for outputs in graph.run(str(made.path), [{"": one[None]} for one in x])]
    assert np.abs(np.array(answers) - np.sin(x[:, 0])).max() < 0.15


def test_weights_behind_the_flatbuffer_are_found(resnet: Path) -> None:
    """Buffers with an offset into the file, as large files have them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from edgeprof_plugins.runtimes.litert import graph

    with TfliteFile(resnet) as model:
        first = model.weights()[0]
        values = model.values(first).copy()
    packed = schema.ModelT.InitFromPackedBuf(resnet.read_bytes(), 0)

    def write(offset: int) -> bytes:
        buffer = packed.buffers[first.buffer]
        buffer.data, buffer.offset, buffer.size = None, offset, values.nbytes
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(packed.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    length = len(write(1 << 20))
    outside = resnet.with_name("outside.tflite")
    outside.write_bytes(write(length) + values.tobytes())
    with TfliteFile(outside) as model:
        assert np.array_equal(model.values(first), values)
    layer = next(one for one in graph.read(str(outside)).layers if one.weights is not None)
    assert layer.weights is not None
    assert np.array_equal(layer.weights(), values)
