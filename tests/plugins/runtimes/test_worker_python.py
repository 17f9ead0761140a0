"""The runtime files under the Pythons of boards: 3.6 on JetPack 4."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprof_plugins.runtimes as runtimes
from edgeprof.errors import VariantError
from edgeprof.workload.runtime import LoadOptions
from edgeprof.workload.supervisor import Worker, WorkerSpec

FOLDER = Path(next(iter(runtimes.__path__)))
CLASSES = {"onnxruntime": "OnnxRuntime", "litert": "LiteRT", "pytorch": "PyTorch", "python": "Python"}
CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})


@pytest.fixture(scope="session")
def python36() -> str:
    """A Python 3.6 with numpy."""
    found = [shutil.which("python3.6"), *map(str, Path.home().glob(".pyenv/versions/3.6*/bin/python3.6"))]
    for python in filter(None, found):
        if subprocess.run([python, "-c", "import numpy"], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("no python3.6 with numpy on PATH or under ~/.pyenv")


def test_every_runtime_file_is_here():
    assert {path.stem for path in FOLDER.glob("[!_]*.py")} >= set(CLASSES)


def test_the_runtime_files_keep_to_the_grammar_of_python_3_6():
    vermin = Path(sys.executable).with_name("vermin")
    if not vermin.exists():
        pytest.skip("vermin is not installed")
    files = [str(path) for path in FOLDER.glob("*.py")]
    done = subprocess.run(
        [str(vermin), "-t=3.6-", "--no-tips", "--violations", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_callable_runs_under_python_3_6(tmp_path, python36):
    app = tmp_path / "app.py"
    app.write_text("import numpy as np\n\ndef frame():\n    return np.arange(3) * 2\n")
    spec = WorkerSpec(FOLDER / "python.py", "Python", f"{app}:frame", CPU, python=python36, timeout_s=60)
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
    spec = WorkerSpec(FOLDER / f"{name}.py", CLASSES[name], str(model), CPU, python=python36, timeout_s=60)
    with Worker(spec) as worker, pytest.raises(VariantError, match="not installed") as caught:
        worker.load()
    assert "-m pip install" in caught.value.remedy  # into that Python, which cannot have edgeprof's extras
