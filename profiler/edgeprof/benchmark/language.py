"""The part of a result that only a language model has: facts, token times, and whether its phases add up.

All functions are pure, except that ``add_findings`` reads the header of a model file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgeprof.artifact import gguf
from edgeprof.energy.influences import OWN
from edgeprof.evaluation import perplexity
from edgeprof.reasons import Code
from edgeprof.results import schema
from edgeprof.results.schema import Reason
from edgeprof.verdicts import perplexity as paired
from edgeprof.verdicts.compare import compare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from edgeprof.benchmark.records import VariantRecord

#: Phases that add up to the request within this share count as adding up, whatever the interval: the caches are nearly,
#: but never exactly, as full in the windows of a phase as within a request.
CLOSE_ENOUGH = 0.02
_ELSEWHERE = "the server runs on another machine: the joules are this device's, which only asks"
_RANDOM = "the weights are random: time, memory and joules are those of a model of its size, and what it says is noise"
_ON_IT = "Run edgeprof on the machine of the server."


def add_findings(row: schema.Variant, record: VariantRecord) -> None:
    """Fill ``language`` of a variant whose session reports a language model; do nothing for any other model."""
    if record.loaded is None or record.loaded.language is None:
        return
    asked = record.loaded.language
    figures = schema.Language(
        prompt_tokens=int(asked["prompt_tokens"]),
        generated_tokens=int(asked["generated_tokens"]),
        depth=int(asked.get("depth") or 0),
        context=asked.get("context"),
        kv_type=asked.get("kv_type"),
        method=str(asked.get("method", "phase-windows")),
    )
    figures.batch = int(asked.get("batch") or 1)
    figures.architecture, figures.parameters = asked.get("architecture"), asked.get("parameters")
    figures.tensor_bytes = dict(asked.get("tensor_bytes") or {})
    if figures.parameters and figures.tensor_bytes:
        figures.bits_per_weight = 8 * sum(size or 0 for size in figures.tensor_bytes.values()) / figures.parameters
    header = gguf.read_model(record.artifact.files) if record.artifact.format == "gguf" else None
    if header is not None:
        figures.architecture, figures.parameters = header.architecture, header.parameters
        figures.bits_per_weight, figures.tensor_bytes = header.bits_per_weight, header.tensor_bytes
        figures.random_weights = header.is_random
    times = [request for request in record.main.token_times if len(request)]
    figures.ttft_s = summarise([request[0] for request in times])
    decodes = figures.generated_tokens - 1
    figures.tpot_s = summarise([(request[-1] - request[0]) / decodes for request in times if len(request) > 1])
    singles = [np.diff(request) for request in times if len(request) == figures.generated_tokens]
    is_single = len(singles) == len(times) > 0  # a server may send several tokens in one message
    figures.itl_s = summarise(np.concatenate(singles)) if is_single else None
    if asked.get("place") == "another machine":
        row.reasons.append(Reason(code=Code.SERVED_ELSEWHERE, message=_ELSEWHERE, remedy=_ON_IT))
    figures.closure = closure(row, figures)
    row.reasons += closure_doubts(figures.closure)
    figures.random_weights = figures.random_weights or bool(asked.get("random_weights"))
    if figures.random_weights:
        row.reasons.append(Reason(code=Code.RANDOM_WEIGHTS, message=_RANDOM))
    _add_memory(row, asked, None if header is None else header.cache_numbers_per_token)
    figures.perplexity = _judge_perplexity(record)
    row.language = figures


def _add_memory(row: schema.Variant, asked: Mapping[str, Any], numbers_per_token: int | None) -> None:
    """Add the sizes of the cache and the compute buffer, as the runtime reported them or the header implies them."""
    if row.memory_bytes is None:
        return
    formula = asked.get("kv_formula_bytes")
    if formula is None and numbers_per_token is not None and asked.get("context") and asked.get("kv_type"):
        formula = gguf.bytes_of(str(asked["kv_type"]), numbers_per_token * int(asked["context"]))
    reported_bytes = asked.get("kv_cache_bytes")
    if reported_bytes is not None or formula is not None:
        row.memory_bytes.kv_cache = schema.KvCache(
            bytes=reported_bytes if reported_bytes is not None else formula,
            formula_bytes=formula,
            source="formula" if reported_bytes is None else "measured",
        )
    row.memory_bytes.compute_buffer = asked.get("compute_buffer_bytes")


def _judge_perplexity(record: VariantRecord) -> schema.Perplexity | None:
    """Return the perplexity of the text, and set it as the variant's accuracy too, so that the verdicts use it."""
    if record.text is None or record.likelihoods is None:
        return None
    text, values = record.text, record.likelihoods.values
    record.score = score = perplexity.summarise(values)
    record.metric, record.dataset, record.higher_is_better = perplexity.NAME, text.name, False
    record.preprocessing = record.likelihoods.tokens_sha256
    return schema.Perplexity(
        value=score.value,
        ci95=score.ci95,
        tokens=score.samples,
        chunk=text.chunk,
        text=text.name,
        text_sha256=text.sha256,
        tokens_sha256=record.likelihoods.tokens_sha256,
        log_likelihoods=perplexity.packed(values),
    )


def pair_perplexities(variants: Sequence[schema.Variant]) -> None:
    """Set, in each perplexity, its ratio to the first variant's."""
    for variant in variants[1:]:
        if variant.language is not None and variant.language.perplexity is not None:
            variant.language.perplexity.ratio = paired.ratio(variant, variants[0])


