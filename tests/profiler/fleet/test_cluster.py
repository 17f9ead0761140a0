"""A fleet whose boards are held by a host: a real scheduler and a real host on the loopback, with mutual TLS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from edgeprof.fleet.store import fleet_store
from edgeprof.fleet.tls import Certificates
from tests.profiler.cli.in_process import verb
from tests.profiler.fleet.boards import SHORT
from tests.profiler.fleet.services import DOCS, Site, cluster
from tests.profiler.fleet.test_fleet_verb import started

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def site(boards, desk, tmp_path_factory) -> Iterator[Site]:
    """A scheduler, and a host that holds two of the three boards and makes variants."""
    pytest.importorskip("distributed", reason="pip install 'edgeprof[fleet]'")
    with cluster(tmp_path_factory.mktemp("site"), boards, "--on", "nano-1,nano-2", "--compress", "2") as running:
        yield running


@pytest.fixture
def fleet(site, capfd, monkeypatch):
    monkeypatch.setenv("EDGEPROF_INVENTORY", str(site.desk))
    monkeypatch.setattr("edgeprof.fleet.cluster._NO_HOST_S", 0.5)
    monkeypatch.setattr("edgeprof.fleet.cluster._CHECK_S", 0.5)
    monkeypatch.setattr("edgeprof.fleet.cluster._PAUSES_S", (1.0,) * 100)
    return verb(capfd, "fleet")


def test_both_are_ready_and_only_the_scheduler_listens_beyond_its_loopback(site) -> None:
    assert site.scheduler.first_line == f"listening: tls://127.0.0.1:{site.port}\n"
    assert "nano-1, nano-2, 2 variants at a time" in site.host.first_line
    assert ("127.0.0.1", site.port) in site.scheduler.listens_at()
    for service in (site.scheduler, site.host):
        assert {address for address, _ in service.listens_at()} == {"127.0.0.1"}


@pytest.mark.timeout(300)
def test_boards_are_measured_through_their_host_and_one_that_nobody_holds_fails_alone(
    fleet, site, desk, boards
) -> None:
    before = len(fleet_store().jobs())
    done = fleet("bench", desk.model, *SHORT, "--repeat", 21, "--json", code=3)
    rows = {row["device"]: row for row in json.loads(done.stdout)["devices"]}
    assert [rows[name]["state"] for name in ("nano-1", "nano-2", "pi5-1")] == ["measured", "measured", "failed"]
    assert rows["pi5-1"]["error"] == "no host holds pi5-1"
    assert "nano-1: measuring" in done.stderr
    assert len(fleet_store().jobs()) == before + 2
    again = fleet("bench", desk.model, *SHORT, "--repeat", 21, "--json", "--on", "kind:nano")
    assert {row["state"] for row in json.loads(again.stdout)["devices"]} == {"there"}
    assert len(started(boards, "nano-1")) == len({line["key"] for line in started(boards, "nano-1")})
    status = fleet("status", "--on", "kind:nano")
    assert status.stdout.count("NVIDIA Jetson Orin Nano") == 2
    assert fleet("fetch", "--on", "nano-1").stdout == "nano-1: 0 fetched\n"


@pytest.mark.skipif(not os.environ.get("EDGEPROF_FLEET"), reason="takes a minute: make test-fleet")
@pytest.mark.timeout(300)
def test_a_study_is_compressed_by_the_host_and_measured_on_the_boards(fleet, site, desk, tmp_path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{desk.model}"\n[protocol]\nwindows = 2\nwindow = 0.2\nidle = 0.2\nwarmup = 0.1\n'
        '[recipes]\nexplicit = ["fp16"]\n'
    )
    done = fleet("sweep", study, "--on", "nano-1", "--json")
    (group,) = json.loads(done.stdout)["table"]["groups"]
    assert [row["variant"] for row in group["rows"]] == ["affine baseline", "affine fp16"]
    records = list((tmp_path / "study.study/variants").glob("*.host.json"))
    assert [json.loads(path.read_text())["name"] for path in records] == ["fp16"]
    assert not list((tmp_path / "study.study/variants").glob("*.compress.json"))  # the desk made nothing
    again = fleet("sweep", study, "--on", "nano-1")
    assert "fp16: already made" in again.stderr
    assert "nano-1: was measured before" in again.stderr


def command_of(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


@pytest.mark.timeout(300)
def test_scheduler_and_host_are_killed_while_a_board_measures_and_it_has_one_result(fleet, site, desk, boards) -> None:
    site.wait_until_it_listens()
    before, begun = len(fleet_store().jobs()), len(started(boards, "nano-2"))

    def kill() -> None:
        while len(started(boards, "nano-2")) == begun or "bench" not in command_of(
            started(boards, "nano-2")[-1]["pid"]
        ):
            if stop.wait(0.02):
                return
        site.host.kill()
        site.scheduler.kill()

    stop = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = fleet("bench", desk.model, *SHORT, "--repeat", 22, "--on", "nano-2")
    finally:
        stop.set()
        killer.join()
    assert "trying again" in done.stderr
    assert len(fleet_store().jobs()) == before + 1
    assert len(started(boards, "nano-2")) == begun + 1


def test_nothing_but_tls_1_3_with_a_certificate_gets_an_answer(site) -> None:
    site.wait_until_it_listens()

    def first_bytes(context: ssl.SSLContext | None) -> bytes:
        with socket.create_connection(("127.0.0.1", site.port), 10) as plain:
            plain.settimeout(10)
            if context is None:
                plain.sendall(bytes(8) + b"\x00" * 8)
                return plain.recv(100)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain) as wire:
                return wire.recv(100)

    own = Certificates(site.certificates / "desk").context(ssl.PROTOCOL_TLS_CLIENT)
    assert first_bytes(own)
    older = Certificates(site.certificates / "desk").context(ssl.PROTOCOL_TLS_CLIENT)
    older.minimum_version, older.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    for context in (older, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None):
        with contextlib.suppress(ssl.SSLError, ConnectionResetError):
            assert first_bytes(context) == b""


@pytest.mark.parametrize(
    ("engine", "part"),
    [
        ('scheduler = "tcp://127.0.0.1:8786"', "is no address of a scheduler with TLS"),
        ('scheduler = "tls://127.0.0.1:9"\ncertificates = "nowhere"', "nowhere/ca.pem: No such file"),
        ("", "scheduler = None is no address"),
        ('scheduler = "tls://h:1"\ncompress = "yes"', "is neither true nor false"),
        ('scheduler = "tls://h:1"\nport = 5', "nothing is called port"),
    ],
)
def test_a_wrong_engine_is_one_sentence_before_anything_is_measured(
    fleet, desk, boards, tmp_path, engine, part
) -> None:
    path = boards.inventory(tmp_path / "inventory.toml", f"[engine]\n{engine}\n")
    for words in (("bench", desk.model), ("status",), ("fetch",), ("host",)):
        done = fleet(*words, "--inventory", path, code=2)
        assert part in done.stderr
        assert done.stdout == ""


def test_the_documented_unit_is_one_that_systemd_knows(tmp_path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    unit = re.search(r"<!-- recipe: unit -->\n```ini\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert unit is not None
    text = unit[1].replace("/opt/edgeprof/bin/edgeprof", "/bin/true")
    assert text != unit[1]
    path = tmp_path / "edgeprof-fleet.service"
    path.write_text(text)
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert str(path) not in done.stderr
    assert "edgeprof-fleet" not in done.stderr
