"""history, compare, gate and report as a user types them: exit codes, one clear sentence, and clean JSON."""

from __future__ import annotations

import json

import pytest

from edgeprof.cli.main import run
from edgeprof.results import document, files, schema
from edgeprof.results.store import Store
from tests.profiler.results import samples


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A separate store and working directory, a screen of 120 columns, and no plugins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_PLUGINS", "")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def edgeprof(capfd):
    def call(*argv):
        code = run(list(argv))
        out, err = capfd.readouterr()
        return code, out, err

    return call


def write(name, result):
    files.write(files.Path(name), document.to_json(result))


def branch(factor=1.032):
    result = samples.study()
    result.id, result.created = "20261122-0900-bbb", "2026-11-22T09:00:00+00:00"
    for window in result.variants[1].windows:
        window.energy_j *= factor
    return result


class TestHistory:
    def test_before_the_first_run_it_says_what_to_do(self, edgeprof):
        code, out, _ = edgeprof("history")
        assert code == 0
        assert "edgeprof bench MODEL" in out

    def test_lists_runs_newest_first_with_provenance(self, edgeprof):
        Store().save(samples.study())
        late = samples.estimated()
        late.id, late.created = "20261122-0900-bbb", "2026-11-22T09:00:00+00:00"
        Store().save(late)
        _, out, _ = edgeprof("history")
        assert out.index("20261122-0900-bbb") < out.index("20261121-1412-k3f")
        assert "12.34 ± 0.21 mJ" in out
        assert out.count("estimated") == 2

    def test_long_names_are_shortened_in_the_middle_as_compare_does(self, edgeprof, place):
        full = "a-network-with-a-name-of-many-words-that-detects-persons+int8-static"
        text = document.to_json(samples.study()).replace("int8-static", full)
        (place / "long.json").write_text(text, encoding="utf-8")
        Store().save(document.from_json(text))
        for argv in (["history"], ["compare", "long.json", "long.json"]):
            _, out, _ = edgeprof(*argv)
            assert full not in out
            assert "…" in out  # of the whole label in compare, of the name in history

    def test_shows_one_in_full_by_the_end_of_its_id(self, edgeprof):
        Store().save(samples.study())
        code, out, _ = edgeprof("history", "k3f")
        assert code == 0
        assert "int8-static" in out
        assert "0.415 × energy" in out

    def test_json_of_one_is_exactly_the_result(self, edgeprof):
        Store().save(samples.study())
        _, out, err = edgeprof("history", "last", "--json")
        assert document.from_json(out) == samples.study()
        assert err == ""

    def test_json_of_all_is_one_document(self, edgeprof):
        Store().save(samples.study())
        _, out, _ = edgeprof("history", "--json")
        data = json.loads(out)
        assert data["schema"] == "edgeprof.history/1"
        assert [v["variant"] for v in data["results"][0]["variants"]] == [
            "baseline",
            "int8-static",
            "prune(amount=0.5)",
        ]

    def test_energies_are_per_unit_of_what_was_measured(self, edgeprof):
        pages = samples.study()
        for variant in pages.variants:
            variant.workloads = [schema.Workload(name="page", unit="page", units_per_call=1)]
        Store().save(pages)
        _, out, _ = edgeprof("history")
        assert "energy / page" in out
        other = samples.estimated()
        other.id = "20261122-0900-bbb"
        Store().save(other)
        _, out, _ = edgeprof("history", "--json")
        units = {v["unit"] for result in json.loads(out)["results"] for v in result["variants"]}
        assert units == {"page", "inference"}
        _, out, _ = edgeprof("history")
        heading = next(line for line in out.splitlines() if "energy" in line)
        assert heading.split().count("unit") >= 1  # a column that says which

    def test_exports_a_stored_run(self, edgeprof):
        Store().save(samples.study())
        assert edgeprof("history", "k3f", "-o", "again.json")[0] == 0
        assert files.read_one("again.json") == samples.study()

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["zzz"], "no stored result is named 'zzz'"),
            (["--model", "resnet9"], "Did you mean resnet8?"),
            (["last", "-o", "x.txt"], "no reporter for .txt"),
        ],
    )
    def test_what_is_not_there_is_one_sentence(self, edgeprof, argv, words):
        Store().save(samples.study())
        code, out, err = edgeprof("history", *argv)
        assert code == 2
        assert words in err
        assert out == ""
        assert "Traceback" not in err

    def test_a_broken_store_is_one_sentence(self, edgeprof, place):
        (place / "data").mkdir()
        (place / "data" / "results.sqlite3").write_text("no database " * 100)
        code, _, err = edgeprof("history")
        assert code == 2
        assert "not a database" in " ".join(err.split())


