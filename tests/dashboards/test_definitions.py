"""The committed dashboards: what they are, before any data."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from edgeprof_boards.all_boards import DASHBOARDS, json_of, path_of
from edgeprof_dashboards import promql
from edgeprof_dashboards.catalogue import FILES
from edgeprof_dashboards.lint import lint, panels
from edgeprof_dashboards.preview.prometheus import Window

EACH = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
#: Metrics of Prometheus itself that a dashboard may use.
OF_THE_SCRAPE = {"up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"}


@EACH
def test_the_committed_json_is_what_the_python_says(board) -> None:
    assert path_of(board).read_text("utf-8") == json_of(board), "run: python tools/dashboards/build.py"


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


@EACH
def test_no_title_is_cut_on_a_screen_of_1280_pixels(board) -> None:
    """A title has 7.3 px for each letter; beside it are the panel's padding and the gap to the next one."""
    room = {title: place["w"] * 1248 / 24 - 28 for title, place in titles(board)}
    assert [title for title, pixels in room.items() if 7.3 * len(title) > pixels] == []


def titles(board) -> list[tuple[str, dict]]:
    """Title and place of every panel, also in collapsed rows."""
    panels = [p for panel in board.render()["panels"] for p in [panel, *panel.get("panels", [])]]
    return [(panel["title"], panel["gridPos"]) for panel in panels if panel["type"] != "row"]


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
    text = imagined.text(devices, 86_400.0, 120.0, 60.0, bench_on=("sorter-1",))
    for line in text.splitlines():
        match = re.match(r"(\w+)\{(.*)\} ", line)
        if match is None or not match[1].startswith("edgeprof_"):
            continue
        metric = re.sub(r"(duration_seconds)_(bucket|sum|count)$", r"\1", match[1])
        labels = set(re.findall(r'(\w+)="', match[2])) - {"job", "instance", "site", "le"}
        assert labels == set(names.BY_NAME[metric].labels), line


#: Labels that a series may be without: what edgeprof.track is not told, and a device that the inventory gives no site.
MAY_BE_EMPTY = {"variant", "runtime", "site"}


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_all_values_of_a_label_that_may_be_empty_include_none(board) -> None:
    """``.+`` would hide half of the joules of a model that is reported without a variant."""
    for variable in board.render()["templating"]["list"]:
        if variable["name"] in MAY_BE_EMPTY:
            assert variable["allValue"] == ".*", variable["name"]


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_seen_at_a_glance(board) -> None:
    """Two rows are open; one device is chosen but in a fleet; a panel without data says what that means."""
    made = board.render()
    rows = [panel for panel in made["panels"] if panel["type"] == "row"]
    assert [row["collapsed"] for row in rows] == [False, False, *[True] * (len(rows) - 2)]
    (instance,) = [one for one in made["templating"]["list"] if one["name"] == "instance"]
    assert instance["includeAll"] is (board.uid == "edgeprof-fleet")
    assert (instance["current"] == {}) is not instance["includeAll"]
    for panel in panels(made):
        assert len(panel["fieldConfig"]["defaults"]["noValue"]) > len("No data."), panel["title"]
        assert "collapsed" not in panel


def test_the_whole_stands_before_its_parts() -> None:
    titles = [panel["title"] for panel in panels(next(b for b in DASHBOARDS if b.uid == "edgeprof-device").render())]
    assert titles.index("Power") < titles.index("Power of the whole device") < titles.index("Power of each rail")


def test_rows_that_are_folded_up_take_one_line_of_the_grid() -> None:
    for board in DASHBOARDS:
        rows = [panel for panel in board.render()["panels"] if panel["type"] == "row"]
        folded = [row["gridPos"]["y"] for row in rows if row["collapsed"]]
        assert folded == list(range(folded[0], folded[0] + len(folded)))


def test_only_files_with_the_compared_figures_are_offered_for_comparison() -> None:
    """Language models have the figures of their workloads; one of them, chosen first, would leave the ratios empty."""
    (board,) = [board for board in DASHBOARDS if board.uid == "edgeprof-benchmark"]
    offered = {variable.name: variable.query for variable in board.variables}
    for name in ("baseline_model", "baseline", "baseline_runtime"):
        assert "edgeprof_bench_latency_seconds" in offered[name]
