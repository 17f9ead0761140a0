"""``edgeprof bench`` and ``edgeprof run`` as users and scripts call them.

Tests about the process itself (signals, streams, exit code) start the real command; the others call the same entry
point in this process, so that they need not start Python and numpy.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from edgeprof.cli.main import run
from edgeprof.results.document import from_json
from edgeprof.roots import SIMULATION_MARKER
from edgeprof.simulation import layouts, tree
from tests import models

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = ["--windows", "2", "--window", "0.2", "--idle", "0.1", "--warmup", "0.05", "--timeout", "20"]
APPLICATION = """
import os, time
def steady(): time.sleep(0.004)
def crash(): os.abort()
def slow(): time.sleep(0.05)
"""

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unchanging Orin Nano of 5 W and its data directory; its sensors are characterised once for all tests."""
    folder = tmp_path_factory.mktemp("device")
    layout = layouts.build("jetson-orin-nano", folder / "sys")
    tree.set_power(layout, "VDD_IN", 5.0, volts=5.0)
    (folder / "sys" / SIMULATION_MARKER).write_text("{}")
    # Characteristics are cached only for a tree that has a boot id.
    boot = folder / "sys" / "proc" / "sys" / "kernel" / "random" / "boot_id"
    boot.parent.mkdir(parents=True, exist_ok=True)
    boot.write_text("1")
    return folder


@pytest.fixture
def place(tmp_path: Path, device: Path) -> Path:
    """A folder with an application, on that device."""
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "sys").symlink_to(device / "sys")
    (tmp_path / "data").symlink_to(device / "data")
    (device / "data").mkdir(exist_ok=True)
    return tmp_path


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def environment(place: Path, **extra: str) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("EDGEPROF")},
        "EDGEPROF_SYSFS_ROOT": str((place / "sys").resolve()),
        "EDGEPROF_DATA_DIR": str((place / "data").resolve()),
        "PYTHONWARNINGS": "error",
        **extra,
    }


