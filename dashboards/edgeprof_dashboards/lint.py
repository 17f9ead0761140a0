"""Rules for dashboards: the Prometheus rules of Grafana's dashboard-linter, and some stricter ones.

The rules have the linter's names (https://github.com/grafana/dashboard-linter, docs/index.md) and are implemented from
its documentation. They are stricter in three ways: a counter is also found in a selector with labels (the linter's
target-counter-agg-rule passes any such selector), every kind of panel is checked, and a reference must have a target.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof_dashboards import promql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Board = Mapping[str, Any]

#: The ids of Grafana's units (@grafana/data, valueFormats/categories.ts) that a dashboard of devices could need.
_UNITS = """
    none string short percent percentunit humidity dB hex sci locale bytes decbytes bits decbits kbytes mbytes gbytes
    binBps Bps bps pps watt kwatt megwatt mwatt voltamp watth kwatth amph mamph joule ev amp kamp mamp volt kvolt
    mvolt ohm celsius fahrenheit kelvin hertz ns µs ms s m h d dtdurationms dtdurations dthms dtdhms clocks
    dateTimeAsIso dateTimeFromNow cps ops reqps rps wps iops cpm opm rpm currencyUSD currencyEUR currencyGBP bool
    bool_yes_no bool_on_off flops rotrpm lux