def summarise(seconds: Sequence[float] | npt.NDArray[np.float64]) -> schema.TokenTime | None:
    """Return the mean, the median and quantiles (s); None without samples.

    A quantile p needs 10 / (1 − p) samples, so that ten lie beyond it; the median needs only one.
    """
    values = np.asarray(seconds, float)
    if not values.size:
        return None

    def quantile(p: float) -> float | None:
        return float(np.quantile(values, p)) if values.size * (1 - p) >= 10 else None

    return schema.TokenTime(
        mean=float(values.mean()),
        p50=float(np.median(values)),
        p90=quantile(0.9),
        p99=quantile(0.99),
        samples=values.size,
    )


def closure(row: schema.Variant, asked: schema.Language) -> schema.Closure | None:
    """Return the sum of the phases divided by the request's own figure; None if they were not measured separately.

    The interval is that of a comparison: an error that is common to all windows, such as a sensor's gain, cancels.
    """
    parts = {workload.name: workload for workload in row.workloads}
    request = parts.get("request")
    counts = {"prefill": asked.prompt_tokens, "decode": asked.generated_tokens - 1}
    phases = [(parts[name], count) for name, count in counts.items() if count and name in parts]
    if request is None or not request.windows or len(phases) < sum(count > 0 for count in counts.values()):
        return None
    whole = schema.workload_view(row, "request")
    assert whole is not None
    status = "ok"
    summed = msgspec.structs.replace(
        whole,
        name="phases",
        status=status,
        windows=_summed_windows(phases),
        energy_j_per_inference=_summed_energy(phases),
        accuracy=None,
    )
    compared = compare(summed, msgspec.structs.replace(whole, status=status, accuracy=None))
    return schema.Closure(energy=compared.energy_ratio, time=compared.latency_ratio)


def _summed_windows(phases: Sequence[tuple[schema.Workload, int]]) -> list[schema.Window]:
    """Combine the n-th windows of all phases into one window that holds one request."""
    ordered = [sorted(workload.windows, key=lambda window: window.order) for workload, _ in phases]
    summed = []
    for windows in zip(*ordered, strict=False):
        joules = [
            None if w.energy_j is None or w.inferences <= 0 else w.energy_j / w.inferences * count
            for w, (_, count) in zip(windows, phases, strict=True)
        ]
        medians = [window.latency_median_s for window in windows]
        summed.append(
            schema.Window(
                start_s=windows[0].start_s,
                end_s=windows[-1].end_s,
                inferences=1,
                order=windows[0].order,
                energy_j=None if None in joules else sum(j for j in joules if j is not None),
                latency_median_s=None if None in medians else sum(m for m in medians if m is not None),
            )
        )
    return summed


def _summed_energy(phases: Sequence[tuple[schema.Workload, int]]) -> schema.Energy | None:
    """Return the joules of a request from those of its phases; only the gross figure is a sum."""
    energies = [(workload.energy_j_per_unit, count) for workload, count in phases]
    known = [(energy, count) for energy, count in energies if energy is not None]
    if len(known) < len(phases):
        return None
    gross = [(energy.gross, count) for energy, count in known]
    values = [None if figure.value is None else figure.value * count for figure, count in gross]
    total = None if None in values else sum(value for value in values if value is not None)
    figure = schema.EnergyFigure(
        value=total,
        expanded_uncertainty=None,
        ci95=None,
        budget=_summed_budget(gross),
        influences=_summed_influences(gross),
    )
    return msgspec.structs.replace(known[0][0], gross=figure)


def _summed_budget(figures: Sequence[tuple[schema.EnergyFigure, int]]) -> schema.Budget:
    """Sum each line: lines that vary from window to window in quadrature, lines that all windows share linearly."""
    lines: dict[str, float | None] = {}
    for line in schema.Budget.__struct_fields__:
        parts = [(getattr(figure.budget, line) if figure.budget else None, count) for figure, count in figures]
        scaled = [value * count for value, count in parts if value is not None]
        total = math.fsum(scaled) if line in {"gain", "offset", "idle", "model"} else math.hypot(*scaled)
        lines[line] = total if scaled else None
    return schema.Budget(**lines)


def _summed_influences(figures: Sequence[tuple[schema.EnergyFigure, int]]) -> dict[str, float]:
    """Sum the influences: signed errors of one cause linearly, separate errors of each workload in quadrature."""
    summed: dict[str, float] = {}
    for figure, count in figures:
        for name, u in figure.influences.items():
            before, more = summed.get(name, 0.0), u * count
            summed[name] = math.hypot(before, more) if name.startswith(OWN) else before + more
    return summed


def closure_doubts(measured: schema.Closure | None) -> list[Reason]:
    if measured is None:
        return []
    doubts = []
    for what, ratio in (("joules", measured.energy), ("seconds", measured.time)):
        if ratio is not None and schema.sense(ratio, CLOSE_ENOUGH) != "tied":
            measured_ratio = "{:.3f} ({:.3f}–{:.3f})".format(ratio.value, *ratio.ci95)
            doubts.append(
                Reason(
                    code=Code.PHASES_DO_NOT_ADD_UP,
                    message=f"the {what} of prefill and decode make {measured_ratio} of a request's",
                    remedy="Something else runs in a request or in a phase: another load, a hot device, a cache.",
                )
            )
    return doubts
