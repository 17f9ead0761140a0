"""Collectors of prometheus-client over the daemon's state; each scrape gets a registry of the collectors that it chose.

There is no global registry: samples are made at the scrape from the state at that moment, so that a series disappears
together with its source.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry

from edgeprof_exporters.metric_names import BY_NAME, COLLECTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from edgeprof_exporters.metric_names import Name

    Samples = Mapping[str, Iterable[tuple[Sequence[str], Any]]]
    Source = Callable[[], Samples]

#: The last line of the OpenMetrics format.
_END = b"# EOF\n"
#: Most families whose text is kept, in all formats together.
_MOST_KEPT = 500
_LOG = logging.getLogger("edgeprof.exporter")


def family(name: Name, samples: Iterable[tuple[Sequence[str], Any]]) -> Metric:
    """Make one metric family of the table from its samples, each a pair ``(label values, value)``.

    The value of a histogram is ``(buckets, sum)``, where buckets are cumulative pairs ``(upper edge, count)``. The
    value of a summary is ``(quantiles, sum, count)``, where quantiles are pairs ``(quantile, value)`` and the quantile
    is the last label. The value of an info is ignored, since its labels hold all information.
    """
    if name.kind == "counter":
        counter = CounterMetricFamily(name.family, name.text, labels=name.labels)
        for labels, value in samples:
            counter.add_metric(labels, value)
        return counter
    if name.kind == "histogram":
        histogram = HistogramMetricFamily(name.family, name.text, labels=name.labels)
        for labels, (buckets, total) in samples:
            histogram.add_metric(labels, buckets, total)
        return histogram
    if name.kind == "summary":
        return _summary_family(name, samples)
    if name.kind == "info":
        info = InfoMetricFamily(name.family, name.text)
        for labels, _ in samples:
            info.add_metric([], dict(zip(name.labels, labels, strict=True)))
        return info
    gauge = GaugeMetricFamily(name.family, name.text, labels=name.labels)
    for labels, value in samples:
        gauge.add_metric(labels, value)
    return gauge


def _summary_family(name: Name, samples: Iterable[tuple[Sequence[str], Any]]) -> Metric:
    """Make a summary with quantiles, which prometheus-client's own summaries do not have."""
    *label_names, quantile_label = name.labels
    summary = SummaryMetricFamily(name.family, name.text, labels=label_names)
    for labels, (quantiles, total, count) in samples:
        for quantile, value in quantiles:
            summary.add_sample(
                name.family, {**dict(zip(label_names, labels, strict=True)), quantile_label: quantile}, value
            )
        summary.add_metric(labels, count, total)
    return summary


def families(samples: Samples) -> Iterator[Metric]:
    """Make the families of these samples, in the order of the table; families without samples are left out."""
    for key, name in BY_NAME.items():
        if key in samples and (rows := list(samples[key])):
            yield family(name, rows)


class _One(Collector):
    """All collectors of one scrape; a failure of one does not affect the others, and a metric says which succeeded."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise registering would call collect() once in vain

    def collect(self) -> Iterator[Metric]:
        success: list[tuple[Sequence[str], float]] = []
        took: list[tuple[Sequence[str], float]] = []
        for name, source in self._sources.items():
            begun = time.perf_counter()
            try:
                collected = list(families(source()))
            except Exception:  # noqa: BLE001 - a failure of one collector must not affect the others
                _LOG.exception("a collector failed", extra={"fields": {"collector": name}})
                collected, good = [], 0.0
            else:
                good = 1.0
            success.append(((name,), good))
            took.append(((name,), time.perf_counter() - begun))
            yield from collected
        yield family(BY_NAME["edgeprof_scrape_collector_success"], success)
        yield family(BY_NAME["edgeprof_scrape_collector_duration_seconds"], took)


class Exposition:
    """The collectors, from which the registry of a scrape is made.

    Args:
        sources: Name of a collector → the function that returns its samples, by metric name.
        extra: Factories of prometheus-client's own collectors that belong to ``process``.
    """

    def __init__(self, sources: Mapping[str, Source], extra: Sequence[Callable[[], Collector]] = ()) -> None:
        self._sources = {name: sources[name] for name in COLLECTORS if name in sources}
        self._extra = [make() for make in extra]

    @property
    def names(self) -> list[str]:
        return list(self._sources)

    def registry(self, collect: Sequence[str] = (), exclude: Sequence[str] = ()) -> CollectorRegistry:
        """Make a registry with all collectors, only with those of ``collect``, or without those of ``exclude``.

        Raises:
            ValueError: a name is unknown, or both lists are given; the text is for the client.
        """
        if collect and exclude:
            raise ValueError("collect[] and exclude[] exclude one another")
        for name in (*collect, *exclude):
            if name not in self._sources:
                raise ValueError(f"there is no collector of that name; there are {', '.join(self._sources)}")
        chosen = {
            name: source
            for name, source in self._sources.items()
            if (not collect or name in collect) and name not in exclude
        }
        registry = CollectorRegistry()
        registry.register(_One(chosen))
        if "process" in chosen:
            for extra in self._extra:
                registry.register(extra)
        return registry


class _Just(Collector):
    """A collector of one family, for an encoder that takes a collector."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Metric]:
        return [self._metric]


class Encoder:
    """Encodes a registry by prometheus-client, and keeps the text of families that have not changed.

    Half of an exporter's families change rarely (the device's description, benchmarks, counters at rest), and encoding
    is the largest part of a scrape's cost. The methods are thread-safe.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[Metric, bytes]] = {}

    def text(self, registry: CollectorRegistry, encode: Callable[[Any], bytes], form: str) -> bytes:
        """Encode all families of a registry.

        Args:
            registry: The registry.
            encode: Encoder of prometheus-client.
            form: Content type that the encoder makes.
        """
        parts: list[bytes] = []
        for metric in registry.collect():
            key = (form, metric.name)
            cached = self._kept.get(key)
            if cached is None or cached[0] != metric:
                text = encode(_Just(metric))
                cached = (metric, text.removesuffix(_END))
                if len(self._kept) > _MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = cached
            parts.append(cached[1])
        if "openmetrics" in form:
            parts.append(_END)
        return b"".join(parts)


def build_info(version: str) -> Samples:
    return {"edgeprof_build_info": [((version, platform.python_version()), 1.0)]}


def memory_total(procfs: os.PathLike[str]) -> int | None:
    """MemTotal (bytes); None if /proc/meminfo does not contain it."""
    try:
        with open(os.path.join(procfs, "meminfo"), encoding="ascii", errors="replace") as file:  # noqa: PTH118, PTH123
            for line in file:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
