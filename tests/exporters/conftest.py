"""A daemon as users start it: the real command, on a virtual board, behind a port that the system chose."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")

from prometheus_client.parser import text_string_to_metric_families

EDGEPROF = str(Path(sys.executable).parent / "edgeprof")


class Daemon:
    """``edgeprof exporter`` as a child process; its log is read as it comes."""

    def __init__(self, board: Path, runtime: Path, *flags: str, **environ: str) -> None:
        runtime.mkdir(exist_ok=True)
        self.runtime = runtime
        clean = {k: v for k, v in os.environ.items() if not k.startswith("EDGEPROF_EXPORTER")}
        env = {
            **clean,
            "EDGEPROF_DATA_DIR": str(runtime / "data"),
            "RUNTIME_DIRECTORY": str(runtime),
            "EDGEPROF_SYSFS_ROOT": str(board),
            **environ,
        }
        if "--web.systemd-socket" not in flags and not any("listen" in f for f in flags):
            flags = ("--web.listen-address", "127.0.0.1:0", *flags)
        self.child = subprocess.Popen(
            [EDGEPROF, "exporter", "--log.format", "json", *flags],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self.address = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.log.append(line)
            if '"listening"' in line:
                self.address = json.loads(line)["addresses"].split(",")[0]
                self._listening.set()
        self._listening.set()

    def wait(self) -> Daemon:
        assert self._listening.wait(60)
        assert self.address, "".join(self.log)
        return self

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        request = urllib.request.Request(f"http://{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name whose labels include these."""
        text = self.get("/metrics")[1].decode()
        found = samples(text, name, **labels)
        assert found, f"no {name} {labels} in\n{text}"
        return sum(found)

    def until(self, condition, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "".join(self.log)
            time.sleep(0.05)

    def logged(self, text: str) -> bool:
        return any(text in line for line in self.log)

    def ready(self) -> Daemon:
        self.wait()
        self.until(lambda: self.get("/-/ready")[0] == 200)
        return self

    def status(self, field: str) -> int:
        """A number of /proc/PID/status (kB or a count)."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        match = re.search(rf"^{field}:\s*(\d+)", text, re.MULTILINE)
        assert match
        return int(match[1])

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.child.pid}/fd").iterdir()))

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            code = self.child.wait(20)
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait()
        self._reader.join(10)
        # To close what another thread reads waits for that thread, where no signal interrupts it.
        assert not self._reader.is_alive(), "a process that the daemon started outlived it, with its stderr"
        assert self.child.stderr is not None
        self.child.stderr.close()
        return code


def samples(text: str, name: str, **labels: str) -> list[float]:
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


@pytest.fixture
def board(tmp_path: Path):
    """A Jetson Orin Nano that draws 2 W and 10 W in turns of 0.2 s."""
    from edgeprof.simulation.live import LiveBoard
    from edgeprof.simulation.waveform import parse

    with LiveBoard("jetson-orin-nano", tmp_path / "board", parse("square:2W,10W,400ms")) as live:
        yield live


@pytest.fixture
def start(tmp_path: Path):
    """Starts daemons; ends those that are left."""
    with contextlib.ExitStack() as stack:

        def make(board: Path, *flags: str, runtime: Path | None = None, **environ: str) -> Daemon:
            daemon = Daemon(board, runtime or tmp_path / "run", *flags, **environ)
            stack.callback(daemon.end)
            return daemon

        yield make


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """One daemon for the tests that only look."""
    from edgeprof.simulation.live import LiveBoard
    from edgeprof.simulation.waveform import parse

    folder = tmp_path_factory.mktemp("shared")
    with LiveBoard("jetson-orin-nano", folder / "board", parse("square:2W,10W,400ms")) as live:
        daemon = Daemon(live.directory, folder / "run")
        try:
            yield daemon.ready()
        finally:
            daemon.end()
