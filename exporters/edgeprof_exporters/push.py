"""Send benchmark results without a daemon: as a textfile for node_exporter, to a Pushgateway, or to an OTLP receiver.

Each way sends the newest result of each model, variant, runtime and scenario, under the same names as the exposition,
so that the same dashboards show them.
"""

from __future__ import annotations

import logging
import os
import platform
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_client.exposition import basic_auth_handler, push_to_gateway, write_to_textfile
from prometheus_client.registry import Collector, CollectorRegistry

from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.results.store import Newest, Store
from edgeprof_exporters.exposition import families
from edgeprof_exporters.metric_names import BY_NAME
from edgeprof_exporters.results_reader import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from edgeprof.results.schema import Result
    from edgeprof_exporters.results_reader import Rows, Value

FILE = "edgeprof.prom"
JOB = "edgeprof"
#: Longest wait for a receiver's answer (s).
_PATIENCE_S = 10.0


class _Rows(Collector):
    def __init__(self, all_rows: Rows) -> None:
        self._rows = all_rows

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from families(self._rows)


def stored(directory: Path | None = None) -> Rows:
    """Read the rows of the store.

    Raises:
        InputError: nothing is stored.
        StoreError: the store cannot be read.
    """
    store = Store(directory)
    newest_rows = rows(store.newest())
    if not newest_rows:
        raise InputError(
            f"nothing is stored in {store.directory} yet", remedy="Measure something first: edgeprof bench MODEL"
        )
    return newest_rows


def rows_of(results: Iterable[Result]) -> Rows:
    """The rows of these results; of several measurements of the same, only the newest."""
    newest: dict[tuple[str, ...], Newest] = {}
    for result in sorted(results, key=lambda r: r.created):
        for variant in result.variants:
            runtime = variant.runtime.name if variant.runtime else ""
            name = variant.model.name or variant.model.path
            newest[name, variant.name, runtime, result.protocol.scenario] = Newest(result, variant)
    return rows(newest.values())


def to_textfile(all_rows: Rows, directory: Path) -> Path:
    """Write ``edgeprof.prom`` into the directory of node_exporter's textfile collector, completely or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    path = directory / FILE
    try:
        write_to_textfile(os.fspath(path), _rows_registry(all_rows))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy="Does the directory exist?") from None
    return path


def to_pushgateway(all_rows: Rows, url: str) -> None:
    """Replace this device's group (``job="edgeprof"``, ``instance`` its host name) on a Pushgateway.

    Args:
        all_rows: The rows to push.
        url: ``http://[USER:PASSWORD@]HOST:PORT``.

    Raises:
        InputError: ``url`` is not a URL.
        EdgeprofError: the gateway cannot be reached, or refuses.
    """
    bare, user, password = _split_credentials(url)

    def handler(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        return basic_auth_handler(url, method, timeout, headers, data, user, password)

    key = {"instance": platform.node()}
    try:
        push_to_gateway(
            bare, job=JOB, registry=_rows_registry(all_rows), grouping_key=key, timeout=_PATIENCE_S, handler=handler
        )
    except OSError as error:
        raise EdgeprofError(f"{bare} did not take the results: {error}", remedy="Is it a Pushgateway?") from None


def to_otlp(all_rows: Rows, url: str) -> None:
    """Send the rows as gauges by OTLP over HTTP (protobuf).

    Args:
        all_rows: The rows to send.
        url: The whole address, as ``http://prometheus:9090/api/v1/otlp/v1/metrics``.

    Raises:
        InputError: ``url`` is not a URL.
        UnavailableError: the OpenTelemetry SDK is not installed.
        EdgeprofError: the receiver cannot be reached, or refuses.
    """
    bare, user, password = _split_credentials(url)
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.metrics import Observation  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
            InMemoryMetricReader,
            MetricExportResult,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    except ImportError:
        raise UnavailableError(
            "the OpenTelemetry SDK is not installed", remedy="pip install 'edgeprof[otlp]'"
        ) from None
    import base64  # noqa: PLC0415

    headers = {}
    if user:
        headers["authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    resource = Resource.create({"service.name": JOB, "service.instance.id": platform.node()})
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter("edgeprof")
    for name, samples in all_rows.items():
        labels = BY_NAME[name].labels
        seen = [Observation(value, dict(zip(labels, values, strict=True))) for values, value in flat(samples)]
        meter.create_observable_gauge(name, [_constant_callback(seen)], description=BY_NAME[name].text)
    data = reader.get_metrics_data()
    exporter = OTLPMetricExporter(endpoint=bare, headers=headers, timeout=_PATIENCE_S)
    log, first_message = logging.getLogger("opentelemetry"), _FirstMessage()
    log.addHandler(first_message)
    log.propagate = False
    try:
        good = (
            data is not None and exporter.export(data, timeout_millis=_PATIENCE_S * 1e3) is MetricExportResult.SUCCESS
        )
    except OSError as error:
        raise EdgeprofError(f"{bare} did not take the results: {error}") from None
    finally:
        exporter.shutdown()
        provider.shutdown()
        log.removeHandler(first_message)
        log.propagate = True
    if not good:
        why = f": {first_message.first}" if first_message.first else ""
        raise EdgeprofError(f"{bare} did not take the results{why}", remedy="Is it an OTLP receiver over HTTP?")


class _FirstMessage(logging.Handler):
    """Keeps the first message of a library: it has the reason of the failure, and later ones only repeat it."""

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage().partition(" encountered while")[0]


def flat(samples: Iterable[tuple[list[str], Value]]) -> Iterator[tuple[list[str], float]]:
    """Split summaries, which OpenTelemetry's SDK cannot send, into samples of one number for each quantile."""
    for labels, value in samples:
        if isinstance(value, tuple):
            yield from (([*labels, quantile], number) for quantile, number in value[0])
        else:
            yield labels, value


def _constant_callback(seen: list[Any]) -> Callable[[Any], list[Any]]:
    return lambda _options: seen


def _rows_registry(all_rows: Rows) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Rows(all_rows))
    return registry


def _split_credentials(url: str) -> tuple[str, str, str]:
    """Split a URL into the URL without credentials, the user and the password.

    Raises:
        InputError: the text is not a URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise InputError(f"{url!r} is not a URL to send to", remedy="Write it as http://gateway:9091")
    place = f"[{host}]" if ":" in host else host
    bare = urlunsplit((parts.scheme, place if port is None else f"{place}:{port}", parts.path, parts.query, ""))
    return bare, unquote(parts.username or ""), unquote(parts.password or "")
