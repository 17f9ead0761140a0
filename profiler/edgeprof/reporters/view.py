"""Texts that all reporters share: columns, comparisons, reasons, and what a rail covers.

Nothing here depends on a terminal or on HTML. Figures have as many digits as their uncertainty allows, each column has
one unit, and joules that no sensor measured are marked in their own cell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.errors import without_subject
from edgeprof.reporters.language_text import language_lines
from edgeprof.reporters.loads_text import load_lines
from edgeprof.reporters.stages_text import stage_lines
from edgeprof.reporters.terminal import Column
from edgeprof.results import schema
from edgeprof.verdicts.accuracy import SIGNIFICANT
from edgeprof.verdicts.recommend import recommendation_of, recommended_variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.results.schema import Comparison, EnergyFigure, Ratio, Reason, Result, SensorUse, Variant

NONE = ("–", "")
#: The marks of the recommended variant, and of the other variants on the Pareto front.
BEST, FRONT = "◆", "◇"
#: Provenances of joules that come from hardware; they need no mark.
REAL = ("counter", "measured")

COVERS = {
    "wall": "the whole device at the wall",
    "board": "the whole board",
    "module": "the module",
    "soc": "the system on chip",
    "package": "the processor package",
    "cpu": "the CPU",
    "gpu": "the GPU",
    "memory": "the memory",
    "system": "the system rails",
    "accelerator": "the accelerator",
}
#: Coverage → a sentence below the table on what the joules leave out.
OUTSIDE = {
    "board": "Board energy: the losses of the power supply are outside {rail}.",
    "module": "Module energy only: carrier board, NVMe and USB are outside {rail}.",
    "soc": "Energy of the system on chip only: memory, storage, carrier board and USB are outside {rail}.",
    "package": "Energy of the processor package only: disks, fans, screen and the power supply are outside {rail}.",
    "cpu": "CPU energy only: everything else of the board is outside {rail}.",
    "gpu": "GPU energy only: processor, memory of the host and disks are outside {rail}.",
    "accelerator": "Energy of the accelerator only: the host that feeds it is outside {rail}.",
    "unknown": "What {rail} covers is not known: compare it only with itself.",
}
#: Titles of the metrics of edgeprof 0.1, whose results do not contain them.
_TITLES_OF_OLD_RESULTS = {
    **{f"top{k}": f"top-{k}" for k in (1, 2, 3, 5, 10)},
    "map": "mAP@[.5:.95]",
    "map50": "mAP@.5",
}


def metric_title(accuracy: schema.Accuracy) -> str:
    """The usual name of a score's metric, as ``top-1``."""
    return accuracy.title or _TITLES_OF_OLD_RESULTS.get(accuracy.metric, accuracy.metric)


def columns(variants: Sequence[Variant]) -> list[Column]:
    """Make the table's columns, the most important first; columns without any value are left out."""
    energies = [v.energy_j_per_inference for v in variants]
    latencies = [v.latency_s for v in variants]
    powers = [v.power_w for v in variants]
    memories = [v.memory_bytes for v in variants]
    temperatures = [v.temperature_c for v in variants]
    metrics = {v.accuracy.metric: metric_title(v.accuracy) for v in variants if v.accuracy}
    table_columns = [
        Column(
            f"energy / {common_unit(variants)}",
            energy_cells([(e.gross, e.provenance) if e else None for e in energies]),
            "energy",
        ),
        Column("net", energy_cells([(e.net, e.provenance) if e else None for e in energies])),
        *_latency_columns(latencies),
        Column("GPU time", scaled([v.gpu.compute_s if v.gpu else None for v in variants], "s")),
        Column("copies", [_share_text(v.gpu.transfer_ratio if v.gpu else None) for v in variants]),
        *(
            Column(title, [accuracy_cell(v) if v.accuracy and v.accuracy.metric == m else NONE for v in variants])
            for m, title in metrics.items()
        ),
        Column("rate", [rate_cell(v.throughput_per_s) for v in variants]),
        Column("power", scaled([p.mean if p else None for p in powers], "W")),
        Column("RAM", [_bytes_text(m.peak_rss if m else None) for m in memories]),
        *_language_memory(variants),
        Column("GPU RAM", [_bytes_text(m.gpu_peak if m else None) for m in memories]),
        Column("temp", [_split_quantity(t.max if t else None, "°C") for t in temperatures]),
        Column("size", [_bytes_text(v.model.size_bytes) for v in variants]),
        *_runtime_column(variants),
    ]
    # Energy and latency are shown even if they are empty: a reader must see it, and the reason stands below.
    always_shown = {0, 1, 2} if any(energies) else {0, 2}
    return [c for n, c in enumerate(table_columns) if n in always_shown or any(cell != NONE for cell in c.cells)]


