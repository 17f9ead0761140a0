"""MNN through edgeprof's contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions
from tests import models

pytest.importorskip("MNN", reason="MNN is not installed here: make test-runtimes")

from edgeprof_plugins.runtimes.mnn import Mnn

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


def convert(onnx: Path, target: Path) -> Path:
    """By the converter that the wheel brings."""
    tool = Path(sys.executable).with_name("mnnconvert")
    command = [str(tool), "-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(target), "--bizCode", "x"]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def affine(tmp_path_factory) -> Path:
    """y = 2x + 1."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("mnn")
    return convert(models.onnx_affine(folder / "affine.onnx"), folder / "affine.mnn")


def test_conforms_and_gives_the_right_answer(affine):
    check_runtime(Mnn(), affine, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CPU)


def test_it_agrees_with_onnx_runtime_on_a_published_detector(shared_data, tmp_path):
    pytest.importorskip("onnxruntime")
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    source = shared_data / "detection" / "FastestDet.onnx"
    image = np.random.default_rng(0).random((1, 3, 352, 352), "float32")
    (wanted,) = OnnxRuntime().load(str(source), CPU).run({"input.1": image}).values()
    (answer,) = Mnn().load(str(convert(source, tmp_path / "m.mnn")), CPU).run({"input.1": image}).values()
    np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-3)


def test_its_files_are_known_by_their_name_since_their_bytes_say_nothing(affine):
    assert recognise(str(affine)).format == "mnn"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "npu"}, "no device 'npu'"),
        ({"options": {"precision": "exact"}}, "no option precision=exact"),
        ({"shapes": {"z": (1, 4)}}, "names 'z', which is no input"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(affine, changes, says):
    with pytest.raises(LoadError, match=says):
        Mnn().load(str(affine), CPU._replace(**changes))