class TestLabels:
    def test_a_run_is_named_and_tagged_and_found_by_its_name(self, edgeprof):
        Store().save(samples.study())
        assert edgeprof("history", "last", "--name", "before", "--tag", "release", "--tag", "v2")[0] == 0
        _, out, _ = edgeprof("history")
        assert "before #release #v2" in out
        (listed,) = json.loads(edgeprof("history", "--json", "--tagged", "v2")[1])["results"]
        assert (listed["name"], listed["tags"]) == ("before", ["release", "v2"])
        assert edgeprof("history", "before", "--json")[1] == edgeprof("history", "k3f", "--json")[1]
        edgeprof("history", "before", "--untag", "v2", "--name", "")
        (listed,) = json.loads(edgeprof("history", "--json")[1])["results"]
        assert (listed["name"], listed["tags"]) == (None, ["release"])

    def test_saving_a_run_again_keeps_its_name(self, edgeprof):
        Store().save(samples.study())
        edgeprof("history", "last", "--name", "before")
        Store().save(samples.study())
        assert edgeprof("history", "before")[0] == 0

    def test_a_name_that_means_another_run_is_refused(self, edgeprof):
        Store().save(samples.study())
        Store().save(branch())
        edgeprof("history", "k3f", "--name", "before")
        for name in ("before", "k3f", "last", "20261121-1412-k3f"):
            code, _, err = edgeprof("history", "bbb", "--name", name)
            assert code == 2
            assert "a stored result already" in err

    def test_deleting_asks_and_forgets(self, edgeprof):
        Store().save(samples.study())
        code, _, err = edgeprof("history", "last", "--delete")
        assert code == 2
        assert "nobody can be asked" in err
        assert edgeprof("history", "last", "--delete", "--yes")[0] == 0
        assert "nothing is stored" in edgeprof("history")[1]

    def test_moving_keeps_the_run_with_its_labels_in_one_place(self, edgeprof, place):
        Store().save(samples.study())
        edgeprof("history", "last", "--name", "before", "--tag", "v2")
        assert edgeprof("history", "before", "--move", str(place / "archive"))[0] == 0
        assert Store().history() == []
        (first, *_) = Store(place / "archive").history()
        assert (first.name, first.tags) == ("before", ("v2",))
        code, _, err = edgeprof("history", "last", "--move", str(place / "data"))
        assert code == 2
        assert "lie already" in err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--delete"], "no run was named"),
            (["--tagged", "nosuch"], "no run has the tag"),
            (["last", "--delete", "--move", "x"], "exclude one another"),
            (["nosuch", "--tag", "x"], "nosuch"),
        ],
    )
    def test_what_cannot_be_done_is_one_sentence(self, edgeprof, words, said):
        Store().save(samples.study())
        code, _, err = edgeprof("history", *words)
        assert code == 2
        assert said in err
        assert len(Store().history()) == 3

    def test_runs_in_which_nothing_was_measured_are_kept_apart(self, edgeprof):
        Store().save(samples.study())
        lost = samples.failed()
        lost.id, lost.created, lost.variants = "20261123-0900-ccc", "2026-11-23T09:00:00+00:00", lost.variants[1:]
        Store().save(lost)
        _, out, _ = edgeprof("history")
        assert "ccc" not in out
        assert "1 run in which nothing could be measured: edgeprof history --failed" in out
        _, out, _ = edgeprof("history", "--failed")
        assert "ccc" in out
        assert "k3f" not in out

    def test_a_store_of_the_first_version_is_read_and_then_labelled(self, edgeprof, monkeypatch):
        from edgeprof.results import store

        with monkeypatch.context() as earlier:
            earlier.setattr(store, "MIGRATIONS", store.MIGRATIONS[:1])
            Store().save(samples.study())
        assert "k3f" in edgeprof("history")[1]
        assert edgeprof("history", "last", "--tag", "old")[0] == 0
        assert "#old" in edgeprof("history")[1]


class TestPlot:
    def test_a_chart_of_a_stored_result(self, edgeprof, place):
        Store().save(samples.study())
        code, out, _ = edgeprof("plot", "last")
        assert code == 0
        assert "edgeprof-pareto.svg" in out
        assert "int8-static" in (place / "edgeprof-pareto.svg").read_text()

    def test_each_file_is_written(self, edgeprof, place):
        Store().save(samples.study())
        assert edgeprof("plot", "last", "-o", "a.svg", "-o", "b.svg")[0] == 0
        assert (place / "a.svg").read_text() == (place / "b.svg").read_text()

    def test_runs_over_time_as_a_picture_and_as_a_page(self, edgeprof, place):
        Store().save(samples.study())
        assert edgeprof("history", "--plot", "trend.svg")[0] == 2
        Store().save(branch())
        for name in ("trend.svg", "trend.html"):
            code, out, _ = edgeprof("history", "--plot", name)
            assert code == 0
            assert "2 runs" in out
            assert "int8-static" in (place / name).read_text()


