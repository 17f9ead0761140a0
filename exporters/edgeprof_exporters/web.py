"""The answers of the server: the metrics, the health of the daemon, and a page for people."""

from __future__ import annotations

import gzip
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from prometheus_client.exposition import choose_encoder

from edgeprof import __version__
from edgeprof_exporters.exposition import Encoder
from edgeprof_exporters.metric_names import COLLECTORS
from edgeprof_exporters.server import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof_exporters.exposition import Exposition
    from edgeprof_exporters.http_request import Request

#: Smallest body that is compressed (bytes); below it compressing costs more than it saves.
_LEAST_COMPRESSED = 1400


class _Scrape(NamedTuple):
    """The body of a scrape, the format and collectors that it is for, and when it was begun (monotonic s)."""

    what: tuple[str, ...]
    begun: float
    body: bytes


class Web:
    """The paths of the exporter.

    Args:
        exposition: The collectors.
        telemetry_path: Path of the metrics.
        max_requests: Most simultaneous scrapes; 0: no limit.
        unhealthy: Returns why the daemon is not healthy; None if it is.
        unready: Returns why there is nothing to scrape; None if there is.
        before_scrape: Is called before each scrape is answered.
    """

    def __init__(
        self,
        exposition: Exposition,
        *,
        telemetry_path: str = "/metrics",
        max_requests: int = 40,
        unhealthy: Callable[[], str | None] = lambda: None,
        unready: Callable[[], str | None] = lambda: None,
        before_scrape: Callable[[], None] = lambda: None,
    ) -> None:
        self.exposition = exposition
        self.telemetry_path = telemetry_path
        self.unhealthy = unhealthy
        self.unready = unready
        self.before_scrape = before_scrape
        self.max_requests = max_requests
        self._encoder = Encoder()
        self._running = 0
        self._lock = threading.Lock()
        # Scrapes are made one at a time, so that only one thread competes with the sampling threads.
        self._encoding = threading.Lock()
        self._newest: _Scrape | None = None

    def answer(self, request: Request) -> Response:
        """Answer a GET or HEAD request."""
        if request.path == self.telemetry_path:
            return self._metrics(request)
        if request.path == "/-/healthy":
            return _verdict(self.unhealthy())
        if request.path == "/-/ready":
            return _verdict(self.unready())
        if request.path == "/":
            state = self.unhealthy() or self.unready() or "Healthy, and ready to be scraped."
            return Response(200, _page(self.telemetry_path, state).encode(), "text/html; charset=utf-8")
        return Response(404, b"not found; / lists the paths\n")

    def _metrics(self, request: Request) -> Response:
        with self._lock:
            if 0 < self.max_requests <= self._running:
                text = f"Limit of concurrent requests reached ({self.max_requests}), try again later.\n"
                return Response(503, text.encode())
            self._running += 1
        try:
            return self._scrape(request)
        finally:
            with self._lock:
                self._running -= 1

    def _scrape(self, request: Request) -> Response:
        try:
            chosen = parse_qs(request.query, max_num_fields=50) if request.query else {}
            registry = self.exposition.registry(chosen.get("collect[]", ()), chosen.get("exclude[]", ()))
        except ValueError as error:
            return Response(400, f"{error}\n".encode())
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (ValueError, IndexError):  # the header is not a list of formats
            encode, content_type = choose_encoder("")
        asked = time.monotonic()
        what = (content_type, *sorted(chosen.get("collect[]", ())), "", *sorted(chosen.get("exclude[]", ())))
        with self._encoding:
            # If an equal scrape was begun while this request waited, its body is newer than the request and is used.
            if self._newest is None or self._newest.what != what or self._newest.begun < asked:
                begun = time.monotonic()
                self.before_scrape()
                self._newest = _Scrape(what, begun, self._encoder.text(registry, encode, content_type))
            body = self._newest.body
        headers = {"Vary": "Accept, Accept-Encoding"}
        if len(body) > _LEAST_COMPRESSED and _accepts_gzip(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(200, body, content_type, headers)


def _accepts_gzip(header: str) -> bool:
    for item in header.split(","):
        coding, _, weight = item.strip().partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _verdict(why_not: str | None) -> Response:
    return Response(200, b"OK\n") if why_not is None else Response(503, f"{why_not}\n".encode())


def _escape_html(text: str) -> str:
    """Escape a text for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


_STYLE = ":root{color-scheme:light dark}body{font:16px/1.6 sans-serif;max-width:46em;margin:2em auto;padding:0 1em}"


def _page(path: str, state: str) -> str:
    rows = "".join(
        f'<li><a href="{_escape_html(path)}?collect[]={name}">{name}</a>: {_escape_html(text)}</li>\n'
        for name, text in COLLECTORS.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgeprof exporter</title><style>{_STYLE}</style></head>
<body><h1>edgeprof exporter</h1>
<p>Energy of this device and of the inferences on it, for Prometheus. Version {__version__}.</p>
<p>{_escape_html(state)}</p>
<p><a href="{_escape_html(path)}">Metrics</a> · <a href="/-/healthy">healthy</a> · <a href="/-/ready">ready</a></p>
<p>A single collector (<code>?collect[]=</code>; all except one: <code>?exclude[]=</code>):</p>
<ul>
{rows}</ul></body></html>
"""