def _language_memory(variants: Sequence[Variant]) -> list[Column]:
    """Columns of language models: memory that the kernel cannot drop, the KV cache, and bits per weight."""
    memories = [v.memory_bytes if v.language else None for v in variants]
    return [
        Column("unmapped", [_bytes_text(m.anonymous if m else None) for m in memories]),
        Column("KV cache", [_bytes_text(m.kv_cache.bytes if m and m.kv_cache else None) for m in memories]),
        Column(
            "bits / weight", [_split_quantity(v.language.bits_per_weight if v.language else None, "") for v in variants]
        ),
    ]


def common_unit(variants: Sequence[Variant]) -> str:
    """The unit of the main workload; ``call`` if the variants have different units."""
    units_used = {variant.unit for variant in variants if variant.workloads} or {"inference"}
    return units_used.pop() if len(units_used) == 1 else "call"


def workload_table(variants: Iterable[tuple[str, Variant]]) -> tuple[list[str], list[Column]]:
    """Make a table of the workloads of each variant: names of rows, and columns; empty if no variant has several.

    Args:
        variants: The variants, each with the name that it has in the other tables.
    """
    several = [(name, variant) for name, variant in variants if len(variant.workloads) > 1]
    rows = [(name, workload) for name, variant in several for workload in variant.workloads]
    if not rows:
        return [], []
    names = [workload.name if len(several) == 1 else f"{name} · {workload.name}" for name, workload in rows]
    workloads = [workload for _, workload in rows]
    energies = [workload.energy_j_per_unit for workload in workloads]
    columns = [
        Column("energy / unit", energy_cells([(e.gross, e.provenance) if e else None for e in energies]), "energy"),
        Column("net", energy_cells([(e.net, e.provenance) if e else None for e in energies])),
        Column("unit", [("", workload.unit) for workload in workloads]),
        *_latency_columns([workload.latency_s for workload in workloads]),
        Column("rate", [rate_cell(workload.throughput_per_s) for workload in workloads]),
        Column("units / call", [(str(workload.units_per_call), "") for workload in workloads]),
    ]
    return names, [column for column in columns if any(cell != NONE for cell in column.cells)]


def _share_text(ratio: float | None) -> tuple[str, str]:
    return NONE if ratio is None else (f"{100 * ratio:.0f}", "%")


def energy_cells(figures: Sequence[tuple[EnergyFigure, str] | None]) -> list[tuple[str, str]]:
    """Format energies, each as a pair of texts to align.

    Examples: ``12.34``, ``± 0.21 mJ``; ``~5``, ``mJ ±50 % estimated``; ``12.34``, ``± 0.21 mJ simulated``.
    """
    values = [f[0].value for f in figures if f and f[0].value is not None]
    factor, prefix = units.prefix_for(values)
    unit = f"{prefix}J"
    spread = [
        _rounded_text(f[0].expanded_uncertainty / factor)
        for f in figures
        if f and f[0].value is not None and f[0].expanded_uncertainty is not None and f[1] != "estimated"
    ]
    wide = max(map(len, spread), default=0)
    cells = []
    for figure in figures:
        if figure is None or figure[0].value is None:
            cells.append(NONE)
            continue
        provenance, value, u = figure[1], figure[0].value, figure[0].expanded_uncertainty
        if provenance == "estimated":
            cells.append(_estimate_text(value, u, factor, unit))
            continue
        word = "" if provenance in REAL else f" {provenance}"
        if u is None:
            cells.append((units.significant(value / factor), f"{unit}{word}"))
        else:
            decimals = units.decimals_for(u / factor)
            cells.append((f"{value / factor:.{decimals}f}", f"± {_rounded_text(u / factor).ljust(wide)} {unit}{word}"))
    return cells


