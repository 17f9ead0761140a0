"""Why a variant is, or will be, no faster, no smaller or no longer accurate: pure checks over what was found out.

Each check gives a number, the threshold that it is held against, a sentence and a fix. What is not known is skipped, so
that the same checks run before a variant was measured (prediction) and after (explanation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprof.compression.recipe import changes_of, weight_bits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgeprof.worker.graph import Graph

Status = Literal["fail", "warn", "unknown", "ok"]

#: The gravest first; what cannot be told is said before what is fine.
ORDER: dict[Status, int] = {"fail": 0, "warn": 1, "unknown": 2, "ok": 3}

#: Int8 multiply-accumulates against float32 ones, by what the CPU has. With dot products: 2.7 was measured on a
#: Raspberry Pi 5 (XNNPACK, MobileNetV2), 3 is a round upper figure; without them int8 gains little or loses.
GAIN_WITH_DOT, GAIN_WITHOUT = 3.0, 1.2

_NO_OP, _ISLANDS = 0.05, 0.90
_SQNR_FATAL, _SQNR_LOW = 10.0, 20.0
_AGREEMENT_BROKEN, _AGREEMENT_LOW = 0.50, 0.95
_SAMPLES = 100
_CLIPPED, _DEAD = 0.01, 0.75
_FASTER, _SMALLER = 1.05, 0.95
_BATCH = 0.05
#: Below so many multiply-accumulates a node, starting it costs more than computing it.
_SMALL_NODE = 20_000
#: Seconds; a runtime takes some microseconds to start an operator, whatever it computes.
_SHORT_NODE = 10e-6


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        check: Its name.
        status: ``fail``: this is why; ``warn``: it costs something; ``unknown``: it cannot be
            told, and the sentence says why; ``ok``.
        number: What was measured or counted.
        unit: Of the number: ``ratio``, ``dB``, ``samples`` …
        threshold: What the number is held against.
        sentence: With the number.
        fix: What to do about it.
        weight: How much it explains; the headline is the heaviest failure.
    """

    check: str
    status: Status
    number: float | None
    unit: str
    threshold: float | None
    sentence: str
    fix: str | None = None
    weight: float = 1.0


@dataclass
class Evidence:
    """Everything that is known; leave out what is not.

    Attributes:
        graph: Of the variant, as executed.
        baseline: Of what it came from.
        size: Bytes of the variant, plain and zipped.
        baseline_size: Of the baseline.
        instructions: What the CPU has of ``dot`` (8-bit dot products): their name, or "" for none; None: unknown.
        arch: Machine, for messages.
        recipe: The variant's steps, as in its provenance.
        preprocessing: Of the data that it is judged on.
        speed_up: Baseline's latency over the variant's, measured.
        latency_s: Of the variant.
        agreement: Share of samples with the baseline's top-1 answer, and how many samples.
        accuracy: Variant's and baseline's.
        sqnr_db: Layer → signal to noise of its output against the baseline's.
        clipped: Layer → share of its values outside its range.
        dead: Layer → share of its range that is never used.
        batch_error: Largest relative difference between a batch and its samples one by one.
        engine: The backend that a quantised model was prepared for and the one that runs it, where these can differ.
    """

    graph: Graph | None = None
    baseline: Graph | None = None
    size: tuple[int, int] | None = None
    baseline_size: tuple[int, int] | None = None
    instructions: str | None = None
    arch: str = ""
    recipe: Sequence[Mapping[str, Any]] = ()
    preprocessing: str | None = None
    speed_up: float | None = None
    latency_s: float | None = None
    agreement: tuple[float, int] | None = None
    accuracy: tuple[float, float] | None = None
    sqnr_db: Mapping[str, float] = field(default_factory=dict)
    clipped: Mapping[str, float] = field(default_factory=dict)
    dead: Mapping[str, float] = field(default_factory=dict)
    batch_error: float | None = None
    engine: tuple[str, str] | None = None


def diagnose(evidence: Evidence) -> list[Finding]:
    """All checks that the evidence allows, the gravest first."""
    found = [finding for check in _CHECKS for finding in check(evidence)]
    return sorted(found, key=lambda one: (ORDER[one.status], -one.weight))


def headline(findings: Sequence[Finding]) -> Finding | None:
    """What to say where there is room for one sentence; None where nothing is wrong."""
    return next((one for one in findings if one.status != "ok"), None)


