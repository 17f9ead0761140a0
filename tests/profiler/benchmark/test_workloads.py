"""A model of two workloads on a virtual board whose power differs between them: the truth per unit of each is known."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.cli.gate import command as gate
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.reporters import console, csv_rows, html_page, markdown
from edgeprof.results import document, schema
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.simulation import layouts, tree
from edgeprof.verdicts.gate import of_workload
from tests.profiler.benchmark.two_workloads import Two
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from pathlib import Path

#: Watts of the module while a workload runs, and without work.
POWER = {"request": 8.0, "decode": 5.0, "idle": 2.0}


class Plugin:
    from edgeprof import hookimpl

    @hookimpl
    def register_runtimes(self, register: Any) -> None:
        register("two", Two)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> schema.Result:
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        patch.setattr("edgeprof.sensing.prepare.CHARACTERISE_S", 0.1)
        layout = layouts.build("jetson-orin-nano", folder / "sys")
        tree.set_power(layout, "VDD_IN", POWER["idle"], volts=5.0)
        (folder / "sys" / SIMULATION_MARKER).write_text("{}")
        models = []
        for name, factor in (("plain", 1), ("slow", 2)):
            (folder / name).write_text(f"two:{factor}")
            models.append(ModelRequest(str(folder / name), name))

        def set_power(stage: str) -> None:
            for what, watts in POWER.items():
                if (stage.startswith("window") and stage.endswith(what)) or stage.startswith(what):
                    tree.set_power(layout, "VDD_IN", watts, volts=5.0)

        host = PluginHost()
        host.register(Plugin(), PluginInfo("two", "two", "1"))
        request = BenchRequest(
            models=models, preset="quick", windows=3, window_s=0.8, idle_s=1.5, warmup_s=0.05, timeout_s=20.0
        )
        watcher = Watcher(set_power)
        made = bench(request, host, Roots.resolve(folder / "sys"), watcher)
        made.reasons.append(schema.Reason("stages", json.dumps(watcher.stages)))
        return made


def test_each_workload_has_the_joules_of_its_own_power_per_its_own_unit(result):
    for variant in result.variants:
        for workload in variant.workloads:
            seconds = sum(window.end_s - window.start_s for window in workload.windows)
            energy = workload.energy_j_per_unit
            assert energy.gross.value == pytest.approx(POWER[workload.name] * seconds / workload.count, rel=0.02)
            net = (POWER[workload.name] - POWER["idle"]) * seconds / workload.count
            assert energy.net.value == pytest.approx(net, rel=0.03)
            assert workload.throughput_per_s == pytest.approx(workload.count / seconds)
            assert workload.count == workload.units_per_call * workload.latency_s.samples
            assert (energy.provenance, energy.rail) == ("simulated", "VDD_IN")
    plain = result.variants[0]
    assert [(w.name, w.unit, w.units_per_call) for w in plain.workloads] == [
        ("request", "request", 1),
        ("decode", "output token", 16),
    ]


def test_the_main_workload_is_what_the_variants_own_figures_say(result):
    for variant in result.variants:
        main = variant.workloads[0]
        assert variant.energy_j_per_inference == main.energy_j_per_unit
        assert (variant.latency_s, variant.throughput_per_s) == (main.latency_s, main.throughput_per_s)
        assert (variant.inferences, variant.unit) == (main.count, "request")


def test_variants_and_workloads_take_turns_as_one_interleaved_order(result):
    stages = [stage for stage in json.loads(result.reasons[-1].message) if stage.startswith("window")]
    members = [stage.split(" · ")[1] for stage in stages]
    forward = ["plain request", "plain decode", "slow request", "slow decode"]
    assert members == [*forward, *reversed(forward), *forward]
    orders = sorted(window.order for v in result.variants for w in v.workloads for window in w.windows)
    assert orders == list(range(1, 13))


def test_comparisons_speak_of_each_workload(result):
    (comparison,) = result.comparisons
    assert [part.name for part in comparison.workloads] == ["request", "decode"]
    for part in comparison.workloads:
        assert part.latency_ratio.value == pytest.approx(2.0, rel=0.1)
        assert part.energy_ratio.value == pytest.approx(2.0, rel=0.1)
        assert part.verdict == "worse"
    assert comparison.workloads[0].energy_ratio == comparison.energy_ratio


def test_a_result_with_workloads_is_read_back_as_it_was_written(result):
    assert document.from_json(document.to_json(result)) == result


def test_every_report_shows_each_workload_with_its_unit(result):
    shown = [console.render(result), markdown.render([result]), html_page.render([result])]
    for text in shown:
        assert "output token" in text
        assert "request" in text
    assert "energy / request" in shown[0]
    assert "energy / inference" not in shown[0]


def test_the_csv_has_a_row_for_each_workload(result):
    rows = list(csv.DictReader(io.StringIO(csv_rows.render([result]))))
    assert [(row["variant"], row["workload"], row["unit"]) for row in rows] == [
        ("plain", "request", "request"),
        ("plain", "decode", "output token"),
        ("slow", "request", "request"),
        ("slow", "decode", "output token"),
    ]
    for row, workload in zip(rows, [w for v in result.variants for w in v.workloads], strict=True):
        assert float(row["energy_gross_j"]) == workload.energy_j_per_unit.gross.value
        assert int(row["inferences"]) == workload.count
        assert row["dropped"] == ""
        assert row["windows_cut_short"] == "0"


def test_a_gate_holds_the_workload_that_is_named(result, tmp_path: Path):
    from click.testing import CliRunner

    path = tmp_path / "two.json"
    path.write_text(document.to_json(result))
    joules = {w.name: w.energy_j_per_unit.gross.value for w in result.variants[0].workloads}
    limit = f"{(joules['request'] * joules['decode']) ** 0.5:.6f}"  # between the two
    asked = [str(path), "--variant", "plain", "--max-j", limit]
    assert CliRunner().invoke(gate, asked, standalone_mode=False).return_value == 1
    assert CliRunner().invoke(gate, [*asked, "--workload", "decode"], standalone_mode=False).return_value == 0
    with pytest.raises(InputError, match="no workload is named 'decod'"):
        of_workload(result, "decod")