def energy_text(figure: EnergyFigure | None, provenance: str) -> str:
    """Format one figure as a phrase, as ``~5 mJ ±50 % estimated``."""
    if figure is None:
        return "–"
    return " ".join(" ".join(energy_cells([(figure, provenance)])[0]).split())


def _estimate_text(value: float, u: float | None, factor: float, unit: str) -> tuple[str, str]:
    scaled = value / factor
    lead = scaled / 10 ** math.floor(math.log10(abs(scaled))) if scaled else 1.0
    share = f" ±{units.significant(100 * u / abs(value), 2)} %" if u is not None and value else ""
    # With ±50 % only one digit is meaningful, or two if the first is a 1, since rounding it would change it much.
    digits = 2 if lead < 2 else 1
    power = digits - 1 - math.floor(math.log10(abs(scaled))) if scaled else 0
    return f"~{units.significant(round(scaled, power), digits)}", f"{unit}{share} estimated"


def _rounded_text(u: float) -> str:
    return f"{u:.{units.decimals_for(u)}f}"


def _latency_columns(latencies: Sequence[schema.Latency | None]) -> list[Column]:
    p50 = [v.p50 if v else None for v in latencies]
    p99 = [v.p99 if v else None for v in latencies]
    bound = [v.p99_bound if v else None for v in latencies]
    means = [v.mean if v is not None and v.max is None else None for v in latencies]
    # Each column has its own unit: on a busy machine p99 may be a hundred times p50.
    mean_column = Column("latency mean", scaled(means, "s"), "mean")
    p50_column = Column("latency p50", scaled(p50, "s"), "p50")
    only_means = any(mean is not None for mean in means) and all(p is None for p in p50)
    return [
        *([mean_column] if only_means else [p50_column, mean_column]),
        Column("p99", scaled(p99, "s")),
        Column("p99 ≤", scaled(bound, "s")),
    ]


def scaled(values: Sequence[float | None], unit: str) -> list[tuple[str, str]]:
    """Format values with three digits and one prefix for the whole column."""
    factor, prefix = units.prefix_for([v for v in values if v is not None])
    return [NONE if v is None else (units.significant(v / factor), f"{prefix}{unit}") for v in values]


def _split_quantity(value: float | None, unit: str) -> tuple[str, str]:
    return NONE if value is None else (units.significant(value), unit)


def rate_cell(value: float | None) -> tuple[str, str]:
    return NONE if value is None else (units.significant(value), "/s")


def _bytes_text(count: int | None) -> tuple[str, str]:
    if count is None:
        return NONE
    number, unit = units.size(count).split()
    return number, unit


def share(value: float | None) -> tuple[str, str]:
    """Format a score whose metric is no longer known: as a percentage if it can be one."""
    if value is None:
        return NONE
    return (f"{100 * value:.1f}", "%") if 0.0 <= value <= 1.0 else (units.significant(value), "")


def accuracy_cell(variant: Variant) -> tuple[str, str]:
    accuracy = variant.accuracy
    if accuracy is None:
        return NONE
    if not accuracy.is_ratio:
        return units.significant(accuracy.value), ""
    half = (accuracy.ci95[1] - accuracy.ci95[0]) / 2 if accuracy.ci95 else 0.0
    # A few hundred samples resolve a tenth of a point, ten thousand samples a hundredth.
    return f"{100 * accuracy.value:.{2 if 0 < half < 0.01 else 1}f}", "%"