def predicted_speed_up(graph: Graph, baseline: Graph | None, *, dot: bool | None) -> float:
    """By multiply-accumulates alone, after Amdahl: 1 / Σ share / gain; fewer of them than the baseline count too.

    ``dot`` None is read as no dot products.
    """
    gain = GAIN_WITH_DOT if dot else GAIN_WITHOUT
    rates = {"int8": gain, "int8-dynamic": gain, "int16x8": 1.0}
    work = sum((layer.macs or 0) / rates.get(layer.precision, 1.0) for layer in graph.layers)
    before = (baseline or graph).macs
    return before / work if work and before else 1.0


def amdahl(share: float, gain: float) -> float:
    """1 / ((1 − s) + s / r); r may be infinite."""
    rest = (1 - share) + (0.0 if math.isinf(gain) else share / gain)
    return math.inf if rest == 0 else 1 / rest


# --- the checks -------------------------------------------------------------------------------------------------------


def _int8_share(e: Evidence) -> Iterator[Finding]:
    """B3.1: the executed graph, not what was asked for."""
    graph = e.graph
    if graph is None or not graph.layers or not _means_int8(e):
        return
    if graph.unsized or not graph.macs:
        yield _unknown_share(graph)
        return
    share = graph.share()
    gain = GAIN_WITH_DOT if e.instructions else GAIN_WITHOUT
    bound = amdahl(share, gain)
    floats = sorted((x for x in graph.layers if x.precision.startswith("float")), key=lambda x: -(x.macs or 0))
    named = ", ".join(f"{x.name} ({(x.macs or 0) / graph.macs:.0%})" for x in floats[:3])
    told = f"{share:.1%} of the multiply-accumulates run in integers, so at most {bound:.2f} × faster (Amdahl)"
    if share < _NO_OP:
        packed = sum(layer.stored in {"int8", "uint8", "int4"} for layer in graph.layers)
        only = f"; {packed} of {len(graph.layers)} layers store integers and compute in floats" if packed else ""
        engine = graph.integers if packed > len(graph.layers) / 2 else ""
        yield Finding(
            "int8-share", "fail", share, "ratio", _NO_OP, f"a no-op for speed: {told}{only}",
            engine or "Quantise what does the work: int8-static takes convolutions.", 5.0,
        )  # fmt: skip
    elif share < _ISLANDS:
        yield Finding(
            "int8-share", "warn", share, "ratio", _ISLANDS,
            f"{told}; still in floats: {named}" + _conversions(graph),
            "Use operators that the runtime quantises, or exclude the layers between two islands too.", 3.0,
        )  # fmt: skip
    else:
        yield Finding("int8-share", "ok", share, "ratio", _ISLANDS, told + _conversions(graph))


def _unknown_share(graph: Graph) -> Finding:
    uncounted = [f"{layer.name} ({layer.op})" for layer in graph.unsized[:3]]
    told = f", as it is not known how much {', '.join(uncounted)} multiply" if uncounted else ""
    return Finding(
        "int8-share", "unknown", None, "ratio", None,
        f"which part of the arithmetic runs in integers cannot be told{told}",
        "Give the sizes of open inputs with --input, --input-data or --dataset." if graph.note else None, 2.0,
    )  # fmt: skip


def _means_int8(e: Evidence) -> bool:
    quantised = any((weight_bits_of(step) or 32) <= 8 for step in e.recipe)
    graph = e.graph
    assert graph is not None
    return quantised or any(x.stored in {"int8", "uint8", "int4"} or x.precision == "int8" for x in graph.layers)


def _conversions(graph: Graph) -> str:
    return f"; {graph.conversions} of {graph.nodes} nodes only convert" if graph.conversions else ""


def _sparsity(e: Evidence) -> Iterator[Finding]:
    """B3.2: zeros anywhere against whole channels and 2:4 blocks."""
    if e.graph is None:
        return
    zeros = total = idle = blocks = 0
    for layer in e.graph.layers:
        if layer.weights is None:
            continue
        values = layer.weights()
        flat = values.reshape(len(values), -1)
        zero = flat == 0
        zeros += int(zero.sum())
        total += flat.size
        idle += int(zero.all(axis=1).sum()) * flat.shape[1]
        blocks += _two_of_four(values)
    if not total:
        return
    share, channels, patterned = zeros / total, idle / total, blocks / total
    told = f"{share:.0%} of the weights are zero, {channels:.0%} in whole channels, {patterned:.0%} in 2:4 blocks"
    meant = any(changes_of(step) & {"sparsity", "channels"} for step in e.recipe)
    if share < (0.1 if meant else 0.3):  # weights of few bits are often zero by rounding
        yield Finding("sparsity", "ok", share, "ratio", 0.1 if meant else 0.3, told)
        return
    if channels >= 0.5 * share:
        yield Finding(
            "sparsity", "warn", channels, "ratio", None, f"{told}; the channels are still computed",
            "Take them out: prune-structured.", 2.0,
        )  # fmt: skip
        return
    yield Finding(
        "sparsity", "fail", share, "ratio", 0.1,
        f"{told}: dense kernels multiply zeros like any number, predicted speed-up 1.00 ×",
        "Take whole channels out with prune-structured"
        + (", or run the 2:4 blocks on a GPU with sparse tensor cores (TensorRT)." if patterned > 0.9 else "."), 4.0,
    )  # fmt: skip


