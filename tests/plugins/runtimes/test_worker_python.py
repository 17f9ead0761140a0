"""The runtime files under the Pythons of boards: 3.6 on JetPack 4."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeprof_plugins.runtimes as runtimes
from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario
from tests import models

FOLDER = Path(next(iter(runtimes.__path__)))
CLASSES = {"onnxruntime": "OnnxRuntime", "litert": "LiteRT", "pytorch": "PyTorch", "python": "Python"}
CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})


def file_of(name: str) -> Path:
    """Where a runtime's class is: a file of its own, or ``runtime.py`` in its folder."""
    return FOLDER / "python.py" if name == "python" else FOLDER / name / "runtime.py"


def test_every_runtime_file_is_here():
    assert [name for name in CLASSES if not file_of(name).exists()] == []


def test_the_runtime_files_keep_to_the_grammar_of_python_3_6():
    vermin = Path(sys.executable).with_name("vermin")
    if not vermin.exists():
        pytest.skip("vermin is not installed")
    files = [str(path) for path in FOLDER.rglob("*.py")]
    done = subprocess.run(
        [str(vermin), "-t=3.6-", "--no-tips", "--violations", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_callable_runs_under_python_3_6(tmp_path, python36):
    app = tmp_path / "app.py"
    app.write_text("import numpy as np\n\ndef frame():\n    return np.arange(3) * 2\n")
    spec = WorkerSpec(file_of("python"), "Python", f"{app}:frame", CPU, python=python36, timeout_s=60)
    with Worker(spec) as worker:
        assert worker.load().python.startswith("3.6.")
        assert worker.infer({})["output"].tolist() == [0, 2, 4]


@pytest.mark.parametrize("name", ["onnxruntime", "litert", "pytorch"])
def test_a_library_that_the_other_python_lacks_is_named_there(tmp_path, python36, name):
    """The file itself is imported by the old Python: its grammar and its imports hold."""
    library = {"onnxruntime": "onnxruntime", "litert": "tflite_runtime", "pytorch": "torch"}[name]
    if subprocess.run([python36, "-c", f"import {library}"], capture_output=True, check=False).returncode == 0:
        pytest.skip(f"{python36} has {library}")
    model = tmp_path / "model"
    model.write_bytes(b"nothing")
    spec = WorkerSpec(file_of(name), CLASSES[name], str(model), CPU, python=python36, timeout_s=60)
    with Worker(spec) as worker, pytest.raises(VariantError, match="not installed") as caught:
        worker.load()
    assert "-m pip install" in caught.value.remedy  # into that Python, which cannot have edgeprof's extras


@pytest.mark.parametrize("version", ["3.6", "3.8"])
def test_onnx_runtime_of_an_old_python_gives_our_answers(old_python, tmp_path, version):
    model = models.onnx_affine(tmp_path / "old.onnx", opset=12)
    feeds = {"x": np.arange(4, dtype="float32").reshape(1, 4)}
    spec = WorkerSpec(file_of("onnxruntime"), "OnnxRuntime", str(model), CPU, timeout_s=60)
    with Worker(replace(spec, python=old_python(version))) as old:
        loaded = old.load()
        assert loaded.python.startswith(version)
        assert old.warm_up(0.05, 1.0).inferences >= 10
        assert old.window(Scenario(), 0.1).span.count > 10
        np.testing.assert_allclose(old.infer(feeds)["y"], 2 * feeds["x"] + 1)


def test_tflite_runtime_of_python_3_8_gives_our_answers(old_python, tflite_model):
    spec = WorkerSpec(file_of("litert"), "LiteRT", str(tflite_model), CPU, python=old_python("3.8"), timeout_s=60)
    with Worker(spec) as worker:
        loaded = worker.load()
        assert "tflite-runtime" in loaded.version
        feeds = {loaded.inputs[0].name: np.arange(4, dtype="float32").reshape(1, 4)}
        (doubled,) = worker.infer(feeds).values()
        np.testing.assert_allclose(doubled, 2 * np.arange(4).reshape(1, 4))
