"""Nothing leaves the machine while a model is benched, and nobody else works inside a window."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.worker import telemetry
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario

RUNTIMES = {"onnxruntime": "onnx_model", "litert": "tflite_model", "pytorch": "torchscript_model"}
#: By each of these ONNX Runtime would hold its reports back by itself, and prove nothing.
SILENCING = (*telemetry.VARIABLES, "CI", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS", "TF_BUILD")


@pytest.fixture(params=RUNTIMES)
def model(request):
    """The name of a runtime, and a model for it."""
    return request.param, request.getfixturevalue(RUNTIMES[request.param])


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """The environment of somebody who has silenced nothing, with a home and a folder for temporary files of its own."""
    for name in SILENCING:
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    for name in [name for name in os.environ if name.startswith(("XDG_", "EDGEPROF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return tmp_path


def test_a_window_has_the_models_own_threads_and_no_other(model, stranger):
    name, path = model
    runtime = type(PluginHost(only=[name]).get("runtimes", name)())
    options = LoadOptions("cpu", 1, 1, {"x": (1, 4)}, {})
    with Worker(WorkerSpec(Path(inspect.getfile(runtime)), runtime.__name__, str(path), options)) as worker:
        worker.load()
        worker.window(Scenario(), 0.5)
        threads = [thread.name for thread in Path(f"/proc/{worker.pid}/task").iterdir()]
        assert threads == [str(worker.pid)]


def test_a_bench_asks_for_no_connection_and_leaves_no_file_but_its_own(model, stranger):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: nothing tells which system calls were made")
    name, path = model
    log = stranger / "calls"
    calls = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat"
    bench = ["bench", str(path), "--runtime", name, "--quick", "--windows", "2", "--window", "1", "--input", "x=1,4"]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(log), sys.executable, "-m", "edgeprof", *bench],
        capture_output=True,
        text=True,
        cwd=stranger,
        check=False,
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    text = log.read_text(errors="replace")
    assert "openat" in text  # something was traced
    assert re.findall(r"^.*sa_family=AF_INET.*$", text, re.MULTILINE) == []
    found = {str(file.relative_to(stranger)) for file in stranger.rglob("*") if file.is_file()} - {"calls", path.name}
    assert {file for file in found if not file.startswith("home/.local/share/edgeprof/")} == set()
    written = set(re.findall(r'(?:openat\([^,]*, |open\(|creat\()"([^"]+)", [^)]*O_(?:WRONLY|RDWR|CREAT)', text))
    ours = (
        "/dev/",
        "/proc/",
        str(stranger / "home/.local/share/edgeprof"),
        str(stranger / "temporary"),
        "/run/lock/edgeprof-",
    )
    assert {file for file in written if not file.startswith(ours)} == set()


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    telemetry.turn_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_loading_the_plugins_turns_telemetry_off_before_any_library_is_loaded(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    PluginHost(only=[])
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
