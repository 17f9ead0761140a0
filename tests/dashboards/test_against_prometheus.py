"""What the dashboards ask is answered by a real Prometheus that scrapes real exporters."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

import pytest

from edgeprof import tracking
from edgeprof.results.store import Store
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import parse
from edgeprof.staging import Ring
from edgeprof_dashboards import lint_metrics
from edgeprof_dashboards.catalogue import FILES, shipped_dashboards
from edgeprof_dashboards.preview.page import find
from edgeprof_dashboards.preview.prometheus import Prometheus as Api
from edgeprof_dashboards.preview.prometheus import Window
from edgeprof_exporters import latest_results
from tests.dashboards.conftest import FRAME, MEAN_W
from tests.dashboards.tools import Child, Exporter, edgeprof, promtool, until
from tests.profiler.results import samples

#: The first test waits for the joules of stages, which come every half minute.
pytestmark = pytest.mark.timeout(300)
#: The time shown is short, so that what lies "earlier" exists in a test that runs for seconds.
SPAN_S = 5.0
EVERYTHING = {"instance": ".+"}
CHOSEN = {"edgeprof-inference": {"compare": "6s", **EVERYTHING}}
DASHBOARDS = [find(name) for name in shipped_dashboards()]
#: The series of a device that come with its applications and results.
COUNTED_APART = ("edgeprof_inference", "edgeprof_stage", "edgeprof_bench")
EXPRESSIONS = [
    pytest.param(board, panel, query, id=f"{board.uid}-{panel.title}-{index}")
    for board in DASHBOARDS
    for panel in board.panels
    for index, query in enumerate(panel.queries)
]


@pytest.mark.parametrize(("board", "panel", "query"), EXPRESSIONS)
def test_every_expression_of_every_dashboard_returns_data(site, board, panel, query) -> None:
    server = Api(site.prometheus.url)

    def answer() -> list:
        window = Window(time.time(), SPAN_S, scrape_s=1.0)
        return server.ask(query, server.variables(board, CHOSEN.get(board.uid, EVERYTHING), window), window)

    # A scrape that a busy machine answers too late leaves a second without series.
    until(answer, what=f"no data for {query.expr}")


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_every_variable_offers_values(site, board) -> None:
    server = Api(site.prometheus.url)
    window = Window(time.time(), SPAN_S, scrape_s=1.0)
    values = server.variables(board, {}, window)
    for variable in board.variables:
        if variable.kind == "query":
            assert server.label_values(variable, values, window), variable.name
    if board.uid == "edgeprof-benchmark":
        assert values["baseline"] == "baseline"


def test_every_legend_names_labels_that_the_series_have(site) -> None:
    server = Api(site.prometheus.url)
    window = Window(time.time(), SPAN_S, scrape_s=1.0)
    missing = []
    for board in DASHBOARDS:
        values = server.variables(board, CHOSEN.get(board.uid, EVERYTHING), window)
        for panel in board.panels:
            for query in panel.queries:
                wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                missing += [
                    (panel.title, label)
                    for series in server.ask(query, values, window)
                    for label in wanted - set(series.labels)
                ]
    assert missing == []


def test_every_column_of_every_table_is_filled(site) -> None:
    from edgeprof_dashboards.preview.draw import merged

    server = Api(site.prometheus.url)
    window = Window(time.time(), SPAN_S, scrape_s=1.0)
    for board in DASHBOARDS:
        values = server.variables(board, {}, window)
        for panel in board.panels:
            if panel.columns:
                rows = merged([server.ask(query, values, window) for query in panel.queries])
                empty = {column for column in panel.columns if not any(column in row for row in rows)}
                assert empty == set(), panel.title
                assert all("instance" in row or panel.kind == "xychart" for row in rows)


def test_joules_are_compared_across_devices_only_where_they_are_measured_and_cover_the_same(site) -> None:
    server = Api(site.prometheus.url)
    window = Window(time.time(), SPAN_S, scrape_s=1.0)
    board = find("fleet")
    (panel,) = (panel for panel in board.panels if "To the lowest of its kind" in panel.columns.values())
    (field,) = (field for field, heading in panel.columns.items() if heading == "To the lowest of its kind")
    query = panel.queries[ord(field[-1]) - ord("A")]
    ratios: dict[str, dict[str, float]] = {}
    for series in server.ask(query, server.variables(board, {}, window), window):
        assert series.labels["model"] != "another"  # simulated
        ratios.setdefault(series.labels["variant"], {})[series.labels["instance"]] = series.last
    assert "baseline" in ratios
    assert "int8-static" not in ratios  # one device measured the module, the other the board
    assert ratios["baseline"] == pytest.approx({"orin-1": 1.0, "pi-1": 1.25})


def test_every_rule_is_healthy_and_every_recording_rule_records(site) -> None:
    groups = site.prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    until(
        lambda: all(
            rule["health"] == "ok" for group in site.prometheus.api("rules")["groups"] for rule in group["rules"]
        )
    )
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert len(recorded) >= 15
    empty = {name for name in recorded if not site.prometheus.query(name)}
    assert empty == set()


def test_no_alert_fires_on_devices_that_are_well(site) -> None:
    alerts = [alert for alert in site.prometheus.api("alerts")["alerts"] if alert["state"] == "firing"]
    # The stored study of the fixture holds no failed variant, and nothing throttles.
    assert [alert["labels"]["alertname"] for alert in alerts] == []


def test_devices_carry_the_names_and_sites_of_the_inventory(site) -> None:
    assert {t["labels"]["instance"] for t in site.prometheus.targets()} == set(site.exporters)
    assert {t["labels"]["site"] for t in site.prometheus.targets()} == {"lab"}
    assert {t["health"] for t in site.prometheus.targets()} == {"up"}


def test_power_is_that_of_the_board(site) -> None:
    """The growth of the energy counter between scrapes, over some frames of the application."""

    def scraped() -> list:
        (series,) = site.prometheus.query('edgeprof_device_energy_joules_total{instance="orin-1"}[60s]')
        return series["values"]

    until(lambda: scraped()[-1][0] - scraped()[0][0] >= 15)
    (start, first), *_, (end, last) = scraped()
    assert (float(last) - float(first)) / (end - start) == pytest.approx(MEAN_W, rel=0.1)


def test_joules_of_inferences_are_no_more_than_the_joules_of_the_device(site) -> None:
    spent = site.prometheus.value('sum (rate(edgeprof_inference_energy_joules_total{instance="orin-1"}[15s]))')
    whole = site.prometheus.value('sum (rate(edgeprof_device_energy_joules_total{instance="orin-1"}[15s]))')
    assert 0.3 * whole < spent < 1.02 * whole


def test_joules_of_stages_are_those_that_the_device_drew_while_they_ran(site) -> None:
    truth = {name: seconds * watts for name, seconds, watts in FRAME if name != "idle"}
    for instance in site.exporters:
        chosen = f'{{instance="{instance}"}}'
        calls = site.prometheus.query(f"edgeprof_stages_with_energy_total{chosen}")
        joules = site.prometheus.query(f"edgeprof_stage_energy_joules_total{chosen}")
        known = {one["metric"]["stage"]: float(one["value"][1]) for one in calls}
        spent = {one["metric"]["stage"]: float(one["value"][1]) for one in joules}
        assert {name: spent[name] / known[name] for name in known} == pytest.approx(truth, rel=0.15)


def test_names_and_labels_of_the_exposition_are_clean(site) -> None:
    for exporter in site.exporters.values():
        text = exporter.metrics()
        assert lint_metrics.lint(text) == []
        assert promtool("check", "metrics", stdin=text) == ""


def test_a_device_has_as_few_series_as_is_said(site) -> None:
    """docs/dashboards.md: of a device that tracks two variants, of one of them two stages, and holds six results and
    a language model's."""
    for exporter in site.exporters.values():
        lines = [line for line in exporter.metrics().splitlines() if not line.startswith("#")]
        base = [line for line in lines if not line.startswith(COUNTED_APART)]
        assert len(base) <= 100
        assert len(lines) - len(base) <= 2 * 20 + 2 * 5 + 6 * 17 + 49


