"""One row for each workload of a variant, for spreadsheets and data frames.

Units are in the column names; a cell is empty if its value is not known.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from edgeprof.errors import printable
from edgeprof.results import schema
from edgeprof.verdicts.recommend import recommended_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import (
        Comparison,
        Energy,
        EnergyFigure,
        Language,
        Ratio,
        Result,
        Variant,
        Workload,
        WorkloadComparison,
    )


def render(results: Sequence[Result]) -> str:
    """Write all variants of all results under one header (RFC 4180, but with plain newlines)."""
    rows = [row for result in results for row in result_rows(result)]
    text = io.StringIO()
    # There is a header even without rows, since users rely on the columns.
    header = list(rows[0]) if rows else list(_variant_row(_NOTHING, _NOBODY, None, None, None))
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: inert(value) for key, value in columns.items()} for columns in rows)
    return text.getvalue()


def inert(value: Any) -> Any:
    """Make a text safe for spreadsheets: one that begins like a formula gets an apostrophe before it.

    Source: OWASP, CSV injection. Numbers are left unchanged.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\n")) else text


def result_rows(result: Result) -> list[dict[str, Any]]:
    """Make a row for each workload of each variant, the main workload first."""
    rows = []
    best = recommended_variant(result)
    front = frozenset(result.pareto)
    compared = {comparison.variant: comparison for comparison in reversed(result.comparisons)}
    for variant in result.variants:
        workloads: Sequence[Workload | None] = variant.workloads or [None]
        rows += [
            _variant_row(result, variant, best, compared.get(variant.name), workload, is_front=variant.name in front)
            for workload in workloads
        ]
    return rows


def _variant_row(
    result: Result,
    whole: Variant,
    best: Variant | None,
    compared: Comparison | None,
    workload: Workload | None,
    *,
    is_front: bool = False,
) -> dict[str, Any]:
    """Make the row of one workload of a variant: column → value; None becomes an empty cell.

    Args:
        result: The result that contains the variant.
        whole: The variant.
        best: The recommended variant.
        compared: The comparison of the variant with its baseline.
        workload: One of its workloads; None: it has none, and the row has the variant's own figures.
        is_front: Whether the variant is on the Pareto front.
    """
    variant = whole if workload is None else schema.workload_view(whole, workload.name) or whole
    host, protocol, runtime, latency = result.host, result.protocol, variant.runtime, variant.latency_s
    energy, power, memory = variant.energy_j_per_inference, variant.power_w, variant.memory_bytes
    temperature, used, accuracy = variant.temperature_c, variant.utilization, variant.accuracy
    gpu = variant.gpu
    ratios = _ratios_of(compared, workload)
    return {
        "result_id": result.id,
        "created": result.created,
        "board": host.board,
        "hostname": host.hostname,
        "power_mode": host.power_mode,
        "scenario": protocol.scenario,
        "rate_hz": protocol.rate_hz,
        "batch": protocol.batch,
        "model": schema.model_name(variant.model),
        "variant": variant.name,
        "status": variant.status,
        "reasons": ";".join(reason.code for reason in variant.reasons),
        "format": variant.model.format,
        "sha256": variant.model.sha256,
        "size_bytes": variant.model.size_bytes,
        "size_compressed_bytes": variant.model.size_compressed_bytes,
        "runtime": runtime.name if runtime else None,
        "runtime_version": runtime.version if runtime else None,
        "device": runtime.device if runtime else None,
        "threads": runtime.threads if runtime else None,
        "inferences": variant.inferences,
        "throughput_per_s": variant.throughput_per_s,
        **{
            f"latency_{name}_s": getattr(latency, name) if latency else None
            for name in ("mean", "std", "min", "median", "p50", "p90", "p95", "p99", "max")
        },
        **{
            f"latency_{name}_bound_s": getattr(latency, f"{name}_bound") if latency else None
            for name in ("p50", "p90", "p95", "p99")
        },
        "latency_samples": latency.samples if latency else None,
        "latency_outliers": latency.outliers if latency else None,
        **_energy_cells(energy),
        "power_mean_w": power.mean if power else None,
        "power_max_w": power.max if power else None,
        "power_idle_w": power.idle if power else None,
        "memory_peak_rss_bytes": memory.peak_rss if memory else None,
        "memory_loaded_rss_bytes": memory.loaded_rss if memory else None,
        "memory_gpu_peak_bytes": memory.gpu_peak if memory else None,
        "memory_anonymous_bytes": memory.anonymous if memory else None,
        "memory_mapped_bytes": memory.mapped if memory else None,
        "memory_load_peak_bytes": memory.load_peak if memory else None,
        "memory_kv_cache_bytes": memory.kv_cache.bytes if memory and memory.kv_cache else None,
        "memory_compute_buffer_bytes": memory.compute_buffer if memory else None,
        "temperature_start_c": temperature.start if temperature else None,
        "temperature_max_c": temperature.max if temperature else None,
        "utilization_cpu": used.cpu if used else None,
        "utilization_gpu": used.gpu if used else None,
        "gpu_compute_s": gpu.compute_s if gpu else None,
        "gpu_transfer_ratio": gpu.transfer_ratio if gpu else None,
        "gpu_queue": gpu.queue if gpu else None,
        "gpu_memory_bytes": gpu.memory_bytes if gpu else None,
        "gpu_clock_median_hz": gpu.clock_hz.median if gpu and gpu.clock_hz else None,
        "gpu_energy_j_per_inference": gpu.energy_j_per_inference if gpu else None,
        "throttled": variant.throttled,
        "accuracy_metric": accuracy.metric if accuracy else None,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_ci95_low": accuracy.ci95[0] if accuracy and accuracy.ci95 else None,
        "accuracy_ci95_high": accuracy.ci95[1] if accuracy and accuracy.ci95 else None,
        "accuracy_samples": accuracy.samples if accuracy else None,
        "accuracy_drop": accuracy.drop if accuracy else None,
        "accuracy_p_value": accuracy.p_value if accuracy else None,
        "baseline": compared.baseline if compared else None,
        **_ratio_cells("energy_ratio", ratios.energy_ratio if ratios else None),
        **_ratio_cells("latency_ratio", ratios.latency_ratio if ratios else None),
        "verdict": ratios.verdict if ratios else None,
        "pareto": is_front,
        "recommended": best is whole,
        "workload": workload.name if workload else None,
        "unit": workload.unit if workload else None,
        "units_per_call": workload.units_per_call if workload else None,
        "late": workload.late if workload else None,
        "dropped": workload.dropped if workload else None,
        "windows_cut_short": workload.cut_short if workload else None,
        **_language(whole.language),
    }


