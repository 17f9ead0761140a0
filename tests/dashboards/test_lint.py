"""Each rule of the linter finds what it is for, in a dashboard that is otherwise right."""

from __future__ import annotations

import copy
import json

import pytest

from edgeprof.cli.main import run
from edgeprof_boards.all_boards import DASHBOARDS
from edgeprof_dashboards.lint import lint
from tests.dashboards.tools import edgeprof


@pytest.fixture
def board() -> dict:
    return copy.deepcopy(DASHBOARDS[0].render())


def rules(board: dict) -> set[str]:
    return {finding.rule for finding in lint(board)}


def panel(board: dict, kind: str = "timeseries") -> dict:
    return next(p for p in board["panels"] if p["type"] == kind)


def variable(board: dict, name: str) -> dict:
    return next(v for v in board["templating"]["list"] if v["name"] == name)


def test_a_shipped_dashboard_has_no_finding(board) -> None:
    assert lint(board) == []


def test_editable_dashboards_ids_and_inputs_are_found(board) -> None:
    board.update(editable=True, id=7, uid="with space", __inputs=[{}])
    found = lint(board)
    assert {f.rule for f in found} == {"uneditable-dashboard", "importable"}
    assert len(found) == 4


def test_two_panels_of_one_id_are_found(board) -> None:
    board["panels"][2]["id"] = board["panels"][1]["id"]
    assert rules(board) == {"importable"}


def test_a_missing_or_misnamed_data_source_variable_is_found(board) -> None:
    variable(board, "datasource")["label"] = "Prometheus"
    assert rules(board) == {"template-datasource-rule"}
    board["templating"]["list"] = [v for v in board["templating"]["list"] if v["type"] != "datasource"]
    assert "template-datasource-rule" in rules(board)


@pytest.mark.parametrize("name", ["job", "instance"])
@pytest.mark.parametrize(
    ("key", "value"), [("type", "custom"), ("label", "x"), ("multi", False), ("allValue", ".*"), ("datasource", None)]
)
def test_a_job_or_instance_variable_that_is_not_as_it_should_be_is_found(board, name, key, value) -> None:
    variable(board, name)[key] = value
    assert f"template-{name}-rule" in rules(board)


def test_a_missing_instance_variable_is_found_and_so_are_those_who_use_it(board) -> None:
    board["templating"]["list"] = [v for v in board["templating"]["list"] if v["name"] != "instance"]
    assert rules(board) == {"template-instance-rule", "target-promql-rule"}


@pytest.mark.parametrize(
    "query", ["edgeprof_build_info", "label_values(up{, job)", "label_values(up, 1job)", "values(up, x)"]
)
def test_a_label_query_that_is_none_is_found(board, query) -> None:
    variable(board, "job")["query"] = query
    assert rules(board) == {"template-label-promql-rule"}


def test_a_variable_that_is_not_read_again_is_found(board) -> None:
    variable(board, "job")["refresh"] = 1
    assert rules(board) == {"template-on-time-change-reload-rule"}


def test_a_panel_without_words_query_unit_or_data_source_is_found(board) -> None:
    panel(board)["description"] = ""
    assert rules(board) == {"panel-title-description-rule"}
    panel(board)["targets"] = []
    assert rules(board) == {"panel-title-description-rule", "panel-no-targets-rule"}


@pytest.mark.parametrize("unit", [None, "suffix: J/inf", "Joule", ""])
def test_a_unit_that_grafana_does_not_know_is_found(board, unit) -> None:
    panel(board)["fieldConfig"]["defaults"]["unit"] = unit
    assert rules(board) == {"panel-units-rule"}


def test_a_unit_of_an_override_is_looked_at_too(board) -> None:
    override = {"matcher": {}, "properties": [{"id": "unit", "value": "parsec"}]}
    panel(board)["fieldConfig"]["overrides"] = [override]
    assert rules(board) == {"panel-units-rule"}


@pytest.mark.parametrize("where", ["panel", "target"])
def test_a_fixed_data_source_is_found(board, where) -> None:
    thing = panel(board) if where == "panel" else panel(board)["targets"][0]
    thing["datasource"] = {"type": "prometheus", "uid": "abc123"}
    assert rules(board) == {"panel-datasource-rule"}


CHOSEN = 'job=~"$job",instance=~"$instance"'


@pytest.mark.parametrize(
    ("expr", "rule"),
    [
        ("sum by (", "target-promql-rule"),
        (f"up{{{CHOSEN}}} * $unheard", "target-promql-rule"),
        ('up{instance=~"$instance"}', "target-job-rule"),
        ('up{job="$job",instance=~"$instance"}', "target-job-rule"),
        ('up{job=~"$job"}', "target-instance-rule"),
        (f'up{{{CHOSEN}}} / on () sum(up{{job=~"$job"}})', "target-instance-rule"),
        (f"rate(x_total{{{CHOSEN}}}[5m])", "target-rate-interval-rule"),
        (f"sum(irate(x_total{{{CHOSEN}}}[$__interval]))", "target-rate-interval-rule"),
        (f"x_total{{{CHOSEN}}}", "target-counter-agg-rule"),  # Grafana's linter lets this pass: it ends in a brace
        (f"max_over_time(x_total{{{CHOSEN}}}[$__range])", "target-counter-agg-rule"),
        (f"histogram_quantile(0.9, x_bucket{{{CHOSEN}}})", "target-counter-agg-rule"),
    ],
)
def test_an_expression_that_is_not_as_it_should_be_is_found(board, expr, rule) -> None:
    panel(board)["targets"][0]["expr"] = expr
    assert rules(board) == {rule}


@pytest.mark.parametrize(
    "expr",
    [
        f"rate(x_total{{{CHOSEN}}}[$__rate_interval])",
        f"increase(x_total{{{CHOSEN}}}[$__range])",
        f"topk(3, sum by (a) (rate(x_total{{{CHOSEN}}}[${{__rate_interval}}])) > 0) or vector(0)",
        f'label_replace(up{{{CHOSEN}}} offset 5m, "a", "$1", "b", "(.*)")',
        f"max_over_time((up{{{CHOSEN}}} > 0)[1h:])",
        f"-(up{{{CHOSEN}}})",
    ],
)
def test_an_expression_that_is_right_is_let_pass(board, expr) -> None:
    panel(board)["targets"][0]["expr"] = expr
    assert lint(board) == []


def test_panels_in_collapsed_rows_are_looked_at(board) -> None:
    row = next(p for p in board["panels"] if p["type"] == "row")
    row["panels"] = [{**panel(board), "id": 999, "title": ""}]
    assert rules(board) == {"panel-title-description-rule"}


def test_the_command_names_the_file_and_exits_1(board, tmp_path) -> None:
    board["editable"] = True
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(board))
    done = edgeprof("dashboards", "lint", str(path), code=1)
    assert done.stdout == f"{path}: dashboard: editable should be false (uneditable-dashboard)\n"
    assert "1 finding" in done.stderr


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"panels": 3}', "\x00", '{"apiVersion": "dashboard.grafana.app/v2"}']
)
def test_a_file_that_is_no_dashboard_is_said_to_be_none(tmp_path, content, capsys) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert run(["dashboards", "lint", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "Traceback" not in said
