"""The reporter of a file is chosen by its suffix; an unknown one is refused before minutes of measuring are lost."""

from __future__ import annotations

import csv
import importlib.metadata
import io

import pytest

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.plugins import PluginHost
from edgeprof.reporters import registry
from edgeprof.results import document, files
from tests.profiler.results import samples

NOBODY = PluginHost(entry_points=[])


def host_with(monkeypatch, function):
    host = PluginHost(entry_points=[])
    monkeypatch.setattr(host, "of", lambda kind: {".yaml": function} if kind == "reporters" else {})
    monkeypatch.setattr(host, "get", lambda _, name: {".yaml": function}[name])
    return host


@pytest.mark.parametrize("suffix", registry.MODULES)
def test_every_suffix_writes_a_file(tmp_path, suffix):
    path = tmp_path / f"r{suffix}"
    registry.write([samples.study()], path)
    assert "int8-static" in path.read_text()


def test_an_unknown_suffix_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(InputError, match=r"no reporter for \.txt") as caught:
        registry.check(tmp_path / "r.txt", NOBODY)
    assert ".html .json .jsonl .md" in caught.value.remedy


def test_no_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match="a file without a suffix"):
        registry.check(tmp_path / "result", NOBODY)


def test_a_plugin_brings_a_suffix(tmp_path, monkeypatch):
    host = host_with(monkeypatch, lambda result: f"id: {result.id}\n")
    path = tmp_path / "r.yaml"
    registry.write([samples.one()], path, host)
    assert path.read_text() == f"id: {samples.ID}\n"


def test_a_plugin_that_fails_is_named_and_leaves_no_file(tmp_path, monkeypatch):
    def broken(_):
        raise KeyError("latency")

    path = tmp_path / "r.yaml"
    with pytest.raises(EdgeprofError, match=r"reporter for \.yaml failed: KeyError"):
        registry.write([samples.one()], path, host_with(monkeypatch, broken))
    assert not path.exists()


def test_several_results_do_not_fit_one_json(tmp_path):
    with pytest.raises(InputError, match="holds one result, not 2"):
        registry.write([samples.one(), samples.study()], tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_json_is_exactly_the_result():
    result = samples.study()
    assert document.from_json(registry.render([result], ".json")) == result


def test_jsonl_grows(tmp_path):
    path = tmp_path / "runs.jsonl"
    registry.write([samples.one()], path)
    registry.write([samples.study()], path)
    assert files.read(str(path)) == [samples.one(), samples.study()]


def test_csv_has_a_row_a_variant_and_nothing_for_unknown():
    rows = list(csv.DictReader(io.StringIO(registry.render([samples.study(), samples.failed()], ".csv"))))
    assert [row["variant"] for row in rows] == [
        "baseline",
        "int8-static",
        "prune(amount=0.5)",
        "baseline",
        "int4-weight",
    ]
    assert float(rows[1]["energy_gross_j"]) == 0.00512
    assert rows[1]["energy_provenance"] == "measured"
    assert rows[4]["energy_gross_j"] == ""
    assert rows[4]["energy_provenance"] == "none"
    assert rows[4]["reasons"] == "crashed"


def test_csv_of_nothing_has_its_header():
    empty = samples.result([])
    text = registry.render([empty], ".csv")
    assert text.count("\n") == 1
    assert text.startswith("result_id,created,")


def test_csv_survives_commas_quotes_and_line_breaks():
    result = samples.one()
    result.variants[0].name = 'a,"b"\nc'
    (row,) = csv.DictReader(io.StringIO(registry.render([result], ".csv")))
    assert row["variant"] == 'a,"b"\nc'


def test_markdown_names_cannot_break_the_table():
    result = samples.one()
    result.variants[0].name = "a|b\n*c*<script>"
    text = registry.render([result], ".md")
    (row,) = [line for line in text.splitlines() if "12.34" in line]
    assert row.startswith(r"| a\|b \*c\*\<script\> |")


def test_the_first_party_suffixes_are_not_taken_by_an_installed_plugin():
    """Whatever is installed, the first-party reporters are found without loading a plugin."""
    assert importlib.metadata.version("edgeprof")
    assert set(registry.MODULES) == {
        ".card.md", ".csv", ".github-benchmark.json", ".html", ".json", ".jsonl", ".md", ".spdx3.json"
    }  # fmt: skip