class TestCompare:
    def test_says_the_ratio_its_interval_and_the_verdict(self, edgeprof):
        write("main.json", samples.study())
        write("branch.json", branch())
        code, out, _ = edgeprof("compare", "main.json", "branch.json")
        assert code == 0
        (line,) = [line for line in out.splitlines() if line.startswith("  resnet8 int8-static")]
        assert "energy 1.032 × (1.003–1.062) worse · latency 1.000 ×" in line
        assert "contexts agree" in out

    def test_other_contexts_are_not_compared_and_the_reason_is_said(self, edgeprof):
        other = branch()
        other.host.power_mode = "MAXN"
        write("main.json", samples.study())
        write("branch.json", other)
        code, out, _ = edgeprof("compare", "main.json", "branch.json")
        assert code == 0
        assert "not comparable" in out
        assert "15W → MAXN" in out
        assert edgeprof("compare", "main.json", "branch.json", "--strict")[0] == 1

    def test_json_holds_ratios_verdicts_and_differences(self, edgeprof):
        Store().save(samples.study())
        changed = branch()
        changed.host.kernel = "6.1"
        Store().save(changed)
        code, out, err = edgeprof("compare", "last~1", "last", "--json")
        data = json.loads(out)
        assert code == 0
        assert err == ""
        assert data["schema"] == "edgeprof.comparison/1"
        assert [c["verdict"] for c in data["comparisons"]] == ["tied", "worse", "tied"]
        assert data["comparisons"][1]["energy_ratio"]["value"] == pytest.approx(1.032)
        assert data["differences"] == [
            {"name": "kernel", "baseline": "5.15.136-tegra", "branch": "6.1", "forbids": False}
        ]

    def test_simulated_joules_are_called_so(self, edgeprof):
        write("a.json", samples.simulated())
        assert "simulated" in edgeprof("compare", "a.json", "a.json")[1]

    def test_nothing_in_common_is_said(self, edgeprof):
        other = samples.study()
        for variant in other.variants:
            variant.name += "-new"
        write("a.json", samples.study())
        write("b.json", other)
        assert "no variant in common" in edgeprof("compare", "a.json", "b.json")[1]

    @pytest.mark.parametrize(
        "content", ["", '{"schema": "edgeprof.result/1", "id"', "\x00\x01", '{"schema": "x/9"}', "[]"]
    )
    def test_a_file_that_is_no_result_is_named(self, edgeprof, place, content):
        write("a.json", samples.study())
        (place / "b.json").write_text(content)
        code, out, err = edgeprof("compare", "a.json", "b.json")
        assert code == 2
        assert err.startswith("edgeprof: b.json ")
        assert out == ""


