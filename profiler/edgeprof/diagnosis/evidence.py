"""Gather the evidence for ``edgeprof diagnose``: graphs, timings, outputs, values inside the models, the CPU."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.compression.recipe import recipe_beside
from edgeprof.diagnosis import checks
from edgeprof.diagnosis.advice import Methods
from edgeprof.diagnosis.checks import Evidence, Finding
from edgeprof.diagnosis.following import follow
from edgeprof.diagnosis.graph import inspect_with
from edgeprof.diagnosis.inputs import Inputs
from edgeprof.diagnosis.running import run
from edgeprof.errors import EdgeprofError
from edgeprof.installation import mended_here
from edgeprof.launch.choose import own_formats, runtimes_for
from edgeprof.reasons import Code
from edgeprof.results import schema
from edgeprof.verdicts.accuracy import drop_scale
from edgeprof.worker.pipeline import split_models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.artifact import Artifact
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import MicrocontrollerNeed, Runtime


#: 8-bit dot products, the best first, as /proc/cpuinfo names them.
_DOT = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")


@dataclass
class Diagnosis:
    """The result of a diagnosis.

    Attributes:
        findings: The findings, the most severe first.
        predicted: Speed-up by multiply-accumulates and instructions; None if the graph cannot be read.
        measured: The baseline's latency divided by the variant's; None if it was not measured.
        facts: Further figures, for the machine-readable output.
        notes: What could not be determined, and why.
        assumed: Assumptions about what the file leaves open.
    """

    findings: list[Finding]
    predicted: float | None
    measured: float | None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


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
    inputs: Inputs | None = None,
    named: Runtime | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Diagnose a variant with all available evidence.

    Args:
        variant: The model to diagnose.
        host: The plugins.
        roots: The place of /proc.
        baseline: The model from which the variant was made.
        data: The data for agreement, ranges and signal to noise.
        recipe: How the variant was made (its provenance), if known.
        measure_s: Seconds to time each model; 0 for a prediction.
        timeout_s: The time limit of each step of a worker, seconds.
        inputs: The inputs for the models, if their files leave sizes open.
        named: The runtime to use; by default the one for each model's format.
        note: Receives the steps.

    Raises:
        EdgeprofError: Frames are given, and the pipeline cannot be run with them.
    """
    notes: list[str] = []
    inputs = (inputs or Inputs()).with_sample(data)
    given = inputs.for_graph()
    runtime, graph = inspect_with(variant, host, given)
    before = inspect_with(baseline, host, given)[1] if baseline is not None else None
    notes += _graph_notes(variant, graph, inputs, host)
    evidence = Evidence(
        graph=graph,
        baseline=before,
        instructions=instructions(roots),
        arch=platform.machine(),
        engine=_engines_of(graph, recipe),
        recipe=recipe,
        preprocessing=None if data is None else data.preprocessing,
        size=_file_sizes(variant),
        baseline_size=None if baseline is None else _file_sizes(baseline),
        methods=Methods.of(host, (baseline or variant).format),
        microcontroller_need=_microcontroller_need(runtime, variant),
        cycles=[] if runtime is None or variant.path is None else runtime.estimate_cycles(str(variant.path)),
        stage_models=tuple(split_models(variant.target)[1]),
    )
    steps: list[tuple[str, Callable[[], None]]] = []
    if data is not None or measure_s:
        models = [model for model in (variant, baseline) if model is not None]
        running = functools.partial(run, inputs=inputs, measure_s=measure_s, timeout_s=timeout_s, named=named)
        steps.append(("running", lambda: running(evidence, models, host, data)))
    if data and baseline and runtime and before and before.tensors and variant.format == baseline.format:
        steps.append(("following activations", lambda: follow(evidence, runtime, variant, baseline, data)))
    for text, step in steps:
        note(text)
        try:
            step()
        except (EdgeprofError, ImportError) as error:
            if inputs.frames is not None and isinstance(error, EdgeprofError):
                raise  # of a pipeline nothing else can be examined
            remedy = getattr(error, "remedy", None)
            notes.append(f"{text}: {error}" + (f" → {remedy}" if remedy else ""))
        except Exception as error:  # noqa: BLE001 - a library may raise anything; the other checks are still valid
            lines = str(error).strip().splitlines()
            notes.append(f"{text}: {type(error).__name__}" + (f": {lines[0][:200]}" if lines else ""))
    findings = checks.diagnose(evidence)
    predicted = None
    if graph is not None and graph.macs and not (graph.unsized or (before is not None and before.unsized)):
        predicted = checks.predicted_speed_up(graph, before, dot=bool(evidence.instructions))
    assumed = [graph.assumed] if graph is not None and graph.assumed else []
    return Diagnosis(findings, predicted, evidence.speed_up, _diagnosis_facts(evidence), notes, assumed)


def _graph_notes(variant: Artifact, graph: Graph | None, inputs: Inputs, host: PluginHost) -> list[str]:
    """Say what is not known of a graph; nothing of a pipeline, which has none."""
    if graph is None:
        what = f"the graph of {variant.spec} ({variant.format}) cannot be read here: checks of layers are left out"
        remedy = next(filter(None, (runtime.inspect_remedy() for runtime in runtimes_for(host, variant))), None)
        if remedy is not None:
            what += f" → {mended_here(remedy)}"
        return [what] if inputs.frames is None else []
    return [graph.note] if graph.note else []


def _microcontroller_need(runtime: Runtime | None, model: Artifact) -> MicrocontrollerNeed | None:
    return None if runtime is None or model.path is None else runtime.microcontroller_need(str(model.path))


