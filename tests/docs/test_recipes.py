"""The recipes of docs/recipes.md, run as they stand (make test-recipes installs their libraries)."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

import edgeprof
from tests.docs.test_docs import ROOT

PLUGINS = "onnxruntime,compressors,npz,topk,ina3221,jetson,thermal,system"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # the other projects' warnings are theirs
]


def follow(library: str) -> None:
    """Run the recipe for a library."""
    runpy.run_path(str(Path(__file__).parent / f"recipes/with_{library}.py"), run_name="__main__")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, with a model, its data, and nothing that leaves the machine."""
    for name in ("digits.onnx", "digits-test.npz"):
        shutil.copy(ROOT / "examples/demo" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HOME": str(tmp_path),
        "EDGEPROF_DATA_DIR": str(tmp_path / "data"),
        "EDGEPROF_LOCK_DIR": str(tmp_path),
        "EDGEPROF_PLUGINS": PLUGINS,
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benches with windows that a test can wait for."""
    bench = edgeprof.bench
    monkeypatch.setattr(
        edgeprof,
        "bench",
        lambda *models, **given: bench(
            *models, **given, windows=2, window_s=0.1, warmup_s=0.05, idle_s=0.1, threads=1, progress=False
        ),
    )


@pytest.fixture
def measured(folder: Path, short: None) -> edgeprof.Result:
    result = edgeprof.bench("digits.onnx", dataset="digits-test.npz")
    result.save(folder / "result.json")
    return result


def test_mlflow_has_the_figures_of_each_variant(measured: edgeprof.Result) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed here: make test-recipes")
    follow("mlflow")
    (run,) = mlflow.search_runs(experiment_names=["energy"], output_format="list")
    (row,) = measured.to_rows()
    assert run.info.run_name == row["variant"]
    assert run.data.metrics["latency_p50_s"] == row["latency_p50_s"]
    assert run.data.metrics["accuracy"] == row["accuracy"]
    assert run.data.tags["energy_provenance"] == row["energy_provenance"]
    assert "latency_p99_bound_s" not in run.data.metrics  # unknown, and therefore not there


def test_weights_and_biases_keeps_the_figures_of_each_variant(folder: Path, measured: edgeprof.Result) -> None:
    pytest.importorskip("wandb", reason="W&B is not installed here: make test-recipes")
    follow("wandb")
    (written,) = (folder / "wandb").glob("offline-run-*")
    (summary,) = written.rglob("wandb-summary.json")
    (row,) = measured.to_rows()
    assert json.loads(summary.read_text("utf-8"))["latency_p50_s"] == row["latency_p50_s"]


def test_optuna_searches_with_measured_joules(
    folder: Path, short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna", reason="Optuna is not installed here: make test-recipes")
    pytest.importorskip("onnx")
    create = optuna.create_study

    def few(**given: object) -> object:
        study = create(**given)
        optimize = study.optimize
        study.optimize = lambda cost, n_trials: optimize(cost, n_trials=2)
        return study

    monkeypatch.setattr(optuna, "create_study", few)
    follow("optuna")
    assert "{'amount': 0." in capsys.readouterr().out


def test_olive_makes_a_model_that_is_measured_beside_its_original(
    short: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("olive", reason="Olive is not installed here: make test-recipes")
    follow("olive")
    assert "olive" in capsys.readouterr().out
