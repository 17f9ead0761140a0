"""What is installed is what pyproject.toml says, and the house's walls stand."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = {"edgeprof", "edgeprof_plugins", "edgeprof_exporters", "edgeprof_dashboards"}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from this checkout."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def run(*command: str) -> None:
    """Run a tool in the repository; what it prints is the failure's text."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_the_installed_entry_points_are_those_of_pyproject(pyproject: dict) -> None:
    """Entry points live in the installed metadata: a new line in pyproject.toml needs a reinstall."""
    installed = importlib.metadata.distribution("edgeprof").entry_points
    declared = {
        ("edgeprof", name, value) for name, value in pyproject["project"]["entry-points"]["edgeprof"].items()
    } | {("console_scripts", name, value) for name, value in pyproject["project"]["scripts"].items()}
    assert {(point.group, point.name, point.value) for point in installed} == declared, (
        "the installed metadata is older than pyproject.toml; run: pip install -e ."
    )


def test_every_entry_point_of_ours_is_a_file_and_every_plugin_file_has_its_entry_point(pyproject: dict) -> None:
    points = set(pyproject["project"]["entry-points"]["edgeprof"].values())
    rooms = [ROOT / folder for folder in ("plugins", "exporters", "dashboards")]
    modules = {
        ".".join(path.relative_to(room).with_suffix("").parts)
        for room in rooms
        for path in room.rglob("[!_]*.py")
        if re.search(r"^@hookimpl\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert points == modules


def test_one_version_everywhere(pyproject: dict) -> None:
    import edgeprof

    version = pyproject["project"]["version"]
    assert edgeprof.__version__ == version == importlib.metadata.version("edgeprof")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_wheel_holds_the_four_packages_and_every_file_that_they_read(wheel: set[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info" not in name} == PACKAGES
    tracked = subprocess.run(
        ["git", "ls-files", "profiler", "plugins", "exporters", "dashboards"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    inside = {"/".join(name.split("/")[1:]) for name in tracked.stdout.split() if len(name.split("/")) > 2}
    assert inside <= wheel
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_all_is_the_sum_of_the_other_extras(pyproject: dict) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("edgeprof[").removesuffix("]").split(","))
    hardware = {"joulescope", "ppk2", "jetson"}  # libraries of one meter or one board, for who has it
    # Some 900 MB, with JAX; a source that needs a compiler; PyTorch's and the language models' own libraries.
    heavy = {"torch-tflite", "llamacpp", "transformers", "openvino-genai", "onnxruntime-genai", "ctranslate2"}
    # For who deploys with one of them; make test-runtimes gives each an environment of its own.
    runtimes = {"openvino", "opencv", "ncnn", "keras", "keras-compress", "microcontroller", "mnn", "executorch", "vela"}
    heavy |= {"transformers-compress", "onnxruntime-genai-compress"}
    assert named == set(extras) - {"all"} - hardware - heavy - runtimes


def test_the_core_needs_only_what_a_small_board_can_carry(pyproject: dict) -> None:
    """Each is paid for by every 2 GB board; a new one is a decision, written down in docs/architecture.md."""
    names = {line.split(">")[0].split(";")[0].strip() for line in pyproject["project"]["dependencies"]}
    assert names == {"click", "msgspec", "numpy", "pluggy", "psutil", "tomli"}
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_no_import_runs_up_the_house() -> None:
    run(tool("lint-imports"))


def test_the_worker_runs_on_python_3_6() -> None:
    run(sys.executable, "tools/floor.py")


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_each_package_says_that_it_is_typed(name: str, wheel: set[str]) -> None:
    assert f"{name}/py.typed" in wheel


def test_the_tested_versions_are_those_of_everything_that_the_extras_ask_for(pyproject):
    """Whoever installs with constraints/tested.txt gets what the tests ran with, and nothing is left to chance."""
    lines = (ROOT / "constraints" / "tested.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    named = re.search(r"\[(.+)\]", everything)
    assert named is not None
    asked = project["dependencies"] + [line for name in named[1].split(",") for line in extras[name]]
    for line in asked:
        match = re.match(r"([\w.-]+)>=([\d.]+)", line)
        assert match is not None, line
        pin = pins[re.sub(r"[-_.]+", "-", match[1]).lower()]
        assert _numbers(pin) >= _numbers(match[2]), line


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
