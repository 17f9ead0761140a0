"""The benchmarks of stages run from one command each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(script: str, numbers: Path) -> str:
    command = [sys.executable, FOLDER / script, "--smoke", "--json", numbers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stages_are_held_to_the_truth_by_regression_and_by_repetition(tmp_path):
    pytest.importorskip("scipy")
    numbers = tmp_path / "numbers.json"
    text = run("stages.py", numbers)
    assert "| regression |" in text
    rows = {row["how"]: row["results"][0] for row in json.loads(numbers.read_text())["rows"]}
    assert rows["varies"]["detect"][0] == pytest.approx(1.0, abs=0.15)
    assert rows["repeat"]["detect"][0] == pytest.approx(1.0, abs=0.1)


def test_the_cost_of_a_stage_is_told_in_readings_of_the_clock(tmp_path):
    numbers = tmp_path / "numbers.json"
    assert "edgeprof.stage, to a ring" in run("stage_overhead.py", numbers)
    assert all(len(values) == 3 for values in json.loads(numbers.read_text())["reads"].values())
