"""A tree that changes, breaks and comes back during sampling must cause no crash and no invented value."""

from __future__ import annotations

import math
import random
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from pathlib import Path

#: The only currents (mA) that the test writes: 10 and 20 steps of 8 mA, at 5 V.
CURRENTS = (80, 160)
SECONDS = 1.0


def spoil(path: Path, choice: random.Random) -> None:
    """Do one thing that can happen to a file, or write a good value again."""
    kind = choice.choice(["good", "good", "good", "empty", "text", "gone", "directory"])
    if path.is_dir():
        path.rmdir()
    if kind == "good":
        path.write_text(f"{choice.choice(CURRENTS)}\n")
    elif kind == "empty":
        path.write_text("")
    elif kind == "text":
        path.write_text("no number\n")
    else:
        path.unlink(missing_ok=True)
        if kind == "directory":
            path.mkdir()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_board_that_breaks_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    layout = build("jetson-orin-nano", tmp_path / "sys")
    currents = [rail.current for rail in layout.rails.values() if rail.current is not None]
    for path in currents:
        path.write_text(f"{CURRENTS[0]}\n")
    found = discover(PluginHost(), Roots.resolve(layout.directory, environ={}))
    done = threading.Event()
    choice = random.Random(seed)

    def vandal() -> None:
        while not done.wait(0.005):
            spoil(choice.choice(currents), choice)
            zone = layout.zones["gpu-thermal"]
            if choice.random() < 0.1:
                shutil.rmtree(zone.parent, ignore_errors=True)
            elif not zone.exists():
                zone.parent.mkdir(parents=True, exist_ok=True)
                zone.write_text("47000\n")

    thread = threading.Thread(target=vandal)
    thread.start()
    try:
        with Sampler(found.sensors, 200, found.topology.by_key()) as sampler:
            done.wait(SECONDS)
    finally:
        done.set()
        thread.join()
    assert sampler.failures() == []
    lost = 0
    for channel in found.topology.channels:
        if channel.quantity != "power" or not channel.available:
            continue
        values = list(sampler.trace.series(channel.key).values)
        good = [value for value in values if not math.isnan(value)]
        assert good, f"{channel.name} never came back"
        assert {round(value, 6) for value in good} <= {0.4, 0.8}
        lost += len(values) - len(good)
    assert lost > 0, "what was lost is not shown as unknown"
    gaps = {s.key: s.max_gap_s for s in sampler.stats()}
    assert all(gaps[channel.key] for channel in found.topology.headline.channels)
