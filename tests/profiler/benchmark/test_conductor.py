"""The conductor, end to end: real workers, and the real sensors' code on trees whose power is known."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from edgeprof import hookimpl
from edgeprof.benchmark import foreign_load
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.errors import GateError, InputError, UnavailableError, VariantError
from edgeprof.launch import process
from edgeprof.launch.supervisor import Worker
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.results.document import from_json, to_json
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.simulation import layouts, tree
from tests.profiler.watching import Watcher, status_apart_from_load

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.results.schema import Result

pytestmark = pytest.mark.usefixtures("forked_workers")
APPLICATION = """
import os, time

def steady():
    time.sleep(0.005)

def slower():
    time.sleep(0.025)

def nothing():
    pass

def crash():
    os.abort()

calls = 0
def crash_later():
    global calls
    calls += 1
    time.sleep(0.002)
    if calls > 150:
        os.abort()
"""


@pytest.fixture(scope="session")
def host() -> PluginHost:
    return PluginHost()


@pytest.fixture(autouse=True)
def a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the characterisation: a tree that does not change has no refresh to be found."""
    monkeypatch.setattr("edgeprof.sensing.prepare.CHARACTERISE_S", 0.1)


@pytest.fixture
def application(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APPLICATION)
    return path


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """An unchanging tree of an Orin Nano whose module draws 5 W and whose CPU+GPU rail draws 2 W."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    layout = layouts.build("jetson-orin-nano", tmp_path / "sys")
    tree.set_power(layout, "VDD_IN", 5.0, volts=5.0)
    tree.set_power(layout, "VDD_CPU_GPU_CV", 2.0, volts=5.0)
    (tmp_path / "sys" / SIMULATION_MARKER).write_text("{}")
    return Roots.resolve(tmp_path / "sys")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """A machine on which nothing measures power."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "sys").mkdir()
    return Roots.resolve(tmp_path / "sys")


def request(application: Path, *functions: str, **kwargs) -> BenchRequest:
    models = [ModelRequest(f"{application}:{function}", function) for function in functions]
    settings = {"windows": 3, "window_s": 0.2, "idle_s": 0.1, "warmup_s": 0.05, "timeout_s": 20.0} | kwargs
    return BenchRequest(models=models, preset="quick", **settings)


def test_joules_are_the_rails_power_times_the_time_of_an_inference(application, orin, host):
    watcher = Watcher()
    result = bench(request(application, "steady", window_s=0.6), host, orin, watcher)
    (variant,) = result.variants
    energy = variant.energy_j_per_inference
    assert energy is not None
    assert energy.gross.value == pytest.approx(5.0 / variant.throughput_per_s, rel=0.01)
    assert (energy.provenance, energy.rail, energy.covers) == ("simulated", "VDD_IN", "module")
    assert energy.rails["VDD_CPU_GPU_CV"] == pytest.approx(2.0 / variant.throughput_per_s, rel=0.03)
    assert energy.gross.budget.gain > 0
    # On an unchanging tree, idle draws as much as work, so the net energy of an inference is reported as unknown.
    assert energy.net.value is None
    assert variant.power_w.mean == pytest.approx(5.0, rel=0.01)
    assert variant.latency_s.median == pytest.approx(0.005, rel=0.3)
    assert variant.memory_bytes.peak_rss > 5e6
    assert "VDD_IN covers the module" in watcher.lines[0]
    assert "5.00 W" in watcher.live
    assert watcher.ended


def test_variants_take_turns_and_are_compared_window_by_window(application, orin, host):
    watcher = Watcher()
    result = bench(request(application, "steady", "slower", windows=4, window_s=0.6), host, orin, watcher)
    order = [stage.split(" · ")[1] for stage in watcher.stages if stage.startswith("window")]
    assert order == ["steady", "slower", "slower", "steady", "steady", "slower", "slower", "steady"]
    assert result.protocol.interleave == "ABBA"
    (comparison,) = result.comparisons
    assert comparison.verdict == "worse"
    rates = [variant.throughput_per_s for variant in result.variants]
    assert comparison.energy_ratio.value == pytest.approx(rates[0] / rates[1], rel=0.2)
    assert comparison.energy_ratio.ci95[0] > 1.0
    assert result.pareto == ["steady"]


