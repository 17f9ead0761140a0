"""The comparison with benchmark tools pairs every round, and times the same calls in both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "benchmark_tools.py"


@pytest.mark.slow
def test_a_bare_loop_and_edgeprof_are_compared_in_each_round(tmp_path):
    numbers = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--smoke", "--json", numbers],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| onnxruntime")]
    assert "a bare loop" in row
    (seconds,) = json.loads(numbers.read_text())["seconds"].values()
    assert set(seconds) == {"tool", "tool again", "edgeprof"}
    assert all(0 < value < 1 for values in seconds.values() for value in values)


def test_without_its_tool_a_comparison_ends_in_a_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--smoke", "--gguf", tmp_path / "m.gguf", "--llama-bench", "/does/not/exist"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "/does/not/exist is not a program that can be run"
