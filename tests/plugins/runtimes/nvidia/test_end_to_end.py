"""TensorRT as a user meets it: the command line, a board's old Python, the compressor, a machine without any of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.cli.main import run
from edgeprof.worker.tensorrt_plan import describe_plan, read_plan
from tests.plugins.runtimes.nvidia.conftest import OPEN, STANDINS, environment

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--windows", "2", "--window", "0.2", "--warmup", "0.1", "--idle", "0.1", "-q")


def edgeprof(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeprof", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EDGEPROF_DATA_DIR": os.environ.get("EDGEPROF_DATA_DIR", ""), **(env or {})},
        timeout=110,
    )


@pytest.fixture
def env(cuda_libraries, tmp_path):
    """``env(generation)``: what makes a process see the stand-ins."""

    def make(generation: str) -> dict[str, str]:
        return {**environment(cuda_libraries, generation, tmp_path / "cache"), "EDGEPROF_DATA_DIR": str(tmp_path / "d")}

    return make


def result_of(path: Path) -> dict:
    found: dict = json.loads(path.read_text())
    return found


def test_bench_of_an_engine_tells_the_gpus_part_of_the_time(env, engine, tmp_path):
    out = tmp_path / "r.json"
    model = engine("10", OPEN)
    done = edgeprof("bench", str(model), *QUICK, "--batch", "4", "--scenario", "offline", "-o", str(out), env=env("10"))
    assert done.returncode == 0, done.stderr
    (variant,) = result_of(out)["variants"]
    assert variant["runtime"]["name"] == "tensorrt"
    assert variant["runtime"]["device"] == "cuda"
    gpu = variant["gpu"]
    assert gpu["queue"] == "full"
    assert 0 < gpu["compute_s"] < gpu["wall_s"]
    assert 0 < gpu["transfer_ratio"] < 1
    assert gpu["samples"] > 1


@pytest.mark.parametrize("version", ["3.6", "3.8"])
def test_a_boards_own_python_runs_its_own_tensorrt(old_python, env, engine, tmp_path, version):
    """As on a Jetson Nano: TensorRT 8.2 in the system's Python, edgeprof in another."""
    python, out = old_python(version), tmp_path / "r.json"
    generation = {"3.6": "8.2", "3.8": "8.6"}[version]
    given = env(generation)
    wrapper = tmp_path / "python3"  # the stand-ins are for that Python alone, as a vendor's packages are
    wrapper.write_text(
        f'#!/bin/sh\nLD_LIBRARY_PATH={given["LD_LIBRARY_PATH"]} PYTHONPATH={given["PYTHONPATH"]} exec {python} "$@"\n'
    )
    wrapper.chmod(0o755)
    del given["LD_LIBRARY_PATH"], given["PYTHONPATH"]
    done = edgeprof(
        "bench", str(engine(generation)), *QUICK, "--worker-python", str(wrapper), "-o", str(out), env=given
    )
    assert done.returncode == 0, done.stderr
    (variant,) = result_of(out)["variants"]
    assert variant["runtime"]["facts"]["tensorrt"].startswith(generation)
    assert variant["gpu"]["queue"] == "empty"


def test_an_engine_that_fails_costs_itself_only(env, engine, onnx_model, tmp_path):
    out = tmp_path / "r.json"
    old = tmp_path / "old.engine"
    old.write_bytes(engine("8.6").read_bytes())
    done = edgeprof("bench", str(engine("10")), str(old), *QUICK, "-o", str(out), env=env("10"))
    assert done.returncode == 3
    good, bad = result_of(out)["variants"]
    assert good["inferences"] > 0
    assert bad["status"] == "failed"
    assert "was built by TensorRT 8.6.1.0, and this is TensorRT 10.3.0" in bad["reasons"][0]["message"]