def _two_of_four(values: Any) -> int:
    """Weights that lie in blocks of four input channels with two zeros or more."""
    if values.ndim < 2 or values.shape[1] % 4:
        return 0
    groups = np.moveaxis(values, 1, -1).reshape(-1, 4)
    full: int = int(((groups == 0).sum(axis=1) >= 2).sum()) * 4
    return full


def _instructions(e: Evidence) -> Iterator[Finding]:
    """B3.3: integer arithmetic needs dot-product instructions, and the engine that the model was made for."""
    if e.engine is not None and e.engine[0] != e.engine[1]:
        yield Finding(
            "engine", "fail", None, "", None, f"it was quantised for {e.engine[0]} and runs on {e.engine[1]}",
            f"Set the engine to {e.engine[0]}, or quantise for {e.engine[1]}.", 6.0,
        )  # fmt: skip
    if e.graph is None or not e.graph.share():
        return
    for precision, why in e.graph.slow.items():
        slow = [layer for layer in e.graph.layers if layer.precision == precision]
        if slow:
            yield Finding(
                "kernels", "fail", len(slow) / len(e.graph.layers), "ratio", 0.0,
                f"{len(slow)} layers compute in {precision}, {why}",
                "Use int8 activations (int8-static), or an accelerator that computes in it.", 5.0,
            )  # fmt: skip
    if e.instructions is None or (e.baseline is not None and e.baseline.share() >= e.graph.share()):
        return  # unknown; or the baseline computes in as many integers: that is not what changed
    if e.instructions:
        yield Finding("instructions", "ok", None, "", None, f"this CPU has 8-bit dot products ({e.instructions})")
    else:
        yield Finding(
            "instructions", "warn", None, "", None,
            f"this CPU ({e.arch}) has no 8-bit dot products, so int8 gains little here and may lose",
            "Expect a smaller file, not speed; on Arm asimddp or i8mm, on x86 VNNI make int8 fast.", 3.5,
        )  # fmt: skip


def _calibration(e: Evidence) -> Iterator[Finding]:
    """B3.4: enough samples, of every class, prepared as the model will meet them."""
    facts = next((s["facts"] for s in e.recipe if "calibration" in (s.get("facts") or {})), None)
    if facts is not None:
        yield from _calibrated(e, facts)
    worst = sorted(e.clipped, key=lambda name: -e.clipped[name])[:3]
    if worst and e.clipped[worst[0]] > _CLIPPED:
        named = ", ".join(f"{_short(name)} ({e.clipped[name]:.1%})" for name in worst)
        wrong = e.clipped[worst[0]] > 0.1 and (e.agreement is None or e.agreement[0] < _AGREEMENT_LOW)
        yield Finding(
            "clipping", "fail" if wrong else "warn", e.clipped[worst[0]], "ratio", _CLIPPED,
            f"values fall outside their calibrated ranges: {named}",
            "Calibrate on data like that which it meets: same preprocessing, more samples, method=minmax.", 4.5,
        )  # fmt: skip
    idle = sorted(e.dead, key=lambda name: -e.dead[name])[:3]
    if idle and e.dead[idle[0]] > _DEAD:
        named = ", ".join(f"{_short(name)} ({e.dead[name]:.0%})" for name in idle)
        yield Finding(
            "dead-range", "warn", e.dead[idle[0]], "ratio", _DEAD,
            f"most of the calibrated range is never used: {named}",
            "Outliers widened it: method=percentile or entropy, or calibrate with the true preprocessing.", 2.5,
        )  # fmt: skip


