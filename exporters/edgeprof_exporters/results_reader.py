"""Print the exporter's samples of a store as JSON: ``python -m edgeprof_exporters.results_reader DIRECTORY``."""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError
from edgeprof.results import schema
from edgeprof.results.store import Newest, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeprof.results.schema import Language, Memory, Variant

    #: A summary's value is (quantiles, sum, count), as exposition.family takes it.
    Value = float | tuple[list[tuple[str, float]], float, int]
    Rows = dict[str, list[tuple[list[str], Value]]]

#: Workloads of a language model whose units are tokens.
_PHASES = ("prefill", "decode")
#: Quantile → the field of the latency.
_QUANTILES = (("0.5", "p50"), ("0.9", "p90"), ("0.95", "p95"), ("0.99", "p99"))


def rows(newest: Iterable[Newest]) -> Rows:
    """Make the samples of the newest variant of each model, variant, runtime and scenario: metric → its samples."""
    samples: Rows = {}

    def add(name: str, labels: list[str], value: Value | None) -> None:
        if isinstance(value, tuple):
            samples.setdefault(f"edgeprof_bench_{name}", []).append((labels, value))
        elif value is not None and math.isfinite(value):
            samples.setdefault(f"edgeprof_bench_{name}", []).append((labels, float(value)))

    newest = list(newest)
    ran = [
        (_result_name(entry), _unix_seconds(entry.result.created) or 0.0) for entry in newest if entry.variant.runtime
    ]
    for entry in newest:
        variant, (model, name, scenario) = entry.variant, _result_name(entry)
        since = _unix_seconds(entry.result.created) or 0.0
        if variant.runtime is None and any(key == _result_name(entry) and when >= since for key, when in ran):
            continue  # it could not be run then, so it names no runtime; meanwhile it was run
        labels = [model, name, variant.runtime.name if variant.runtime else "", scenario]
        quotable = variant.status in {"ok", "degraded"}
        add("last_run_timestamp_seconds", labels, _unix_seconds(entry.result.created))
        add("last_run_success", labels, float(quotable))
        add("model_size_bytes", labels, variant.model.size_bytes)
        if quotable:
            add("info", [*labels, *_circumstances(entry)], 1.0)
            _add_figures(add, labels, variant)
    return samples


def _circumstances(entry: Newest) -> list[str]:
    """What two results must share before their joules are compared; empty where it is not known."""
    host, runtime, energy = entry.result.host, entry.variant.runtime, entry.variant.energy_j_per_inference
    threads = "" if runtime is None or runtime.threads is None else str(runtime.threads)
    version = (runtime.version or "") if runtime else ""
    joules = [energy.provenance, energy.covers or ""] if energy else ["none", ""]
    return [host.board, host.power_mode or "", version, threads, str(entry.result.protocol.batch), *joules]


def _result_name(entry: Newest) -> tuple[str, str, str]:
    return schema.model_name(entry.variant.model), entry.variant.name, entry.result.protocol.scenario


def _add_figures(add: _Add, labels: list[str], variant: Variant) -> None:
    energy, latency = variant.energy_j_per_inference, variant.latency_s
    if energy is not None:
        for kind, figure in (("gross", energy.gross), ("net", energy.net)):
            if figure.value is not None:
                add("energy_joules_per_inference", [*labels, energy.provenance, kind], figure.value)
                add("energy_uncertainty_joules", [*labels, energy.provenance, kind], figure.expanded_uncertainty)
    if latency is not None:
        known = {quantile: getattr(latency, field) for quantile, field in _QUANTILES}
        quantiles = [(quantile, float(value)) for quantile, value in known.items() if value is not None]
        add("latency_seconds", labels, (quantiles, latency.mean * latency.samples, latency.samples))
    add("throughput_per_second", labels, variant.throughput_per_s)
    if len(variant.workloads) > 1:
        _add_workloads(add, labels, variant)
    if variant.language is not None:
        _add_language(add, labels, variant, variant.language)
    # Metrics that are not a ratio have their own unit, and cannot be shown in accuracy_ratio.
    if variant.accuracy is not None and variant.accuracy.is_ratio:
        add("accuracy_ratio", [*labels, variant.accuracy.metric], variant.accuracy.value)
    if variant.memory_bytes is not None:
        add("peak_memory_bytes", labels, variant.memory_bytes.peak_rss)
        _add_memory(add, labels, variant.memory_bytes)


def _add_memory(add: _Add, labels: list[str], memory: Memory) -> None:
    kinds = {
        "anonymous": memory.anonymous,
        "mapped": memory.mapped,
        "load_peak": memory.load_peak,
        "kv_cache": memory.kv_cache.bytes if memory.kv_cache else None,
        "compute_buffer": memory.compute_buffer,
    }
    for kind, size in kinds.items():
        add("memory_bytes", [*labels, kind], size)


def _add_language(add: _Add, labels: list[str], variant: Variant, language: Language) -> None:
    """Add the figures per token of the phases of a language model, and a description of its requests."""
    for workload in variant.workloads:
        if workload.name not in _PHASES:
            continue
        energy = workload.energy_j_per_unit
        if energy is not None:
            for kind, figure in (("gross", energy.gross), ("net", energy.net)):
                add("energy_joules_per_token", [*labels, workload.name, energy.provenance, kind], figure.value)
        add("tokens_per_second", [*labels, workload.name], workload.throughput_per_s)
    ttft = language.ttft_s
    if ttft is not None:
        known = {quantile: getattr(ttft, field, None) for quantile, field in _QUANTILES}
        quantiles = [(quantile, float(value)) for quantile, value in known.items() if value is not None]
        add("time_to_first_token_seconds", labels, (quantiles, ttft.mean * ttft.samples, ttft.samples))
    lengths = (language.prompt_tokens, language.generated_tokens, language.depth, language.batch)
    facts = [language.architecture or "", language.kv_type or "", *map(str, lengths)]
    add("language_info", [*labels, *facts, str(language.random_weights).lower()], 1.0)
    if language.perplexity is not None and not language.random_weights:
        add("perplexity", [*labels, language.perplexity.text], language.perplexity.value)


def _add_workloads(add: _Add, labels: list[str], variant: Variant) -> None:
    """Add each workload in its unit; the figures of the main one equal those of the inference."""
    for workload in variant.workloads:
        workload_labels = [*labels, workload.name, workload.unit]
        energy, latency = workload.energy_j_per_unit, workload.latency_s
        if energy is not None:
            for kind, figure in (("gross", energy.gross), ("net", energy.net)):
                add("workload_energy_joules_per_unit", [*workload_labels, energy.provenance, kind], figure.value)
        add("workload_latency_seconds", workload_labels, latency.median if latency else None)
        add("workload_units_per_second", workload_labels, workload.throughput_per_s)


def _unix_seconds(created: str) -> float | None:
    """Unix seconds of an RFC 3339 time."""
    try:
        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def read(directory: Path | None) -> Rows:
    """Read the rows of a store; empty if there is no store.

    Raises:
        StoreError: the store cannot be read.
    """
    return rows(Store(directory).newest())


def main() -> int:
    try:
        answer = read(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except EdgeprofError as error:
        sys.stdout.write(error.message + "\n")
        return 1
    json.dump(answer, sys.stdout)
    return 0


if TYPE_CHECKING:
    from collections.abc import Callable

    _Add = Callable[[str, list[str], Value | None], None]

if __name__ == "__main__":
    sys.exit(main())
