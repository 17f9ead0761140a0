"""The part of a panel's JSON that Grafana calls ``options``, with one function for each kind of panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprof_boards.dashboard import Panel


def _reduce_options(panel: Panel) -> dict[str, Any]:
    return {"calcs": [panel.reduce], "fields": "", "values": False}


def _timeseries_options(panel: Panel) -> dict[str, Any]:
    crowded = len(panel.queries) > 1 or panel.stack or panel.height >= 8
    return {
        "legend": {"displayMode": "table" if crowded else "list", "placement": "bottom", "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _stat_options(panel: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": _reduce_options(panel),
        "colorMode": "value",
        "graphMode": "none" if panel.queries[0].instant or panel.mappings else "area",
        "textMode": panel.text_mode,
        "justifyMode": "auto",
        "orientation": "auto",
    }


def _gauge_options(panel: Panel) -> dict[str, Any]:
    return {"reduceOptions": _reduce_options(panel), "showThresholdMarkers": True, "orientation": "auto"}


def _bargauge_options(panel: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": _reduce_options(panel),
        "displayMode": "basic",
        "orientation": "horizontal",
        "valueMode": "color",
        "showUnfilled": True,
    }


def _table_options(_panel: Panel) -> dict[str, Any]:
    return {"showHeader": True, "cellHeight": "sm"}


def _xychart_options(panel: Panel) -> dict[str, Any]:
    assert panel.points is not None
    x, y = (panel.columns.get(name, name) for name in panel.points)
    return {
        "mapping": "manual",
        "series": [
            {
                "frame": {"matcher": {"id": "byIndex", "options": 0}},
                "x": {"matcher": {"id": "byName", "options": x}},
                "y": {"matcher": {"id": "byName", "options": y}},
            }
        ],
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _states_options(_panel: Panel) -> dict[str, Any]:
    return {
        "mergeValues": True,
        "showValue": "auto",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }


#: Kind of panel → the function that returns its ``options``.
OPTIONS = {
    "timeseries": _timeseries_options,
    "stat": _stat_options,
    "gauge": _gauge_options,
    "bargauge": _bargauge_options,
    "table": _table_options,
    "xychart": _xychart_options,
    "state-timeline": _states_options,
}


def _line_style(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineInterpolation": panel.line,
        "lineWidth": 1,
        "fillOpacity": 40 if panel.stack else panel.fill,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
        **({"axisSoftMin": 0} if panel.from_zero and not panel.log else {}),
        **({"thresholdsStyle": {"mode": "dashed"}} if panel.limits else {}),
    }


def _point_style(_panel: Panel) -> dict[str, Any]:
    return {"show": "points", "pointSize": {"fixed": 10}, "scaleDistribution": {"type": "linear"}}


#: Kind of panel → the function that returns the ``custom`` part of its field configuration.
CUSTOM = {"timeseries": _line_style, "xychart": _point_style}
