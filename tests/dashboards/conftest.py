"""A small site, set up as the documentation says: two virtual devices, their exporters, one Prometheus."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from edgeprof.results.store import Store
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import Pieces
from tests.dashboards.tools import Exporter, Prometheus, edgeprof, hurried, needed, until
from tests.profiler.results import samples

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.results.schema import Result

BOARDS = {"orin-1": "jetson-agx-orin", "pi-1": "raspberry-pi-5"}
#: A frame of an application: what runs, for how long (s), and the power of the device meanwhile (W).
FRAME = (("idle", 0.45, 4.0), ("detect", 0.35, 9.0), ("embed", 0.2, 7.75))
MEAN_W = sum(seconds * watts for _, seconds, watts in FRAME) / sum(seconds for _, seconds, _ in FRAME)
#: What an application in production does: some ten inferences a second of two variants, and the stages of a frame at
#: the times at which the power of its board changes. It is given the time at which the board was switched on.
APPLICATION = f"""
import sys, threading, time
import edgeprof

def infer():
    while True:
        with edgeprof.track("yolov8s", variant="int8", runtime="onnxruntime"):
            time.sleep(0.02)
        with edgeprof.track("yolov8s", variant="baseline", runtime="onnxruntime"):
            time.sleep(0.05)
        time.sleep(0.03)

def wait(until_s):
    time.sleep(max(0.0, until_s - time.monotonic()))

threading.Thread(target=infer, daemon=True).start()
start_s, frame = float(sys.argv[1]), {FRAME!r}
length_s = sum(seconds for _, seconds, _ in frame)
while True:
    begin_s = start_s + round((time.monotonic() - start_s) / length_s) * length_s
    for name, seconds, _ in frame:
        wait(begin_s)
        begin_s += seconds
        if name != "idle":
            with edgeprof.stage(name, model="yolov8s", variant="int8", runtime="onnxruntime"):
                wait(begin_s)
"""


@dataclass
class Site:
    """What runs.

    Attributes:
        exporters: By the name in the inventory.
        folder: Where ``edgeprof dashboards export`` wrote to.
    """

    prometheus: Prometheus
    exporters: dict[str, Exporter]
    folder: Path


def _study_of(device: str) -> Result:
    """The same study on both devices: on pi-1 a quarter dearer, and one variant by a meter of the whole board."""
    result = samples.study()
    for variant in result.variants if device == "pi-1" else []:
        energy = variant.energy_j_per_inference
        if energy is not None and energy.gross.value is not None:
            energy.gross.value *= 1.25
            energy.covers = "board" if variant.name == "int8-static" else energy.covers
    return result


def _simulated_study() -> Result:
    """What a virtual board would have measured: its rows stand apart from those of real ones."""
    result = samples.study()
    result.id = "20261121-1413-sim"
    for variant in result.variants:
        variant.model.name = "another"
        if variant.energy_j_per_inference is not None:
            variant.energy_j_per_inference.provenance = "simulated"
    return result


@pytest.fixture(scope="module")  # what runs here uses a third of a core; one file of tests needs it
def site(tmp_path_factory: pytest.TempPathFactory):
    """Two devices under a real Prometheus with every shipped rule; scraped and evaluated every second."""
    needed("prometheus")
    pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")
    base = tmp_path_factory.mktemp("site")
    folder = base / "monitoring"
    edgeprof("dashboards", "export", str(folder))
    with contextlib.ExitStack() as stack:
        exporters = {}
        for name, board in BOARDS.items():
            power = Pieces([(seconds, watts, watts) for _, seconds, watts in FRAME], repeat=True)
            live = stack.enter_context(LiveBoard(board, base / name / "board", power))
            stored = Store(base / name / "run" / "data")
            stored.save(_study_of(name))
            stored.save(samples.language())
            stored.save(_simulated_study())
            exporters[name] = Exporter(live.layout.directory, base / name / "run")
            stack.callback(exporters[name].end)
            track = exporters[name].track
            environ = {
                **os.environ,
                "EDGEPROF_TRACK_SOCKET": str(track),
                "EDGEPROF_STAGES": str(track.parent / "stages"),
            }
            application = subprocess.Popen([sys.executable, "-c", APPLICATION, str(live.started)], env=environ)
            stack.callback(application.wait)
            stack.callback(application.terminate)
        inventory = folder / "inventory.toml"
        inventory.write_text(
            '[labels]\nsite = "lab"\n'
            + "".join(f'[[devices]]\nname = "{name}"\naddress = "{one.address}"\n' for name, one in exporters.items())
        )
        targets = folder / "prometheus" / "targets" / "edgeprof.json"
        edgeprof("dashboards", "targets", str(inventory), "-o", str(targets))
        hurried(folder / "prometheus")
        prometheus = Prometheus(folder / "prometheus")
        stack.callback(prometheus.end)
        until(lambda: len(prometheus.query("edgeprof_bench_last_run_success")) >= 6, what="no benchmark is scraped")
        # Rates need some seconds; the offset of the comparison needs as many before that.
        until(lambda: prometheus.query("count_over_time(edgeprof_build_info[15s]) >= 13"), what=prometheus.said)
        # The joules of stages come with each fit, every half minute; they grow with the second one.
        grown = "increase(edgeprof_stages_with_energy_total[15s]) > 0"
        until(lambda: len(prometheus.query(grown)) == 4, seconds=180, what="the stages have no joules")
        yield Site(prometheus, exporters, folder)