def _calibrated(e: Evidence, facts: Mapping[str, Any]) -> Iterator[Finding]:
    count = facts.get("samples", 0)
    if e.preprocessing is not None and facts.get("preprocessing") not in (None, e.preprocessing):
        yield Finding(
            "preprocessing", "fail", None, "", None,
            "it was calibrated with another preprocessing than it is judged with",
            "Use one dataset .toml for both.", 8.0,
        )  # fmt: skip
    status: Status = "ok" if count >= _SAMPLES else "warn"
    yield Finding(
        "calibration", status, count, "samples", _SAMPLES, f"it was calibrated on {count} samples",
        None if status == "ok" else f"Use {_SAMPLES} or more.", 1.5,
    )  # fmt: skip
    classes, there = facts.get("classes"), facts.get("classes_in_dataset")
    if classes and there and classes < 0.8 * there:
        yield Finding(
            "classes", "warn", classes / there, "ratio", 0.8,
            f"the calibration samples show {classes} of {there} classes", "Use more samples.", 1.5,
        )  # fmt: skip


def _sqnr(e: Evidence) -> Iterator[Finding]:
    """B3.5: 20·log10(‖x‖ / ‖x − x̂‖) of each layer's output."""
    if not e.sqnr_db or any("trained_on" in (step.get("facts") or {}) for step in e.recipe):
        return  # a network that was trained has activations of its own
    ranked = sorted(e.sqnr_db, key=lambda name: e.sqnr_db[name])
    low = [name for name in ranked if e.sqnr_db[name] < _SQNR_LOW]
    worst = e.sqnr_db[ranked[0]]
    named = ", ".join(f"{_short(name)} ({e.sqnr_db[name]:.1f} dB)" for name in ranked[:3])
    if not low:
        yield Finding("sqnr", "ok", worst, "dB", _SQNR_LOW, f"every layer is above {_SQNR_LOW:.0f} dB; least: {named}")
        return
    fatal = worst < _SQNR_FATAL
    broken = next(name for name in e.sqnr_db if e.sqnr_db[name] < (_SQNR_FATAL if fatal else _SQNR_LOW))
    yield Finding(
        "sqnr", "fail" if fatal else "warn", worst, "dB", _SQNR_FATAL if fatal else _SQNR_LOW,
        f"{len(low)} of {len(ranked)} layers are below {_SQNR_LOW:.0f} dB, from {_short(broken)} on; worst: {named}",
        _milder(e) or f"Leave the first of them in float: exclude={_short(broken)}.", 4.0 if fatal else 2.0,
    )  # fmt: skip


#: Changes that lose signal without rounding → what makes them milder.
_LOSSY = {
    "sparsity": "a smaller amount",
    "channels": "a smaller amount",
    "rank": "more energy or rank",
    "values": "a larger n",
}


def _takes_much_out(step: Mapping[str, Any]) -> bool:
    """Whether a step changes weights by more than rounding them to 8 bits does."""
    changes = changes_of(step)
    trained = "weights" in changes and "precision" not in changes
    return bool(changes & _LOSSY.keys()) or trained or (weight_bits_of(step) or 32) <= 4


def _milder(e: Evidence) -> str | None:
    """What to do where weights were changed before anything was rounded: no layer left in float undoes that."""
    milder = {
        str(step.get("compressor", "a step")): how
        for step in e.recipe
        for change, how in _LOSSY.items()
        if change in changes_of(step)
    }
    if not milder:
        return None
    told = " and ".join(f"{how} for {step}" for step, how in milder.items())
    return f"Weights were changed, not only rounded: try {told}, or train afterwards (a PyTorch module: epochs=N)."


def _agreement(e: Evidence) -> Iterator[Finding]:
    """B3.6: below 50 % it is no question of precision."""
    if e.agreement is None:
        return
    share, count = e.agreement
    told = f"its top-1 answer is the baseline's for {share:.1%} of {count} samples"
    if share < _AGREEMENT_BROKEN:
        changed = any(_takes_much_out(step) for step in e.recipe) or any(
            layer.stored == "int4" for layer in (e.graph.layers if e.graph else ())
        )
        suspects = (
            "Too much was taken out: use a smaller amount, or fine-tune afterwards." if changed else
            "Look, in this order, at: calibration with another preprocessing; a model not in eval mode or with batch"
            " norms not fused; the wrong engine; additions that were not quantised; random or too few calibration"
            " samples; per-tensor weights; classes in another order."
        )  # fmt: skip
        what = "damaged" if changed else "a configuration error, not a loss of precision"
        yield Finding("agreement", "fail", share, "ratio", _AGREEMENT_BROKEN, f"{told}: {what}", suspects, 7.0)
    elif share < _AGREEMENT_LOW:
        yield Finding(
            "agreement", "warn", share, "ratio", _AGREEMENT_LOW, f"{told}: calibration or granularity",
            "per_channel=true, method=entropy or percentile, more samples, or exclude the worst layers.", 3.0,
        )  # fmt: skip
    else:
        yield Finding("agreement", "ok", share, "ratio", _AGREEMENT_LOW, told)


