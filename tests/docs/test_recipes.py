"""The recipes of docs/recipes.md, each run in a process of its own (make test-recipes installs their libraries)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprof
from tests.docs.test_docs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(660)]
#: Windows that a test can wait for.
SHORT = {"windows": 2, "window_s": 0.1, "warmup_s": 0.05, "idle_s": 0.1, "threads": 1, "progress": False}
RUNNER = f"""
import functools, runpy, sys
import edgeprof
edgeprof.bench = functools.partial(edgeprof.bench, **{SHORT!r})
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, with a model and its data; nothing leaves the machine."""
    for name in ("digits.onnx", "digits-test.npz"):
        shutil.copy(ROOT / "examples/demo" / name, tmp_path)
    for name, value in {
        "HOME": str(tmp_path),
        "EDGEPROF_DATA_DIR": str(tmp_path / "data"),
        "EDGEPROF_LOCK_DIR": str(tmp_path),
        "EDGEPROF_PLUGINS": "onnxruntime,compressors,npz,topk,ina3221,jetson,thermal,system",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The row of the one variant in result.json."""
    monkeypatch.chdir(folder)
    result = edgeprof.bench("digits.onnx", dataset="digits-test.npz", **SHORT)
    result.save("result.json")
    (row,) = result.to_rows()
    return row


def follow(library: str, folder: Path, *, changed: tuple[str, str] = ("", "")) -> str:
    """Run the recipe for a library, and return what it prints.

    Args:
        library: The library; the test is skipped where it is not installed.
        folder: Where to run it.
        changed: A text of the recipe, and what replaces it.
    """
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed here: make test-recipes")
    script = folder / "recipe.py"
    text = (Path(__file__).parent / f"recipes/with_{library}.py").read_text("utf-8")
    assert changed[0] in text
    script.write_text(text.replace(*changed) if changed[0] else text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(script)],
        cwd=folder,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_mlflow_has_the_figures_of_each_variant(folder: Path, row: dict) -> None:
    follow("mlflow", folder)
    database = sqlite3.connect(folder / "mlflow.db")
    try:
        assert database.execute("SELECT name FROM runs").fetchall() == [(row["variant"],)]
        metrics = dict(database.execute("SELECT key, value FROM metrics"))
        tags = dict(database.execute("SELECT key, value FROM tags"))
    finally:
        database.close()
    assert metrics["latency_p50_s"] == row["latency_p50_s"]
    assert metrics["accuracy"] == row["accuracy"]
    assert tags["energy_provenance"] == row["energy_provenance"]
    assert [name for name in metrics if row[name] is None] == []  # what is unknown is not there


def test_weights_and_biases_keeps_the_figures_of_each_variant(folder: Path, row: dict) -> None:
    follow("wandb", folder)
    (written,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    for name in ("latency_p50_s", "accuracy"):
        assert name.encode() in content
        assert json.dumps(row[name]).encode() in content


def test_optuna_searches_with_measured_joules(folder: Path) -> None:
    pytest.importorskip("onnx")
    assert "{'amount': 0." in follow("optuna", folder, changed=("n_trials=10", "n_trials=1"))


def test_olive_makes_a_model_that_is_measured_beside_its_original(folder: Path) -> None:
    assert "olive" in follow("olive", folder)
