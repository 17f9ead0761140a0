"""The benchmarks run from one command, print a table, and put all their numbers into a file."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

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
    return done.stdout, json.loads(numbers.read_text())


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


def test_perturbation_compares_each_rate_and_a_null_control_with_the_bare_loop(tmp_path):
    text, numbers = run(tmp_path, "perturbation", "--rounds", "1", "--block", "0.1")
    assert sum("null control" in row for row in rows(text)) == 2
    assert sum("| 100 Hz" in row for row in rows(text)) == 2
    for result in numbers["results"]:
        assert result["ratios"]["bare loop"] == {"p50": [1.0], "p99": [1.0]}
        assert all(ratio > 0 for ratios in result["ratios"].values() for ratio in ratios["p50"])


def test_sampler_cost_covers_three_rates_on_a_core_alone_and_shared(tmp_path):
    text, numbers = run(tmp_path, "sampler_cost", "--seconds", "0.2")
    assert len(rows(text)) == 9
    assert "a bare pread thread at 100 Hz" in text
    assert {(r["rate_hz"], r["shared"]) for r in numbers["results"]} >= {(100.0, False), (100.0, True), (1000.0, True)}
    assert all(r["runs"][0]["threads"] > 0 for r in numbers["results"] if r["rate_hz"])


def test_startup_times_help_against_the_bare_interpreter_and_names_heavy_imports(tmp_path):
    text, numbers = run(tmp_path, "startup", "--rounds", "1")
    assert any(row.startswith("| edgeprof --help") for row in rows(text))
    assert numbers["wall_s"]["edgeprof --help"][0] > 0
    assert "edgeprof --help" not in numbers["failed"]
    assert numbers["imported"] == []


@pytest.fixture(scope="module")
def paired():
    spec = importlib.util.spec_from_file_location("paired_of_benchmarks", BENCHMARKS / "paired.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interval_of_the_median_covers_the_true_median_as_often_as_it_says(paired):
    rng = random.Random(7)
    for n in (6, 11, 20, 41):
        intervals = [paired.median_interval([rng.expovariate(1) for _ in range(n)]) for _ in range(2000)]
        covered = sum(low <= 0.6931 <= high for _, low, high in intervals) / 2000
        assert 0.94 <= covered <= 0.995


def test_the_interval_of_the_median_is_the_range_where_there_are_few_values(paired):
    assert paired.median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert paired.median_interval([5.0]) == (5.0, 5.0, 5.0)


def test_a_long_run_has_the_joules_of_each_waveform(tmp_path):
    text, numbers = run(tmp_path, "long_run")
    assert len(rows(text)) == len(numbers["results"]) == 3
    for result in numbers["results"]:
        assert result["joules"] == pytest.approx(result["true_joules"], rel=0.05)
