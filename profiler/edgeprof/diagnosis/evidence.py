"""Gather what ``edgeprof diagnose`` reasons about: graphs, timings, answers, what flows inside, the CPU."""

from __future__ import annotations

import contextlib
import platform
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.recipe import recipe_beside
from edgeprof.diagnosis import checks
from edgeprof.diagnosis.checks import Evidence, Finding
from edgeprof.diagnosis.graph import inspect_with
from edgeprof.errors import EdgeprofError, InputError, VariantError
from edgeprof.evaluation import evaluate
from edgeprof.evaluation.labels import are_absent
from edgeprof.launch.choose import choose_runtime, own_formats
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.results import schema
from edgeprof.verdicts.accuracy import drop_scale
from edgeprof.worker.runtime import ANY_SHAPE, LoadOptions
from edgeprof.worker.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import Runtime, TensorSpec

    Array = npt.NDArray[Any]

#: 8-bit dot products, the best first; as /proc/cpuinfo names them.
_DOT = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
#: Samples that are compared with the baseline's answers, and that are followed through the graph.
_SAMPLES, _FOLLOWED = 256, 8
_BATCH = 4


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        findings: The gravest first.
        predicted: Speed-up by multiply-accumulates and instructions; None where the graph cannot be read.
        measured: Baseline's latency over the variant's; None where it was not measured.
        facts: Further figures, for the machine-readable output.
        notes: What could not be found out, and why.
    """

    findings: list[Finding]
    predicted: float | None
    measured: float | None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def explain(
    variant: Artifact,
    host: PluginHost,
    roots: Roots,
    *,
    baseline: Artifact | None = None,
    data: Dataset | None = None,
    recipe: Sequence[Mapping[str, Any]] = (),
    measure_s: float = 0.0,
    timeout_s: float = 120.0,
    note: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Everything that can be told of a variant.

    Args:
        variant: The model in question.
        host: The plugins.
        roots: Where /proc is.
        baseline: What it came from.
        data: For agreement, ranges and signal to noise.
        recipe: How it was made (its provenance), where known.
        measure_s: Seconds to time each model; 0 for a prediction.
        timeout_s: For each step of a worker.
        note: Told what happens.
    """
    notes: list[str] = []
    runtime, graph = inspect_with(variant, host)
    before = inspect_with(baseline, host)[1] if baseline is not None else None
    if graph is None:
        notes.append(
            f"the graph of {variant.spec} ({variant.format}) cannot be read here: checks of layers are left out"
        )
    elif graph.note:
        notes.append(graph.note)
    evidence = Evidence(
        graph=graph,
        baseline=before,
        instructions=instructions(roots),
        arch=platform.machine(),
        engine=_engine(graph, recipe),
        recipe=recipe,
        preprocessing=None if data is None else data.preprocessing,
        size=_sizes(variant),
        baseline_size=None if baseline is None else _sizes(baseline),
    )
    steps: list[tuple[str, Callable[[], None]]] = []
    if data is not None or measure_s:
        steps.append(("running", lambda: _run(evidence, variant, baseline, host, data, measure_s, timeout_s)))
    if data and baseline and runtime and before and before.tensors and variant.format == baseline.format:
        steps.append(("following activations", lambda: _follow(evidence, runtime, variant, baseline, data)))
    for text, step in steps:
        note(text)
        try:
            step()
        except (EdgeprofError, ImportError) as error:
            remedy = getattr(error, "remedy", None)
            notes.append(f"{text}: {error}" + (f" → {remedy}" if remedy else ""))
    findings = checks.diagnose(evidence)
    predicted = None
    if graph is not None and graph.macs:
        predicted = checks.predicted_speed_up(graph, before, dot=bool(evidence.instructions))
    return Diagnosis(findings, predicted, evidence.speed_up, _facts(evidence), notes)


