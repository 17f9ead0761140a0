"""A model of two workloads on a virtual board whose power differs between them: the truth per unit of each is known."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgeprof.cli.gate import command as gate
from edgeprof.errors import InputError
from edgeprof.reporters import console, csv_rows, html_page, markdown, view
from edgeprof.results import document, schema
from edgeprof.results.store import Store
from edgeprof.verdicts.gate import of_workload
from tests.profiler.benchmark import virtual_device
from tests.profiler.benchmark.two_workloads import POWER, Two
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[schema.Result, Watcher]:
    watcher = Watcher()
    result = virtual_device.measure(
        Two,
        {"plain": "two:1", "slow": "two:2"},
        POWER["idle"],
        tmp_path_factory.mktemp("two"),
        watcher,
        windows=3,
        window_s=1.0,
        idle_s=2.0,
        warmup_s=0.05,
    )
    return result, watcher


@pytest.fixture(scope="module")
def result(measured) -> schema.Result:
    return measured[0]


def test_each_workload_has_the_joules_of_its_own_power_per_its_own_unit(measured):
    result, _ = measured
    for variant in result.variants:
        for workload in variant.workloads:
            seconds = sum(window.end_s - window.start_s for window in workload.windows)
            truth = POWER[workload.name] * seconds / workload.count
            energy = workload.energy_j_per_unit
            for window in workload.windows:
                joules = POWER[workload.name] * (window.end_s - window.start_s)
                assert window.energy_j == pytest.approx(joules, rel=0.001)
            assert energy.gross.value == pytest.approx(truth, rel=0.01, abs=energy.gross.expanded_uncertainty)
            net = (POWER[workload.name] - POWER["idle"]) * seconds / workload.count
            assert energy.net.value == pytest.approx(net, rel=0.01, abs=energy.net.expanded_uncertainty)
            assert workload.throughput_per_s == pytest.approx(workload.count / seconds)
            calls = workload.count / workload.units_per_call
            assert 0.9 * calls < workload.latency_s.samples < calls  # without those of the first 50 ms of each window
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


def test_variants_and_workloads_take_turns_as_one_interleaved_order(measured):
    result, watcher = measured
    stages = [stage for stage in watcher.stages if stage.startswith("window")]
    members = [stage.split(" · ")[1] for stage in stages]
    forward = ["plain request", "plain decode", "slow request", "slow decode"]
    assert members == [*forward, *reversed(forward), *forward]
    assert any(note.startswith("4 workloads to measure: about ") for note in watcher.notes)
    orders = sorted(window.order for v in result.variants for w in v.workloads for window in w.windows)
    assert orders == list(range(1, 13))


def test_comparisons_speak_of_each_workload(result):
    (comparison,) = result.comparisons
    assert [part.name for part in comparison.workloads] == ["request", "decode"]
    for part in comparison.workloads:
        assert part.latency_ratio.value == pytest.approx(2.0, rel=0.01)
        assert part.energy_ratio.value == pytest.approx(2.0, rel=0.02)
        assert part.verdict == "worse"
    assert comparison.workloads[0].energy_ratio == comparison.energy_ratio
    assert "; decode: " in view.comparison_text(comparison, None)


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
        assert row["energy_gross_j"] == str(workload.energy_j_per_unit.gross.value)
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


def test_the_exporter_tells_each_workload_in_its_unit_and_nothing_more_of_a_model_with_one(result, tmp_path: Path):
    from edgeprof_exporters.results_reader import read

    Store(tmp_path).save(result)
    energy = read(tmp_path)["edgeprof_bench_workload_energy_joules_per_unit"]
    shown = {(labels[1], labels[4], labels[5]): value for labels, value in energy if labels[-1] == "gross"}
    assert shown == {
        (variant.name, workload.name, workload.unit): workload.energy_j_per_unit.gross.value
        for variant in result.variants
        for workload in variant.workloads
    }
    alone = [msgspec.structs.replace(variant, workloads=variant.workloads[:1]) for variant in result.variants]
    Store(tmp_path / "alone").save(msgspec.structs.replace(result, variants=alone))
    assert not [name for name in read(tmp_path / "alone") if "workload" in name]