def _runtime_column(variants: Sequence[Variant]) -> list[Column]:
    """A column of the runtimes if they differ; otherwise the heading names the runtime."""
    if len({runtime_text(v) for v in variants if v.runtime and v.status != "failed"}) < 2:
        return []
    return [Column("runtime", [("", runtime_text(v) if v.runtime else "–") for v in variants])]


def runtime_text(variant: Variant) -> str:
    runtime = variant.runtime
    if runtime is None:
        return ""
    version = f" {runtime.version}" if runtime.version else ""
    return f"{runtime.name}{version} ({runtime.device})"


def marks(result: Result) -> list[str]:
    """The mark of each row: that it is recommended or on the Pareto front, and its status if that is not ``ok``."""
    recommended = recommended_variant(result)
    front = frozenset(result.pareto)
    row_marks = []
    for variant in result.variants:
        words: list[str] = [] if variant.status == "ok" else [variant.status]
        if variant is recommended:
            words.insert(0, f"{BEST} {praise(result)}")
        elif variant.name in front and len(result.variants) > 1:
            words.insert(0, FRONT)
        row_marks.append(" ".join(words))
    return row_marks


def praise(result: Result) -> str:
    """The word for the recommended variant: ``best``, ``cheapest`` …"""
    return recommendation_of(result).praise or ""


def comparison_text(comparison: Comparison, variant: Variant | None, *, verdict: bool = False) -> str:
    """Format a comparison, as ``0.415 × energy (0.407–0.423), 0.424 × latency; accuracy −0.5 pt (p = 0.56, …)``.

    Args:
        comparison: The comparison of a variant with its baseline.
        variant: The variant, for its accuracy; None: the accuracy is left out.
        verdict: Whether each ratio is followed by better, worse or tied.
    """
    if comparison.verdict == "not_comparable":
        return f"not comparable with {comparison.baseline}: {comparison.reason or 'no common measurement'}"
    energy, latency = comparison.energy_ratio, comparison.latency_ratio
    tied = [word for word, r in (("energy", energy), ("latency", latency)) if r and schema.sense(r) == "tied"]
    if len(tied) == 2 and not verdict:
        text = (
            f"tied with {comparison.baseline} in energy and latency ({_span_text(energy)} and {_span_text(latency)} ×)"
        )
    else:
        parts = [
            _ratio_text(word, r, comparison.baseline, verdict=verdict)
            for word, r in (("energy", energy), ("latency", latency))
            if r
        ]
        text = ", ".join(parts) or "nothing was measured in both"
    text = "; ".join([text, *workload_ratios(comparison)])
    accuracy = accuracy_text(variant) if variant else None
    return f"{text}; {accuracy}" if accuracy else text


def workload_ratios(comparison: Comparison) -> list[str]:
    """Format each workload except the main one, as ``decode: energy 1.032 × (1.011–1.054), latency …``."""
    texts = []
    for part in comparison.workloads[1:]:
        ratios = [(word, r) for word, r in (("energy", part.energy_ratio), ("latency", part.latency_ratio)) if r]
        words = ", ".join(f"{word} {ratio_text(r)}" for word, r in ratios) or "not comparable"
        texts.append(f"{part.name}: {words}")
    return texts


def accuracy_text(variant: Variant) -> str | None:
    """Format a change of accuracy, as ``accuracy −0.5 pt (p = 0.56, not significant with 200 samples)``.

    A metric of which less is better has its own name: ``perplexity +0.31 (less is better, p = …)``. None if the
    accuracy was not compared.
    """
    a = variant.accuracy
    if a is None or a.drop is None:
        return None
    if a.drop == 0 and a.p_value is None:
        return f"{accuracy_name(a)} equal"
    change = -a.sign * a.drop * (100 if a.is_ratio else 1)
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    size = f"{abs(change):.{_accuracy_digits(a)}f} pt" if a.is_ratio else units.significant(abs(change))
    text = f"{accuracy_name(a)} {sign}{size}"
    notes = [] if a.higher_is_better else ["less is better"]
    if a.p_value is not None:
        notes.append("p < 0.001" if a.p_value < 0.001 else f"p = {units.significant(a.p_value, 2)}")
        known = "significant with" if a.p_value < SIGNIFICANT else "not significant with"
        notes.append(f"{known} {a.samples} samples")
    return f"{text} ({', '.join(notes)})" if notes else text