def process(place: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeprof", *words],
        cwd=place,
        env=environment(place, **extra),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def edgeprof(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process, in ``place``."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("edgeprof.sensing.prepare.CHARACTERISE_S", 0.1)  # an unchanging device has no refresh to find
    for name in [name for name in os.environ if name.startswith("EDGEPROF")]:
        monkeypatch.delenv(name)

    def call(*words: str, **extra: str) -> Done:
        for name, value in environment(place, **extra).items():
            monkeypatch.setenv(name, value)
        code = run(list(words))
        return Done(code, *capfd.readouterr())

    return call


def test_a_bench_prints_a_table_keeps_the_run_and_writes_what_was_asked(place):
    done = process(place, "bench", "app.py:steady", *QUICK, "-o", "out.json")
    assert done.returncode == 0, done.stderr
    assert "app.py:steady" in done.stdout
    assert "baseline" not in done.stdout, "nothing is compared"
    assert "Simulated" in done.stdout
    assert "window 1/2" in done.stderr
    assert "VDD_IN covers the module" in done.stderr
    result = from_json((place / "out.json").read_bytes())
    assert result.variants[0].energy_j_per_inference.provenance == "simulated"
    again = process(place, "history", "--json")
    assert result.id in again.stdout


def test_every_output_that_was_asked_for_is_written(place, edgeprof):
    asked = ["a.json", "b.csv", "c.md", "d.html", "e.json", "a.json"]
    done = edgeprof("bench", "app.py:steady", *QUICK, *(word for name in asked for word in ("-o", name)))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in place.iterdir()} >= set(asked)
    assert (place / "a.json").read_bytes() == (place / "e.json").read_bytes()
    done = edgeprof("bench", "app.py:steady", *QUICK, "-o", "late.json", "-o", "nosuch.suffix")
    assert done.returncode == 2
    assert not (place / "late.json").exists(), "refused before anything is measured"


def test_data_without_labels_calibrate_and_judge_nothing(place, edgeprof):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = Path(__file__).parents[3] / "examples/demo/digits.onnx"
    with np.load(model.with_name("digits-test.npz")) as labelled:
        np.savez(place / "calibration.npz", x=labelled["x"][:64])
    done = edgeprof("bench", str(model), *QUICK, "--with", "int8-static", "--dataset", "calibration.npz", "--json")
    assert done.returncode == 0, done.stderr
    result = from_json(done.stdout)
    assert [variant.name for variant in result.variants] == ["baseline", "int8-static"]
    assert all(variant.accuracy is None for variant in result.variants)
    assert "calibration.npz has no labels" in done.stderr


def test_with_json_stdout_is_the_result_and_nothing_else(edgeprof):
    done = edgeprof("bench", "app.py:steady", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    assert from_json(done.stdout).variants[0].name == "app.py:steady"


def test_quiet_leaves_stderr_to_errors(edgeprof):
    done = edgeprof("bench", "app.py:steady", *QUICK, "-q")
    assert done.returncode == 0
    assert "window" not in done.stderr


def test_a_failed_variant_is_exit_3_and_the_others_are_reported(edgeprof):
    done = edgeprof("bench", "app.py:steady", "app.py:crash", *QUICK, "--name", "good", "--name", "bad", "--json")
    assert done.returncode == 3
    variants = {v["name"]: v for v in json.loads(done.stdout)["variants"]}
    assert variants["bad"]["status"] == "failed"
    assert all(window["energy_j"] for window in variants["good"]["windows"])
    assert "Traceback" not in done.stderr


def test_of_several_models_one_that_is_none_costs_itself_alone(edgeprof, place):
    (place / "empty.engine").touch()
    (place / "notes.engine").write_text("hello")
    words = ["bench", "empty.engine", "app.py:steady", "notes.engine", *QUICK, "--json"]
    done = edgeprof(*words)
    assert done.returncode == 3
    result = from_json(done.stdout)
    empty, good, notes = result.variants
    assert good.status != "failed"
    assert good.inferences > 0
    for one, said in ((empty, "empty.engine is empty"), (notes, "notes.engine is a text file")):
        assert (one.status, one.runtime, one.inferences) == ("failed", None, 0)
        assert (one.model.format, one.model.size_bytes, one.model.sha256) == ("unknown", None, None)
        assert said in one.reasons[0].message
        assert one.reasons[0].remedy
        assert said in done.stderr
    # The first is the baseline: without it nothing can be compared, and the reason is reported.
    assert {c.reason for c in result.comparisons} == {"empty.engine failed"}
    assert all(c.energy_ratio is None and c.latency_ratio is None for c in result.comparisons)
    # A misspelt name is not a variant, and a bench without variants is refused.
    assert edgeprof(*words, "nowhere.engine").returncode == 2
    assert edgeprof("bench", "notes.engine", "empty.engine", *QUICK).returncode == 2


def test_of_several_variants_one_that_cannot_be_made_costs_itself_alone(edgeprof, place):
    models.onnx_affine(place / "m.onnx")
    done = edgeprof("bench", "m.onnx", "--with", "int8-static", "--with", "fp16", *QUICK, "--json")
    assert done.returncode == 3
    baseline, failed, good = from_json(done.stdout).variants
    assert (failed.status, failed.inferences, failed.model.size_bytes) == ("failed", 0, None)
    assert "needs calibration data" in failed.reasons[0].message
    assert min(baseline.inferences, good.inferences) > 0
    alone = edgeprof("bench", "m.onnx", "--with", "int8-static", *QUICK)
    assert (alone.returncode, "--dataset" in alone.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "none.onnx"], "none.onnx does not exist"),
        (["bench", "app.py:steadyy"], "steadyy"),
        (["bench", "app.py:steady", "--preset", "quikc"], "Did you mean quick"),
        (["bench", "app.py:steady", "--scenario", "server"], "--rate"),
        (["bench", "app.py:steady", "--with", "int8-statik"], "int8-statik"),
        (["bench", "app.py:steady", "--input", "x=1xAx3"], "NAME=SHAPE"),
        (["bench", "app.py:steady", "-o", "nowhere/out.json"], "nowhere"),
        (["bench", "app.py:steady", "-o", "out.xls"], ".json"),
        (["bench", "app.py:steady", "--input-data", "none.npz"], "none.npz"),
        (["bench", "app.py:steady", "--dataset", "none"], "none"),
        (["bench", "app.py:steady", "--sysfs-root", "nowhere"], "nowhere"),
        (["bench", "app.py:steady", "--worker-python", "/no/python"], "/no/python"),
        (["bench", "app.py:steady", "--windows", "many"], "--windows"),
        (["bench", "app.py:steady", "--estimate-power", "0"], "--estimate-power 0 is out of range"),
        (["bench", "app.py:steady", "--timeout", "nan"], "--timeout nan is out of range"),
        (["bench", "app.py:steady", "--idle", "-1"], "--idle -1 is out of range"),
        (["run", "--estimate-power", "-2", "--", "true"], "--estimate-power -2 is out of range"),
        (["bench"], "MODEL"),
        (["run", "--", "no-such-command"], "no-such-command"),
        (["run", "--rail", "VDD_INN", "--", "true"], "VDD_IN"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(place, edgeprof, words, said):
    done = edgeprof(*words)
    assert done.returncode in ({2, 3} if "steadyy" in words[-1] else {2}), done.stderr
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (place / "out.json").exists()


def test_a_store_that_cannot_be_written_does_not_cost_the_result(place, edgeprof):
    blocked = place / "blocked"
    blocked.write_text("a file where a folder belongs")
    done = edgeprof("bench", "app.py:steady", *QUICK, EDGEPROF_DATA_DIR=str(blocked))
    assert "app.py:steady" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert "blocked" in done.stderr


def test_strict_fails_where_only_an_estimate_is_possible(place, edgeprof):
    (place / "empty").mkdir()
    done = edgeprof("bench", "app.py:steady", *QUICK, "--strict", EDGEPROF_SYSFS_ROOT=str(place / "empty"))
    assert done.returncode == 1
    assert "--strict" in done.stderr


def test_ctrl_c_keeps_what_was_measured_and_exits_130(place):
    words = ["bench", "app.py:slow", "--windows", "40", "--window", "0.3", "--idle", "0.1", "-o", "out.json"]
    child = subprocess.Popen(
        [sys.executable, "-m", "edgeprof", *words],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("window 4/"):
            child.send_signal(signal.SIGINT)
            break
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    result = from_json((place / "out.json").read_bytes())
    assert result.interrupted
    assert len(result.variants[0].windows) >= 3
    assert "app.py:" in out


def test_kill_9_leaves_no_worker_behind(place):
    child = subprocess.Popen(
        [sys.executable, "-m", "edgeprof", "bench", "app.py:slow", "--windows", "40", "--window", "1", "--idle", "0.1"],
        cwd=place,
        env=environment(place, EDGEPROF_TEST_MARK=str(place)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("window 1/"):
            break
    assert len(marked(place)) >= 2
    child.kill()
    child.wait(timeout=10)
    child.stderr.close()
    deadline = time.monotonic() + 10
    while marked(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(place) == []


def marked(place: Path) -> list[int]:
    """Return the living processes that have this test's mark in their environment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("EDGEPROF_TEST_MARK") == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_run_gives_the_commands_exit_code_output_and_joules(place):
    done = process(
        place,
        "run",
        "--idle",
        "0.3",
        "--",
        sys.executable,
        "-c",
        "import time; time.sleep(1); print('its own'); exit(5)",
    )
    assert done.returncode == 5
    assert done.stdout == "its own\n"
    assert "simulated in 1." in done.stderr
    assert "exit 5" in done.stderr
    assert "VDD_IN covers the module" in done.stderr


def test_run_json_carries_the_energy_block(edgeprof):
    done = edgeprof("run", "--json", "-r", "3", "--idle", "0.3", "--", "sleep", "0.5")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == "edgeprof.run/1"
    assert told["repeat"] == 3
    assert told["energy_j_per_run"]["gross"]["value"] == pytest.approx(5.0 * told["duration_s"], rel=0.05)
    assert told["peak_rss_bytes"] > 0


def test_run_needs_no_separator_for_a_plain_command(edgeprof):
    assert edgeprof("run", "--idle", "0", "true").returncode == 0