def test_a_variant_that_could_not_be_made_is_not_the_model_that_it_was_to_come_from(application, orin, host):
    asked = request(application, "steady")
    failure = VariantError("prune failed", remedy="Prune less.", code="bad_graph")
    asked = replace(asked, models=[*asked.models, ModelRequest(f"{application}:steady", "pruned", failure=failure)])
    result = bench(asked, host, orin, watcher := Watcher())
    steady, pruned = result.variants
    assert steady.inferences > 0
    assert (pruned.status, pruned.inferences, pruned.windows, pruned.model.sha256) == ("failed", 0, [], None)
    assert (pruned.reasons[0].code, pruned.reasons[0].remedy) == ("bad_graph", "Prune less.")
    assert result.comparisons[0].verdict == "not_comparable"
    assert "pruned: prune failed" in watcher.notes
    assert not any("pruned" in stage for stage in watcher.stages)


def test_a_variant_that_dies_costs_itself_alone(application, orin, host, monkeypatch):
    # Below the model's lines the stack of a fork has the test's, and only its end is kept.
    monkeypatch.setattr(process, "subprocess", subprocess)
    result = bench(request(application, "crash", "steady", "crash_later"), host, orin, Watcher())
    statuses = {variant.name: variant.status for variant in result.variants}
    assert statuses["crash"] == "failed"
    assert statuses["crash_later"] == "failed"
    assert statuses["steady"] in {"ok", "degraded"}
    dead = result.variants[0]
    assert dead.reasons[0].code == "crashed"
    assert "SIGABRT" in dead.reasons[0].message
    assert "crash" in (dead.last_words or "")
    assert all(window.energy_j > 0 for window in result.variants[1].windows)


@pytest.mark.parametrize(("ours_s", "status"), [(1.0, "ok"), (0.2, "degraded")])
def test_a_variant_whose_windows_other_programs_disturbed_is_degraded(
    application, bare, host, monkeypatch, ours_s, status
):
    """One of two processors is always busy; it depends on whether this run or another program uses it."""
    count = itertools.count()
    monkeypatch.setattr(
        foreign_load, "_read_counters", lambda _: foreign_load._Reading(n := float(next(count)), 2 * n, ours_s * n)
    )
    result = bench(request(application, "steady", windows=2), host, bare, Watcher())
    (variant,) = result.variants
    assert variant.status == status
    codes = [reason.code for reason in (*variant.reasons, *result.reasons)]
    assert codes.count("competing_load") == (status == "degraded"), "it is said exactly where it counts"


def test_the_time_stamps_of_a_fast_model_are_not_its_memory(application, orin, host):
    result = bench(request(application, "steady", "nothing", windows=1, window_s=1.0), host, orin, Watcher())
    slow, fast = (variant.memory_bytes.peak_rss for variant in result.variants)
    assert result.variants[1].inferences > 50_000
    # The peak of such windows is 170 to 210 MB higher; afterwards the allocator keeps a tenth of that.
    assert fast < slow + 60e6


def test_where_memory_is_short_variants_run_one_after_the_other(application, bare, host, monkeypatch):
    short = psutil.virtual_memory()._replace(available=500 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: short)
    watcher = Watcher()
    result = bench(request(application, "steady", "crash", "slower", windows=2), host, bare, watcher)
    assert result.protocol.interleave == "sequential"
    assert "one after the other (memory)" in watcher.lines[1]
    assert [status_apart_from_load(v) for v in result.variants] == ["ok", "failed", "ok"]
    assert [[w.order for w in v.windows] for v in result.variants] == [[1, 2], [], [3, 4]]
    loads = [n for n, stage in enumerate(watcher.stages) if stage.startswith("load")]
    windows = [n for n, stage in enumerate(watcher.stages) if stage.startswith("window")]
    assert loads[-1] > windows[1], "the last is loaded when the first has been measured and is gone"


def test_several_models_are_measured_where_no_proc_tells_of_memory(application, bare, host, monkeypatch):
    def missing():
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", missing)
    result = bench(request(application, "steady", "slower", windows=1), host, bare, Watcher())
    assert result.protocol.interleave == "sequential", "nobody knows that both fit"
    assert all(variant.inferences > 0 for variant in result.variants)


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(9)])
def test_a_runtime_whose_factory_fails_leaves_the_others_alone(application, bare, error):
    class Hostile:
        @hookimpl
        def register_runtimes(self, register):
            def factory():
                raise error

            register("hostile", factory)

    made = PluginHost()
    made.register(Hostile(), PluginInfo("worse", "worse", "1"))
    result = bench(request(application, "steady", windows=1), made, bare, Watcher())
    assert status_apart_from_load(result.variants[0]) == "ok"
    asked = replace(request(application, "steady"), models=[ModelRequest(f"{application}:steady")], runtime="hostile")
    with pytest.raises(UnavailableError, match="the runtime hostile cannot be used") as caught:
        bench(asked, made, bare, Watcher())
    assert "plugin worse" in caught.value.remedy


