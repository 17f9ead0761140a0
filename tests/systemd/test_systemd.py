"""The service under a real systemd (boot.sh); minutes, so only where it is asked for: make test-systemd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not os.environ.get("EDGEPROF_SYSTEMD"), reason="boots a machine for minutes: make test-systemd"),
    pytest.mark.timeout(3600),
]


def test_the_service_lives_as_it_should() -> None:
    done = subprocess.run(
        [Path(__file__).with_name("boot.sh")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
    )
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(check["check"], check.get("said")) for check in checks if not check["ok"]] == []
    assert len(checks) > 20
    assert done.returncode == 0
