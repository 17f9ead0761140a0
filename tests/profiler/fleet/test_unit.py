"""The systemd unit in docs/fleet.md for a device behind NAT is valid for systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs/fleet.md"


def test_the_unit_of_the_tunnel_is_one_that_systemd_accepts(tmp_path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None or not Path("/usr/bin/ssh").exists():
        pytest.skip("no systemd-analyze or no ssh: apt-get install systemd openssh-client")
    units = re.findall(r"```ini\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    (unit,) = [unit for unit in units if "ExecStart=/usr/bin/ssh" in unit]
    path = tmp_path / "edgeprof-tunnel.service"
    path.write_text(unit.replace("User=edgeprof", f"User={os.getuid()}"))
    done = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(unit.replace("Restart=always", "Restart=sometimes"))
    done = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert "restart" in done.stderr.lower()  # so a mistake would be reported
