"""OpenCV's dnn module through edgeprof's contract."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions

pytest.importorskip("cv2", reason="OpenCV is not installed here: make test-runtimes")

from edgeprof_plugins.runtimes.opencv import graph_inputs
from edgeprof_plugins.runtimes.opencv.runtime import OpenCv

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


def test_conforms_and_gives_the_right_answer(onnx_model):
    check_runtime(OpenCv(), onnx_model, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CPU)


@pytest.mark.parametrize("engine", ["auto", "classic"])
def test_it_agrees_with_onnx_runtime_on_a_published_detector(shared_data, engine):
    pytest.importorskip("onnxruntime")
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    path = str(shared_data / "detection" / "FastestDet.onnx")
    image = np.random.default_rng(0).random((1, 3, 352, 352), "float32")
    (wanted,) = OnnxRuntime().load(path, CPU).run({"input.1": image}).values()
    session = OpenCv().load(path, CPU._replace(options={"engine": engine}))
    (answer,) = session.run({"input.1": image}).values()
    np.testing.assert_allclose(answer, wanted, rtol=1e-2, atol=1e-3)
    assert session.facts["engine"].startswith(engine)


def test_each_call_computes_again(shared_data):
    """What a window repeats must not be the outputs of the call before."""
    session = OpenCv().load(str(shared_data / "detection" / "FastestDet.onnx"), CPU)
    feeds = {"input.1": np.zeros((1, 3, 352, 352), "float32")}
    profile = session.profile_operators(feeds, 5)
    assert sum(one.seconds for one in profile.operators) > 0.5 * profile.seconds


def test_operators_are_told_apart(shared_data):
    session = OpenCv().load(str(shared_data / "detection" / "FastestDet.onnx"), CPU)
    profile = session.profile_operators({"input.1": np.zeros((1, 3, 352, 352), "float32")}, 3)
    assert any("Conv" in one.type for one in profile.operators)
    assert sum(one.seconds for one in profile.operators) <= 1.05 * profile.seconds


def test_what_the_file_takes_and_gives_is_read_from_it(onnx_model, shared_data):
    known = graph_inputs.read(str(onnx_model))
    assert [(spec.name, spec.shape, spec.dtype) for spec in known.inputs] == [("x", ("batch", 4), "float32")]
    assert [spec.name for spec in known.outputs] == ["y"]
    detector = graph_inputs.read(str(shared_data / "detection" / "FastestDet.onnx"))
    assert [(spec.name, spec.shape) for spec in detector.inputs] == [("input.1", (1, 3, 352, 352))]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "cuda"}, "cannot use --device cuda"),
        ({"options": {"engine": "fast"}}, "no option engine=fast"),
        ({"shapes": {"z": (1, 4)}}, "names 'z', which is no input"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(onnx_model, changes, says):
    with pytest.raises(LoadError, match=says):
        OpenCv().load(str(onnx_model), CPU._replace(**changes))
