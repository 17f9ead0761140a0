"""The commands of the guides, run as they stand; a bench is merely shorter than it would be for a reader."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.test_docs import ROOT

HERE = Path(__file__).parent
#: What stands before edgeprof on PATH: the same bench, with windows that a test can wait for.
SHORT = """#!/bin/sh
verb=$1
shift
[ "$verb" = bench ] && set -- --windows 2 --window 0.1 --warmup 0.05 --idle 0.1 --threads 1 --quiet "$@"
exec {program} "$verb" "$@"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the demo's models, as in a checkout."""
    shutil.copytree(ROOT / "examples/demo", tmp_path / "examples/demo")
    short = tmp_path / "bin/edgeprof"
    short.parent.mkdir()
    short.write_text(SHORT.format(program=Path(sys.executable).with_name("edgeprof")))
    short.chmod(0o755)
    return tmp_path


def run(folder: Path, script: str, *, timeout_s: float = 120) -> str:
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env={
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "EDGEPROF_DATA_DIR": str(folder / "data"),
            "EDGEPROF_LOCK_DIR": str(folder),
            "EDGEPROF_PLUGINS": "onnxruntime,compressors,npz,topk,ina3221,jetson,thermal,system",
            "LANG": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_quickstart(folder: Path) -> None:
    pytest.importorskip("onnx")
    said = run(folder, (HERE / "quickstart.sh").read_text("utf-8"))
    assert {p.name for p in folder.iterdir()} >= {"result.json", "report.html", "variants.json", "pareto.svg"}
    made = json.loads((folder / "variants.json").read_text("utf-8"))
    assert [v["status"] for v in made["variants"]].count("failed") == 0
    assert len(made["variants"]) == 3
    assert made["command"][:2] == ["edgeprof", "bench"]
    assert "a virtual board" in said


def test_the_scenarios(folder: Path) -> None:
    said = run(folder, (HERE / "scenarios.sh").read_text("utf-8"))
    assert said.count("saved as run") == 2


def test_two_runs_are_compared(folder: Path) -> None:
    assert "digits" in run(folder, (HERE / "two-runs.sh").read_text("utf-8"))


def test_a_run_on_a_board_whose_joules_are_known(folder: Path) -> None:
    said = run(
        folder,
        (HERE / "joules.sh").read_text("utf-8").replace("--duration 8", "--duration 4").replace("sleep 4", "sleep 1"),
    )
    assert "simulated" in said
    assert json.loads((folder / "board/truth.json").read_text("utf-8"))


def steps(name: str) -> list[str]:
    """The commands of a recipe for a CI service, without those that install."""
    text = (ROOT / "examples/ci" / name).read_text("utf-8")
    loaded = yaml.safe_load(text)
    if name == "github.yml":
        (job,) = loaded["jobs"].values()
        lines = [step["run"] for step in job["steps"] if "run" in step]
    else:
        lines = loaded["gate"]["script"]
    return [line for line in lines if " -m venv " not in line]


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_recipes_run_the_same_commands_and_write_what_they_keep(name: str) -> None:
    commands = steps(name)
    assert commands == steps("gitlab.yml")
    text = (ROOT / "examples/ci" / name).read_text("utf-8")
    for file in ("report.html", "gate.xml", "main.json"):
        assert file in text
        assert any(file in shlex.split(command) for command in commands)


def test_a_gate_in_ci(folder: Path) -> None:
    """The page's commands, then the recipes' with the files that they name."""
    page = (HERE / "ci.sh").read_text("utf-8")
    recipe = "\n".join(f"{line} || [ $? = 1 ]" for line in steps("github.yml"))
    links = "ln -s examples/demo/digits.onnx model.onnx; ln -s examples/demo/digits-test.npz test.npz\n"
    # Windows of 0.1 s on a busy machine: what the gate says of them is not what is tested here.
    run(folder, page.replace("--max-regression 20%", "--max-regression 900%") + links + recipe)
    assert "<testsuite" in (folder / "gate.xml").read_text("utf-8")
    assert "model-index:" in (folder / "README.card.md").read_text("utf-8")
    for file in ("run.github-benchmark.json", "model.spdx3.json"):
        assert "digits" in (folder / file).read_text("utf-8")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_page_is_on_the_site_and_every_region_is_run(page: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert re.search(rf"- {re.escape(page.name)}$", navigation, re.MULTILINE), "add it to nav in mkdocs.yml"
    for file in re.findall(r"<!-- region \S+ of (tests/docs/\S+\.sh) -->", page.read_text("utf-8")):
        runners = [Path(__file__), ROOT / "tools/stranger.py"]
        assert any((ROOT / file).name in runner.read_text("utf-8") for runner in runners)
