"""A whole scrape, byte for byte, of a virtual board that stands still under clocks that are turned by hand.

``EDGEPROF_WRITE_GOLDEN=1 pytest tests/exporters/test_golden.py`` writes it anew; read the diff before you commit it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")

from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from edgeprof.plugins import PluginHost, sensor_points
from edgeprof.roots import Roots
from edgeprof.sensing.device.power_mode import mode_and_governor
from edgeprof.sensing.discover import discover
from edgeprof.simulation.layouts import build
from edgeprof.simulation.tree import set_power
from edgeprof_exporters import engine as engine_module
from edgeprof_exporters import views
from edgeprof_exporters.engine import Engine
from edgeprof_exporters.exposition import Encoder, Exposition, build_info
from edgeprof_exporters.inferences import Inferences
from edgeprof_exporters.messages import parse
from edgeprof_exporters.push import rows_of
from edgeprof_exporters.throttling import Throttling
from tests.clocks import turn_clock
from tests.profiler.results import samples as made

GOLDEN = Path(__file__).with_name("golden")
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


class Quiet:
    """In the Sampler's place: nothing is read but by hand."""

    def __init__(self, sensors, *_, **__) -> None:
        self._sensors = sensors

    def start(self) -> None:
        for tap in self._sensors:
            tap.open()

    def stop(self) -> None:
        for tap in self._sensors:
            tap.close()

    def stats(self):
        return [SimpleNamespace(key=(tap.name,), samples=30, missed=1) for tap in self._sensors]


@pytest.fixture
def exposition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three seconds of a board whose rails stand still: a reading each 0.1 s, and four inferences in the second one."""
    clock = SimpleNamespace(now=5000.0)
    monkeypatch.setattr(engine_module, "Sampler", Quiet)
    layout = build("jetson-orin-nano", tmp_path / "board")
    for rail, watts in zip(layout.rails, (6.0, 2.5, 1.25), strict=False):
        set_power(layout, rail, watts)
    roots = Roots.resolve(tmp_path / "board", None)
    found = discover(PluginHost(sensor_points()), roots, ["ina3221", "jetson", "system", "thermal"], None)
    turn_clock(
        monkeypatch,
        monotonic=lambda: clock.now,
        perf_counter=lambda: clock.now,
        time=lambda: 1_800_000_000.0 + clock.now,
    )
    monkeypatch.setattr(views, "_machine_labels", lambda: ("aarch64", "5.15.148-tegra"))
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.0")
    engine = Engine()
    engine.start(found)
    throttling = Throttling(roots)
    throttling.look()
    inferences = Inferences(engine.history)
    inferences.take(parse(b"EP1 5001000000000 5002000000000 4\tyolov8s\tint8\ttensorrt", 5003.0))
    inferences.take(None)
    for tick in range(31):
        clock.now = 5000.0 + tick / 10
        for tap in engine.taps:
            values, times = ([float("nan")] * len(tap.channels), [clock.now] * len(tap.channels))
            tap.read(values, times)
    yield Exposition(
        {
            "power": lambda: views.power(engine),
            "device": lambda: views.device(engine, roots, throttling, mode_and_governor(roots)),
            "inference": lambda: views.inference(inferences, engine),
            "bench": lambda: rows_of([made.study()]),
            "sampler": lambda: views.sampler(engine),
            "process": lambda: {**build_info("0.1.0"), **views.messages(inferences)},
        }
    )
    engine.stop()


@pytest.mark.parametrize(("accept", "name"), [("", "scrape.txt"), (OPEN_METRICS, "scrape.openmetrics")])
def test_a_scrape_is_what_was_once_looked_at_and_found_right(exposition: Exposition, accept: str, name: str) -> None:
    encode, form = choose_encoder(accept)
    text = Encoder().text(exposition.registry(), encode, form)
    path = GOLDEN / name
    if os.environ.get("EDGEPROF_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    assert text == path.read_bytes()


def test_promtool_has_no_objection_to_it_and_prometheus_clients_parser_reads_it() -> None:
    text = (GOLDEN / "scrape.txt").read_text("utf-8")
    assert len(list(text_string_to_metric_families(text))) > 30
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
