"""The static page of a dashboard: variables filled in as Grafana does, numbers written as it does, errors said."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgeprof.cli.main import run
from edgeprof.errors import InputError, UnavailableError
from edgeprof_boards.all_boards import DASHBOARDS
from edgeprof_boards.dashboard import Panel as Definition
from edgeprof_boards.shapes import Value, answer, coloured, scatter, table
from edgeprof_boards.style import GREEN, HEAT_LEVELS, RED
from edgeprof_dashboards.preview import draw
from edgeprof_dashboards.preview.page import find
from edgeprof_dashboards.preview.panels import Panel, Query, read_panel
from edgeprof_dashboards.preview.prometheus import Prometheus, QueryError, Series, Window, seconds
from edgeprof_dashboards.preview.values import written
from edgeprof_dashboards.promql import expand
from tests.dashboards.tools import free_port

WINDOW = Window(1000.0, 100.0, 10.0)


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0123, "joule", None, "12.3 mJ"),
        (6.4912, "watt", None, "6.49 W"),
        (0.3149, "percentunit", None, "31.5 %"),
        (-0.045, "percentunit", 1, "-4.5 %"),
        (48.66, "celsius", 1, "48.7 °C"),
        (2.0**30, "bytes", None, "1.00 GiB"),
        (27.0, "short", 0, "27"),
        (3_740_000.0, "short", 0, "3.74 M"),
        (0.00771, "short", None, "0.00771"),
        (2.5, "ops", None, "2.50 /s"),
        (0.0109, "s", None, "10.9 ms"),
        (10_800.0, "dtdurations", None, "3 h 0 min"),
        (20 * 86_400.0, "dtdurations", None, "20.0 days"),
        (float("inf"), "watt", None, "–"),
    ],
)
def test_numbers_are_written_for_reading(value, unit, decimals, text) -> None:
    assert written(value, unit, decimals) == text


def test_variables_are_filled_in_and_others_are_left() -> None:
    values = {"job": ".+", "__range": "60s"}
    assert expand('x{job=~"$job"}[$__range] * ${__range:raw} + $other', values, strings=True) == (
        'x{job=~".+"}[60s] * 60s + $other'
    )
    assert expand('x{job=~"$job"}[$__range]', values, strings=False) == 'x{job=~"$job"}[60s]'


@pytest.mark.parametrize(("text", "value"), [("15m", 900), ("1.5h", 5400), ("7d", 604_800)])
def test_spans_of_time(text, value) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "5", "0h", "-3m", "h", "3 fortnights"])
def test_what_is_no_span_is_refused(text) -> None:
    with pytest.raises(InputError):
        seconds(text)


def panel(kind: str, **more) -> Panel:
    queries = (Query("x", "{{a}}"), Query("y", "{{ a }} y"))[: more.pop("queries", 1)]
    return read(Definition("T", "D", queries, kind=kind, **more))


def read(definition: Definition) -> Panel:
    """The panel as the preview reads it out of its JSON."""
    return read_panel(definition.render(1, 0, 0))


def test_labels_that_look_like_markup_stay_text() -> None:
    evil = Series({"a": "<script>alert(1)</script>"}, [(950.0, 1.0), (960.0, 2.0)])
    for kind, function in (("stat", draw.stats), ("bargauge", draw.bars)):
        assert "<script" not in function(panel(kind), [[evil]])
    assert "<script" not in draw.lines(panel("timeseries"), [[evil]], WINDOW)
    assert "<script" not in draw.states(panel("state-timeline"), [[evil]], WINDOW)


def test_a_gap_lifts_the_pen_and_stacked_series_stand_on_one_another() -> None:
    gap = Series({"a": "g"}, [(900.0, 1.0), (910.0, 1.0), (950.0, 1.0), (960.0, 1.0)])
    drawn = draw.lines(panel("timeseries", fill=0), [[gap]], WINDOW)
    (line,) = [part for part in drawn.split("<path ") if 'stroke-width="1.5"' in part]
    assert line.split('"')[1].count("M") == 2
    two = [Series({"a": str(n)}, [(900.0, 3.0), (910.0, 3.0)]) for n in range(2)]
    assert draw._stack_series(two)[1] == ([(900.0, 6.0), (910.0, 6.0)], {900.0: 3.0, 910.0: 3.0})


def test_answers_are_joined_where_all_labels_in_common_agree() -> None:
    energy = [
        Series({"variant": "a", "p": "measured"}, [(0.0, 1.0)]),
        Series({"variant": "b", "p": "measured"}, [(0.0, 2.0)]),
    ]
    size = [Series({"variant": "b"}, [(0.0, 20.0)]), Series({"variant": "c"}, [(0.0, 30.0)])]
    assert draw.merged([energy, size]) == [
        {"variant": "a", "p": "measured", "Value #A": 1.0},
        {"variant": "b", "p": "measured", "Value #A": 2.0, "Value #B": 20.0},
        {"variant": "c", "Value #B": 30.0},
    ]


def test_a_tables_cells_speak_and_have_the_colour_of_their_threshold() -> None:
    words = answer({"0": ("no", RED), "1": ("yes", GREEN)})
    one = read(
        table("T", "D", {"Up": Value("u", properties=words), "Hot": Value("h", "celsius", coloured(HEAT_LEVELS))})
    )
    drawn = draw.table(one, [[Series({"a": "x"}, [(0.0, 0.0)])], [Series({"a": "x"}, [(0.0, 91.0)])]])
    red = draw._NAMED[RED]
    assert f'style="color:{red}">no</td>' in drawn
    assert f'style="color:{red}">91.0 °C</td>' in drawn


def test_an_axis_that_begins_at_zero_does() -> None:
    def ticks(**properties: float) -> str:
        columns = {"X": Value("x", "s"), "Y": Value("y", "joule", properties)}
        shown = read(scatter("T", "D", "X", "Y", columns))
        answers = [[Series({"a": n}, [(0.0, v)])] for n, v in (("p", 1.0), ("p", 5.0))]
        more = [[Series({"a": "q"}, [(0.0, v)])] for v in (2.0, 6.0)]
        return draw.scatter(shown, [a + b for a, b in zip(answers, more, strict=True)])

    assert ">0 J<" in ticks(min=0)
    assert ">0 J<" not in ticks()


class Answer(BaseHTTPRequestHandler):
    """Says what its server was told to say."""

    def do_GET(self) -> None:
        status, body = self.server.say  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def fake():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_expression_that_prometheus_refuses_is_shown_with_its_reason(fake) -> None:
    server, url = fake
    server.say = 400, json.dumps({"status": "error", "error": "parse error: unclosed"}).encode()
    with pytest.raises(QueryError, match=r"refused 'sum\(': parse error: unclosed"):
        Prometheus(url).ask(Query("sum(", instant=True), {}, WINDOW)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_something_else_that_answers_is_no_prometheus(fake, body) -> None:
    server, url = fake
    server.say = 200, body
    with pytest.raises(UnavailableError):
        Prometheus(url).ask(Query("up", instant=True), {}, WINDOW)


def test_values_that_are_no_numbers_are_left_out(fake) -> None:
    server, url = fake
    found = [{"metric": {"__name__": "x", "a": "1"}, "values": [[1, "NaN"], [2, "3"], [3, "+Inf"]]}]
    server.say = 200, json.dumps({"data": {"resultType": "matrix", "result": found}}).encode()
    assert Prometheus(url).ask(Query("x"), {}, WINDOW) == [Series({"a": "1"}, [(2.0, 3.0)])]


def test_errors_of_the_command_are_one_sentence(tmp_path, capsys) -> None:
    page = str(tmp_path / "x.html")
    nobody = f"http://127.0.0.1:{free_port()}"
    for flags, said in (
        (("device", "--prometheus", nobody), f"no Prometheus answers at {nobody}"),
        (("devices",), "Did you mean device?"),
        (("device", "--prometheus", "file:///etc"), "is no address of a Prometheus"),
        (("device", "--set", "instans=x"), "no variable instans"),
    ):
        assert run(["dashboards", "preview", *flags, "-o", page]) == 2
        assert said in capsys.readouterr().err


def test_dashboards_are_found_by_name_and_by_uid() -> None:
    assert find("device") == find("edgeprof-device")
    assert find("device").title == "edgeprof / Device"


@pytest.mark.parametrize("definition", DASHBOARDS, ids=lambda board: board.uid)
def test_what_is_read_out_of_the_json_is_what_was_defined(definition) -> None:
    board = find(definition.uid)
    panels = [panel for row in board.rows for panel in row.panels]
    assert [row.title for row in board.rows] == [row.title for row in definition.rows]
    assert [row.is_collapsed for row in board.rows] == [row.collapsed for row in definition.rows]
    for panel, written_down in zip(panels, definition.panels, strict=True):
        for name in ("title", "description", "kind", "width", "height", "unit", "bounds", "thresholds", "mappings"):
            assert getattr(panel, name) == getattr(written_down, name), (panel.title, name)
        for name in ("columns", "column_units", "points", "stack", "limits", "reduce", "time_from", "decimals"):
            assert getattr(panel, name) == getattr(written_down, name), (panel.title, name)
        queries = [(query.expr, query.legend, query.instant) for query in panel.queries]
        assert queries == [(query.expr, query.legend, query.instant) for query in written_down.queries]
