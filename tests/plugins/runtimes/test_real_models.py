"""Published models through the first-party runtimes: the published (or once measured) accuracy must come out."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.testing import check_runtime
from edgeprof.worker.inputs import check_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions, Runtime, Session

if TYPE_CHECKING:
    from pathlib import Path

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})


def runtime_for(path: Path) -> Runtime:
    if path.suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

        return OnnxRuntime()
    if path.suffix == ".tflite":
        pytest.importorskip("ai_edge_litert")
        from edgeprof_plugins.runtimes.litert.runtime import LiteRT

        return LiteRT()
    pytest.importorskip("torch")
    from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch

    return PyTorch()


def load(path: Path) -> Session:
    return runtime_for(path).load(recognise(str(path)).target, CPU)


def correct(session: Session, samples: np.ndarray, labels: np.ndarray) -> int:
    """How many samples are classified right, one by one."""
    right = 0
    for sample, label in zip(samples, labels, strict=True):
        (scores,) = session.run(check_feeds(session.inputs, {"": sample[np.newaxis]})).values()
        right += int(np.argmax(scores) == label)
    return right


@pytest.fixture(scope="session")
def mnist(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first 1000 of MNIST's test set: uint8 (1000, 28, 28) and their digits."""
    with gzip.open(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images[:1000], labels[:1000]


def tiny(shared_data: Path, task: str, dtype: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The samples of an MLPerf Tiny task and their labels."""
    folder = shared_data / "mlperf-tiny" / task / "data"
    with (folder / "y_labels.csv").open() as file:
        rows = list(csv.reader(file))
    samples = np.stack([np.fromfile(folder / row[0], dtype).reshape(shape) for row in rows])
    return samples, np.array([int(row[2]) for row in rows])


def test_mnist_onnx_has_its_987_of_1000(shared_data, mnist):
    images, labels = mnist
    session = load(shared_data / "onnx-mnist" / "mnist.onnx")
    assert correct(session, images[:, np.newaxis].astype("float32"), labels) == 987


def test_the_deep_compression_mnist_tflite_has_its_published_98_8_percent(shared_data, mnist):
    images, labels = mnist
    session = load(shared_data / "seed-dnn-compression" / "mnist" / "quantized_model.tflite")
    assert correct(session, (images / 255).astype("float32"), labels) == 988


@pytest.mark.parametrize(
    ("name", "convert", "right"),
    [
        ("pretrainedResnet.tflite", lambda x: x.astype("float32"), 171),
        ("pretrainedResnet_quant.tflite", lambda x: (x.astype("int16") - 128).astype("int8"), 170),
    ],
)
def test_mlperf_tinys_resnet_has_its_accuracy(shared_data, name, convert, right):
    images, labels = tiny(shared_data, "ic01", "uint8", (32, 32, 3))
    session = load(shared_data / "mlperf-tiny" / "ic01" / name)
    # The kernels differ a little between processors, and a borderline image may fall to the other side.
    assert abs(correct(session, convert(images), labels) - right) <= 1


def test_mlperf_tinys_keyword_spotter_has_its_902_of_1000(shared_data):
    samples, labels = tiny(shared_data, "kws01", "int8", (49, 10, 1))
    session = load(shared_data / "mlperf-tiny" / "kws01" / "kws_ref_model.tflite")
    assert session.inputs[0].quantization == pytest.approx((0.584703, 83), rel=1e-5)
    assert abs(correct(session, samples, labels) - 902) <= 2


def test_silero_hears_the_same_through_onnx_and_torchscript(shared_data):
    """Several inputs, a state and a scalar: both files are the same network."""
    x = np.random.default_rng(0).standard_normal((1, 512)).astype("float32") * 0.1
    script = load(shared_data / "silero-vad" / "silero_vad.jit")
    heard = script.run(check_feeds(script.inputs, {"x": x, "sr": np.int64(16000)}))["output"]
    session = load(shared_data / "silero-vad" / "silero_vad_16k_op15.onnx")
    feeds = {
        "input": np.concatenate([np.zeros((1, 64), "float32"), x], axis=1),
        "state": np.zeros((2, 1, 128), "float32"),
        "sr": np.int64(16000),
    }
    assert session.run(check_feeds(session.inputs, feeds))["output"] == pytest.approx(heard, abs=1e-4)


def test_ultraface_gives_both_outputs_by_name(shared_data):
    """And sees no face in an image of one colour."""
    session = load(shared_data / "ultraface" / "version-RFB-320.onnx")
    outputs = session.run({"input": np.zeros((1, 3, 240, 320), "float32")})
    assert {name: array.shape for name, array in outputs.items()} == {"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}
    assert outputs["scores"][..., 1].max() < 0.7


@pytest.mark.parametrize(
    "name",
    [
        "onnx-mnist/mnist.onnx",
        "mlperf-tiny/kws01/kws_ref_model.tflite",
        "tflm-hello-world/hello_world_int8.tflite",
    ],
)
def test_runtimes_conform_with_published_models(shared_data, name):
    path = shared_data / name
    check_runtime(runtime_for(path), path, options=CPU)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mobilenet_v1_0.25_128_quant_edgetpu.tflite", "compiled for the Edge TPU"),
        ("model_invoking_error.tflite", "custom operator fake-op-double"),
    ],
)
def test_models_that_need_other_operators_fail_with_their_names(shared_data, name, says):
    with pytest.raises(LoadError, match=says):
        load(shared_data / "formats" / "custom-op" / name)
