"""Send a dashboard's queries to a Prometheus, with the variables replaced as Grafana replaces them."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, UnavailableError
from edgeprof_dashboards.promql import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_dashboards.preview.panels import Board, Query, Variable

_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\)", re.DOTALL)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PATIENCE_S = 60.0


@dataclass
class Series:
    """One series of an answer.

    Attributes:
        labels: The labels of the series, without ``__name__``.
        points: (Unix time s, value), in order; NaN and infinities are left out.
    """

    labels: dict[str, str]
    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def last(self) -> float:
        return self.points[-1][1]


class QueryError(UnavailableError):
    """Prometheus refused an expression."""


@dataclass(frozen=True)
class Window:
    """The time that a dashboard shows.

    Attributes:
        end: Unix time, s.
        span_s: Its length, s.
        scrape_s: The scrape interval that is configured in the data source (``timeInterval``), s.
        pixels: The approximate maximum number of points of a line.
    """

    end: float
    span_s: float
    scrape_s: float = 15.0
    pixels: int = 300

    @property
    def step_s(self) -> float:
        """Grafana's ``$__interval``."""
        return max(self.scrape_s, math.ceil(self.span_s / self.pixels))

    def variables(self) -> dict[str, str]:
        """Grafana's own variables."""
        rate_s = max(self.step_s + self.scrape_s, 4 * self.scrape_s)
        return {
            "__rate_interval": _promql_duration(rate_s),
            "__interval": _promql_duration(self.step_s),
            "__interval_ms": str(round(self.step_s * 1000)),
            "__range": _promql_duration(self.span_s),
            "__range_s": str(round(self.span_s)),
            "__range_ms": str(round(self.span_s * 1000)),
        }


def seconds(span: str) -> float:
    """Return a span of time such as ``15m`` in seconds.

    Raises:
        InputError: the text is not a span of time.
    """
    match = _SPAN.fullmatch(span.strip())
    if match is None or not float(match[1]):
        raise InputError(f"{span!r} is no span of time", remedy="As in 15m, 6h or 7d.")
    return float(match[1]) * _SECONDS[match[2]]


class Prometheus:
    """One server's HTTP API.

    Args:
        url: The server's address, such as ``http://127.0.0.1:9090``.

    Raises:
        InputError: the URL's scheme is neither http nor https.
    """

    def __init__(self, url: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InputError(f"{url!r} is no address of a Prometheus", remedy="As in http://127.0.0.1:9090")
        self._url = url.rstrip("/")

    def ask(self, query: Query, values: Mapping[str, str], window: Window) -> list[Series]:
        """Return the answer to one query of a panel.

        Raises:
            QueryError: Prometheus refused the query; the message contains the expression as it was sent.
            UnavailableError: no server answers.
        """
        if query.min_step:
            window = replace(window, scrape_s=max(window.scrape_s, seconds(query.min_step)))
        expr = expand(query.expr, {**window.variables(), **values}, strings=True)
        if query.instant:
            answer = self._call("query", query=expr, time=f"{window.end:.3f}")
        else:
            start = window.end - window.span_s
            answer = self._call(
                "query_range", query=expr, start=f"{start:.3f}", end=f"{window.end:.3f}", step=f"{window.step_s:g}"
            )
        if answer["resultType"] == "scalar":
            answer = {"result": [{"metric": {}, "value": answer["result"]}]}
        return [series for item in answer["result"] if (series := _parse_series(item)).points]

    def variables(self, board: Board, chosen: Mapping[str, str], window: Window) -> dict[str, str]:
        """Return the values of a dashboard's variables: the user's choice, else what Grafana would show at first.

        Raises:
            InputError: the dashboard has no variable of that name.
        """
        variables = board.variables
        for name in chosen:
            if name not in {v.name for v in variables}:
                raise InputError(
                    f"the dashboard has no variable {name}", remedy=f"Known: {', '.join(v.name for v in variables)}."
                )
        values: dict[str, str] = {}
        for variable in variables:
            values[variable.name] = chosen.get(variable.name) or self._first(variable, values, window)
        return values

    def _first(self, variable: Variable, values: Mapping[str, str], window: Window) -> str:
        if variable.kind != "query":
            return variable.query.split(",")[0].strip()
        if variable.every is not None:
            return variable.every
        offered = self.label_values(variable, values, window)
        return variable.first if variable.first in offered or not offered else offered[0]

    def label_values(self, variable: Variable, values: Mapping[str, str], window: Window) -> list[str]:
        """Return the choices that a variable of the kind ``query`` offers."""
        match = _LABEL_VALUES.fullmatch(variable.query)
        assert match is not None, variable.query
        selector = expand(match["selector"], {**window.variables(), **values}, strings=True)
        path = f"label/{match['label']}/values"
        start = window.end - window.span_s
        answer = self._call(path, **{"match[]": selector, "start": f"{start:.3f}", "end": f"{window.end:.3f}"})
        return [str(value) for value in answer]

    def _call(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE_S) as response:  # noqa: S310 - http(s) only, see above
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read(2000).decode("utf-8", "replace")
            sent = parameters.get("query", path)
            raise QueryError(f"Prometheus refused {sent!r}: {_error_reason(text) or error}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(
                f"no Prometheus answers at {self._url}: {reason}", remedy="Name it with --prometheus URL."
            ) from None
        return answer["data"]


def _error_reason(text: str) -> str:
    try:
        return str(json.loads(text).get("error", ""))
    except ValueError:
        return ""


def _parse_series(item: dict[str, Any]) -> Series:
    labels = {key: value for key, value in item["metric"].items() if key != "__name__"}
    pairs = item.get("values") or [item["value"]]
    points = [(float(time), float(value)) for time, value in pairs]
    return Series(labels, [point for point in points if math.isfinite(point[1])])


def _promql_duration(span_s: float) -> str:
    """Format a duration for PromQL, which has no fractions of a unit."""
    return f"{round(span_s)}s" if span_s >= 1 and span_s == round(span_s) else f"{max(1, round(span_s * 1000))}ms"
