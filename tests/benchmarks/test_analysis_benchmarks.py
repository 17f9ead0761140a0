"""The benchmarks of the analysis run from one command and come out where they should, even when short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(tmp_path, name, *arguments):
    numbers = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--smoke", "--json", numbers, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") > 2
    return json.loads(numbers.read_text())


def test_integration_error_meets_its_targets(tmp_path):
    """Windows of 1 s within 0.1 %; behind the 0.43 s filter, bursts from 20 ms within 0.5 % beyond the step's share."""
    for cell in run(tmp_path, "integration_error")["work"]:
        if "INA3221" in cell["part"]:
            assert abs(cell["mean"]) <= 0.005 + cell["allowed"], cell
        elif cell["window_s"] >= 1:
            assert cell["rms"] <= 0.001, cell


def test_coverage_is_reported_for_every_sensor(tmp_path):
    results = run(tmp_path, "coverage", "--trials", "8")["results"]
    assert len({cell["sensor"] for cell in results}) == 3
    assert sum(cell["gross"] for cell in results) / len(results) > 0.85


def test_the_truth_table_holds_gross_net_and_ratios_against_known_truths(tmp_path):
    """Six runs of two conditions: that the figures are near the truth, and that one command shows it."""
    for condition in run(tmp_path, "truth")["results"]:
        for figure in ("gross", "net", "ratio"):
            assert abs(condition[figure]["bias"]) < 0.03, condition["name"]
            assert condition[figure]["cover"] > 0.5
