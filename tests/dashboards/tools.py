"""Prometheus, promtool and the exporter as users start them, each behind a port that was free."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

EDGEPROF = str(Path(sys.executable).parent / "edgeprof")
HOW = "apt-get install -y --no-install-recommends prometheus"


def needed(program: str) -> str:
    """The path of a program of Debian's package prometheus; the test is skipped where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: {HOW}")
    return path


def edgeprof(*argv: str, code: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; what it prints is the failure's text."""
    done = subprocess.run(
        [EDGEPROF, *argv], capture_output=True, text=True, check=False, env={**os.environ, **environ}, timeout=90
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def promtool(*argv: str, code: int = 0, cwd: Path | None = None, stdin: str | None = None) -> str:
    done = subprocess.run(
        [needed("promtool"), *argv], capture_output=True, text=True, check=False, cwd=cwd, input=stdin, timeout=90
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition, seconds: float = 40.0, what: str = "it did not happen") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Child:
    """A child process whose output is kept."""

    def __init__(self, argv: list[str], cwd: Path | None = None, **environ: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("EDGEPROF_")}
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**clean, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    @property
    def said(self) -> str:
        return "".join(self.log)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        # To close what another thread reads waits for that thread, where no signal interrupts it.
        assert not self._reader.is_alive(), "a process that this one started outlived it, with its stderr"
        assert self.process.stderr is not None
        self.process.stderr.close()


class Exporter(Child):
    """``edgeprof exporter`` on a virtual board, with sockets and a store of its own."""

    def __init__(self, board: Path, runtime: Path, *flags: str) -> None:
        runtime.mkdir(parents=True, exist_ok=True)
        self.track = runtime / "track.sock"
        self.data = runtime / "data"
        super().__init__(
            [
                EDGEPROF,
                "exporter",
                "--web.listen-address=127.0.0.1:0",
                f"--sysfs-root={board}",
                f"--track.socket={self.track}",
                "--control.socket=",
                "--sampling.rate-hz=50",  # inferences of 20 ms with pauses of 30 ms are reported
                *flags,
            ],
            EDGEPROF_DATA_DIR=str(self.data),
        )
        until(lambda: self.address or self.process.poll() is not None, what="the exporter does not listen")
        assert self.address, self.said

    @property
    def address(self) -> str:
        match = re.search(r"listening\b.*addresses=(\S+)", self.said)
        return match[1] if match else ""

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=20) as answer:
            return answer.read().decode()


class Prometheus(Child):
    """The real Prometheus on a directory with a prometheus.yml in it."""

    def __init__(self, directory: Path, *flags: str, config: str = "prometheus.yml", agent: bool = False) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        storage = "--storage.agent.path" if agent else "--storage.tsdb.path"
        super().__init__(
            [
                needed("prometheus"),
                f"--config.file={config}",
                f"{storage}={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                *flags,
            ],
            cwd=directory,
        )
        until(lambda: self.answers() or self.process.poll() is not None, what="Prometheus does not become ready")
        assert self.process.poll() is None, self.said

    def answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def api(self, path: str, **parameters: str) -> dict:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[dict]:
        return self.api("query", query=expr)["result"]

    def value(self, expr: str) -> float:
        found = self.query(expr)
        assert len(found) == 1, (expr, found)
        return float(found[0]["value"][1])

    def targets(self) -> list[dict]:
        return self.api("targets")["activeTargets"]


def hurried(directory: Path, scrape: str = "1s") -> None:
    """Make an exported configuration scrape and evaluate every second; nothing else is changed."""
    config = directory / "prometheus.yml"
    text = config.read_text("utf-8")
    text = re.sub(r"(?m)^(  scrape_interval|  evaluation_interval|  scrape_timeout): \S+", rf"\1: {scrape}", text)
    config.write_text(text, "utf-8")
    for rules in (directory / "rules").glob("*.yml"):
        text = rules.read_text("utf-8")
        rules.write_text(re.sub(r"(?m)^(    interval): \S+", rf"\1: {scrape}", text), "utf-8")
