"""The recipe for a cluster with a batch system: dask-jobqueue starts hosts that make variants, here by a stand-in."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from edgeprof.fleet.store import fleet_store
from tests.profiler.cli.in_process import verb
from tests.profiler.fleet.services import DOCS, Service, make_certificates

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl"),
    # It is not imported here, because its import replaces the handler of SIGINT.
    pytest.mark.skipif(importlib.util.find_spec("dask_jobqueue") is None, reason="pip install dask-jobqueue"),
    pytest.mark.skipif(not os.environ.get("EDGEPROF_FLEET"), reason="takes a minute: make test-fleet"),
    pytest.mark.timeout(300),
]
#: Stands in for Slurm's sbatch: it checks the directives, and runs the job on this machine at once.
SBATCH = """\
#!/bin/sh
grep -q '^#SBATCH --cpus-per-task=8$' "$1" && grep -q '^#SBATCH --mem=' "$1" || exit 1
number=$(ls {folder} | grep -c '^job-')
cp "$1" {folder}/job-$number
setsid sh {folder}/job-$number > {folder}/output-$number 2>&1 < /dev/null &
echo $! > {folder}/process-$number
echo "Submitted batch job $number"
"""
SCANCEL = '#!/bin/sh\nkill -TERM -- -"$(cat {folder}/process-"$1")"\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A folder in which each job that was submitted has the files job-N, output-N and process-N."""
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / "bin" / name).write_text(text.format(folder=folder))
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def recipe(folder: Path, port: int) -> str:
    """Return the program of the documentation, with folders and a port of this test."""
    found = re.search(r"<!-- recipe: jobqueue -->\n```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert found is not None
    text = found[1]
    for before, after in (
        ("/etc/edgeprof/fleet", str(folder / "tls/server")),
        ("/home/me/.fleet", str(folder)),
        ('"port": 8786', f'"port": {port}, "host": "127.0.0.1"'),
        ("127.0.0.1:8787", "127.0.0.1:0"),
        ("input(", 'print("listening", cluster.scheduler_address, file=__import__("sys").stderr, flush=True); input('),
    ):
        assert before in text
        text = text.replace(before, after)
    return text


def test_variants_are_made_by_jobs_of_a_batch_system_and_measured_on_a_board(
    slurm, desk, boards, capfd, monkeypatch, tmp_path
) -> None:
    make_certificates(tmp_path / "tls")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "cluster.py").write_text(recipe(tmp_path, port))
    engine = f'[engine]\nscheduler = "tls://127.0.0.1:{port}"\ncertificates = "tls/desk"\ncompress = true\n'
    inventory = boards.inventory(tmp_path / "inventory.toml", engine)
    monkeypatch.setenv("EDGEPROF_INVENTORY", str(inventory))
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{desk.model}"\n[protocol]\nwindows = 2\nwindow = 0.2\nidle = 0.2\nwarmup = 0.1\n'
        '[recipes]\nexplicit = ["fp16"]\n'
    )
    before = len(fleet_store().jobs())
    scheduler = subprocess.Popen(
        [sys.executable, tmp_path / "cluster.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert scheduler.stdin is not None
    assert scheduler.stderr is not None
    try:
        first = next((line for line in scheduler.stderr if "listening" in line), "")
        assert f"tls://127.0.0.1:{port}" in first
        reader = threading.Thread(target=scheduler.stderr.read, daemon=True)
        reader.start()
        with Service("host", "--inventory", str(inventory), "--on", "nano-1") as host:
            assert "registered" in host.first_line
            done = verb(capfd, "fleet")("sweep", study, "--on", "nano-1", "--json")
    finally:
        scheduler.stdin.write("\n")
        scheduler.stdin.close()
        scheduler.wait(60)
        reader.join(30)
        scheduler.stderr.close()
    (group,) = json.loads(done.stdout)["table"]["groups"]
    assert [row["variant"] for row in group["rows"]] == ["affine baseline", "affine fp16"]
    records = list((tmp_path / "study.study/variants").glob("*.host.json"))
    assert [json.loads(path.read_text())["name"] for path in records] == ["fp16"]
    assert not list((tmp_path / "study.study/variants").glob("*.compress.json"))  # the desk made nothing
    assert len(fleet_store().jobs()) == before + 1
    script = (slurm / "job-0").read_text()
    assert "--resources compress=1" in script
    assert "--tls-ca-file" in script