def test_a_device_that_reports_all_it_may_stays_below_the_limit_of_the_scrape(tmp_path) -> None:
    """More models, stages and benchmarks than are told apart, on the board with most rails."""
    pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")
    Store(tmp_path / "run" / "data").save(samples.many(120))
    with LiveBoard("jetson-agx-orin", tmp_path / "board", parse("constant:20W")) as live, ExitStack() as stack:
        exporter = Exporter(live.layout.directory, tmp_path / "run")
        stack.callback(exporter.end)
        sender = tracking.Sender(str(exporter.track))
        stack.callback(sender.close)
        for number in range(70):
            end = time.monotonic_ns()
            sender.send(f"EP1 {end - 1_000_000} {end} 1\tmodel-{number}\tint8\tonnxruntime".encode())
            time.sleep(0.002)  # a datagram too fast is one that is dropped
        ring = Ring(str(exporter.track.parent / "stages"))
        stack.callback(ring.close)
        for number in range(60):
            end = time.monotonic_ns()
            ring.write(ring.identify((f"stage-{number}", "yolov8s", "int8", "onnxruntime")), end - 1_000_000, end)
        until(lambda: 'model="other"' in exporter.metrics(), what="nothing is counted under other")
        until(lambda: 'stage="other"' in exporter.metrics(), what="no stage is counted under other")
        until(lambda: "edgeprof_bench_last_run_success" in exporter.metrics(), what="no benchmark is shown")
        lines = [line for line in exporter.metrics().splitlines() if not line.startswith("#")]
        limit = int(re.search(r"sample_limit: (\d+)", (FILES / "prometheus/prometheus.yml").read_text("utf-8"))[1])
        stages = sum(line.startswith("edgeprof_stage") for line in lines)
        assert 51 <= stages <= 51 * 5
        assert 1500 < len(lines) - stages + 51 * 5 < limit - 100
        assert sum(line.startswith("edgeprof_inference") for line in lines) <= 51 * 20
        assert sum(line.startswith("edgeprof_bench") for line in lines) <= latest_results.MOST_SERIES


