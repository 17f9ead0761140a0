"""What ``edgeprof dashboards export`` writes: whole, checked by its readers, careful with changes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from edgeprof_boards.all_boards import DASHBOARDS
from edgeprof_dashboards.catalogue import FILES
from edgeprof_dashboards.export import export
from edgeprof_dashboards.inventory import DEFAULT_PORT
from tests.dashboards.tools import edgeprof, promtool

if TYPE_CHECKING:
    from pathlib import Path


def load_all(path: Path) -> list:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "monitoring"
    done = edgeprof("dashboards", "export", str(folder))
    assert done.stdout == ""
    assert f"{folder}/README.md" in done.stderr
    return folder


def test_the_export_is_complete_and_dashboards_are_importable(exported) -> None:
    shipped = {path.relative_to(FILES) for path in FILES.rglob("*") if path.is_file()}
    assert {path.relative_to(exported) for path in exported.rglob("*") if path.is_file()} == shipped
    uids = [json.loads(path.read_text())["uid"] for path in (exported / "grafana/dashboards").glob("*.json")]
    assert sorted(uids) == sorted(board.uid for board in DASHBOARDS)


def test_the_readme_names_only_what_is_there(exported) -> None:
    for name in re.findall(r"^\| `([\w./*-]+)`", (exported / "README.md").read_text("utf-8"), re.MULTILINE):
        assert list(exported.glob(name.rstrip("/"))), name


def test_a_changed_file_is_left_alone_and_named_unless_forced(tmp_path) -> None:
    export(tmp_path)
    mine = tmp_path / "prometheus" / "prometheus.yml"
    mine.write_text("mine")
    written, kept = export(tmp_path)
    assert kept == [mine]
    assert mine.read_text() == "mine"
    assert mine not in written
    done = edgeprof("dashboards", "export", str(tmp_path), code=1)
    assert str(mine) in done.stderr
    edgeprof("dashboards", "export", str(tmp_path), "--force")
    assert mine.read_text() != "mine"


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = edgeprof("dashboards", "export", str(tmp_path / "file"), code=2)
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_promtool_accepts_the_configuration_and_the_rules(exported) -> None:
    assert "WARNING" not in promtool("check", "config", "prometheus.yml", cwd=exported / "prometheus")
    promtool("check", "config", "--agent", "agent.yml", cwd=exported / "prometheus")
    promtool("check", "rules", "--lint=all", "--lint-fatal", *rules(exported), cwd=exported)


def test_the_configuration_with_its_comments_taken_off_is_accepted_too(exported, tmp_path) -> None:
    """Mutual TLS and remote write are commented out; who takes the comments off must get something that works."""
    text = (exported / "prometheus/prometheus.yml").read_text("utf-8")
    head, tail = text.split("    # scheme: https")
    block, remote = ("    # scheme: https" + tail).split("\n\n", 1)
    block = block.replace("    # ", "    ")
    remote = re.sub(r"(?m)^# ?", "", remote[remote.index("# remote_write:") :])
    text = (head + block + "\n\n" + remote).replace("rules/*", str(exported / "prometheus/rules/*"))
    (tmp_path / "tls").mkdir()
    for name in ("ca.pem", "prometheus.pem", "prometheus.key"):
        (tmp_path / "tls" / name).write_text("")
    (tmp_path / "prometheus.yml").write_text(text.replace("targets/*", str(exported / "prometheus/targets/*")))
    promtool("check", "config", "--syntax-only", "prometheus.yml", cwd=tmp_path)
    (loaded,) = load_all(tmp_path / "prometheus.yml")
    assert loaded["scrape_configs"][0]["tls_config"].keys() == {"ca_file", "cert_file", "key_file"}
    assert loaded["remote_write"][0]["write_relabel_configs"][0]["action"] == "keep"


def test_the_rules_pass_their_unit_tests(exported) -> None:
    tests = sorted(str(path.relative_to(exported)) for path in (exported / "prometheus/tests").glob("*.yml"))
    assert "FAILED" not in promtool("test", "rules", *tests, cwd=exported)


def test_every_rule_has_a_unit_test() -> None:
    text = "".join(path.read_text("utf-8") for path in (FILES / "prometheus/tests").glob("*.yml"))
    rules_text = "".join(path.read_text("utf-8") for path in (FILES / "prometheus/rules").glob("*.yml"))
    alerts = set(re.findall(r"- alert: (\w+)", rules_text))
    assert len(alerts) >= 15
    assert {
        name for name in alerts if not re.search(rf"alertname: {name}\n\s+eval_time: \S+\n\s+exp_alerts:\n", text)
    } == set()


def test_broken_alerts_fail_their_unit_tests_and_only_they(tmp_path) -> None:
    """A level, a state and a waiting time; one run of promtool for all three, since each takes seconds."""
    export(tmp_path)
    path = tmp_path / "prometheus/rules/edgeprof.alerts.yml"
    text = path.read_text("utf-8")
    for right, wrong in (("> 1.1", "> 9.9"), ('up{job=~"edgeprof.*"} == 0', "up == 7"), ("for: 2m", "for: 0s")):
        assert right in text
        text = text.replace(right, wrong)
    path.write_text(text)
    tests = [f"prometheus/tests/edgeprof.{name}.test.yml" for name in ("days", "alerts")]
    failed = re.findall(r"alertname: (\w+)", promtool("test", "rules", *tests, code=1, cwd=tmp_path))
    assert set(failed) == {"EdgeprofEnergyRegression", "EdgeprofDaemonDown", "EdgeprofSensorLost"}


def test_scrape_interval_and_limit_agree_everywhere(exported) -> None:
    (prometheus,) = load_all(exported / "prometheus/prometheus.yml")
    (source,) = load_all(exported / "grafana/provisioning/datasources/edgeprof.yml")
    (monitor,) = load_all(exported / "kubernetes/podmonitor.yml")
    interval = prometheus["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == interval
    assert monitor["spec"]["podMetricsEndpoints"][0]["interval"] == interval
    limit = prometheus["scrape_configs"][0]["sample_limit"]
    assert monitor["spec"]["sampleLimit"] == limit
    alerts = (exported / "prometheus/rules/edgeprof.alerts.yml").read_text("utf-8")
    warning = int(re.search(r"scrape_samples_post_metric_relabeling\S+ > (\d+)", alerts)[1])
    assert warning < limit
    assert f"more than {limit} (sample_limit)" in " ".join(alerts.split())


def test_grafana_finds_the_dashboards_where_compose_mounts_them(exported) -> None:
    (provider,) = load_all(exported / "grafana/provisioning/dashboards/edgeprof.yml")
    (compose,) = load_all(exported / "docker-compose.yml")
    mounts = dict(m.split(":")[:2] for m in compose["services"]["grafana"]["volumes"] if m.startswith("./"))
    assert mounts["./grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    for service in compose["services"].values():
        for mount in service["volumes"]:
            if mount.startswith("./"):
                assert mount.endswith(":ro")
                assert (exported / mount.split(":")[0]).is_dir()


def test_the_daemonset_mounts_the_host_read_only_and_its_flags_are_the_exporters(exported) -> None:
    documents = {document["kind"]: document for document in load_all(exported / "kubernetes/daemonset.yml")}
    spec = documents["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
    assert mounts == {"/etc/edgeprof": True, "/host/sys": True, "/host/proc": True, "/run/edgeprof": False}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["ports"][0]["containerPort"] == DEFAULT_PORT
    (monitor,) = load_all(exported / "kubernetes/podmonitor.yml")
    labels = documents["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == container["ports"][0]["name"]
    pytest.importorskip("edgeprof_exporters.command")
    helped = edgeprof("exporter", "--help").stdout
    for flag in (arg.split("=")[0] for arg in container["args"][1:]):
        assert flag in helped, flag


def test_the_daemonsets_settings_are_accepted_by_the_exporter(exported, tmp_path) -> None:
    settings = pytest.importorskip("edgeprof_exporters.configuration")
    pytest.importorskip("yaml")
    documents = {document["kind"]: document for document in load_all(exported / "kubernetes/daemonset.yml")}
    path = tmp_path / "exporter.yml"
    path.write_text(documents["ConfigMap"]["data"]["exporter.yml"])
    loaded, _ = settings.load({}, path=path, environ={})
    assert loaded.web_listen_address == [f":{DEFAULT_PORT}"]


def test_the_port_is_the_exporters() -> None:
    settings = pytest.importorskip("edgeprof_exporters.configuration")
    assert settings.DEFAULT_PORT == DEFAULT_PORT


def rules(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "prometheus/rules").glob("*.yml"))