def test_without_a_sensor_joules_are_estimates_that_say_so(application, bare, host):
    result = bench(request(application, "steady", estimate_power_w=4.0), host, bare, Watcher())
    (variant,) = result.variants
    assert variant.energy_j_per_inference.provenance == "estimated"
    gross = variant.energy_j_per_inference.gross
    assert gross.expanded_uncertainty >= 0.5 * gross.value
    assert any(reason.code == "estimated" for reason in variant.reasons)


def test_strict_refuses_to_run_where_only_an_estimate_is_possible(application, bare, host):
    watcher = Watcher()
    with pytest.raises(GateError, match="--strict accepts no estimate"):
        bench(request(application, "steady", strict=True), host, bare, watcher)
    assert watcher.stages == []


def test_an_interruption_keeps_the_windows_that_were_measured(application, orin, host):
    def interrupt(stage: str) -> None:
        if stage.startswith("window 6/"):
            raise KeyboardInterrupt

    watcher = Watcher(interrupt)
    result = bench(request(application, "steady", "slower", windows=4), host, orin, watcher)
    assert result.interrupted
    assert [len(variant.windows) for variant in result.variants] == [3, 2]
    for window in (window for variant in result.variants for window in variant.windows):
        assert window.energy_j == pytest.approx(5.0 * (window.end_s - window.start_s), rel=0.01)
    assert any(reason.code == "interrupted" for reason in result.reasons)
    assert watcher.ended


@pytest.mark.parametrize(("stopped", "status"), [(1, "ok"), (3, "failed")])
def test_a_window_that_stood_still_is_left_out_and_measured_again(
    application, orin, host, monkeypatch, stopped, status
):
    measured, told = Worker.window, iter(["was stopped by a signal"] * stopped)

    def window(self, *arguments, **named):
        return measured(self, *arguments, **named)._replace(standstill=next(told, None))

    monkeypatch.setattr(Worker, "window", window)
    (variant,) = bench(request(application, "steady"), host, orin, Watcher()).variants
    assert variant.status == status
    assert "stopped" in {reason.code for reason in variant.reasons}
    assert len(variant.windows) == (3 if status == "ok" else 0)


def test_an_interruption_before_any_window_leaves_no_invented_number(application, orin, host):
    def interrupt(stage: str) -> None:
        if stage.startswith("idle"):
            raise KeyboardInterrupt

    result = bench(request(application, "steady"), host, orin, Watcher(interrupt))
    (variant,) = result.variants
    assert variant.status == "failed"
    assert variant.energy_j_per_inference is None
    assert variant.reasons[0].code == "interrupted"


def test_the_result_survives_the_way_through_its_file(application, orin, host):
    result: Result = bench(request(application, "steady"), host, orin, Watcher())
    again = from_json(to_json(result))
    assert json.loads(to_json(again)) == json.loads(to_json(result))
    assert again.schema == "edgeprof.result/1"
    sampled = {(use.sensor, use.channel, use.quantity) for use in again.sensors if use.samples}
    assert ("ina3221", "VDD_IN", "power") in sampled


def test_a_periodic_scenario_tells_what_an_inference_costs_at_any_rate(application, orin, host):
    result = bench(
        request(application, "steady", scenario="periodic", rate_hz=20.0, window_s=0.5), host, orin, Watcher()
    )
    (variant,) = result.variants
    assert variant.throughput_per_s == pytest.approx(20.0, rel=0.1)
    # The wait for the next frame is part of the joules of a frame.
    assert variant.energy_j_per_inference.gross.value == pytest.approx(5.0 / 20.0, rel=0.1)


def test_too_high_a_rate_is_called_saturated(application, orin, host):
    result = bench(
        request(application, "slower", scenario="server", rate_hz=400.0, windows=1, window_s=0.5), host, orin, Watcher()
    )
    assert any(reason.code == "saturated" for reason in result.variants[0].reasons)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"runtime": "onnxruntim"}, InputError, "Did you mean onnxruntime"),
        ({"runtime": "onnxruntime"}, InputError, "which the runtime onnxruntime does not load"),
        ({"sensors": ["ina322"]}, InputError, "Did you mean ina3221"),
        ({"rail": "VDD_INN"}, InputError, "VDD_IN"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_before_anything_runs(application, orin, host, change, error, words):
    watcher = Watcher()
    with pytest.raises(error) as caught:
        bench(request(application, "steady", **change), host, orin, watcher)
    assert words in f"{caught.value.message} {caught.value.remedy}"
    assert watcher.stages == []


def test_no_runtime_for_a_format_names_the_command_that_adds_one(tmp_path, orin):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises((InputError, UnavailableError)):
        bench(BenchRequest(models=[ModelRequest(str(tmp_path / "m.onnx"))]), PluginHost(only=[]), orin, Watcher())
