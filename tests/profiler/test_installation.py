"""Every remedy is a command for the environment that prints it, and can be carried out on this machine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from edgeprof import installation
from edgeprof.errors import InputError
from edgeprof.installation import fitting, install_command, mended_for, mended_here

ROOT = Path(__file__).parents[2]
EXTRAS = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = [path for room in ("profiler", "plugins", "exporters", "dashboards") for path in (ROOT / room).rglob("*.py")]


def environment(monkeypatch, kind, machine="x86_64", libc=(2, 36)):
    monkeypatch.setattr(installation, "environment_kind", lambda: kind)
    monkeypatch.setattr(installation.platform, "machine", lambda: machine)
    monkeypatch.setattr(installation, "glibc", lambda: libc)


@pytest.mark.parametrize("kind", ["pip", "bare", "uv-tool", "pipx", "system"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_installed_by_its_requirements_in_every_kind_of_environment(monkeypatch, kind, extra):
    """edgeprof is on no index, and in an environment of pipx or uv pip would be the wrong one."""
    environment(monkeypatch, kind)
    command = mended_here(f"pip install 'edgeprof[{extra}]'")
    start = {"pipx": "pipx inject edgeprof ", "uv-tool": "uv pip install --python ", "bare": "uv pip install --python "}
    assert command.startswith(start.get(kind, f"{sys.executable} -m "))
    words = shlex.split(command)
    named = [word.replace("_", "-") for word in words]  # an installed distribution's metadata may write either
    for requirement in EXTRAS[extra]:
        if not requirement.startswith("edgeprof["):
            name = requirement.split(">")[0].replace("_", "-").strip().lower()
            assert any(word.lower().startswith(name) for word in named)
    assert not any(word.startswith("edgeprof[") for word in words)


def test_the_interpreter_of_the_remedy_is_this_one_and_has_pip():
    if installation.environment_kind() != "pip":
        pytest.skip("this environment has no pip of its own")
    words = shlex.split(install_command(["click"]))
    assert words[1:] == ["-m", "pip", "install", "click"]
    subprocess.run([*words[:3], "--version"], check=True, capture_output=True)


@pytest.mark.parametrize(
    "remedy", ["/usr/bin/python3.8 -m pip install numpy", "sudo /opt/edgeprof/bin/pip install 'x[y]'", "Wait a minute."]
)
def test_what_belongs_to_another_interpreter_is_left_as_it_is(remedy):
    assert mended_here(remedy) == remedy


def test_a_workers_remedy_is_for_the_workers_interpreter(monkeypatch):
    environment(monkeypatch, "pipx")
    remedy = mended_for("pip install -U onnxruntime, or export it again.", "/usr/bin/python3.8")
    assert mended_here(remedy) == "/usr/bin/python3.8 -m pip install -U onnxruntime, or export it again."


def test_an_error_carries_the_remedy_of_this_environment(monkeypatch):
    environment(monkeypatch, "pipx")
    error = InputError("it is not here", remedy="pip install -U ai-edge-litert, or convert it.")
    assert error.remedy == "pipx inject --force edgeprof ai-edge-litert, or convert it."


@pytest.mark.parametrize("package", ["onnxruntime-gpu", "onnxruntime-openvino"])
def test_a_package_that_the_machine_cannot_have_is_not_named_as_a_command(monkeypatch, package):
    environment(monkeypatch, "pip", "aarch64")
    assert "pip" not in install_command([package])
    assert "no wheel for aarch64" in install_command([package])
    environment(monkeypatch, "pip", "x86_64")
    assert install_command([package]).endswith(f"-m pip install {package}")


@pytest.mark.parametrize(
    ("libc", "requirement", "refused"),
    [
        ((2, 36), "ai-edge-litert>=1.0", False),
        ((2, 34), "ai-edge-litert>=1.0", False),
        ((2, 31), "ai-edge-litert>=1.0,<2.1.1", False),
        ((2, 27), "ai-edge-litert>=1.0", True),
    ],
)
def test_litert_on_a_boards_old_glibc(monkeypatch, libc, requirement, refused):
    """The wheels' names contain glibc 2.27, but their libraries need 2.34 from release 2.1 on, and 2.30 before."""
    environment(monkeypatch, "pip", "aarch64", libc)
    found, reason = fitting("ai-edge-litert>=1.0")
    assert (found, reason is not None) == (requirement, refused)


def test_every_remedy_in_the_sources_is_one_that_is_rewritten():
    """A ``pip install`` in a message that is not rewritten would be wrong in some environment."""
    for path in SOURCES:
        if path.name == "installation.py":
            continue
        for line in path.read_text().splitlines():
            bare = re.sub(r"``pip install[^`]*``|#.*", "", line)
            if re.search(r"(?<!-m )(?<!/)pip install [\w'{]", bare):
                assert installation._COMMAND.search(bare) or "'edgeprof[{}]'" in bare, f"{path.name}: {line.strip()}"
