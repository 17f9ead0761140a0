"""Pure checks that explain or predict why a variant is not faster, not smaller or no longer accurate.

Each check gives a number, its threshold, a sentence and a fix. Unknown facts are skipped, so that the same checks run
before a variant is measured (prediction) and after it (explanation).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof import units
from edgeprof.compression.recipe import changes_of, weight_bits_of
from edgeprof.diagnosis.advice import made_again, repeated, replaced, with_chain
from edgeprof.diagnosis.finding import ORDER, Evidence, Finding, Status
from edgeprof.diagnosis.noise import agreement, outputs, saturation, sqnr
from edgeprof.diagnosis.ranges import calibration
from edgeprof.diagnosis.stages import frame_rate
from edgeprof.diagnosis.zeros import count_zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeprof.worker.graph import Graph, Layer

__all__ = ["ORDER", "Evidence", "Finding", "Status"]

#: The speed of int8 multiply-accumulates relative to float32, on a CPU with and without 8-bit dot products. With them,
#: 2.7 was measured on a Raspberry Pi 5 (XNNPACK, MobileNetV2), and 3 is a round upper value; without them, int8 gains
#: little or loses.
GAIN_WITH_DOT, GAIN_WITHOUT = 3.0, 1.2

_NO_OP, _ISLANDS = 0.05, 0.90
_FASTER, _SMALLER = 1.05, 0.95
_BATCH = 0.05
#: With fewer multiply-accumulates per node, starting a node costs more than computing it.
_SMALL_NODE = 20_000
#: Seconds per node; a runtime takes some microseconds to start an operator, whatever it computes.
_SHORT_NODE = 10e-6


def diagnose(evidence: Evidence) -> list[Finding]:
    """Run all checks that the evidence allows; return their findings, the most severe first."""
    findings = [finding for check in _CHECKS for finding in check(evidence)]
    return sorted(findings, key=lambda finding: (ORDER[finding.status], -finding.weight))


def headline(findings: Sequence[Finding]) -> Finding | None:
    """Return the finding to show if there is room for only one; None if nothing is wrong."""
    return next((finding for finding in findings if finding.status != "ok"), None)


def predicted_speed_up(graph: Graph, baseline: Graph | None, *, dot: bool | None) -> float:
    """Predict the speed-up from multiply-accumulates only, after Amdahl: 1 / Σ (share / gain).

    The shares are relative to the baseline's multiply-accumulates, so a variant with fewer of them is faster. ``dot``
    None means no dot products.
    """
    gain = GAIN_WITH_DOT if dot else GAIN_WITHOUT
    rates = {"int8": gain, "int8-dynamic": gain, "int16x8": 1.0}
    work = sum((layer.macs or 0) / rates.get(layer.precision, 1.0) for layer in graph.layers)
    before = (baseline or graph).macs
    return before / work if work and before else 1.0


def amdahl(share: float, gain: float) -> float:
    """Return 1 / ((1 − s) + s / r) for a share s and a gain r (Amdahl's law); r may be infinite."""
    rest = (1 - share) + (0.0 if math.isinf(gain) else share / gain)
    return math.inf if rest == 0 else 1 / rest


# --- the checks -------------------------------------------------------------------------------------------------------


def _check_int8_share(e: Evidence) -> Iterator[Finding]:
    """B3.1: the share of integer arithmetic in the executed graph, whatever was requested."""
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
    sentence = f"{share:.1%} of the multiply-accumulates run in integers, so at most {bound:.2f} × faster (Amdahl)"
    chain = _integer_chain(e, floats)
    if share < _NO_OP:
        packed = sum(layer.stored in {"int8", "uint8", "int4"} for layer in floats)
        only = f"; {packed} of {len(graph.layers)} layers store integers and compute in floats" if packed else ""
        yield Finding(
            "int8-share", "fail", share, "ratio", _NO_OP, f"a no-op for speed: {sentence}{only}",
            _quantise_more(e, floats, chain), 5.0, chain=chain,
        )  # fmt: skip
    elif share < _ISLANDS:
        yield Finding(
            "int8-share", "warn", share, "ratio", _ISLANDS,
            f"{sentence}; still in floats: {named}" + _conversions_text(graph),
            _quantise_more(e, floats, chain), 3.0, chain=chain,
        )  # fmt: skip
    else:
        yield Finding("int8-share", "ok", share, "ratio", _ISLANDS, sentence + _conversions_text(graph))


#: The operators that int8-static quantises, by their names in ONNX and TFLite.
_STATIC_TAKES = ("conv", "matmul", "gemm", "fully_connected")


def _integer_chain(e: Evidence, floats: Sequence[Layer]) -> str | None:
    """Return a chain for more integer arithmetic: an export to a runtime that computes in integers, or int8-static."""
    if e.graph is not None and e.graph.integers and _mostly_stored(e.graph):
        before = repeated(e.methods, e.recipe)
        export = _method_chain(e, "export-onnx")
        return None if export is None or (before is None and e.recipe) else "+".join(filter(None, (before, export)))
    tried = any(step.get("compressor") == "int8-static" for step in e.recipe)
    heaviest = floats[0].op.lower() if floats else ""
    if tried or not any(name in heaviest for name in _STATIC_TAKES):
        return None
    return replaced(e.methods, e.recipe, "precision", "int8-static")


def _mostly_stored(graph: Graph) -> bool:
    """Return whether most layers store integers and compute in floats."""
    packed = [x for x in graph.layers if x.stored in {"int8", "uint8", "int4"} and x.precision.startswith("float")]
    return len(packed) > len(graph.layers) / 2


def _quantise_more(e: Evidence, floats: Sequence[Layer], chain: str | None) -> str:
    if e.graph is not None and e.graph.integers and _mostly_stored(e.graph):
        return with_chain(e.graph.integers, chain)
    if e.methods is None or chain:
        return with_chain("Quantise what does the work: int8-static takes convolutions and matrix products.", chain)
    named = ", ".join(dict.fromkeys(layer.op for layer in floats[:3]))
    return f"Nothing more is quantised here of what does the work ({named}): a smaller network would have to do it."


def _unknown_share(graph: Graph) -> Finding:
    return Finding(
        "int8-share", "unknown", None, "ratio", None,
        f"which part of the arithmetic runs in integers cannot be told{_uncounted(graph)}",
        "Give the sizes of open inputs with --input, --input-data or --dataset." if graph.note else None, 2.0,
    )  # fmt: skip


def _uncounted(graph: Graph) -> str:
    """Return the end of a sentence that names layers whose arithmetic is not known; "" if there are none."""
    named = [f"{layer.name} ({layer.op})" for layer in graph.unsized[:3]]
    return f", as it is not known how much {', '.join(named)} multiply" if named else ""


def _means_int8(e: Evidence) -> bool:
    quantised = any((weight_bits_of(step) or 32) <= 8 for step in e.recipe)
    graph = e.graph
    assert graph is not None
    return quantised or any(x.stored in {"int8", "uint8", "int4"} or x.precision == "int8" for x in graph.layers)


def _conversions_text(graph: Graph) -> str:
    return f"; {graph.conversions} of {graph.nodes} nodes only convert" if graph.conversions else ""


def _check_sparsity(e: Evidence) -> Iterator[Finding]:
    """B3.2: zeros anywhere, in whole channels, and in 2:4 blocks."""
    if e.graph is None:
        return
    zeros = total = idle = blocks = 0
    for layer in e.graph.layers:
        counts = count_zeros(layer)
        if counts is not None:
            total += counts.weights
            zeros += counts.zeros
            idle += counts.channels
            blocks += counts.blocks
    if not total:
        return
    share, channels, patterned = zeros / total, idle / total, blocks / total
    sentence = f"{share:.0%} of the weights are zero, {channels:.0%} in whole channels, {patterned:.0%} in 2:4 blocks"
    meant = any(changes_of(step) & {"sparsity", "channels"} for step in e.recipe)
    if share < (0.1 if meant else 0.3):  # few-bit weights are often rounded to zero
        yield Finding("sparsity", "ok", share, "ratio", 0.1 if meant else 0.3, sentence)
        return
    if channels >= 0.5 * share:
        yield Finding(
            "sparsity", "warn", channels, "ratio", None, f"{sentence}; the channels are still computed",
            _taken_out(e, "Take them out"), 2.0, chain=_narrower(e),
        )  # fmt: skip
        return
    yield Finding(
        "sparsity", "fail", share, "ratio", 0.1,
        f"{sentence}: dense kernels multiply zeros like any number, predicted speed-up 1.00 ×",
        _taken_out(e, "Run the 2:4 blocks on a GPU with sparse tensor cores (TensorRT), or take whole channels out"
                   if patterned > 0.9 else "Take whole channels out"), 4.0,
        chain=_narrower(e),
    )  # fmt: skip


def _narrower(e: Evidence) -> str | None:
    """Return the chain that removes channels instead of single weights."""
    return replaced(e.methods, e.recipe, "sparsity", "prune-structured")


def _method_chain(e: Evidence, method: str, **options: Any) -> str | None:
    return None if e.methods is None else e.methods.chain(method, **options)


def _taken_out(e: Evidence, what: str) -> str:
    chain = _narrower(e)
    if e.methods is None or chain:
        return with_chain(f"{what} (prune-structured).", chain)
    return f"{what} before the model is converted to this format, which no method here prunes by channels."


def _check_instructions(e: Evidence) -> Iterator[Finding]:
    """B3.3: integer arithmetic needs dot-product instructions, and the engine for which the model was made."""
    if e.engine is not None and e.engine[0] != e.engine[1]:
        chain = made_again(e.methods, e.recipe, backend=e.engine[1])
        yield Finding(
            "engine", "fail", None, "", None, f"it was quantised for {e.engine[0]} and runs on {e.engine[1]}",
            with_chain(f"Run it where {e.engine[0]} computes, or quantise for {e.engine[1]}.", chain), 6.0, chain=chain,
        )  # fmt: skip
    if e.graph is None or not e.graph.share():
        return
    for precision, why in e.graph.slow.items():
        slow = [layer for layer in e.graph.layers if layer.precision == precision]
        if slow:
            chain = made_again(e.methods, e.recipe, activations="int8")
            yield Finding(
                "kernels", "fail", len(slow) / len(e.graph.layers), "ratio", 0.0,
                f"{len(slow)} layers compute in {precision}, {why}",
                with_chain("Run it on an accelerator that computes in it, or use int8 activations.", chain), 5.0,
                chain=chain,
            )  # fmt: skip
    if e.instructions is None or (e.baseline is not None and e.baseline.share() >= e.graph.share()):
        return  # unknown; or the baseline has the same share of integers, so this is not the change
    if e.instructions:
        yield Finding("instructions", "ok", None, "", None, f"this CPU has 8-bit dot products ({e.instructions})")
    else:
        yield Finding(
            "instructions", "warn", None, "", None,
            f"this CPU ({e.arch}) has no 8-bit dot products, so int8 gains little here and may lose",
            "Expect a smaller file, not speed; on Arm asimddp or i8mm, on x86 VNNI make int8 fast.", 3.5,
        )  # fmt: skip


def _check_mode(e: Evidence) -> Iterator[Finding]:
    """B3.7: training mode, unfused batch norms, outputs that depend on the batch."""
    graph = e.graph
    if graph is not None and graph.training:
        yield Finding(
            "eval-mode", "fail", len(graph.training), "nodes", 0,
            f"{len(graph.training)} nodes are in training mode ({', '.join(graph.training[:3])})",
            "Call model.eval() before exporting.", 9.0,
        )  # fmt: skip
    if graph is not None and graph.batch_norms:
        before, export = repeated(e.methods, e.recipe), _method_chain(e, "export-onnx")
        chain = "+".join(filter(None, (before, export))) if export and not (e.recipe and before is None) else None
        yield Finding(
            "batch-norms", "warn", len(graph.batch_norms), "nodes", 0,
            f"{len(graph.batch_norms)} batch normalisations are not fused ({', '.join(graph.batch_norms[:3])})",
            with_chain("Those that follow a convolution can become part of it before the export: "
                       "torch.nn.utils.fusion.fuse_conv_bn_eval" + (", or in ONNX Runtime" if chain else "."), chain),
            2.0, chain=chain,
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


def _check_shape(e: Evidence) -> Iterator[Finding]:
    """B3.8: channel counts that fill the vector units, and nodes that are too small to be started efficiently."""
    graph = e.graph
    if graph is None or not graph.layers:
        return
    step = 16 if graph.share() > _NO_OP else 8
    layers = [
        x for x in graph.layers[:-1] if x.channels and not x.depthwise
    ]  # the last layer's channels are the classes
    odd = [x for x in layers if x.channels % step]
    if odd and sum(x.macs or 0 for x in odd) > 0.1 * (graph.macs or 1):
        named = ", ".join(f"{x.name} ({x.channels})" for x in odd[:3])
        # A layer with at most one such multiple cannot be narrowed to a smaller multiple.
        narrow = min(x.channels for x in layers) > step
        chain = replaced(e.methods, e.recipe, "channels", "prune-structured", round_to=step) if narrow else None
        yield Finding(
            "channels", "warn", len(odd) / len(layers), "ratio", 0.1,
            f"{len(odd)} of {len(layers)} layers have channels that are no multiple of {step}: {named}",
            with_chain("Prune to multiples.", chain) if chain
            else f"Choose multiples of {step} where the network is defined.", 1.0, chain=chain,
        )  # fmt: skip
    if graph.unsized:
        if not graph.note:  # which says it of a model with open sizes
            yield Finding(
                "launch-bound", "unknown", None, "", None,
                f"whether its nodes are too small to be started efficiently cannot be told{_uncounted(graph)}",
            )  # fmt: skip
        return
    small = graph.macs / graph.nodes
    took = None if e.latency_s is None else e.latency_s / graph.nodes
    if graph.macs and took is not None and took < _SHORT_NODE:
        judged, in_time = (took * 1e6, "µs per node", _SHORT_NODE * 1e6), f" in {took * 1e6:.1f} µs"
    elif graph.macs and small < _SMALL_NODE:
        judged, in_time = (small, "MACs per node", _SMALL_NODE), ""
    else:
        return
    yield Finding(
        "launch-bound", "warn", *judged,
        f"{small:,.0f} multiply-accumulates a node{in_time}: starting operators costs about as much as computing them,"
        " so less or cheaper arithmetic cannot help much at batch 1",
        "Batch, fuse operators or change the runtime; do not expect speed from compression.", 1.75,
    )  # fmt: skip


def _check_compiled_part(e: Evidence) -> Iterator[Finding]:
    """Count, from the file, the operators that stay on the CPU in a model compiled for another processor."""
    if e.graph is None or not e.graph.compiled_for:
        return
    count = sum(e.graph.left_behind.values())
    named = ", ".join(name if n == 1 else f"{n} × {name}" for name, n in e.graph.left_behind.items())
    if not count:
        yield Finding(
            "compiled-part", "ok", 0.0, "operators", 0.0, f"all of it was compiled for {e.graph.compiled_for}"
        )
        return
    yield Finding(
        "compiled-part", "warn", float(count), "operators", 0.0,
        f"{count} operators were not compiled for {e.graph.compiled_for} and stay on the CPU: {named}",
        "Every change between the two copies data; replace these operators, or move them to the model's end.", 2.0,
    )  # fmt: skip


def _check_microcontroller(e: Evidence) -> Iterator[Finding]:
    """The memory and the operators that the model needs on a microcontroller."""
    need = e.microcontroller_need
    if need is None:
        return
    flash = f"{units.size(need.flash_bytes)} of flash"
    if need.arena_bytes is None:
        yield Finding(
            "microcontroller", "unknown", None, "", None,
            f"on a microcontroller it would take {flash}, and it does not run there: {need.reason}", None, 0.1,
        )  # fmt: skip
        return
    yield Finding(
        "microcontroller", "ok", float(need.arena_bytes), "bytes", None,
        f"on a microcontroller it needs at most {units.size(need.arena_bytes)} of RAM for its tensors and {flash}",
    )  # fmt: skip


def _check_cycles(e: Evidence) -> Iterator[Finding]:
    """The cycles that a maker's compiler estimates; an estimate of time, from which no joules follow."""
    for estimate in e.cycles:
        seconds = units.quantity(estimate.cycles / estimate.clock_hz, "s")
        yield Finding(
            "estimated-cycles", "ok", estimate.cycles, "cycles", None,
            f"on {estimate.processor} its compiler estimates {estimate.cycles:,.0f} cycles an inference, {seconds} at "
            f"{units.quantity(estimate.clock_hz, 'Hz')}; nothing was measured, and no joules follow from it",
        )  # fmt: skip


def _check_costly_options(e: Evidence) -> Iterator[Finding]:
    """The measured cost of common but slower ways to use the library."""
    for option, (words, usual_s, costly_s) in e.costly.items():
        ratio = costly_s / usual_s
        if ratio * _FASTER < 1:
            yield Finding(
                "library-call", "warn", ratio, "ratio", 1 / _FASTER,
                f"the default costs {units.quantity(usual_s - costly_s, 's')} a call here: {words} takes "
                f"{units.quantity(costly_s, 's')} where the default takes {units.quantity(usual_s, 's')}",
                f"Set {option} where the model is deployed; bench --option {option} measures it.", 0.25,
            )  # fmt: skip
            continue
        if ratio < _FASTER:
            yield Finding(
                "library-call",
                "ok",
                ratio,
                "ratio",
                _FASTER,
                f"{words} takes {ratio:.2f} × the time of the default call",
            )
            continue
        yield Finding(
            "library-call", "warn", ratio, "ratio", _FASTER,
            f"{words} costs {units.quantity(costly_s - usual_s, 's')} a call here: {units.quantity(costly_s, 's')} "
            f"where the default takes {units.quantity(usual_s, 's')}",
            f"Leave {option} out where the model is deployed.", 0.25,
        )  # fmt: skip


def _check_resident_memory(e: Evidence) -> Iterator[Finding]:
    """The measured memory of the default, where a setting of the library may need less."""
    for option, (words, usual, saving) in e.resident.items():
        ratio = saving / usual
        needs = f"{words} needs {units.size(saving)} of memory where the default needs {units.size(usual)}"
        if ratio > _SMALLER:
            yield Finding("library-memory", "ok", ratio, "ratio", _SMALLER, needs)
            continue
        yield Finding(
            "library-memory", "warn", ratio, "ratio", _SMALLER, needs,
            f"Set {option} where memory is short; bench --option {option} measures it.", 0.25,
        )  # fmt: skip


def _check_outcome(e: Evidence) -> Iterator[Finding]:
    """B3.9: the outcome in size and speed."""
    if e.size is None or e.baseline_size is None:
        return
    plain, zipped = (new / old for new, old in zip(e.size, e.baseline_size, strict=True))
    sentence = f"the file is {plain:.2f} × its baseline, zipped {zipped:.2f} ×"
    if plain > _SMALLER and zipped > _SMALLER:
        chain = next(iter(_smaller_ways(e).values()), None)
        yield Finding(
            "size", "warn", plain, "ratio", _SMALLER, sentence,
            with_chain(f"Store fewer bits or fewer weights ({', '.join(_smaller_ways(e))}).", chain)
            if chain else "Store fewer bits or fewer weights.", 0.5, chain=chain,
        )  # fmt: skip
    if e.speed_up is not None and e.speed_up < _FASTER and min(plain, zipped) < _SMALLER:
        where = "memory" if plain <= _SMALLER else "download (it is small only when packed)"
        yield Finding(
            "memory-only", "warn", e.speed_up, "ratio", _FASTER,
            f"memory only: {sentence}, and {e.speed_up:.2f} × as fast: it saves {where}, not time", None, 1.0,
        )  # fmt: skip


def _smaller_ways(e: Evidence) -> dict[str, str]:
    """Return the untried methods that make a file of the baseline's format smaller, each with its chain."""
    ways = ("int8-weight", "fp16", "prune-structured", "low-rank")
    tried = {step.get("compressor") for step in e.recipe}
    chains = {name: _method_chain(e, name) for name in ways if name not in tried}
    return {name: chain for name, chain in chains.items() if chain is not None}


_CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    frame_rate,
    _check_int8_share,
    _check_sparsity,
    _check_instructions,
    calibration,
    sqnr,
    outputs,
    saturation,
    agreement,
    _check_mode,
    _check_shape,
    _check_compiled_part,
    _check_microcontroller,
    _check_cycles,
    _check_costly_options,
    _check_resident_memory,
    _check_outcome,
)