def test_as_a_compressor_it_makes_an_engine_that_is_benched_beside_the_model(env, onnx_model, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "r.json"
    done = edgeprof(
        "bench", str(onnx_model), "--with", "tensorrt:precision=fp16", *QUICK, "-o", str(out), env=env("10")
    )
    assert done.returncode == 0, done.stderr
    base, made = result_of(out)["variants"]
    assert (base["runtime"]["name"], base["runtime"]["device"]) == ("onnxruntime", "cpu")
    assert made["runtime"]["version"] == "10.3.0"
    assert (made["runtime"]["name"], made["runtime"]["device"]) == ("tensorrt", "cuda")
    assert made["recipe"][0]["facts"]["precision"] == "fp16"
    assert made["recipe"][0]["facts"]["tensorrt"] == "10.3.0"


def test_compress_calibrates_on_the_dataset_and_checks_the_engine(env, onnx_model, tmp_path):
    data, folder, scales = tmp_path / "data.npz", tmp_path / "out", tmp_path / "scales"
    np.savez(data, x=np.ones((12, 4), np.float32), y=np.zeros(12, np.int64))
    chain = f"tensorrt:precision=int8,samples=6,calibration_cache={scales}"
    done = edgeprof(
        "compress", str(onnx_model), "--with", chain, "--dataset", str(data), "-o", str(folder), "-q", env=env("10")
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert scales.read_text() == "sum 24"  # six samples of four ones
    (made,) = folder.glob("*.engine")
    plan = read_plan(str(made))
    assert plan is not None
    assert plan.version == "10.3.0.0"


def test_without_tensorrt_a_real_plan_is_told_and_refused(shared_data, capfd):
    plan = shared_data / "formats" / "tensorrt" / "mnist.engine"
    if not plan.exists():
        pytest.skip(f"no {plan}")
    found = read_plan(str(plan))
    assert found is not None
    assert (found.version, found.compute, found.size) == ("10.0.1.6", "7.5", plan.stat().st_size)
    assert describe_plan(found) == "built by TensorRT 10.0.1.6 for a GPU of compute capability 7.5"
    assert run(["bench", str(plan), "-q"]) == 2
    said = capfd.readouterr().err
    assert "built by TensorRT 10.0.1.6 for a GPU of compute capability 7.5" in said
    assert "tensorrt: " in said
    assert "--worker-python /usr/bin/python3" in said


def test_a_real_plan_meets_the_wrong_tensorrt_and_the_wrong_gpu(shared_data, trt):
    from edgeprof.errors import VariantError

    plan = shared_data / "formats" / "tensorrt" / "mnist.engine"
    if not plan.exists():
        pytest.skip(f"no {plan}")
    with pytest.raises(VariantError, match=r"was built by TensorRT 10\.0\.1\.6, and this is TensorRT 8\.2\.1\.8"):
        trt("8.2", plan).load()


def test_a_pointer_of_git_lfs_named_like_an_engine_is_called_one(shared_data, capfd):
    pointer = shared_data / "formats" / "lfs-pointer" / "model.engine"
    if not pointer.exists():
        pytest.skip(f"no {pointer}")
    assert run(["bench", str(pointer), "-q"]) == 2
    assert "is a Git LFS pointer, not the model itself" in capfd.readouterr().err


def test_the_runtime_conforms(env, engine):
    """edgeprof's own conformance suite, in a process that sees the stand-ins: loads, right outputs, open batch, wrong
    dtype, damaged files, no growth, memory back; and ten thousand inferences, however long they take.
    """
    code = (
        "import sys, numpy as np, psutil\n"
        "from edgeprof.testing import check_runtime\n"
        "from edgeprof.worker.runtime import LoadOptions\n"
        "from edgeprof_plugins.runtimes.tensorrt.runtime import TensorRT\n"
        "x = np.array([[1, 2, 3, 4]], np.float32)\n"
        "options = LoadOptions('cuda', None, 1, {}, {})\n"
        "check_runtime(TensorRT(), sys.argv[1], feeds={'x': x}, expected={'y': 2 * x + 1}, options=options)\n"
        "call = TensorRT().load(sys.argv[1], options).bind({'x': x})\n"
        "for _ in range(1000): call()\n"
        "before = psutil.Process().memory_info().rss\n"
        "for _ in range(10000): call()\n"
        "print(psutil.Process().memory_info().rss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(engine("10", OPEN))],
        env={**os.environ, **env("10")},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 4 << 20


def test_the_stand_ins_keep_to_the_grammar_of_python_3_6(old_python):
    """They run where the worker runs."""
    files = [str(path) for path in STANDINS.rglob("*.py")]
    done = subprocess.run(
        [old_python("3.6"), "-c", "import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
