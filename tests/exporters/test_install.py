"""Installing: shown before it is done, hardened, and careful with what a person has changed."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from edgeprof_exporters import install
from tests.exporters.conftest import EDGEPROF

if TYPE_CHECKING:
    from pathlib import Path


def run(*argv: str) -> str:
    return subprocess.run([EDGEPROF, "exporter", "install", *argv], capture_output=True, text=True, check=True).stdout


def test_a_dry_run_shows_every_file_and_command_and_writes_nothing(tmp_path: Path) -> None:
    shown = run("--system", "--dry-run", "--root", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    for what in ("edgeprof-exporter.service", "sysusers.d", "70-edgeprof.rules", "exporter.yml", "DevicePolicy=closed"):
        assert what in shown
    assert "systemctl enable --now edgeprof-exporter.service" in run("--dry-run")
    assert "systemctl --user enable" in run("--user", "--dry-run")


def test_what_a_person_has_changed_is_kept(tmp_path: Path) -> None:
    run("--system", "--root", str(tmp_path))
    settings = tmp_path / "etc/edgeprof/exporter.yml"
    settings.write_text("log: {level: debug}\n")
    assert f"kept: {settings}" in run("--system", "--root", str(tmp_path))
    assert settings.read_text() == "log: {level: debug}\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze judges the unit")
def test_the_unit_is_valid_and_its_exposure_is_at_most_2(tmp_path: Path) -> None:
    run("--system", "--root", str(tmp_path))
    unit = tmp_path / "etc/systemd/system/edgeprof-exporter.service"
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout + judged.stderr)
    assert exposure, judged.stderr
    assert float(exposure[1]) <= 2.0
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    about_ours = [line for line in verified.stderr.splitlines() if "edgeprof" in line]
    assert about_ours == []


def test_no_rule_opens_a_counter_to_everybody() -> None:
    rules = install._text("udev.rules")
    modes = re.findall(r'chmod (\d+)|MODE="(\d+)"', rules)
    assert len(modes) == 2
    assert all((chmod or mode).endswith("0") for chmod, mode in modes)


def test_groups_that_do_not_exist_are_not_in_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_has_group", lambda name: name == "i2c")
    (drop_in,) = [text for path, text in install.plan("system", tmp_path).files.items() if path.name == "groups.conf"]
    assert drop_in.endswith("SupplementaryGroups=i2c\n")