def _engines_of(graph: Graph | None, recipe: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the engine for which a model was quantised and the engine of this machine; None if either is unknown."""
    made_for = [step["facts"]["backend"] for step in recipe if "backend" in (step.get("facts") or {})]
    if graph is None or not graph.engine or not made_for:
        return None
    return made_for[-1], graph.engine


def instructions(roots: Roots) -> str | None:
    """Return the CPU's best 8-bit dot product by name; "" for none, None if /proc/cpuinfo does not list features."""
    try:
        text = (roots.procfs / "cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if line is None:
        return None
    flags = set(line[1].split())
    return next((name for name in _DOT if name in flags), "")


def annotate(result: schema.Result, roots: Roots, host: PluginHost) -> None:
    """Add the main finding to each disappointing variant of a benchmark: not faster, or clearly less accurate."""
    if not result.variants:
        return
    from edgeprof.artifact import recognise  # noqa: PLC0415 - needed only after a run with variants

    baseline, formats = result.variants[0], own_formats(host)
    for variant, comparison in zip(result.variants[1:], result.comparisons, strict=False):
        if variant.status == "failed" or not disappoints(variant, comparison):
            continue
        with contextlib.suppress(EdgeprofError, OSError, ImportError):
            artifact, source = (recognise(row.model.path, formats) for row in (variant, baseline))
            recipe = variant.recipe or recipe_beside(artifact)
            if not recipe:
                continue  # another model and not a variant, so no gain was expected
            evidence = Evidence(
                graph=inspect_with(artifact, host)[1],
                baseline=inspect_with(source, host)[1],
                instructions=instructions(roots),
                arch=platform.machine(),
                recipe=recipe,
                preprocessing=variant.accuracy.preprocessing if variant.accuracy else None,
                methods=Methods.of(host, source.format),
            )
            blame(variant, comparison, baseline, checks.diagnose(evidence))


def blame(
    variant: schema.Variant,
    comparison: schema.Comparison,
    baseline: schema.Variant,
    findings: Sequence[Finding],
) -> None:
    """Add to a disappointing variant the most severe finding that explains its accuracy, its speed, or one for each.

    Findings on its outputs do not explain its speed, and vice versa; the one for lost accuracy comes first.
    """
    slow, worse = _is_slow(comparison), _is_worse(variant)
    if not (slow or worse):
        return
    ratio, sizes = comparison.latency_ratio, [_result_sizes(row.model) for row in (variant, baseline)]
    measured = Evidence(size=sizes[0], baseline_size=sizes[1], speed_up=None if ratio is None else 1 / ratio.value)
    known = [finding for finding in findings if finding.check not in {"memory-only", "size"}] + checks.diagnose(
        measured
    )
    known.sort(key=lambda finding: (checks.ORDER[finding.status], -finding.weight))
    chosen: list[Finding | None] = [_first_finding(known, answers=True) or _UNTOLD] if worse else []
    chosen += [_first_finding(known, answers=False)] if slow else []
    variant.reasons += [
        schema.Reason(code=Code.DIAGNOSIS, message=finding.sentence, remedy=finding.fix)
        for finding in chosen
        if finding is not None
    ]


def _first_finding(findings: Sequence[Finding], *, answers: bool) -> Finding | None:
    return checks.headline([finding for finding in findings if (finding.check in _OF_ANSWERS) == answers])


#: Checks of a variant's outputs; all other checks concern its cost.
_OF_ANSWERS = frozenset((
    "engine", "preprocessing", "calibration", "classes", "clipping", "dead-range", "sqnr", "outputs", "saturation",
    "agreement", "eval-mode", "batch",
))  # fmt: skip


_UNTOLD = Finding(
    "accuracy", "warn", None, "", None, "it answers worse than its baseline",
    "edgeprof diagnose with --baseline and --dataset tells in which layer.",
)  # fmt: skip


def disappoints(variant: schema.Variant, comparison: schema.Comparison) -> bool:
    """Return whether a variant is not faster than its baseline, or loses more than 5 points of accuracy."""
    return _is_slow(comparison) or _is_worse(variant)


def _is_slow(comparison: schema.Comparison) -> bool:
    return comparison.latency_ratio is not None and comparison.latency_ratio.value > 0.95


def _is_worse(variant: schema.Variant) -> bool:
    a = variant.accuracy
    return a is not None and a.drop is not None and a.drop * (drop_scale(a, a.drop) or 0.0) > 0.05


def _result_sizes(model: schema.Model) -> tuple[int, int] | None:
    plain, packed = model.size_bytes, model.size_compressed_bytes
    return None if plain is None or packed is None else (plain, packed)


def _file_sizes(artifact: Artifact) -> tuple[int, int] | None:
    packed = artifact.size_compressed()
    return None if artifact.size_bytes is None or packed is None else (artifact.size_bytes, packed)


def _diagnosis_facts(e: Evidence) -> dict[str, Any]:
    graph = e.graph
    return {
        "macs": graph.macs if graph else None,
        "int8_mac_share": graph.share() if graph and graph.macs and not graph.unsized else None,
        "nodes": graph.nodes if graph else None,
        "conversions": graph.conversions if graph else None,
        "instructions": e.instructions,
        "agreement": e.agreement[0] if e.agreement else None,
        "agreement_samples": e.agreement[1] if e.agreement else None,
        "sqnr_db": dict(e.sqnr_db),
        "output_db": {name: None if math.isinf(value) else value for name, value in e.output_db.items()},
        "clipped": dict(e.clipped),
        "microcontroller_need": None if e.microcontroller_need is None else e.microcontroller_need._asdict(),
        "estimated_cycles": [estimate._asdict() for estimate in e.cycles],
    }
