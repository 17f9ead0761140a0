"""Installing: shown before it is done, hardened, and careful with what a person has changed."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import UnavailableError
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
    assert "systemctl enable edgeprof-exporter.service\nsystemctl restart" in run("--dry-run")
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
    rules = install._packaged_text("udev.rules")
    modes = re.findall(r'chmod (\d+)|MODE="(\d+)"', rules)
    assert len(modes) == 2
    assert all((chmod or mode).endswith("0") for chmod, mode in modes)


def test_groups_that_do_not_exist_are_not_in_the_unit(tmp_path: Path) -> None:
    def groups() -> str:
        (text,) = [text for path, text in install.plan("system", tmp_path).files.items() if path.name == "groups.conf"]
        return text.splitlines()[-1]

    assert groups() == "SupplementaryGroups=i2c"  # an image without any
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\nvideo:x:44:\nvideographers:x:45:\n")
    assert groups() == "SupplementaryGroups=i2c video"


def test_a_program_that_the_service_could_not_reach_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.os, "geteuid", lambda: 0)
    program = tmp_path / "home" / "bin" / "edgeprof"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    tmp_path.chmod(0o755)
    written = tmp_path / "unit"
    plan = install.Plan(files={written: ""}, needs_root=True, runs=[program])
    program.parent.parent.chmod(0o700)
    with pytest.raises(UnavailableError, match=f"{program.parent.parent} is not open to everybody") as refused:
        install.carry_out(plan)
    assert "/opt/edgeprof" in (refused.value.remedy or "")
    assert not written.exists()


def test_both_units_bound_memory_and_tasks() -> None:
    for where in ("--system", "--user"):
        text = run("--dry-run", where)
        assert "MemoryMax=128M" in text
        assert "TasksMax=600" in text
