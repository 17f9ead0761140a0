"""Variants of a Keras model against the same network with weights that are computed or read from the file here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from tests.plugins.compressors.keras.conftest import BIASES, KERNELS, SIZE, network

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    # Importing TensorFlow takes minutes where other programs want the processor too.
    pytest.mark.timeout(600),
]


def compress(source: Path, chain: str, out: Path, data: Any = None) -> tuple[Path, dict[str, Any]]:
    compressors = PluginHost().of("compressors")
    # A fork of this process, in which TensorFlow runs already, might hang.
    variant, recipe = make_variant(recognise(str(source)), parse_chain(chain), compressors, out, data, isolated=False)
    assert variant.path is not None
    return variant.path, recipe[-1]["facts"]


def weights_of(model: Any) -> dict[str, Any]:
    return {variable.path: variable.numpy() for variable in model.weights}


def outputs(model: Any, x: Any) -> Any:
    return np.asarray(model(x, training=False))


def run_tflite(path: Path, x: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    (name,) = runner.get_input_details()
    return np.concatenate([next(iter(runner(**{name: sample[None]}).values())) for sample in x])


def samples(folder: Path) -> Any:
    return np.load(folder / "samples.npz")["x"]


def check_account(account: dict[str, Any], changed: set[str], biases: int = 0) -> None:
    """The shares, counted from the shapes of the layers that were changed."""
    size = sum(int(np.prod(KERNELS[name][0])) for name in changed) + biases
    assert account["weights"] == {"changed": size, "total": SIZE + BIASES, "share": size / (SIZE + BIASES)}
    work, total = sum(KERNELS[name][1] for name in changed), sum(macs for _, macs in KERNELS.values())
    assert account["macs"] == {"changed": work, "total": total, "share": work / total}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_leaves_the_largest_weights_and_nothing_else(
    folder: Path, tmp_path: Path, suffix: str, scope: str
) -> None:
    import tensorflow as tf

    variant, facts = compress(folder / f"net{suffix}", f"prune:amount=0.6,scope={scope}", tmp_path)
    assert variant.suffix == suffix
    before = weights_of(network())
    sizes = np.concatenate([np.abs(before[name]).ravel() for name in KERNELS])
    wanted = {}
    for name, values in before.items():
        magnitudes = np.abs(values).ravel() if scope == "layer" else sizes
        limit = np.sort(magnitudes)[round(0.6 * magnitudes.size)]
        wanted[name] = np.where(np.abs(values) < limit, 0, values) if name in KERNELS else values
    opened = tf.keras.models.load_model(variant, compile=False)
    for name, values in weights_of(opened).items():
        assert np.array_equal(values, wanted[name]), name
    model = network()
    model.set_weights([wanted[variable.path] for variable in model.weights])
    assert np.array_equal(outputs(opened, samples(folder)), outputs(model, samples(folder)))
    check_account(facts["coverage"], set(KERNELS))
    assert facts["zeros"] == sum(int((wanted[name] == 0).sum()) for name in KERNELS)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_clustering_gives_each_weight_the_nearest_of_n_values_that_are_means(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    import tensorflow as tf

    variant, facts = compress(folder / f"net{suffix}", "cluster:n=8", tmp_path)
    before, after = weights_of(network()), weights_of(tf.keras.models.load_model(variant, compile=False))
    for name, values in before.items():
        if name not in KERNELS:
            assert np.array_equal(values, after[name])
            continue
        codes = np.unique(after[name])
        assert 2 <= len(codes) <= 8
        distance = np.abs(values[..., None] - codes)
        assert np.allclose(np.abs(values - after[name]), distance.min(axis=-1))
        step = float(np.ptp(values)) / 1e3
        for code in codes:
            assert values[after[name] == code].mean() == pytest.approx(code, abs=step)
    check_account(facts["coverage"], set(KERNELS))


def stored(path: Path, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The only weight of this shape as the file means it, and the step of each value."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (tensor,) = [
        tensor
        for tensor in model.subgraphs[0].tensors
        if list(tensor.shape) == list(shape) and model.buffers[tensor.buffer].data is not None
    ]
    raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if tensor.type == schema.TensorType.FLOAT16:
        return raw.view(np.float16).reshape(shape).astype(np.float32), np.zeros(shape)
    if tensor.type == schema.TensorType.FLOAT32:
        return raw.view(np.float32).reshape(shape), None
    assert tensor.type == schema.TensorType.INT8
    assert not np.any(tensor.quantization.zeroPoint)
    scales, sizes = np.asarray(tensor.quantization.scale, np.float32), [1] * len(shape)
    if scales.size > 1:
        sizes[tensor.quantization.quantizedDimension] = -1
    steps = np.broadcast_to(scales.reshape(sizes), shape)
    return (raw.view(np.int8).reshape(shape) * steps).astype(np.float32), steps


#: Kernel → from Keras's order of axes to TFLite's.
TO_TFLITE = {
    "conv/kernel": (3, 0, 1, 2),
    "depth/kernel": (3, 0, 1, 2),
    "dense/kernel": (1, 0),
    "head/kernel": (1, 0),
}


@pytest.mark.parametrize(
    ("method", "source", "changed", "exactness"),
    [
        ("export-tflite", "net", set(), 1e-5),
        ("fp16", "net.h5", set(KERNELS), 1e-5),
        ("int8-dynamic", "net.keras", {"dense/kernel"}, 0.03),
        ("int8-static", "net.keras", set(KERNELS), 0.06),
        ("int8-static", "net", set(KERNELS), 0.06),
        ("int8-static:activations=int16", "net.keras", set(KERNELS), 2e-3),
    ],
)
def test_a_converted_file_answers_as_the_network_with_the_weights_that_it_holds(
    folder: Path, tmp_path: Path, method: str, source: str, changed: set[str], exactness: float
) -> None:
    data = load_dataset(str(folder / "samples.npz"), PluginHost(), {}) if "static" in method else None
    variant, facts = compress(folder / source, method, tmp_path, data)
    before, held = weights_of(network()), {}
    for name, order in TO_TFLITE.items():
        values, steps = stored(variant, tuple(np.transpose(before[name], order).shape))
        held[name] = np.transpose(values, np.argsort(order))
        if name not in changed:
            assert steps is None
            assert np.array_equal(held[name], before[name])
        elif method == "fp16":
            assert np.array_equal(held[name], before[name].astype(np.float16))
        else:
            assert steps is not None
            assert (np.abs(held[name] - before[name]) <= 0.501 * np.transpose(steps, np.argsort(order))).all()
    if method == "fp16":
        held = {**{name: values.astype(np.float16) for name, values in before.items()}, **held}
    model = network()
    model.set_weights([held.get(variable.path, variable.numpy()) for variable in model.weights])
    expected = outputs(model, samples(folder))
    assert np.abs(run_tflite(variant, samples(folder)) - expected).max() <= exactness * np.abs(expected).max()
    if method == "export-tflite":
        assert facts["largest_difference"] <= 1e-5
        return
    # In float16 and in integers, all biases change with the kernels.
    check_account(facts["coverage"], changed, BIASES if changed == set(KERNELS) else 0)
    if data is not None:
        assert facts["samples"] == 24
        assert facts["calibration"] == data.name