def _mode(e: Evidence) -> Iterator[Finding]:
    """B3.7: training mode, unfused batch norms, answers that depend on the batch."""
    graph = e.graph
    if graph is not None and graph.training:
        yield Finding(
            "eval-mode", "fail", len(graph.training), "nodes", 0,
            f"{len(graph.training)} nodes are in training mode ({', '.join(graph.training[:3])})",
            "Call model.eval() before exporting.", 9.0,
        )  # fmt: skip
    if graph is not None and graph.batch_norms:
        yield Finding(
            "batch-norms", "warn", len(graph.batch_norms), "nodes", 0,
            f"{len(graph.batch_norms)} batch normalisations are not fused ({', '.join(graph.batch_norms[:3])})",
            "Export in eval mode with constant folding, so that they become part of the convolutions.", 2.0,
        )  # fmt: skip
    if e.batch_error is not None and e.batch_error > _BATCH:
        dynamic = any(x.precision == "int8-dynamic" for x in graph.layers) if graph else False
        yield Finding(
            "batch", "warn" if dynamic else "fail", e.batch_error, "ratio", _BATCH,
            f"a batch of samples and the same ones by themselves differ by {e.batch_error:.0%}"
            + (": dynamic ranges are taken over the whole batch" if dynamic else ""),
            "Judge it with the batch that it will run with." if dynamic else "Call model.eval() before exporting.",
            2.0 if dynamic else 8.0,
        )  # fmt: skip


def _shape(e: Evidence) -> Iterator[Finding]:
    """B3.8: channels that fill vectors, and nodes large enough to be worth starting."""
    graph = e.graph
    if graph is None or not graph.layers:
        return
    step = 16 if graph.share() > _NO_OP else 8
    layers = [
        x for x in graph.layers[:-1] if x.channels and not x.depthwise
    ]  # the last has as many as there are classes
    odd = [x for x in layers if x.channels % step]
    if odd and sum(x.macs or 0 for x in odd) > 0.1 * (graph.macs or 1):
        named = ", ".join(f"{x.name} ({x.channels})" for x in odd[:3])
        yield Finding(
            "channels", "warn", len(odd) / len(layers), "ratio", 0.1,
            f"{len(odd)} of {len(layers)} layers have channels that are no multiple of {step}: {named}",
            f"Prune to multiples: prune-structured:round_to={step}.", 1.0,
        )  # fmt: skip
    small = graph.macs / graph.nodes
    took = None if e.latency_s is None else e.latency_s / graph.nodes
    if graph.macs and took is not None and took < _SHORT_NODE:
        judged, told = (took * 1e6, "µs per node", _SHORT_NODE * 1e6), f" in {took * 1e6:.1f} µs"
    elif graph.macs and small < _SMALL_NODE:
        judged, told = (small, "MACs per node", _SMALL_NODE), ""
    else:
        return
    yield Finding(
        "launch-bound", "warn", *judged,
        f"{small:,.0f} multiply-accumulates a node{told}: starting operators costs about as much as computing them,"
        " so less or cheaper arithmetic cannot help much at batch 1",
        "Batch, fuse operators or change the runtime; do not expect speed from compression.", 1.75,
    )  # fmt: skip


def _outcome(e: Evidence) -> Iterator[Finding]:
    """B3.9: the honest outcome."""
    if e.size is None or e.baseline_size is None:
        return
    plain, zipped = (new / old for new, old in zip(e.size, e.baseline_size, strict=True))
    told = f"the file is {plain:.2f} × its baseline, zipped {zipped:.2f} ×"
    if plain > _SMALLER and zipped > _SMALLER:
        yield Finding(
            "size", "warn", plain, "ratio", _SMALLER, told,
            "Store fewer bits (int8-weight, fp16) or fewer weights (prune-structured, low-rank).", 0.5,
        )  # fmt: skip
    if e.speed_up is not None and e.speed_up < _FASTER and min(plain, zipped) < _SMALLER:
        where = "memory" if plain <= _SMALLER else "download (it is small only when packed)"
        yield Finding(
            "memory-only", "warn", e.speed_up, "ratio", _FASTER,
            f"memory only: {told}, and {e.speed_up:.2f} × as fast: it saves {where}, not time", None, 1.0,
        )  # fmt: skip


def _short(name: str) -> str:
    """TFLite names a fused tensor after all that was fused into it, with semicolons between."""
    return name.partition(";")[0]


_CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    _int8_share,
    _sparsity,
    _instructions,
    _calibration,
    _sqnr,
    _agreement,
    _mode,
    _shape,
    _outcome,
)
