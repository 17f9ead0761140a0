"""Scraping over mutual TLS, and sending on to a second Prometheus, as docs/dashboards.md says."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import constant
from tests.dashboards.certificates import authority, certificate
from tests.dashboards.tools import Exporter, Prometheus, edgeprof, hurried, needed, until

if TYPE_CHECKING:
    from pathlib import Path

_CLIENT = """\
    scheme: https
    tls_config:
      ca_file: tls/ca.pem
      cert_file: tls/{name}.pem
      key_file: tls/{name}.key
"""


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory):
    """A device that asks for certificates, a Prometheus that has one and sends on, and a central Prometheus."""
    needed("prometheus")
    pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")
    base: Path = tmp_path_factory.mktemp("remote")
    edgeprof("dashboards", "export", str(base / "monitoring"))
    folder = base / "monitoring" / "prometheus"
    tls = folder / "tls"
    tls.mkdir()
    authority(tls)
    certificate(tls, "device", "IP:127.0.0.1")
    certificate(tls, "prometheus", "DNS:prometheus.site")
    certificate(tls, "other", "DNS:other.site")  # of the same authority, but not on the list
    authority(tls, "stranger")
    certificate(tls, "foreign", "DNS:prometheus.site", ca="stranger")
    (tls / "web-config.yml").write_text(
        "tls_server_config:\n"
        f"  cert_file: {tls}/device.pem\n  key_file: {tls}/device.key\n  client_ca_file: {tls}/ca.pem\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.site]\n"
    )
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(LiveBoard("jetson-orin-nano", base / "board", constant(5.0)))
        exporter = Exporter(live.layout.directory, base / "run", f"--web.config.file={tls / 'web-config.yml'}")
        stack.callback(exporter.end)
        group = [{"targets": [exporter.address], "labels": {"instance": "orin-1", "site": "lab"}}]
        (folder / "targets" / "edgeprof.json").write_text(json.dumps(group))
        central_folder = base / "central"
        central_folder.mkdir()
        (central_folder / "prometheus.yml").write_text("global: {}\n")
        central = Prometheus(central_folder, "--web.enable-remote-write-receiver")
        stack.callback(central.end)
        config = folder / "prometheus.yml"
        text = config.read_text("utf-8")
        jobs = "".join(
            f"  - job_name: {job}\n    file_sd_configs:\n      - files: [targets/*.json]\n" + _CLIENT.format(name=name)
            for job, name in (("edgeprof", "prometheus"), ("edgeprof-other", "other"), ("edgeprof-foreign", "foreign"))
        )
        start = text.index("  - job_name: edgeprof")
        end = text.index("# The same series at a second")
        text = (
            text[:start]
            + jobs
            + "  - job_name: edgeprof-plain\n    file_sd_configs:\n      - files: [targets/*.json]\n"
            + text[end:]
        )
        # What is commented out in the shipped file, as a reader would uncomment it.
        block = text[text.index("# remote_write:") :]
        block = "\n".join(line.removeprefix("# ") for line in block.splitlines())
        block = block[: block.index("    tls_config:")].replace("https://central.example:9090", central.url)
        config.write_text(text[: text.index("# remote_write:")] + block + "\n", "utf-8")
        hurried(folder)
        site = Prometheus(folder)
        stack.callback(site.end)
        yield site, central


def health(prometheus: Prometheus) -> dict[str, tuple[str, str]]:
    return {t["labels"]["job"]: (t["health"], t["lastError"]) for t in prometheus.targets()}


def test_a_prometheus_with_the_right_certificate_scrapes_and_nobody_else(remote) -> None:
    site, _ = remote
    until(lambda: len(health(site)) == 4 and all(state != "unknown" for state, _ in health(site).values()))
    until(lambda: health(site)["edgeprof"][0] == "up", what=str(health(site)))
    states = health(site)
    assert states["edgeprof-other"][0] == "down"  # right authority, wrong name
    assert states["edgeprof-foreign"][0] == "down"  # right name, wrong authority
    assert states["edgeprof-plain"][0] == "down"  # no TLS at all
    assert site.query('edgeprof_build_info{job="edgeprof"}')
    assert site.query('edgeprof_build_info{job!="edgeprof"}') == []


def test_what_the_rules_make_arrives_at_the_second_prometheus_and_nothing_more(remote) -> None:
    site, central = remote
    until(lambda: central.query('instance:edgeprof_device_power_watts:rate5m{instance="orin-1",site="lab"}'))
    until(lambda: central.query('up{job="edgeprof"} == 1'))
    until(lambda: central.query('edgeprof_device_info{instance="orin-1"}'))
    # A rate over five minutes of a device that has been up for seconds is far below its power; but it is the same.
    expr = 'max_over_time(instance:edgeprof_device_power_watts:rate5m{job="edgeprof"}[10s])'
    assert 0 < central.value(expr) <= site.value(expr) <= 5.5
    assert site.query("edgeprof_rail_energy_joules_total")
    assert central.query("edgeprof_rail_energy_joules_total") == []
    per_device = central.value('count ({job="edgeprof",instance="orin-1"})')
    assert per_device <= 15  # docs/dashboards.md: what a device costs the centre


def test_an_agent_sends_everything_with_a_name_for_each_device(remote, tmp_path) -> None:
    """The shipped agent.yml with addresses put in; no rule and no query there, all at the far end."""
    _, central = remote
    with LiveBoard("jetson-nano", tmp_path / "board", constant(3.0)) as live, contextlib.ExitStack() as stack:
        exporter = Exporter(live.layout.directory, tmp_path / "run")
        stack.callback(exporter.end)
        edgeprof("dashboards", "export", str(tmp_path / "monitoring"))
        folder = tmp_path / "monitoring" / "prometheus"
        text = (folder / "agent.yml").read_text("utf-8").replace("127.0.0.1:28283", exporter.address)
        text = text.replace("https://central.example:9090", central.url).replace("unnamed-device", "nano-1")
        text = text[: text.rindex("    tls_config:")].replace("scrape_interval: 15s", "scrape_interval: 1s")
        (folder / "agent.yml").write_text(text.replace("scrape_timeout: 10s", "scrape_timeout: 1s"), "utf-8")
        agent = Prometheus(folder, "--enable-feature=agent", config="agent.yml", agent=True)
        stack.callback(agent.end)
        until(lambda: central.query('edgeprof_rail_power_watts{instance="nano-1",site="unnamed"}'), what=agent.said)