def _language(language: Language | None) -> dict[str, Any]:
    ttft, tpot = (language.ttft_s, language.tpot_s) if language else (None, None)
    perplexity = language.perplexity if language else None
    return {
        "prompt_tokens": language.prompt_tokens if language else None,
        "generated_tokens": language.generated_tokens if language else None,
        "depth_tokens": language.depth if language else None,
        "requests_at_once": language.batch if language else None,
        "kv_type": language.kv_type if language else None,
        "bits_per_weight": language.bits_per_weight if language else None,
        "random_weights": language.random_weights if language else None,
        "ttft_p50_s": ttft.p50 if ttft else None,
        "tpot_mean_s": tpot.mean if tpot else None,
        "perplexity": perplexity.value if perplexity else None,
        **_ratio_cells("perplexity_ratio", perplexity.ratio if perplexity else None),
    }


def _energy_cells(energy: Energy | None) -> dict[str, Any]:
    return {
        "energy_provenance": energy.provenance if energy else "none",
        "energy_rail": energy.rail if energy else None,
        "energy_covers": energy.covers if energy else None,
        **_figure_cells("energy_gross", energy.gross if energy else None),
        **_figure_cells("energy_net", energy.net if energy else None),
    }


def _figure_cells(name: str, figure: EnergyFigure | None) -> dict[str, Any]:
    interval = figure.ci95 if figure else None
    return {
        f"{name}_j": figure.value if figure else None,
        f"{name}_expanded_uncertainty_j": figure.expanded_uncertainty if figure else None,
        f"{name}_ci95_low_j": interval[0] if interval else None,
        f"{name}_ci95_high_j": interval[1] if interval else None,
    }


def _ratios_of(compared: Comparison | None, workload: Workload | None) -> Comparison | WorkloadComparison | None:
    """The comparison of one workload if there are several, else that of the variant."""
    if compared is None or workload is None or not compared.workloads:
        return compared
    return next((part for part in compared.workloads if part.name == workload.name), None)


def _ratio_cells(name: str, ratio: Ratio | None) -> dict[str, Any]:
    return {
        name: ratio.value if ratio else None,
        f"{name}_ci95_low": ratio.ci95[0] if ratio else None,
        f"{name}_ci95_high": ratio.ci95[1] if ratio else None,
    }


_NOBODY = schema.Variant(
    name="",
    recipe=[],
    status="failed",
    reasons=[],
    model=schema.Model(path="", format="", sha256=None, size_bytes=None),
    runtime=None,
)
_NOTHING = schema.Result(
    id="",
    created="",
    edgeprof="",
    host=schema.Host(
        board="",
        hostname="",
        arch="",
        cpu="",
        cores=0,
        memory_bytes=None,
        kernel="",
        os="",
        power_mode=None,
        governor=None,
        fingerprint="",
    ),
    sensors=[],
    protocol=schema.Protocol(
        scenario="",
        batch=1,
        threads=None,
        windows=0,
        window_s=0,
        warmup_s=0,
        idle_s=0,
        interleave="",
        sample_rate_hz=0,
    ),
    variants=[],
)
