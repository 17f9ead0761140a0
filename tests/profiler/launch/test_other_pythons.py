"""The worker with another Python than the parent's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgeprof
from edgeprof.errors import InputError
from edgeprof.launch.interpreter import probe
from edgeprof.worker.scenario import SCENARIOS, Scenario

WORKER = Path(edgeprof.__file__).parent / "worker"
WORKER_FILES = ["handler", "inputs", "main", "runtime", "scenario", "steady", "tensors", "wire"]


@pytest.fixture
def program(tmp_path):
    """Return ``program(text)``, which makes an executable shell script that prints the text."""

    def make(text: str, status: int = 0) -> str:
        path = tmp_path / "python-like"
        path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {status}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_workers_files_keep_to_the_grammar_of_python_3_6():
    if shutil.which("vermin", path=Path(sys.executable).parent) is None:
        pytest.skip("vermin is not installed")
    command = [str(Path(sys.executable).with_name("vermin")), "-t=3.6-", "--no-tips", "--violations"]
    done = subprocess.run(
        command + [str(WORKER / f"{name}.py") for name in WORKER_FILES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_worker_under_python_3_6_does_all_that_ours_does(toy, python36):
    with toy("sleep:0.001", python=python36) as worker:
        loaded = worker.load()
        assert loaded.python.startswith("3.6.")
        assert worker.warm_up(0.05, 1.0).inferences >= 10
        for name in SCENARIOS:
            assert worker.window(Scenario(name, rate_hz=100.0, streams=2), 0.05).calls >= 1
        feeds = {"x": np.ones((1, 4), np.float32), "ids": np.zeros(2, np.int64)}
        np.testing.assert_array_equal(worker.infer(feeds)["y"], 2 * feeds["x"])


def test_the_worker_needs_nothing_of_the_parents_environment(toy, tmp_path):
    """Its stand-in for edgeprof has hookimpl and the worker's files, without pluggy, click or an installation."""
    bare = tmp_path / "bare"
    script = bare.with_suffix(".sh")
    site = Path(np.__file__).parents[1]
    bare.mkdir()
    for found in site.glob("numpy*"):
        (bare / found.name).symlink_to(found)
    script.write_text(f'#!/bin/sh\nPYTHONPATH={bare} exec {sys.executable} -S "$@"\n')
    script.chmod(0o755)
    with toy(python=str(script)) as worker:
        assert worker.load().version == "1.2"


def test_an_interpreter_that_works_is_returned_by_its_path(monkeypatch):
    """The bare name would be searched on PATH, where the system's Python may have no numpy."""
    assert probe(sys.executable) == sys.executable
    here = Path(sys.executable)
    monkeypatch.setenv("PATH", str(here.parent))
    probe.cache_clear()
    assert probe(here.name) == str(here)


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        ("3.5.2\n1.18.0", 0, "is Python 3.5.2; the worker needs 3.6 or newer"),
        ("2.7.18\n1.16.0", 0, "is Python 2.7.18"),
        ("3.8.10\n- ModuleNotFoundError No module named 'numpy'", 0, "cannot import numpy: ModuleNotFoundError"),
        ("hello", 0, "is not a Python interpreter that works: hello"),
        ("", 3, "is not a Python interpreter that works: exit status 3"),
    ],
)
def test_an_interpreter_that_cannot_run_the_worker_says_why(program, said, status, message):
    with pytest.raises(InputError) as caught:
        probe(program(said, status))
    assert message in caught.value.message
    assert caught.value.remedy


def test_missing_numpy_comes_with_the_command_that_adds_it(program):
    python = program("3.8.10\n- ModuleNotFoundError No module named 'numpy'")
    with pytest.raises(InputError) as caught:
        probe(python)
    assert f"{python} -m pip install numpy" in caught.value.remedy


def test_a_path_that_is_no_program_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no/python does not exist"):
        probe(str(tmp_path / "no/python"))
    (tmp_path / "text").write_text("not a program")
    with pytest.raises(InputError, match="text is not executable"):
        probe(str(tmp_path / "text"))
