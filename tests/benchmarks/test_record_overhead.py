"""The benchmark of a span's overhead runs from one command, and pairs its loops round by round."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "record_overhead.py"


def test_it_prints_a_ratio_for_a_span_and_says_why_zeus_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    numbers = tmp_path / "numbers.json"
    run = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--json", numbers], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "| edgeprof span" in run.stdout
    assert "| Zeus window" in run.stdout
    seconds = json.loads(numbers.read_text())["cpu_seconds_per_call"]
    assert {len(values) for values in seconds.values()} == {6}
    assert all(value > 0 for values in seconds.values() for value in values)