def _engine(graph: Graph | None, recipe: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """By whose rules a model was quantised, and by whose this machine computes it; None where there is but one."""
    made_for = [step["facts"]["backend"] for step in recipe if "backend" in (step.get("facts") or {})]
    if graph is None or not graph.engine or not made_for:
        return None
    return made_for[-1], graph.engine


def instructions(roots: Roots) -> str | None:
    """The CPU's 8-bit dot products by name; "" for none, None where /proc/cpuinfo does not say."""
    try:
        text = (roots.procfs / "cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if found is None:
        return None
    flags = set(found[1].split())
    return next((name for name in _DOT if name in flags), "")


def annotate(result: schema.Result, roots: Roots, host: PluginHost) -> None:
    """Write the headline under each variant of a bench that disappoints: no faster, or clearly less accurate."""
    if not result.variants:
        return
    from edgeprof.artifact import recognise  # noqa: PLC0415 - needed only after a run with variants

    baseline, formats = result.variants[0], own_formats(host)
    for variant, comparison in zip(result.variants[1:], result.comparisons, strict=False):
        if variant.status == "failed" or not disappoints(variant, comparison):
            continue
        with contextlib.suppress(EdgeprofError, OSError, ImportError):
            made, source = (recognise(one.model.path, formats) for one in (variant, baseline))
            recipe = variant.recipe or recipe_beside(made)
            if not recipe:
                continue  # another model, not a variant: nothing was promised
            evidence = Evidence(
                graph=inspect_with(made, host)[1],
                baseline=inspect_with(source, host)[1],
                instructions=instructions(roots),
                arch=platform.machine(),
                recipe=recipe,
                preprocessing=variant.accuracy.preprocessing if variant.accuracy else None,
            )
            blame(variant, comparison, baseline, checks.diagnose(evidence))


def blame(
    variant: schema.Variant,
    comparison: schema.Comparison,
    baseline: schema.Variant,
    findings: Sequence[Finding],
) -> None:
    """Write under a variant that disappoints the gravest finding that explains how it does, of each way one.

    What is wrong with its answers is no reason for its speed, nor the other way round; lost accuracy is told first.
    """
    slow, worse = _slow(comparison), _worse(variant)
    if not (slow or worse):
        return
    ratio, sizes = comparison.latency_ratio, [_told_size(one.model) for one in (variant, baseline)]
    measured = Evidence(size=sizes[0], baseline_size=sizes[1], speed_up=None if ratio is None else 1 / ratio.value)
    known = [one for one in findings if one.check not in {"memory-only", "size"}] + checks.diagnose(measured)
    order = {"fail": 0, "warn": 1, "ok": 2}
    known.sort(key=lambda one: (order[one.status], -one.weight))
    told: list[Finding | None] = [_first(known, answers=True) or _UNTOLD] if worse else []
    told += [_first(known, answers=False)] if slow else []
    variant.reasons += [
        schema.Reason(code=Code.DIAGNOSIS, message=one.sentence, remedy=one.fix) for one in told if one is not None
    ]


def _first(findings: Sequence[Finding], *, answers: bool) -> Finding | None:
    return checks.headline([one for one in findings if (one.check in _OF_ANSWERS) == answers])


#: Checks of what a variant answers; all others are of what it costs.
_OF_ANSWERS = frozenset((
    "engine", "preprocessing", "calibration", "classes", "clipping", "dead-range", "sqnr", "agreement", "eval-mode",
    "batch",
))  # fmt: skip


_UNTOLD = Finding(
    "accuracy", "warn", None, "", None, "it answers worse than its baseline",
    "edgeprof diagnose with --baseline and --dataset tells in which layer.",
)  # fmt: skip


def disappoints(variant: schema.Variant, comparison: schema.Comparison) -> bool:
    """Whether it is no faster than its baseline, or loses more than 5 points of accuracy."""
    return _slow(comparison) or _worse(variant)


def _slow(comparison: schema.Comparison) -> bool:
    return comparison.latency_ratio is not None and comparison.latency_ratio.value > 0.95


def _worse(variant: schema.Variant) -> bool:
    a = variant.accuracy
    return a is not None and a.drop is not None and a.drop * (drop_scale(a, a.drop) or 0.0) > 0.05


def _told_size(model: schema.Model) -> tuple[int, int] | None:
    plain, packed = model.size_bytes, model.size_compressed_bytes
    return None if plain is None or packed is None else (plain, packed)


def _sizes(artifact: Artifact) -> tuple[int, int] | None:
    packed = artifact.size_compressed()
    return None if artifact.size_bytes is None or packed is None else (artifact.size_bytes, packed)


def _facts(e: Evidence) -> dict[str, Any]:
    graph = e.graph
    return {
        "macs": graph.macs if graph else None,
        "int8_mac_share": graph.share() if graph and graph.macs else None,
        "nodes": graph.nodes if graph else None,
        "conversions": graph.conversions if graph else None,
        "instructions": e.instructions,
        "agreement": e.agreement[0] if e.agreement else None,
        "agreement_samples": e.agreement[1] if e.agreement else None,
        "sqnr_db": dict(e.sqnr_db),
        "clipped": dict(e.clipped),
    }


# --- running ----------------------------------------------------------------------------------------------------------


def _run(  # noqa: PLR0917 - called once, above
    e: Evidence,
    variant: Artifact,
    baseline: Artifact | None,
    host: PluginHost,
    data: Dataset | None,
    measure_s: float,
    timeout_s: float,
) -> None:
    """Times in turns (variant, baseline, baseline, variant) and answers to the same samples."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(one, host, timeout_s)) for one in (variant, baseline) if one is not None]
        loaded = [worker.load() for worker in workers]
        if loaded[0].problems:
            raise VariantError(loaded[0].problems[0][1], code=Code.NAN_OUTPUT)
        _check_same_inputs(*(one.inputs for one in loaded))
        if measure_s:
            medians = _times(workers, measure_s)
            e.latency_s = medians[0]
            e.speed_up = medians[1] / medians[0] if len(medians) > 1 else None
        if data is None:
            return
        answers = [_answers(worker, one.inputs, data) for worker, one in zip(workers, loaded, strict=True)]
        if len(answers) > 1 and answers[0].size and answers[1].size:
            same = answers[0] == answers[1]
            e.agreement = (float(same.mean()), len(same))
        e.batch_error = _batch_error(workers[0], loaded[0].inputs, data)


def _check_same_inputs(mine: Sequence[TensorSpec], baseline: Sequence[TensorSpec] | None = None) -> None:
    """A variant takes what its baseline takes, in whatever layout, type and batch."""
    told = [spec.shape for spec in (*mine, *(baseline or ()))]
    if baseline is None or ANY_SHAPE in told or not all(isinstance(size, int) for one in told for size in one[1:]):
        return
    sizes, theirs = (
        [sorted(str(size) for size in spec.shape if isinstance(size, int) and size != 1) for spec in inputs]
        for inputs in (mine, baseline)
    )
    if sorted(sizes) != sorted(theirs):
        named = [", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs) for inputs in (mine, baseline)]
        raise InputError(
            f"it takes {named[0]} where its baseline takes {named[1]}, so that nothing is compared",
            remedy="Give the model that it was made from as --baseline.",
        )


def _worker(artifact: Artifact, host: PluginHost, timeout_s: float) -> Worker:
    runtime = choose_runtime(host, artifact)
    return Worker(
        WorkerSpec.of(
            runtime,
            artifact.target,
            LoadOptions(runtime.default_device, None, 1, {}, {}),
            timeout_s=timeout_s,
        )
    )


def _times(workers: Sequence[Worker], seconds: float) -> list[float]:
    """Median latency of each, in turns, so that a drift falls on all alike."""
    latencies: list[list[Array]] = [[] for _ in workers]
    order = list(range(len(workers)))
    for worker in workers:
        worker.warm_up(0.3, max(1.0, seconds))
    for turn in (order, order[::-1]):
        for index in turn:
            window = workers[index].window(Scenario(), seconds / 2)
            latencies[index].append(np.asarray(window.latencies))
    return [float(np.median(np.concatenate(one))) for one in latencies]


def _samples(data: Dataset, count: int) -> Iterator[dict[str, Array]]:
    """Evenly spread ones: a dataset may be sorted by class."""
    chosen = set(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)).tolist())
    for position, batch in enumerate(data.batches(1)):
        if position in chosen:
            yield dict(batch)


def _answers(worker: Worker, inputs: Sequence[Any], data: Dataset) -> npt.NDArray[np.intp]:
    """The top-1 answers to up to 256 samples; none where boxes, embeddings or tokens are answered and not a class."""
    size = evaluate.batch_size(inputs, 1)
    found: list[int] = []
    if data.labels.dtype.names and not are_absent(data.labels):
        return np.asarray(found, np.intp)
    for sample in _samples(data, _SAMPLES):
        feeds, _ = evaluate.feeds(sample, inputs, data, size)
        first = next(iter(worker.infer(feeds).values()))
        if first.ndim < 1 or first.shape[0] != size:
            raise InputError("its outputs do not begin with the batch, so answers cannot be compared")
        if first.size == size and first.dtype.kind in "iu":  # the class itself
            found.append(int(first.reshape(-1)[0]))
            continue
        if first.dtype.kind not in "iuf" or first[0].size < 2 or first[0].size != max(first.shape[1:]):
            break
        found.append(int(first[0].reshape(-1).argmax()))
    return np.asarray(found, np.intp)


def _batch_error(worker: Worker, inputs: Sequence[Any], data: Dataset) -> float | None:
    """The largest relative difference between a batch's answers and its samples' own; None for a fixed batch."""
    if any(isinstance(spec.shape[0], int) for spec in inputs if spec.shape):
        return None
    samples = list(_samples(data, _BATCH))
    if len(samples) < 2:
        return None
    alone = []
    for sample in samples:
        feeds, _ = evaluate.feeds(sample, inputs, data, 1)
        alone.append(next(iter(worker.infer(feeds).values())))
    together = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    feeds, _ = evaluate.feeds(together, inputs, data, len(samples))
    batch = next(iter(worker.infer(feeds).values())).astype(np.float64)
    single = np.concatenate(alone).astype(np.float64)
    if batch.shape != single.shape:
        return None
    scale = float(np.abs(single).max()) or 1.0
    return float(np.abs(batch - single).max()) / scale


# --- following --------------------------------------------------------------------------------------------------------


def _follow(e: Evidence, runtime: Runtime, variant: Artifact, baseline: Artifact, data: Dataset) -> None:
    """Signal to noise of every tensor that both graphs have, and how its values fill the range that it was given."""
    if e.graph is None or e.baseline is None:
        return
    # A tensor that the variant quantises is looked at where its readers see it.
    baseline_names = {e.graph.seen_as.get(name, name): name for name in e.baseline.tensors}
    pairs = zip(
        runtime.taps(str(baseline.path), e.baseline.tensors, _samples(data, _FOLLOWED)),
        (
            {baseline_names[name]: array for name, array in seen.items()}
            for seen in runtime.taps(str(variant.path), list(baseline_names), _samples(data, _FOLLOWED))
        ),
        strict=True,
    )
    tally: dict[str, _Tally] = {}
    for before, after in pairs:
        for name, truth in before.items():
            held = after.get(name)
            if (
                not (isinstance(truth, np.ndarray) and isinstance(held, np.ndarray))
                or truth.dtype.kind != "f"
                or truth.shape != held.shape
            ):
                continue
            tally.setdefault(name, _Tally()).add(truth, held, e.graph.ranges.get(name))
    e.sqnr_db = {name: one.sqnr() for name, one in tally.items() if one.noise and one.signal}
    ranged = {name: one for name, one in tally.items() if name in e.graph.ranges}
    e.clipped = {name: one.outside / one.count for name, one in ranged.items() if one.count}
    e.dead = {name: one.dead(e.graph.ranges[name]) for name, one in ranged.items() if one.count}


@dataclass
class _Tally:
    """One tensor over several samples."""

    signal: float = 0.0
    noise: float = 0.0
    count: int = 0
    outside: int = 0
    low: float = 0.0
    high: float = 0.0

    def add(self, truth: Array, held: Array, limits: tuple[float, float] | None) -> None:
        truth = truth.astype(np.float64)
        self.signal += float(np.square(truth).sum())
        self.noise += float(np.square(truth - held).sum())
        self.count += truth.size
        self.low, self.high = min(self.low, float(truth.min())), max(self.high, float(truth.max()))
        if limits is not None:
            step = (limits[1] - limits[0]) / 255  # a value within one step of the end is not lost
            self.outside += int(((truth < limits[0] - step) | (truth > limits[1] + step)).sum())

    def sqnr(self) -> float:
        return float(10 * np.log10(self.signal / self.noise))

    def dead(self, limits: tuple[float, float]) -> float:
        """The part of the range that no value reached."""
        width = limits[1] - limits[0]
        used = min(self.high, limits[1]) - max(self.low, limits[0])
        return max(0.0, 1 - used / width) if width > 0 else 0.0
