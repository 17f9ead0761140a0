"""The commands of the guides, run as they stand; a bench is merely shorter than it would be for a reader."""

from __future__ import annotations

import json
import os
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
pytestmark = pytest.mark.timeout(660)  # each runs several commands, and each command starts Python
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


def run(folder: Path, script: str, *, timeout_s: float = 600) -> str:
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


def github(event: str) -> list[str]:
    """The commands of the recipe for GitHub that an event runs."""
    holds = {
        "always()": True,
        "github.ref == 'refs/heads/main'": event == "push",
        "github.event_name == 'pull_request'": event == "pull_request",
    }
    (job,) = yaml.safe_load((ROOT / "examples/ci/github.yml").read_text("utf-8"))["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step and holds[step.get("if", "always()")]]


def gitlab() -> list[str]:
    return list(yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text("utf-8"))["gate"]["script"])


#: Every step of a recipe, as the service runs it: the one in a shell for each, the other all in one shell.
IN_SHELLS = """
export GITHUB_PATH="$HOME/added"; : > "$GITHUB_PATH"
step() { PATH="$(paste -sd : "$GITHUB_PATH"):$PATH" bash -ec "$1"; }
"""
#: A Python that installs nothing: its environments have the edgeprof that is tested.
NO_INSTALL = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exit 2
mkdir -p "$3/bin"
cp "{edgeprof}" "$3/bin/edgeprof"
printf '#!/bin/sh\necho "$@" >> installed\n' > "$3/bin/python"
chmod +x "$3/bin/python"
"""


def run_recipe(folder: Path, service: str, event: str, wheel: str) -> None:
    """Run the steps of a recipe for a push to the main branch, or for a pull request."""
    if service == "github":
        script = IN_SHELLS + "\n".join(f"step {shlex.quote(line)}" for line in github(event))
    else:
        branch = "main" if event == "push" else "change"
        script = f"CI_DEFAULT_BRANCH=main CI_COMMIT_BRANCH={branch}\n" + "\n".join(gitlab())
    # Windows of 0.1 s on a busy machine: what the gate says of them is not what is tested here.
    script = script.replace("--max-regression 5%", "--max-regression 900%")
    run(folder, f"EDGEPROF={shlex.quote(wheel)}\nexport EDGEPROF\n{script}")


@pytest.fixture
def project(folder: Path) -> Path:
    """The folder of a project that has only its model and its data; there is no edgeprof on PATH."""
    (folder / "bin/edgeprof").rename(folder / "short-edgeprof")
    for name, target in {"model.onnx": "digits.onnx", "test.npz": "digits-test.npz"}.items():
        (folder / name).symlink_to(folder / "examples/demo" / target)
    return folder


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_a_recipe_for_a_service_keeps_a_baseline_and_gates_a_change(project: Path, service: str) -> None:
    (project / "bin/python3").write_text(NO_INSTALL.format(edgeprof=project / "short-edgeprof"))
    (project / "bin/python3").chmod(0o755)
    for event in ("push", "pull_request"):
        run_recipe(project, service, event, "/opt/edgeprof.whl")
        assert (project / "gate.xml").exists() == (event == "pull_request")
        assert (project / "energy-main.json").exists()
    assert set((project / "installed").read_text("utf-8").splitlines()) == {"-m pip install /opt/edgeprof.whl[onnx]"}
    assert "<testsuite" in (project / "gate.xml").read_text("utf-8")
    assert (project / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif("EDGEPROF_WHEEL" not in os.environ, reason="downloads packages: make test-recipes")
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_a_recipe_for_a_service_works_with_its_real_installation(project: Path, service: str) -> None:
    (project / "bin/python3").symlink_to(os.environ["EDGEPROF_PYTHON"])
    for event in ("push", "pull_request"):
        run_recipe(project, service, event, os.environ["EDGEPROF_WHEEL"])
    assert "<testsuite" in (project / "gate.xml").read_text("utf-8")


def test_a_gate_in_ci(folder: Path) -> None:
    page = (HERE / "ci.sh").read_text("utf-8")
    # Windows of 0.1 s on a busy machine: what the gate says of them is not what is tested here.
    run(folder, page.replace("--max-regression 20%", "--max-regression 900%"))
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
