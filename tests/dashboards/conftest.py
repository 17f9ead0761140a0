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
from edgeprof.simulation.waveform import parse
from tests.dashboards.tools import Exporter, Prometheus, edgeprof, hurried, needed, until
from tests.profiler.results import samples

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.results.schema import Result

BOARDS = {"orin-1": "jetson-agx-orin", "pi-1": "raspberry-pi-5"}
#: What an application in production does: some ten inferences a second of two variants.
APPLICATION = """
import time
import edgeprof
while True:
    with edgeprof.track("yolov8s", variant="int8", runtime="onnxruntime"):
        time.sleep(0.02)
    with edgeprof.track("yolov8s", variant="baseline", runtime="onnxruntime"):
        time.sleep(0.05)
    time.sleep(0.03)
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


@pytest.fixture(scope="session")
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
            live = stack.enter_context(LiveBoard(board, base / name / "board", parse("sine:4W,9W,5s")))
            stored = Store(base / name / "run" / "data")
            stored.save(_study_of(name))
            stored.save(samples.language())
            stored.save(_simulated_study())
            exporters[name] = Exporter(live.layout.directory, base / name / "run")
            stack.callback(exporters[name].end)
            environ = {**os.environ, "EDGEPROF_TRACK_SOCKET": str(exporters[name].track)}
            application = subprocess.Popen([sys.executable, "-c", APPLICATION], env=environ)
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
        yield Site(prometheus, exporters, folder)
