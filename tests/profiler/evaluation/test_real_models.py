"""Published models on published data reach their published accuracy, to the sample."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.evaluation.evaluate import evaluate
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof.verdicts.accuracy import mcnemar
from edgeprof.worker.runtime import TensorSpec
from edgeprof_plugins.metrics.topk import TopK


@pytest.fixture(scope="module")
def host():
    return PluginHost(only=["idx", "mlperf-tiny", "images", "topk", "npz", "cifar"])


def onnx(path):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [TensorSpec(i.name, tuple(i.shape), "float32", None) for i in session.get_inputs()]
    names = [output.name for output in session.get_outputs()]
    return inputs, lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def tflite(path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    inputs = [
        TensorSpec(d["name"], tuple(map(int, d["shape"])), np.dtype(d["dtype"]).name, d["quantization"])
        for d in interpreter.get_input_details()
    ]

    def infer(feeds):
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], feeds[detail["name"]])
        interpreter.invoke()
        return {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}

    return inputs, infer


def score(shared_data, host, model, data, options):
    inputs, infer = (onnx if model.endswith(".onnx") else tflite)(shared_data / model)
    return evaluate(infer, inputs, load_dataset(str(shared_data / data), host, options), TopK(1))


IC01 = {"raw": "uint8", "shape": "32x32x3"}
KWS01 = {"raw": "int8", "shape": "49x10x1"}


@pytest.mark.parametrize(
    ("model", "data", "options", "correct", "samples"),
    [
        ("seed-dnn-compression/mnist/quantized_model.tflite", "mnist", {"scale": "1/255", "limit": "1000"}, 988, 1000),
        ("mlperf-tiny/kws01/kws_ref_model.tflite", "mlperf-tiny/kws01/data", KWS01, 902, 1000),
        ("seed-dnn-compression/cifar10/quantized_model.tflite", "cifar10-jpeg/test", {"scale": "1/255"}, 389, 500),
    ],
)  # fmt: skip
def test_accuracy_to_the_sample(shared_data, host, model, data, options, correct, samples):
    found = score(shared_data, host, model, data, options)
    assert (int(found.correct.sum()), found.samples) == (correct, samples)


def test_the_whole_of_mnist(shared_data, host):
    options = {"layout": "NCHW", "dtype": "float32"}
    found = score(shared_data, host, "onnx-mnist/mnist.onnx", "mnist", options)
    assert (int(found.correct[:1000].sum()), int(found.correct.sum())) == (987, 9891)


def test_one_declaration_serves_the_float_model_and_its_int8_variant(shared_data, host):
    """MLPerf Tiny's image classification: 171 and 170 of 200, a difference that is not significant (McNemar)."""
    options = {**IC01, "quantise": "input"}
    base = score(shared_data, host, "mlperf-tiny/ic01/pretrainedResnet.tflite", "mlperf-tiny/ic01/data", options)
    int8 = score(shared_data, host, "mlperf-tiny/ic01/pretrainedResnet_quant.tflite", "mlperf-tiny/ic01/data", options)
    assert (int(base.correct.sum()), int(int8.correct.sum())) == (171, 170)
    assert mcnemar(base.correct, int8.correct) > 0.5


def test_wrong_numbers_give_wrong_accuracy_and_not_an_error_that_hides_it(shared_data, host):
    """kws01's float model with raw bytes gets 99 of 1000 right; therefore preprocessing is declared and hashed."""
    model = "mlperf-tiny/kws01/kws_ref_model_float32.tflite"
    raw = {**KWS01, "dtype": "float32"}
    right = {**KWS01, "scale": "0.58470291", "mean": "48.53034153"}
    assert int(score(shared_data, host, model, "mlperf-tiny/kws01/data", raw).correct.sum()) == 99
    assert int(score(shared_data, host, model, "mlperf-tiny/kws01/data", right).correct.sum()) == 900
