"""The exporter's benchmarks: attacks, the slope of a soak, the prices of its economies."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(tmp_path, name, *arguments):
    numbers = tmp_path / "numbers.json"
    argv = [sys.executable, BENCHMARKS / f"{name}.py", "--smoke", "--json", numbers, *arguments]
    subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(numbers.read_text())


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("soak_of_benchmarks", BENCHMARKS / "soak.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def memory(slope_mb_per_h: float, hours: float = 2.0) -> list[dict[str, float]]:
    """Readings that wander by themselves, as an allocator's do, on a slope."""
    chance, wander, rows = random.Random(3), 0.0, []
    for n in range(int(hours * 240)):
        wander = 0.98 * wander + chance.gauss(0, 0.02)
        rows.append({"at_s": 15.0 * n, "rss_mb": 22 + wander + slope_mb_per_h * 15 * n / 3600})
    return rows


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_the_slope_of_memory_is_within_its_interval_and_a_leak_is_told_from_wandering(soak, slope: float) -> None:
    middle, low, high = soak.memory_slope(memory(slope))
    assert low <= middle <= high
    assert low <= slope <= high
    assert (low > 0) is (slope > 0)


def test_too_short_a_soak_has_no_slope(soak) -> None:
    assert all(value != value for value in soak.memory_slope(memory(0.0)[:5]))


def test_attacks_press_the_exporter_and_hold_its_joules_against_the_truth(tmp_path) -> None:
    numbers = run(tmp_path, "attacks", "--port", "39383")
    ours = [row for row in numbers["crowds"] if row["server"] == "edgeprof exporter"]
    assert [row["new"] for row in ours] == [row["asked"] for row in ours]
    assert {flood["flood"] for flood in numbers["floods"]} == {"control", "short", "overlapping"}
    assert all(flood["error_percent"] > -100 for flood in numbers["floods"])


def test_each_economy_has_a_price(tmp_path) -> None:
    rows = run(tmp_path, "thrift_prices")["rows"]
    assert len(rows) >= 8
    assert all(row["saved_mib"] for row in rows)
