"""The committed dashboards: what they are, before any data."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from edgeprof_dashboards import promql
from edgeprof_dashboards.catalogue import DASHBOARDS, FILES, path_of, text_of
from edgeprof_dashboards.lint import lint
from edgeprof_dashboards.preview.prometheus import Window

EACH = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
#: Metrics of Prometheus itself that a dashboard may use.
OF_THE_SCRAPE = {"up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"}


@EACH
def test_the_committed_json_is_what_the_python_says(board) -> None:
    assert path_of(board).read_text("utf-8") == text_of(board), "run: python -m edgeprof_dashboards.catalogue"


@EACH
def test_the_linter_finds_nothing(board) -> None:
    assert lint(json.loads(path_of(board).read_text("utf-8"))) == []


@EACH
def test_titles_within_a_dashboard_are_unique_and_panels_do_not_overlap(board) -> None:
    titles = Counter(panel.title for panel in board.panels)
    assert [title for title, count in titles.items() if count > 1] == []
    cells: set[tuple[int, int]] = set()
    for panel in board.render()["panels"]:
        place = panel["gridPos"]
        inside = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & inside, panel["title"]
        cells |= inside


def metrics_of(board) -> set[str]:
    values = promql.STAND_INS | {v.name: v.query.split(",")[0] for v in board.variables if v.kind != "query"}
    return {
        selector.metric
        for panel in board.panels
        for query in panel.queries
        for selector in promql.selectors(promql.parse(promql.expand(query.expr, values, strings=False)))
    }


@EACH
def test_every_metric_is_one_that_the_exporter_exposes_or_a_rule_records(board) -> None:
    names = pytest.importorskip("edgeprof_exporters.metric_names")
    exposed = {name.name for name in names.TABLE} | OF_THE_SCRAPE
    exposed |= {f"{name.name}_bucket" for name in names.TABLE if name.kind == "histogram"}
    recorded = set(re.findall(r"record: (\S+)", (FILES / "prometheus/rules/edgeprof.rules.yml").read_text("utf-8")))
    unknown = {m for m in metrics_of(board) if m not in exposed | recorded and not m.startswith("process_")}
    assert unknown == set()


def test_every_metric_of_the_contract_is_on_a_dashboard_or_in_a_rule() -> None:
    names = pytest.importorskip("edgeprof_exporters.metric_names")
    text = "".join(path.read_text("utf-8") for path in FILES.rglob("*") if path.suffix in (".json", ".yml"))
    unused = {name.name for name in names.TABLE if name.name not in text}
    # The energy of a part is shown, its last reading is not; what came over the socket is for a look by hand. Workloads
    # have units of their own, which no panel of joules per inference can share.
    assert unused <= {
        "edgeprof_subrail_power_watts",
        "edgeprof_track_messages_total",
        "edgeprof_bench_workload_energy_joules_per_unit",
        "edgeprof_bench_workload_latency_seconds",
        "edgeprof_bench_workload_units_per_second",
    }


@EACH
def test_joules_never_lose_where_they_come_from(board) -> None:
    """Every sum over joules or watts of rails, devices and inferences keeps ``provenance``, or shows no joule."""
    for panel in board.panels:
        for query in panel.queries:
            joules = re.search(r"(rail|device|inference)_(energy_joules|power_watts)", query.expr)
            if not joules or panel.unit in ("percentunit", "none") or query.legend in ("other", "a year"):
                continue
            assert "provenance" in query.expr + query.legend or re.fullmatch(r"\w+\{[^}]*\}", query.expr), (
                panel.title,
                query.expr,
            )


@pytest.mark.parametrize(
    ("span_s", "scrape_s", "interval", "rate_interval"),
    [(3600, 15, "15s", "60s"), (86_400, 15, "288s", "303s"), (60, 1, "1s", "4s"), (60, 0.25, "1s", "1250ms")],
)
def test_grafanas_intervals_follow_the_time_shown_and_the_scrape_interval(
    span_s, scrape_s, interval, rate_interval
) -> None:
    """Grafana: $__rate_interval = max($__interval + scrape interval, 4 × scrape interval)."""
    values = Window(0.0, span_s, scrape_s).variables()
    assert (values["__interval"], values["__rate_interval"]) == (interval, rate_interval)


def test_names_of_the_imagined_site_are_the_exporters() -> None:
    """The pictures of docs/ must not show what no daemon exposes."""
    names = pytest.importorskip("edgeprof_exporters.metric_names")
    from tests.dashboards import imagined

    devices = imagined.site()
    text = imagined.text(devices, 86_400.0, 120.0, 60.0, bench_on="sorter-1")
    for line in text.splitlines():
        match = re.match(r"(\w+)\{(.*)\} ", line)
        if match is None or not match[1].startswith("edgeprof_"):
            continue
        metric = re.sub(r"(duration_seconds)_(bucket|sum|count)$", r"\1", match[1])
        labels = set(re.findall(r'(\w+)="', match[2])) - {"job", "instance", "site", "le"}
        assert labels == set(names.BY_NAME[metric].labels), line