def test_the_preview_shows_every_panel_with_data(site, tmp_path) -> None:
    for board in DASHBOARDS:
        page = tmp_path / f"{board.uid}.html"
        name = board.uid.removeprefix("edgeprof-")
        more = ("--set", "compare=6s") if name == "inference" else ()
        argv = ("preview", name, "--prometheus", site.prometheus.url, "-o", str(page), "--from", "5s", "--step", "1")
        argv = (*argv, "--set", "instance=.+")
        # A scrape that a busy machine answers too late leaves a second without the recorded series.
        until(lambda argv=(*argv, *more): edgeprof("dashboards", *argv).stderr == "", what=f"{name} has empty panels")
        text = page.read_text("utf-8")
        assert text.count('class="panel"') == len(board.panels)
        assert "<script" not in text


def test_a_daemon_that_dies_is_down_and_reported(tmp_path, site) -> None:
    """The alert's expression, at once; promtool tests hold the waiting time."""
    board = site.exporters["orin-1"]
    assert isinstance(board, Child)
    victim = Exporter(site.folder.parent / "orin-1" / "board", tmp_path / "run")
    targets = site.folder / "prometheus" / "targets" / "victim.json"
    targets.write_text(f'[{{"targets": ["{victim.address}"], "labels": {{"instance": "victim"}}}}]')
    try:
        until(lambda: site.prometheus.query('up{instance="victim"} == 1'), what="the new device is not discovered")
        victim.end()
        until(lambda: site.prometheus.query('up{instance="victim"} == 0'), what="it is still up")
        until(
            lambda: [
                a
                for a in site.prometheus.api("alerts")["alerts"]
                if a["labels"]["alertname"] == "EdgeprofDaemonDown" and a["labels"]["instance"] == "victim"
            ],
            what="no alert is pending",
        )
    finally:
        victim.end()
        targets.unlink()
