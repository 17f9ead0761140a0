"""import edgeprof: the library's functions, imported lazily and typed, and what they return."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgeprof
from edgeprof.errors import InputError
from edgeprof.library.progress import OneLine
from edgeprof.library.result import Result
from edgeprof.reporters import csv_rows
from edgeprof.results import document
from edgeprof.results.store import Store
from tests.profiler.results import samples

if TYPE_CHECKING:
    from collections.abc import Callable

#: The functions that the contract promises.
FUNCTIONS = {"bench", "record", "measure", "load", "compare", "sensors", "stage", "pipeline", "track"}
PACKAGE = Path(edgeprof.__file__).parent


def test_no_module_or_room_at_the_top_level_bears_the_name_of_a_library_function() -> None:
    """An import of a module ``edgeprof.record`` would replace the function."""
    names = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not names & (FUNCTIONS | set(edgeprof.__all__))


def test_every_name_that_the_library_offers_is_there_and_costs_nothing_until_it_is_used() -> None:
    for name in edgeprof.__all__:
        assert getattr(edgeprof, name) is not None
    assert set(edgeprof.__all__) <= set(dir(edgeprof))
    code = "import sys, edgeprof; print(sorted(m for m in sys.modules if 'edgeprof' in m or m in ('numpy', 'typing')))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "['edgeprof']"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recordd'"):
        edgeprof.recordd  # noqa: B018


@pytest.fixture
def result() -> Result:
    return Result.of(samples.study())


def test_rows_are_flat_and_have_the_columns_of_the_csv(result) -> None:
    rows = result.to_rows()
    assert len(rows) == len(result.variants)
    assert list(rows[0]) == csv_rows.render([result]).splitlines()[0].split(",")
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    pandas = pytest.importorskip("pandas")
    assert len(pandas.DataFrame(rows)) == len(rows)


def test_a_result_shows_itself_in_one_line_and_in_a_notebook_as_the_reports_table(result) -> None:
    assert "\n" not in repr(result)
    assert repr(result).startswith(f"<edgeprof.Result {result.id}: {len(result.variants)} variants on ")
    html = result._repr_html_()
    assert html.count("<tr") >= 1 + len(result.variants)
    assert all(variant.name.split("+")[0] in html for variant in result.variants)
    assert "<script" not in html


def test_a_result_is_the_same_document_and_is_loaded_from_a_file_or_the_store(result, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    assert document.to_json(result) == document.to_json(samples.study())
    result.save(tmp_path / "r.json")
    Store().save(result)
    for source in (tmp_path / "r.json", "last"):
        loaded = edgeprof.load(source)
        assert isinstance(loaded, Result)
        assert loaded == Result.of(document.from_json(document.to_json(result)))
    assert result.variant(result.variants[1].name) is result.variants[1]
    with pytest.raises(KeyError):
        result.variant("nobody")
    with pytest.raises(InputError):
        edgeprof.load(tmp_path / "missing.json")


def test_compare_takes_results_and_files_and_tells_what_differs(result, tmp_path) -> None:
    result.save(tmp_path / "r.json")
    found = edgeprof.compare(tmp_path / "r.json", result)
    assert [pair.variant.name for pair in found.pairs] == [variant.name for variant in result.variants]
    assert found.forbidden == []
    assert {pair.comparison.verdict for pair in found.pairs} <= {"tied", "not_comparable"}


def test_sensors_tells_each_channels_value_and_which_make_the_headline(board) -> None:
    readings = edgeprof.sensors(sysfs_root=board)
    headline = [reading for reading in readings if reading.in_headline]
    assert [reading.channel.name for reading in headline] == ["VDD_IN"]
    assert headline[0].power_w == pytest.approx(6.0, rel=0.03)
    with pytest.raises(InputError):
        edgeprof.sensors(["nosuch"], sysfs_root=board)


QUICK = {"windows": 2, "window_s": 0.4, "idle_s": 0.2, "warmup_s": 0.05, "timeout_s": 20.0, "preset": "quick"}


def detect() -> None:
    time.sleep(0.004)


def test_bench_runs_a_callable_in_this_process_and_says_so_beside_a_file_in_its_own(board, tmp_path) -> None:
    (tmp_path / "app.py").write_text("import time\ndef run():\n    time.sleep(0.008)\n")
    result = edgeprof.bench({"file": f"{tmp_path / 'app.py'}:run", "here": detect}, sysfs_root=board, **QUICK)
    assert isinstance(result, edgeprof.Result)
    file, here = result.variants
    assert (file.name, here.name) == ("file", "here")
    for variant in result.variants:
        assert variant.energy_j_per_inference.provenance == "simulated"
        for window in variant.windows:  # whether the mean of so few is quoted depends on how busy this machine is
            assert window.energy_j == pytest.approx(6.0 * (window.end_s - window.start_s), rel=0.05)
    assert "in_process" in {reason.code for reason in here.reasons}
    assert "in_process" not in {reason.code for reason in file.reasons}
    assert here.status in {"ok", "degraded"}
    assert result.comparisons[0].latency_ratio.value < 1
    assert edgeprof.load("last").id == result.id


def test_a_callable_that_takes_arguments_gets_the_inputs_that_it_names(bare) -> None:
    shapes = []

    def classify(image) -> None:
        shapes.append(image.shape)

    settings = {**QUICK, "windows": 1, "window_s": 0.05, "idle_s": 0.0}
    result = edgeprof.bench(classify, inputs={"image": (1, 8, 8, 3)}, sysfs_root=bare, save=False, **settings)
    assert set(shapes) == {(1, 8, 8, 3)}
    assert result.variants[0].name == "classify"


@pytest.mark.parametrize("model", [42, None])
def test_what_is_no_model_is_refused(model, bare) -> None:
    with pytest.raises(InputError, match="is no model"):
        edgeprof.bench([model], sysfs_root=bare)


def test_variants_of_a_callable_are_refused(bare) -> None:
    with pytest.raises(InputError, match="variants are made of model files"):
        edgeprof.bench(detect, variants=["int8-static"], sysfs_root=bare)


def test_progress_is_one_line_that_overwrites_itself_and_ends_clean(monkeypatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    line = OneLine(shown=True)
    line.begin(["a board", "2 windows"], 10.0, str)
    line.stage("window 1/2", 5.0)
    line.note("something stays")
    line.end()
    assert stream.getvalue().count("\n") == 1
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    silent: Callable[[], OneLine] = OneLine
    silent().begin(["a"], 1.0, str)
    assert quiet.getvalue() == ""
