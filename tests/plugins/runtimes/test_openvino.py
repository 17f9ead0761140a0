"""OpenVINO through edgeprof's contract."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions
from tests import models

pytest.importorskip("openvino", reason="OpenVINO is not installed here: make test-runtimes")

from edgeprof_plugins.runtimes.openvino import OpenVino

if TYPE_CHECKING:
    from pathlib import Path

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


@pytest.fixture(scope="module")
def affine(tmp_path_factory) -> Path:
    """y = 2x + 1 in OpenVINO's own format, ``x [?, 4]``."""
    import openvino

    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("openvino")
    model = openvino.Core().read_model(str(models.onnx_affine(folder / "affine.onnx")))
    openvino.save_model(model, str(folder / "affine.xml"), compress_to_fp16=False)
    return folder / "affine.xml"


def test_conforms_and_gives_the_right_answer(affine):
    check_runtime(OpenVino(), affine, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CPU)


def test_onnx_and_tflite_files_are_read_as_they_are(affine, tflite_model):
    assert OpenVino().load(str(affine.with_suffix(".onnx")), CPU).run({"x": X})["y"].tolist() == (2 * X + 1).tolist()
    session = OpenVino().load(str(tflite_model), CPU)
    (answer,) = session.run({session.inputs[0].name: X}).values()
    assert answer.tolist() == (2 * X).tolist()


def test_it_agrees_with_onnx_runtime_on_a_published_detector(shared_data):
    pytest.importorskip("onnxruntime")
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    path = str(shared_data / "detection" / "FastestDet.onnx")
    image = np.random.default_rng(0).random((1, 3, 352, 352), "float32")
    (wanted,) = OnnxRuntime().load(path, CPU).run({"input.1": image}).values()
    (answer,) = OpenVino().load(path, CPU).run({"input.1": image}).values()
    np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-4)


def test_it_says_what_really_runs(affine):
    facts = OpenVino().load(str(affine), CPU).facts
    assert facts["threads"] == "1"
    assert facts["streams"] == "1"
    assert facts["precision"] in ("f32", "f16", "bf16")
    assert facts["executed on"] == "CPU"
    assert "FP32" in facts["capabilities"]


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_precision_that_the_processor_has_no_units_for_is_refused_or_said(affine, precision):
    plain = OpenVino().load(str(affine), CPU)
    try:
        facts = OpenVino().load(str(affine), CPU._replace(options={"precision": precision})).facts
    except LoadError as error:
        assert f"where precision={precision} was asked for" in error.message  # noqa: PT017 - either is right
    else:
        has_units = precision.replace("f16", "F16").upper() in plain.facts["capabilities"]
        assert facts["precision"] == (precision if has_units else f"{precision}, without units for it: it is emulated")


def test_a_queue_keeps_the_device_busy_and_can_be_waited_for(affine):
    session = OpenVino().load(str(affine), CPU._replace(options={"hint": "throughput", "requests": "2"}))
    call = session.bind_queued({"x": X})
    for _ in range(8):
        call()
    session.synchronize()
    assert session.facts["queue"] == "2 requests"
    session.close()


def test_open_sizes_can_be_fixed_when_the_model_is_loaded(affine):
    session = OpenVino().load(str(affine), CPU._replace(batch=3, options={"static": "1"}))
    assert session.inputs[0].shape == (3, 4)
    assert session.facts["shapes"] == "fixed"


def test_operators_are_told_apart_and_lie_within_the_call(shared_data):
    session = OpenVino().load(str(shared_data / "detection" / "FastestDet.onnx"), CPU)
    feeds = {"input.1": np.zeros((1, 3, 352, 352), "float32")}
    profile = session.profile_operators(feeds, 10)
    assert any(one.type == "Convolution" for one in profile.operators)
    assert 0.5 * profile.seconds < sum(one.seconds for one in profile.operators) <= 1.1 * profile.seconds


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "gpu:7"}, "no device 'gpu:7'"),
        ({"device": "myriad"}, "no device 'myriad'"),
        ({"options": {"hint": "fast"}}, "hint=fast"),
        ({"options": {"precision": "f8"}}, "precision 'f8'"),
        ({"options": {"property.NO_SUCH": "1"}}, "no property NO_SUCH"),
        ({"shapes": {"z": (1, 4)}}, "names 'z', which is no input"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(affine, changes, says):
    with pytest.raises(LoadError, match=says):
        OpenVino().load(str(affine), CPU._replace(**changes))


def test_the_weights_of_another_model_are_refused(affine, tmp_path):
    shutil.copy(affine, tmp_path / "affine.xml")
    (tmp_path / "affine.bin").write_bytes(b"")
    with pytest.raises(LoadError, match=r"affine\.xml does not fit the weights in the \.bin"):
        OpenVino().load(str(tmp_path / "affine.xml"), CPU)