def accuracy_name(accuracy: schema.Accuracy) -> str:
    """The word for a change of a score: accuracy, or the metric's own name if less of it is better."""
    return "accuracy" if accuracy.higher_is_better else metric_title(accuracy)


def metric_heading(accuracy: schema.Accuracy) -> str:
    """The name of a score in a heading, as ``top-1 accuracy``, ``mAP@[.5:.95]`` or ``perplexity``."""
    name = metric_title(accuracy)
    return f"{name} accuracy" if name.startswith("top-") else name


def _accuracy_digits(accuracy: schema.Accuracy) -> int:
    return 1 if accuracy.samples < 2000 else 2


def ratio_digits(ratio: Ratio) -> int:
    """The number of decimals that the interval's half-width allows, from two to four."""
    return min(4, max(2, units.decimals_for((ratio.ci95[1] - ratio.ci95[0]) / 2)))


def ratio_text(ratio: Ratio) -> str:
    """Format a ratio with its interval, as ``1.032 × (1.011–1.054)``."""
    return f"{ratio.value:.{ratio_digits(ratio)}f} × ({_span_text(ratio)})"


def _span_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return "–"
    n = ratio_digits(ratio)
    return f"{ratio.ci95[0]:.{n}f}–{ratio.ci95[1]:.{n}f}"


def _ratio_text(word: str, ratio: Ratio, baseline: str, *, verdict: bool) -> str:
    n = ratio_digits(ratio)
    if verdict:
        return f"{word} {ratio.value:.{n}f} × ({_span_text(ratio)}) {schema.sense(ratio)}"
    if schema.sense(ratio) == "tied":
        return f"{word} tied with {baseline} ({_span_text(ratio)} ×)"
    return f"{ratio.value:.{n}f} × {word} ({_span_text(ratio)})"


def reasons(result: Result) -> list[tuple[str, str]]:
    """List every reason once: the variants that it concerns, and the sentence with its remedy."""
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for reason in result.reasons:
        names_by_reason.setdefault((reason.code, reason_sentence(reason)), [])
    for variant in result.variants:
        for reason in variant.reasons:
            names_by_reason.setdefault((reason.code, reason_sentence(reason)), []).append(variant.name)
        if variant.status != "ok" and not variant.reasons:
            names_by_reason.setdefault((variant.status, f"{variant.status}; no reason was recorded."), []).append(
                variant.name
            )
    named_reasons = []
    every = {v.name for v in result.variants}
    ran = every - {v.name for v in result.variants if v.status == "failed"}
    for (_, text), names in names_by_reason.items():
        named = set(names)
        everybody = len(names) > 1 and ran <= named
        whole = "all that ran" if len(named) < len(every) else "all variants"
        who = "this run" if not names else whole if everybody else ", ".join(dict.fromkeys(names))
        named_reasons.append((who, without_subject(who, text)))
    return named_reasons


def reason_sentence(reason: Reason) -> str:
    message = reason.message.rstrip()
    if message and message[-1] not in ".!?:…":
        message += "."
    return f"{message} {reason.remedy.strip()}" if reason.remedy else message


def heading(result: Result) -> str:
    """Describe in one line the device, its power mode and what the headline covers."""
    host = result.host
    words = [host.board, host.power_mode, host.os, f"{host.cores} × {host.cpu}", coverage(result)]
    return " · ".join(w for w in words if w)


