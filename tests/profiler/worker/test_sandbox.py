"""What a confined process can still do, tried for real in one of its own; skipped where the kernel cannot confine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprof.cli.options import _require_sandbox
from edgeprof.errors import UnavailableError
from edgeprof.worker import sandbox

REASON = sandbox.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"this kernel cannot confine a process: {REASON}")

ATTEMPTS = """
import json, os, signal, socket, subprocess, sys
from edgeprof.worker import sandbox
inside, outside, namespaces = sys.argv[1:4]
if namespaces == "1":
    sandbox.landlock_version = lambda: 0
told = sandbox.enter([inside])
kept = outside + "/kept"
attempts = {
    "write inside": lambda: open(inside + "/a", "w").write("x"),
    "rename inside": lambda: os.rename(inside + "/a", inside + "/b"),
    "read outside": lambda: open(kept).read(),
    "write to null": lambda: open("/dev/null", "w").write("x"),
    "run a program": lambda: subprocess.run(["true"], check=True),
    "pair of sockets": lambda: socket.socketpair(),
    "make outside": lambda: open(outside + "/new", "w"),
    "append outside": lambda: open(kept, "a"),
    "truncate by name": lambda: os.truncate(kept, 0),
    "truncate while reading": lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC),
    "remove outside": lambda: os.unlink(kept),
    "rename out": lambda: os.rename(inside + "/b", outside + "/b"),
    "link in": lambda: os.link(kept, inside + "/l"),
    "change a mode": lambda: os.chmod(kept, 0o777),
    "change a time": lambda: os.utime(kept),
    "program writes": lambda: subprocess.run(["sh", "-c", "echo > " + outside + "/n"], check=True, stderr=-3),
    "internet": lambda: socket.socket(),
    "internet 6, datagrams": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "signal to the parent": lambda: os.kill(os.getppid(), 0),
    "memory of the parent": lambda: open("/proc/%d/mem" % os.getppid(), "r+b"),
}
outcome = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcome[name] = True
    except (OSError, subprocess.CalledProcessError):
        outcome[name] = False
print(json.dumps([told, outcome]))
"""
ALLOWED = {"write inside", "rename inside", "read outside", "write to null", "run a program", "pair of sockets"}


@pytest.mark.parametrize("by", ["what there is", "user namespaces"])
def test_a_confined_process_writes_in_its_folder_and_reaches_nobody(tmp_path: Path, by: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    namespaces = "1" if by == "user namespaces" else "0"
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, inside, outside, namespaces],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if namespaces == "1" and "user namespaces are refused" in done.stderr:
        pytest.skip("this kernel refuses user namespaces")
    told, outcome = json.loads(done.stdout or done.stderr)
    assert {name for name, worked in outcome.items() if worked} == ALLOWED
    assert (outside / "kept").read_text() == "kept"
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert told.startswith("user namespaces" if namespaces == "1" else ("Landlock", "user namespaces"))


def test_a_kernel_that_cannot_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_not", lambda: "this kernel (4.9) has neither")
    with pytest.raises(UnavailableError, match=r"--sandbox cannot be used here: this kernel \(4\.9\) has neither"):
        _require_sandbox()


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "armv7l")
    with pytest.raises(sandbox.SandboxError, match="armv7l"):
        sandbox.enter([])


PROGRAM = """
import socket
tried = []
def model():
    if tried:
        return
    tried.append(1)
    for attempt in (lambda: open({!r}, "w").close(), lambda: socket.create_connection(("127.0.0.1", {}), 5).close()):
        try:
            attempt()
        except OSError:
            pass
"""


@pytest.mark.parametrize("confined", [True, False])
def test_a_bench_in_the_sandbox_lets_its_model_do_nothing_outside(tmp_path: Path, confined: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        program = tmp_path / "app.py"
        program.write_text(PROGRAM.format(str(tmp_path / "written"), server.getsockname()[1]))
        result = _bench(tmp_path, "app.py:model", *(["--sandbox"] if confined else []))
        assert result["variants"][0]["status"] in {"ok", "degraded"}
        facts = result["variants"][0]["runtime"]["facts"]
        assert ("sandbox" in json.dumps(facts)) == confined
        assert (tmp_path / "written").exists() != confined
        if confined:
            with pytest.raises(BlockingIOError):
                server.accept()
        else:
            server.accept()[0].close()
    assert not list(Path(tmp_path / "tmp").glob("edgeprof-sandbox-*"))


def _bench(folder: Path, *words: str) -> dict[str, Any]:
    (folder / "tmp").mkdir()
    quick = ["--windows", "2", "--window", "0.1", "--idle", "0", "--warmup", "0.05", "--timeout", "20", "--json"]
    environment = {**os.environ, "EDGEPROF_DATA_DIR": str(folder / "data"), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [sys.executable, "-m", "edgeprof", "bench", *words, *quick],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_sandbox_without_a_process_of_its_own_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def model(): open('ran', 'w').close()\n")
    words = ["bench", "app.py:model", "--sandbox", "--no-isolation"]
    done = subprocess.run([sys.executable, "-m", "edgeprof", *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"--no-isolation forbids it" in done.stderr
    assert not (tmp_path / "ran").exists()
