"""The demo's models are what its README says, and its scripts are sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/demo"


@pytest.fixture(scope="module")
def table() -> dict[str, tuple[float, float]]:
    """The README's row of each quantity: (float32, int8)."""
    text = (DEMO / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (size|accuracy)[^|]* \| ([\d.]+) \S+ \| ([\d.]+) \S+ \|$", text, re.MULTILINE)
    return {name: (float(first), float(second)) for name, first, second in rows}


@pytest.mark.parametrize(("name", "column"), [("digits.onnx", 0), ("digits-int8.onnx", 1)])
def test_the_model_is_as_large_and_as_accurate_as_its_readme_says(name: str, column: int, table) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    test = np.load(DEMO / "digits-test.npz")
    session = onnxruntime.InferenceSession(DEMO / name, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": test["x"]})
    right = 100 * float((logits.argmax(1) == test["y"]).mean())
    # Processors with other integer instructions may round a digit or two the other way.
    assert right == pytest.approx(table["accuracy"][column], abs=0.5)
    assert (DEMO / name).stat().st_size / 1024 == pytest.approx(table["size"][column], abs=0.5)


@pytest.mark.parametrize("script", [".ci/run", "tools/venv", "examples/demo/demo.sh", "tests/kernel/build.sh"])
def test_shell_scripts_parse_and_can_be_started(script: str) -> None:
    path = ROOT / script
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench-smoke", "test-kernel", "docs"])
def test_make_knows_its_targets(target: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"^as_login (timeout [-k0-9 ]+ )?make test\b", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)


def test_bench_smoke_runs_every_benchmark_that_the_readme_of_the_benchmarks_names() -> None:
    named = set(re.findall(r"`python benchmarks/(\w+)\.py`", (ROOT / "benchmarks/README.md").read_text("utf-8")))
    (line,) = re.findall(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(line.split()) == named