def protocol_line(result: Result) -> str:
    """Describe the protocol in one line."""
    p = result.protocol
    rate = f" at {units.significant(p.rate_hz)} Hz" if p.rate_hz else ""
    words = [
        f"{p.scenario}{rate}",
        f"{p.windows} window{'s' if p.windows != 1 else ''} × {units.significant(p.window_s)} s",
        f"interleaved {p.interleave}" if len(result.variants) > 1 else "",
        f"batch {p.batch}",
        f"{p.threads} thread{'s' if p.threads != 1 else ''}" if p.threads else "",
    ]
    runtimes = {runtime_text(v) for v in result.variants if v.runtime and v.status != "failed"}
    if len(runtimes) == 1:
        words.append(runtimes.pop())
    if p.inputs == "random":
        words.append("random inputs")
    return " · ".join(w for w in words if w)


def headline_energy(result: Result) -> schema.Energy | None:
    """The first energy of the result; rail and coverage are the same for the whole result."""
    return next((v.energy_j_per_inference for v in result.variants if v.energy_j_per_inference), None)


def coverage(result: Result) -> str:
    """Say what the headline covers, as ``VDD_IN covers the module (ina3221, tau 0.43 s, 40 mW steps)``."""
    energy = headline_energy(result)
    if energy is None or energy.provenance == "none":
        return "no power sensor"
    if energy.provenance == "estimated":
        return "no power sensor: joules are estimated"
    covers = COVERS.get(energy.covers or "", energy.covers or "an unknown part")
    rail = energy.rail or "the sensor"
    used = headline_sensors(result, energy)
    facts = [", ".join(dict.fromkeys(s.sensor for s in used))] if used else []
    if used:
        tau = (used[0].filter or {}).get("tau_s")
        if tau:
            facts.append(f"tau {units.significant(tau, 2)} s")
        if used[0].resolution:
            facts.append(f"{units.quantity(used[0].resolution, used[0].unit, 2)} steps")
    if energy.provenance == "simulated":
        facts.insert(0, "a virtual board")
    return f"{rail} covers {covers}" + (f" ({', '.join(facts)})" if facts else "")


def headline_sensors(result: Result, energy: schema.Energy) -> list[SensorUse]:
    """The channels that make up the headline."""
    rails = [part.strip() for part in (energy.rail or "").split("+")]
    return [s for s in result.sensors if s.channel in rails and s.quantity in ("power", "energy")]


def notes(result: Result) -> list[str]:
    """The sentences that a reader must know before quoting a number of this result."""
    lines = []
    energy = headline_energy(result)
    if energy is not None and energy.provenance == "simulated":
        lines.append("Simulated: the rails are those of a virtual board; the joules say nothing about a real device.")
    elif energy is not None and energy.provenance == "estimated":
        lines.append(
            "Estimated from CPU time and a stated wattage, not measured. For real joules, edgeprof doctor says which "
            "sensors this device has and how to get access to them."
        )
    elif energy is not None and energy.covers in OUTSIDE:
        lines.append(OUTSIDE[energy.covers or ""].format(rail=energy.rail or "it"))
    if any(v.latency_s and v.latency_s.max is not None and v.latency_s.p99_bound is None for v in result.variants):
        lines.append("A bound of p99 with 99 % confidence needs at least 662 requests; give more time by --window.")
    if any(v.latency_s and v.latency_s.p99_bound is not None for v in result.variants):
        lines.append("p99 ≤ is a bound that holds with 99 % confidence; p50 and p99 are the measured quantiles.")
    lines += language_lines(result.variants)
    lines += stage_lines(result)
    lines += load_lines(result.variants)
    if result.interrupted:
        lines.append("Interrupted: the result contains what had been measured until then.")
    names = frozenset(result.pareto)
    front = [v for v in result.variants if v.name in names]
    if any(FRONT in mark for mark in marks(result)):
        judged = ["accuracy"] if any(v.accuracy for v in front) else []
        judged += ["energy"] if any(v.energy_j_per_inference for v in front) else []
        at_once = " at once" if judged else ""
        lines.append(f"{FRONT} no variant is better in {', '.join(judged)}{' and ' if judged else ''}latency{at_once}.")
    return lines


def short(reference: str) -> str:
    """The last part of an id, which is enough for a person to type."""
    return reference.rpartition("-")[2] or reference


def join(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
