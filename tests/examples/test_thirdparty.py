"""A distribution that is not ours works beside edgeprof: installs, registers, conforms, and is benched with its meter.

The meter is a file that this test moves by exactly three watts, so the joules of the bench are known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.examples.counting import counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SOURCE = Path(__file__).parents[2] / "examples/thirdparty"
WATTS = 3.0


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a module of Python where edgeprof-abacus is installed."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(SOURCE)], check=True, capture_output=True)

    def run(*argv: str) -> str:
        environ = {**os.environ, "PYTHONPATH": str(site), "EDGEPROF_DATA_DIR": str(site / "data")}
        done = subprocess.run(
            [sys.executable, "-m", *argv], cwd=SOURCE, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def metered(tmp_path: Path) -> Iterator[Path]:
    """A /sys with an abacus meter that counts three joules a second, every 10 ms."""
    directory = tmp_path / "class/abacus/meter0"
    directory.mkdir(parents=True)
    (directory / "label").write_text("supply\n", encoding="utf-8")
    with counting(directory / "energy_uj", WATTS):
        yield tmp_path


def test_its_own_tests_pass(python: Callable[..., str]) -> None:
    assert "passed" in python("pytest", "-q", "-p", "no:cacheprovider", "-W", "error")


def test_edgeprof_lists_what_it_brings(python: Callable[..., str]) -> None:
    plugins = json.loads(python("edgeprof", "plugins", "list", "--json"))["plugins"]
    brought = {plugin["name"]: plugin for plugin in plugins if plugin["distribution"] == "edgeprof-abacus"}
    assert {name: plugin["status"] for name, plugin in brought.items()} == {
        "abacus": "loaded",
        "abacus-meter": "loaded",
    }
    assert brought["abacus"]["registers"]["runtimes"] == ["abacus"]
    assert brought["abacus-meter"]["registers"]["sensors"] == ["abacus-meter"]


def test_the_conformance_check_runs_its_model(python: Callable[..., str]) -> None:
    checks = json.loads(python("edgeprof", "plugins", "check", "abacus", "--model", "xor.abacus", "--json"))["checks"]
    assert [check["status"] for check in checks if "xor.abacus" in check["name"]] == ["ok"]


def test_its_model_is_benched_with_its_meter_to_the_true_joule(python: Callable[..., str], metered: Path) -> None:
    # At a fixed rate, so that a busy machine cannot change what one inference costs.
    steady = ["--scenario", "periodic", "--rate", "50", "--windows", "3", "--window", "1", "--idle", "0.3"]
    out = python("edgeprof", "bench", "xor.abacus", "--quick", *steady, "--sysfs-root", str(metered), "--json")
    (variant,) = json.loads(out)["variants"]
    energy = variant["energy_j_per_inference"]
    assert variant["runtime"]["name"] == "abacus"
    assert (energy["provenance"], energy["rail"], energy["covers"]) == ("counter", "supply", "board")
    watts = energy["gross"]["value"] * variant["throughput_per_s"]
    assert watts == pytest.approx(WATTS, rel=0.03)
