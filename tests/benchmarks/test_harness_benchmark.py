"""The benchmark of the loop's own cost runs from one command, and pairs its loops round by round."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[2] / "benchmarks" / "harness.py"


def test_harness_prints_what_edgeprof_adds_to_a_bare_loop_and_keeps_every_round(tmp_path):
    numbers = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, HARNESS, "--smoke", "--json", numbers],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum("| edgeprof" in line for line in done.stdout.splitlines()) == 2
    assert "target ≤ 0.5 µs per inference" in done.stdout
    for seconds in json.loads(numbers.read_text())["seconds_per_call"].values():
        assert set(seconds) == {"bare", "edgeprof", "by hand"}
        assert {len(values) for values in seconds.values()} == {10}
        assert all(value > 0 for values in seconds.values() for value in values)