class TestGate:
    def test_passes_and_fails_by_exit_code(self, edgeprof):
        write("r.json", samples.study())
        assert edgeprof("gate", "r.json", "--max-j", "13mJ")[0] == 0
        code, out, _ = edgeprof("gate", "r.json", "--max-j", "6mJ")
        assert code == 1
        assert "FAIL  energy of resnet8 baseline: 12.34 ± 0.21 mJ, limit 6 mJ" in out

    def test_all_limits_at_once_in_the_units_people_write(self, edgeprof):
        write("r.json", samples.study())
        argv = (
            "--max-j 6mJ --max-p99 2ms --max-accuracy-drop 1% --max-rss 40MiB --max-size 100KiB --variant int8-static"
        )
        code, out, _ = edgeprof("gate", "r.json", *argv.split())
        assert code == 0
        assert "all 5 checks passed" in out

    def test_a_regression_against_a_baseline(self, edgeprof):
        write("main.json", samples.study())
        write("branch.json", branch())
        code, out, _ = edgeprof("gate", "branch.json", "--baseline", "main.json", "--max-regression", "0.2%")
        assert code == 1
        assert "FAIL  energy regression of resnet8 int8-static: +3.2 % (0.3 to 6.2 %), limit 0.2 %" in out
        assert edgeprof("gate", "branch.json", "--baseline", "main.json", "--max-regression", "5%")[0] == 0

    def test_what_an_interval_leaves_open_passes_or_fails_as_the_flag_says(self, edgeprof):
        write("main.json", samples.study())
        write("branch.json", branch())
        against = ("branch.json", "--baseline", "main.json", "--max-regression", "3%")
        code, out, _ = edgeprof("gate", *against)
        assert code == 0
        assert "unsure: its interval contains" in out
        assert "1 check is unsure: --unsure pass" in out
        code, out, _ = edgeprof("gate", *against, "--unsure", "fail")
        assert code == 1
        assert "--unsure fail" in out

    def test_ci_gets_junit_annotations_and_a_summary(self, edgeprof, place, monkeypatch):
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
        write("r.json", samples.study())
        code, out, _ = edgeprof("gate", "r.json", "--max-j", "6mJ", "--junit", "gate.xml")
        assert code == 1
        assert "::error title=edgeprof%3A energy::energy of resnet8 baseline" in out
        assert '<failure message="energy of resnet8 baseline' in (place / "gate.xml").read_text()
        assert "| **fail** | energy of resnet8 baseline" in (place / "summary.md").read_text()

    def test_json_is_all_that_is_on_stdout(self, edgeprof):
        write("r.json", samples.degraded())
        code, out, err = edgeprof("gate", "r.json", "--max-p99", "50ms", "--json")
        data = json.loads(out)
        assert code == 1
        assert err == ""
        assert data["schema"] == "edgeprof.gate/1"
        assert data["passed"] is False
        assert any("320 requests" in (c["reason"] or "") for c in data["checks"])

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            ([], "no limit was given"),
            (["--max-j", "5ms"], "'ms' in '5ms' is not a unit of J"),
            (["--max-j", "lots"], "is not a number"),
            (["--max-rss", "5mB"], "'mB' in '5mB' is not a unit of B"),
            (["--max-regression", "2%"], "needs a --baseline"),
            (["--max-accuracy-drop", "1"], "could mean 1 % or 100 %"),
            (["--max-j", "-1"], "is not a limit"),
            (["--max-j", "1", "--variant", "int8"], "Did you mean int8-static?"),
        ],
    )
    def test_a_limit_that_cannot_be_meant_is_one_sentence(self, edgeprof, argv, words):
        write("r.json", samples.study())
        code, _, err = edgeprof("gate", "r.json", *argv)
        assert code == 2
        assert words in err


class TestReport:
    def test_writes_a_page_and_says_where(self, edgeprof, place):
        Store().save(samples.study())
        code, out, _ = edgeprof("report", "k3f", "-o", "report.html")
        assert code == 0
        assert "wrote report.html: 3 variants of 1 result" in out
        assert "<!doctype html>" in (place / "report.html").read_text()

    def test_without_a_name_the_page_is_called_after_the_run(self, edgeprof, place):
        Store().save(samples.study())
        edgeprof("report", "last")
        assert (place / "edgeprof-20261121-1412-k3f.html").exists()

    def test_takes_files_lines_and_ids_together(self, edgeprof, place):
        Store().save(samples.study())
        other = samples.estimated()
        other.id = "20261121-1500-zzz"
        files.append(files.Path("runs.jsonl"), document.to_json(other, indent=-1) + "\n")
        code, out, _ = edgeprof("report", "k3f", "runs.jsonl", "-o", "both.csv", "--json")
        assert code == 0
        assert json.loads(out)["results"] == ["20261121-1412-k3f", "20261121-1500-zzz"]
        assert (place / "both.csv").read_text().count("\n") == 6

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["k3f", "k3f"], "was given twice"),
            (["k3f", "-o", "no/such/report.html"], "mkdir -p no/such"),
            (["k3f", "-o", "r.pdf"], "no reporter for .pdf"),
            (["missing.json"], "there is no file missing.json"),
        ],
    )
    def test_what_cannot_be_done_is_one_sentence(self, edgeprof, argv, words):
        Store().save(samples.study())
        code, out, err = edgeprof("report", *argv)
        assert code == 2
        assert words in err
        assert out == ""


def test_a_report_is_sent_by_the_exporter_of_a_plugin(edgeprof, place, monkeypatch):
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("EDGEPROF_PLUGINS", "exporter")
    Store().save(samples.study())
    code, _, err = edgeprof("report", "last", "--to", f"textfile:{place}")
    assert code == 0, err
    assert "edgeprof_bench_latency_seconds" in (place / "edgeprof.prom").read_text()
    assert not list(place.glob("*.html")), "what was sent elsewhere is no page unless -o asks for one"
    code, _, err = edgeprof("report", "last", "--to", "nosuch:x")
    assert code == 2
    assert "no exporter is named 'nosuch'" in err


def test_a_report_has_every_output_that_was_asked_for(edgeprof, place):
    Store().save(samples.study())
    assert edgeprof("report", "last", "-o", "a.html", "-o", "b.csv")[0] == 0
    assert {"a.html", "b.csv"} <= {path.name for path in place.iterdir()}