"""
UNITS = frozenset(_UNITS.split())
_DRAWN = ("stat", "gauge", "bargauge", "timeseries", "table", "xychart", "state-timeline", "heatmap", "barchart")
_UNITLESS = ("table", "xychart", "state-timeline")  # each of their columns has its own unit
_AGGREGATED = ("rate", "irate", "increase")
_LABEL_QUERY = re.compile(r"(label_values|label_names|metrics|query_result)\((.*)\)", re.DOTALL)


class Finding(NamedTuple):
    """One violation of a rule.

    Attributes:
        rule: The name of the rule.
        where: The panel, the variable, or the dashboard itself.
        text: What is wrong.
    """

    rule: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text} ({self.rule})"


def lint(board: Board) -> list[Finding]:
    """Return everything that is wrong with a dashboard, given the JSON that Grafana imports.

    Raises:
        UnavailableError: the PromQL parser is not installed.
    """
    findings = [finding for rule in _BOARD_RULES for finding in rule(board)]
    for panel in panels(board):
        findings += [finding for rule in _PANEL_RULES for finding in rule(board, panel)]
        for target in panel.get("targets", ()):
            findings += _check_target(board, panel, target)
    return findings


def panels(board: Board) -> Iterator[dict[str, Any]]:
    """Yield every panel, including those in collapsed rows, but not the rows themselves."""
    for panel in board.get("panels", ()):
        if panel.get("type") == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def _board_variables(board: Board) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = board.get("templating", {}).get("list", [])
    return variables


def _panel_name(panel: Board) -> str:
    return f"panel {panel.get('title') or panel.get('id')!r}"


def _check_dashboard(board: Board) -> Iterator[Finding]:
    if board.get("editable", True):
        yield Finding("uneditable-dashboard", "dashboard", "editable should be false")
    if board.get("id") is not None:
        yield Finding("importable", "dashboard", "id should be null, or an import overwrites somebody's dashboard")
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", str(board.get("uid") or "")):
        yield Finding("importable", "dashboard", "uid should be a stable name of up to 40 letters, digits, - and _")
    if "__inputs" in board:
        yield Finding(
            "importable", "dashboard", "__inputs are not filled in by provisioning; use a data source variable"
        )
    ids = [panel.get("id") for panel in board.get("panels", ()) if panel.get("type") == "row"]
    ids += [panel.get("id") for panel in panels(board)]
    if len(set(ids)) != len(ids):
        yield Finding("importable", "dashboard", "panel ids are not unique")


def _data_source(board: Board) -> Iterator[Finding]:
    sources = [v for v in _board_variables(board) if v.get("type") == "datasource"]
    if not sources:
        yield Finding("template-datasource-rule", "dashboard", "has no data source variable")
    for source in sources:
        where = f"variable {source.get('name')}"
        if source.get("name") not in ("datasource", "prometheus_datasource"):
            yield Finding("template-datasource-rule", where, "should be named datasource")
        if source.get("label") not in ("Data source", "Prometheus data source"):
            yield Finding("template-datasource-rule", where, "should be labelled Data source")


def _job_and_instance(board: Board) -> Iterator[Finding]:
    by_name = {v.get("name"): v for v in _board_variables(board)}
    for name in ("job", "instance"):
        rule, where = f"template-{name}-rule", f"variable {name}"
        variable = by_name.get(name)
        if variable is None:
            yield Finding(rule, "dashboard", f"has no variable {name}")
            continue
        wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
        for key, value in wanted.items():
            if variable.get(key) != value:
                yield Finding(rule, where, f"{key} should be {value!r} and is {variable.get(key)!r}")
        if not _is_templated(variable):
            yield Finding(rule, where, "should use the data source variable")


def _label_queries(board: Board) -> Iterator[Finding]:
    for variable in _board_variables(board):
        if variable.get("type") != "query":
            continue
        where = f"variable {variable.get('name')}"
        if variable.get("refresh") != 2:
            text = "refresh should be 2 (on time range change)"
            yield Finding("template-on-time-change-reload-rule", where, text)
        match = _LABEL_QUERY.fullmatch(str(variable.get("query")))
        if match is None:
            yield Finding("template-label-promql-rule", where, f"{variable.get('query')!r} is no label query")
            continue
        inner = match[2]
        if match[1] == "label_values":
            inner, _, label = inner.rpartition(",")
            if not re.fullmatch(r"\s*[a-zA-Z_]\w*\s*", label):
                yield Finding("template-label-promql-rule", where, f"{label.strip()!r} is no label")
        if inner:
            try:
                promql.parse(_expand_variables(board, inner))
            except ValueError as error:
                yield Finding("template-label-promql-rule", where, f"{inner!r} is no PromQL: {error}")


def _check_panel(_board: Board, panel: Board) -> Iterator[Finding]:
    kind = panel.get("type")
    if not panel.get("title") or not panel.get("description"):
        yield Finding("panel-title-description-rule", _panel_name(panel), "should have a title and a description")
    if kind not in _DRAWN:
        return
    if not panel.get("targets"):
        yield Finding("panel-no-targets-rule", _panel_name(panel), "has no query")
    if not _is_templated(panel):
        yield Finding("panel-datasource-rule", _panel_name(panel), "should use the data source variable")
    for target in panel.get("targets", ()):
        if not _is_templated(target):
            yield Finding("panel-datasource-rule", _panel_name(panel), "each query should use the data source variable")


def _check_units(_board: Board, panel: Board) -> Iterator[Finding]:
    if panel.get("type") not in _DRAWN:
        return
    config = panel.get("fieldConfig", {})
    units = [
        prop.get("value")
        for override in config.get("overrides", ())
        for prop in override.get("properties", ())
        if prop.get("id") == "unit"
    ]
    default = config.get("defaults", {}).get("unit")
    if default is not None or not (panel.get("type") in _UNITLESS or config.get("defaults", {}).get("mappings")):
        units.append(default)
    for unit in units:
        if unit not in UNITS:
            yield Finding("panel-units-rule", _panel_name(panel), f"{unit!r} is no unit that Grafana knows")


def _check_grid(_board: Board, panel: Board) -> Iterator[Finding]:
    place = panel.get("gridPos", {})
    if place.get("w", 0) < 1 or place.get("x", -1) < 0 or place.get("x", 0) + place.get("w", 0) > 24:
        yield Finding("panel-grid-rule", _panel_name(panel), "does not stand within the 24 columns")


def _check_target(board: Board, panel: Board, target: Board) -> Iterator[Finding]:
    where, expr = _panel_name(panel), str(target.get("expr") or "")
    try:
        tree = promql.parse(_expand_variables(board, expr))
    except ValueError as error:
        yield Finding("target-promql-rule", where, f"{expr!r} is no PromQL: {error}")
        return
    known = {v.get("name") for v in _board_variables(board)} | set(promql.STAND_INS)
    for variable in re.findall(r"\$\{?([a-zA-Z_]\w*)", expr):
        if variable not in known:
            yield Finding("target-promql-rule", where, f"${variable} is no variable of the dashboard")
    for selector in promql.selectors(tree):
        for label in ("job", "instance"):
            if (label, "=~", f"${label}") not in selector.matchers:
                text = f'{selector.metric} should be selected with {label}=~"${label}"'
                yield Finding(f"target-{label}-rule", where, text)
        if selector.function in ("rate", "irate") and selector.range_s != promql.RATE_INTERVAL_S:
            text = f"{selector.function}({selector.metric}[…]) should use $__rate_interval"
            yield Finding("target-rate-interval-rule", where, text)
        counter = (selector.metric or "").endswith(("_total", "_bucket", "_count", "_sum"))
        if counter and (selector.range_s is None or selector.function not in _AGGREGATED):
            text = f"the counter {selector.metric} should be within rate, irate or increase"
            yield Finding("target-counter-agg-rule", where, text)


def _expand_variables(board: Board, expr: str) -> str:
    """Replace the variables outside of strings by their current values, and Grafana's own variables by stand-ins."""
    values = dict(promql.STAND_INS)
    for variable in _board_variables(board):
        value = variable.get("current", {}).get("value")
        if isinstance(value, str) and variable.get("type") != "datasource":
            values[str(variable.get("name"))] = value
    return promql.expand(expr, values, strings=False)


def _is_templated(thing: Board) -> bool:
    source = thing.get("datasource")
    uid = source.get("uid") if isinstance(source, dict) else source
    return uid in ("$datasource", "${datasource}", "$prometheus_datasource", "${prometheus_datasource}")


_BOARD_RULES: tuple[Callable[[Board], Iterator[Finding]], ...] = (
    _check_dashboard,
    _data_source,
    _job_and_instance,
    _label_queries,
)
_PANEL_RULES: tuple[Callable[[Board, Board], Iterator[Finding]], ...] = (_check_panel, _check_units, _check_grid)
