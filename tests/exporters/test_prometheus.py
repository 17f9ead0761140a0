"""The real Prometheus against the real exporter: plain, TLS and mutual TLS; and joules that equal the truth."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.energy.online.bridge import SIDE_S
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import parse
from tests.exporters.certificates import authority, signed

if TYPE_CHECKING:
    from pathlib import Path

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="apt-get install --no-install-recommends prometheus"
)


class Prometheus:
    """A Prometheus of its own folder and port."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir()
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        subprocess.run(["promtool", "check", "config", str(folder / "prometheus.yml")], check=True, capture_output=True)
        self.log = (folder / "log").open("w")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.child = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 40
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1) as answer,
            ):
                if answer.status == 200:
                    return
            alive = self.child.poll() is None and time.monotonic() < deadline
            assert alive, (folder / "log").read_text()
            time.sleep(0.05)

    def query(self, expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def number(self, expression: str) -> float:
        (one,) = self.query(expression)
        return float(one["value"][1])

    def until_there_is(self, selector: str, after: float) -> list[tuple[float, str]]:
        """The samples of one series, once one is later than that time (Unix s)."""
        deadline = time.monotonic() + 40
        while True:
            found = self.query(selector)
            if found and found[0]["values"][-1][0] > after:
                (one,) = found
                return one["values"]
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def stop(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(20)
        self.log.close()


@needs_prometheus
def test_prometheus_scrapes_over_plain_tls_and_mutual_tls_and_is_refused_without_its_certificate(
    board, start, tmp_path: Path
) -> None:
    authority(tmp_path)
    signed(tmp_path, "server", "IP:127.0.0.1")
    signed(tmp_path, "prometheus", "DNS:prometheus.example")
    (tmp_path / "tls.yml").write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    (tmp_path / "mutual.yml").write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt,\n"
        "  client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example]}\n"
    )
    daemons = {
        name: start(board.directory, *flags, runtime=tmp_path / name)
        for name, flags in (
            ("plain", ()),
            ("tls", ("--web.config.file", str(tmp_path / "tls.yml"))),
            ("mutual", ("--web.config.file", str(tmp_path / "mutual.yml"))),
        )
    }

    def job(name: str, daemon: str, **more: Any) -> dict[str, Any]:
        return {"job_name": name, "static_configs": [{"targets": [daemons[daemon].wait().address]}], **more}

    trust = {"ca_file": str(tmp_path / "ca.crt")}
    mine = {**trust, "cert_file": str(tmp_path / "prometheus.crt"), "key_file": str(tmp_path / "prometheus.key")}
    prometheus = Prometheus(
        tmp_path / "prometheus",
        {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                job("plain", "plain"),
                job("tls", "tls", scheme="https", tls_config=trust),
                job("mutual", "mutual", scheme="https", tls_config=mine),
                job("without", "mutual", scheme="https", tls_config=trust),
            ],
        },
    )
    try:
        deadline = time.monotonic() + 30
        ups: dict[str, float] = {}
        while ups != {"plain": 1, "tls": 1, "mutual": 1, "without": 0}:
            assert time.monotonic() < deadline, ups
            time.sleep(0.2)
            ups = {one["metric"]["job"]: float(one["value"][1]) for one in prometheus.query("up")}
        while not prometheus.query('rate(edgeprof_device_energy_joules_total{job="mutual"}[10s]) > 0'):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert prometheus.number('count(edgeprof_rail_power_watts{job="tls"})') == 2
    finally:
        prometheus.stop()


@needs_prometheus
def test_the_increase_in_prometheus_is_the_true_joules_at_any_interval_and_through_a_restart(
    start, tmp_path: Path
) -> None:
    """Two scrapers of different rhythm; a restart in the middle that is shorter than the gap that is bridged."""
    flags = ("--state.file", str(tmp_path / "state.json"), "--web.listen-address", "127.0.0.1:38283")
    flags += ("--sampling.bridge-s", "30")  # a busy machine takes its time to start it again
    with LiveBoard("jetson-orin-nano", tmp_path / "board", parse("burst:3W,12W,150ms,730ms")) as live:
        daemon = start(live.directory, *flags).ready()
        target = {"static_configs": [{"targets": [daemon.address]}]}
        jobs = [{"job_name": f"every-{s}s", "scrape_interval": f"{s}s", **target} for s in (1, 3)]
        prometheus = Prometheus(tmp_path / "prometheus", {"scrape_configs": jobs})
        try:
            names = [f'edgeprof_device_energy_joules_total{{job="{job["job_name"]}"}}' for job in jobs]
            for name in names:
                prometheus.until_there_is(f"{name}[2m]", 0.0)
            time.sleep(2)
            daemon.end()
            start(live.directory, *flags).ready()
            settled = time.time() + SIDE_S + 0.5
            for name in names:
                series = prometheus.until_there_is(f"{name}[2m]", settled)
                (t0, e0), (t1, e1) = series[0], series[-1]
                assert prometheus.number(f"resets({name}[2m])") == 0
                ahead = time.time() - time.monotonic()
                truth = live.energy(t0 - ahead, t1 - ahead)
                # A sample is at most 0.1 s old at either end (12 W at most); the restart is bridged.
                assert float(e1) - float(e0) == pytest.approx(truth, rel=0.05, abs=0.15 * 12)
        finally:
            prometheus.stop()
