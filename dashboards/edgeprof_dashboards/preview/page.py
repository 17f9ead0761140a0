"""A dashboard as one self-contained page: no network, no scripts; it holds the expressions and the data."""

from __future__ import annotations

import datetime as dt
import time
from importlib import resources
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, unknown
from edgeprof.reporters.charts.svg import escape
from edgeprof_dashboards.catalogue import PREFIX, shipped_dashboards
from edgeprof_dashboards.preview import draw
from edgeprof_dashboards.preview.panels import Board, load_board
from edgeprof_dashboards.preview.prometheus import Prometheus, Window, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof_dashboards.preview.panels import Panel, Row

#: The page's Content-Security-Policy: nothing is fetched and no script runs, whatever a label contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(
    name: str,
    url: str,
    output: Path,
    *,
    span: str = "1h",
    at: float | None = None,
    scrape_s: float = 15.0,
    chosen: Mapping[str, str] | None = None,
) -> list[str]:
    """Query a Prometheus and write the page of a dashboard.

    Args:
        name: The dashboard's name, such as ``device``, or its uid, such as ``edgeprof-device``.
        url: The address of the Prometheus.
        output: The file to write.
        span: The length of the time shown, such as ``1h``.
        at: The end of the time shown (Unix time, s); None: now.
        scrape_s: The scrape interval (s).
        chosen: Values of variables; the other variables have the values that Grafana shows at first.

    Returns:
        The titles of the panels without data.

    Raises:
        InputError: there is no such dashboard or variable, or the file cannot be written.
        UnavailableError: Prometheus does not answer or refuses an expression.
    """
    board = find(name)
    server = Prometheus(url)
    if not scrape_s > 0:
        raise InputError(f"--step {scrape_s:g} is not above 0")
    window = Window(time.time() if at is None else at, seconds(span), scrape_s)
    values = server.variables(board, chosen or {}, window)
    text, empty = render(board, server, window, values)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from None
    return empty


def find(name: str) -> Board:
    """Return the dashboard with that name or uid.

    Raises:
        InputError: there is no such dashboard.
    """
    paths = shipped_dashboards()
    try:
        return load_board(paths[name.removeprefix(PREFIX)])
    except KeyError:
        raise unknown("dashboard", name, paths) from None


def render(board: Board, server: Prometheus, window: Window, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the page's HTML, and the titles of the panels without data."""
    empty: list[str] = []
    rows = [_row_html(row, server, window, values, empty) for row in board.rows]
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    end = dt.datetime.fromtimestamp(window.end, dt.timezone.utc)
    begin = end - dt.timedelta(seconds=window.span_s)
    shown = ", ".join(f"{key} = {value}" for key, value in values.items() if value not in (".+", ".*"))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(board.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(board.title)}</h1><p class="what">{escape(board.description)}</p>'
        f"<p>{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC{escape(' · ' + shown if shown else '')}</p></header>\n"
        f"{chr(10).join(rows)}\n</main>\n</body>\n</html>\n"
    )
    return page, empty


def _row_html(row: Row, server: Prometheus, window: Window, values: Mapping[str, str], empty: list[str]) -> str:
    """Return a row's HTML, collapsed if Grafana shows it so at first; titles of panels without data go to ``empty``."""
    top = min((panel.y for panel in row.panels), default=0)
    shown = []
    for panel in row.panels:
        body = _body_html(panel, server, window, values)
        if body is None:
            empty.append(panel.title)
            body = f'<p class="nothing">{escape(panel.absent or "no data")}</p>'
        place = f"grid-column:{panel.x + 1}/span {panel.width};grid-row:{panel.y - top + 1}/span {panel.height}"
        clock_note = " <small>UTC</small>" if panel.time_from == "now/d" else ""
        shown.append(
            f'<section class="panel" style="{place}"><h3 title="{escape(panel.description)}">'
            f'{escape(panel.title)}{clock_note}</h3><div class="body">{body}</div></section>'
        )
    return (
        f"<details{'' if row.is_collapsed else ' open'}><summary>{escape(row.title)}</summary>\n"
        f'<div class="grid">\n{chr(10).join(shown)}\n</div></details>'
    )


def _body_html(panel: Panel, server: Prometheus, window: Window, values: Mapping[str, str]) -> str | None:
    if panel.time_from == "now/d":
        window = Window(window.end, max(60.0, window.end % 86_400), window.scrape_s)
    answers = [server.ask(query, values, window) for query in panel.queries]
    if not any(answers):
        return None
    if panel.kind in _STILL:
        return _STILL[panel.kind](panel, answers)
    return (draw.states if panel.kind == "state-timeline" else draw.lines)(panel, answers, window)


_STILL = {
    "stat": draw.stats,
    "gauge": draw.stats,
    "bargauge": draw.bars,
    "table": draw.table,
    "xychart": draw.scatter,
}
