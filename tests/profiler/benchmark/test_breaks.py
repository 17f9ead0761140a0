"""Boards and meters that fail, change and come back during a bench.

The bench must not crash or invent values, and it must report every gap together with the joules.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.plugins import PluginHost
from edgeprof.results.document import to_json
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.simulation.layouts import build
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: A callable that sleeps.
NAP = "import time\n\n\ndef nap():\n    time.sleep(0.01)\n"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bench the callable and return the result as read from its file; ``at`` is called with each stage."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("edgeprof.sensing.prepare.CHARACTERISE_S", 0.1)  # a still picture has no refresh to find

    def run(roots: Roots, at: Callable[[str], None], *sensors: str, window_s: float) -> dict[str, Any]:
        (tmp_path / "nap.py").write_text(NAP)
        request = BenchRequest(
            models=[ModelRequest(f"{tmp_path}/nap.py:nap")], preset="quick", sensors=list(sensors) or None,
            windows=3, window_s=window_s, idle_s=0.2, warmup_s=0.1,
        )  # fmt: skip
        return json.loads(to_json(bench(request, PluginHost(), roots, Watcher(at))))

    return run


@pytest.mark.parametrize("seed", [1, 2])
def test_a_board_that_breaks_at_random_degrades_the_joules_and_invents_none(tmp_path, measure, seed: int) -> None:
    """Every current in the tree is 1 A at 5 V, or broken, so that all joules must come from 5 W."""
    layout = build("jetson-orin-nano", tmp_path / "tree")
    (tmp_path / "tree" / SIMULATION_MARKER).write_text("{}")
    currents = [rail.current for rail in layout.rails.values()]
    for rail in layout.rails.values():
        rail.current.write_text("1000\n")
        rail.voltage.write_text("5000\n")
    chance, done = random.Random(seed), threading.Event()

    def vandal() -> None:
        while not done.wait(0.01):
            path = chance.choice(currents)
            if path.is_dir():
                path.rmdir()
            what = chance.choice(["good", "good", "empty", "text", "gone", "directory", "huge"])
            if what in {"gone", "directory"}:
                path.unlink(missing_ok=True)
                if what == "directory":
                    path.mkdir()
            else:
                path.write_text({"good": "1000\n", "empty": "", "text": "none\n", "huge": "9" * 30 + "\n"}[what])

    thread = threading.Thread(target=vandal)

    def at(stage: str) -> None:
        if stage.startswith("window 1/"):
            thread.start()  # the sensor has been discovered by now

    try:
        result = measure(Roots.resolve(tmp_path / "tree"), at, window_s=0.6)
    finally:
        done.set()
        thread.join()
    (variant,) = result["variants"]
    assert variant["status"] in {"ok", "degraded"}
    for window in variant["windows"]:
        if window["mean_power_w"] is not None:
            assert window["mean_power_w"] == pytest.approx(5.0, rel=1e-3)
    for strip in result["traces"]:
        assert {round(watts, 3) for watts in strip["power_w"] if watts is not None} <= {5.0}
    missed = [use for use in result["sensors"] if use["quantity"] == "power" and use["missed"] > 0]
    assert missed
    codes = {reason["code"] for reason in variant["reasons"]}
    if variant["status"] == "ok":
        assert all((use["max_gap_s"] or 0) < 0.2 for use in missed if use["channel"] == "VDD_IN")
    else:
        assert codes & {"gaps", "few_samples", "no_samples", "uncertain"}


def test_a_meter_that_stops_talking_degrades_the_result_with_the_time_that_was_lost(tmp_path, measure) -> None:
    """It sends lines in the first window and none in the second; its last reading must not be held."""
    quiet = tmp_path / "quiet"
    (tmp_path / "talk.py").write_text(
        "import os, time\nwhile True:\n"
        f"    if not os.path.exists({str(quiet)!r}): print('W=5.0', flush=True)\n    time.sleep(0.02)\n"
    )
    (tmp_path / "sys").mkdir()

    def at(stage: str) -> None:
        if stage.startswith("window 2/"):
            quiet.touch()

    result = measure(
        Roots.resolve(tmp_path / "sys"), at, f"meter:command:{sys.executable} {tmp_path}/talk.py", window_s=1.2
    )
    (variant,) = result["variants"]
    assert variant["status"] == "degraded"
    assert variant["energy_j_per_inference"]["rail"] == "meter"
    said = " ".join(reason["message"] for reason in [*variant["reasons"], *result["reasons"]])
    assert "said nothing for" in said
    assert any(reason["code"] in {"gaps", "no_samples"} for reason in variant["reasons"])
    powers = [window["mean_power_w"] for window in variant["windows"]]
    assert powers[0] == pytest.approx(5.0)
    assert powers[1:] == [None, None]
