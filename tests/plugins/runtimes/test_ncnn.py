"""ncnn through edgeprof's contract."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions

pytest.importorskip("ncnn", reason="ncnn is not installed here: make test-runtimes")

from edgeprof_plugins.runtimes.ncnn import Ncnn

SHAPES = {"input.1": (1, 3, 352, 352)}
CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes=SHAPES, options={})


@pytest.fixture
def detector(shared_data, tmp_path):
    """A published detector: a .param with its .bin beside it."""
    for suffix in (".param", ".bin"):
        shutil.copy(shared_data / "detection" / f"FastestDet{suffix}", tmp_path)
    return tmp_path / "FastestDet.param"


def test_conforms(detector):
    check_runtime(Ncnn(), detector, options=CPU)


def test_it_agrees_with_onnx_runtime_on_the_model_that_it_was_converted_from(detector, shared_data):
    pytest.importorskip("onnxruntime")
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    image = np.random.default_rng(0).random((1, 3, 352, 352), "float32")
    onnx = OnnxRuntime().load(str(shared_data / "detection" / "FastestDet.onnx"), CPU._replace(shapes={}))
    (wanted,) = onnx.run({"input.1": image}).values()
    (answer,) = Ncnn().load(str(detector), CPU).run({"input.1": image}).values()
    assert answer.shape == wanted.shape
    assert np.linalg.norm(answer - wanted) < 0.01 * np.linalg.norm(wanted)  # its weights are float16


def test_a_shape_that_the_file_leaves_open_is_asked_for(detector):
    session = Ncnn().load(str(detector), CPU._replace(shapes={}))
    assert session.inputs[0].shape == ("...",)


@pytest.mark.parametrize(
    "change", [lambda b: b[:1000], lambda b: b[:-4], lambda b: b + b"\0" * 4, lambda b: b"\x13" * 9999]
)
def test_the_weights_of_another_model_are_refused(detector, change):
    weights = detector.with_suffix(".bin")
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(LoadError, match=r"FastestDet\.bin is not the \.bin of FastestDet\.param"):
        Ncnn().load(str(detector), CPU)


def test_a_network_that_is_cut_off_is_refused(detector):
    lines = detector.read_text().splitlines()
    detector.write_text("\n".join(lines[:-1]))
    with pytest.raises(LoadError, match="not a complete ncnn network"):
        Ncnn().load(str(detector), CPU)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "cuda"}, "no device 'cuda'"),
        ({"batch": 2}, "one sample at a time"),
        ({"options": {"fp16": "yes"}}, "no option fp16=yes"),
        ({"shapes": {"z": (1, 4)}}, "names 'z', which is no input"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(detector, changes, says):
    with pytest.raises(LoadError, match=says):
        Ncnn().load(str(detector), CPU._replace(**changes))
