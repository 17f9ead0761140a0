"""The result file, ``edgeprof.result/1``: what is measured, with units in the names and None, never 0, for unknown.

These structures are the file: field for field what the contract promises. ``document.py`` writes and reads it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgeprof.provenance import Provenance
from edgeprof.results.schema_context import (
    Host,
    Interval,
    Model,
    Proof,
    ProofCheck,
    Protocol,
    Reason,
    RuntimeUse,
    SelfCost,
    SensorUse,
    Status,
    Struct,
    Verdict,
    model_name,
)
from edgeprof.results.schema_figures import (
    Accuracy,
    Budget,
    Clock,
    Energy,
    EnergyFigure,
    Gpu,
    Histogram,
    KvCache,
    Latency,
    Marginal,
    Memory,
    MicrocontrollerNeed,
    Operator,
    Power,
    Temperature,
    Utilization,
)
from edgeprof.results.schema_verdicts import Comparison, Difference, Ratio, Recommendation, WorkloadComparison, sense

__all__ = [
    "SCHEMA", "Accuracy", "Budget", "Clock", "Closure", "Comparison", "Difference", "Energy", "EnergyFigure",
    "Gpu", "Histogram", "Host", "Interval", "KvCache", "Language", "Latency", "Marginal", "Memory",
    "Microcontroller", "MicrocontrollerNeed", "Model", "Operator", "Perplexity", "Pipeline", "Power", "Proof",
    "ProofCheck", "Protocol", "Ratio", "Reason", "Recommendation", "Result", "RuntimeUse", "SelfCost",
    "SensorUse", "Stage", "StageEnergy", "Status", "Steady", "Struct", "Temperature", "TokenTime", "TraceStrip",
    "Utilization", "Variant", "Verdict", "Window", "Workload", "WorkloadComparison", "model_name", "sense",
    "workload_view",
]  # fmt: skip

SCHEMA = "edgeprof.result/1"


class Steady(Struct):
    """The warm-up: how many inferences and seconds until steady, and whether it was reached."""

    reached: bool
    inferences: int
    seconds: float
    reason: str | None = None


class Window(Struct):
    """One measured window, kept for the traces of the report and for paired comparison."""

    start_s: float
    end_s: float
    inferences: int
    #: Position in the interleaved order of the whole run.
    order: int
    energy_j: float | None = None
    mean_power_w: float | None = None
    latency_median_s: float | None = None
    #: Of a window in which a device repeated the calls by itself: the mean of each is known, and no median.
    latency_mean_s: float | None = None
    #: Whether a device had to be brought back in step in this window, and repeated the calls after that.
    is_second_try: bool = False


class Workload(Struct):
    """What a model was asked to do again and again, with its figures per unit of it.

    Attributes:
        name: ``inference``, ``prefill``, ``frame`` …
        unit: What was counted, in the singular: ``inference``, ``prompt token``, ``frame`` …
        units_per_call: How many units one call made.
        count: Units made in all windows together.
        energy_j_per_unit: Joules per unit.
        latency_s: Seconds per call.
        throughput_per_s: Units per second.
        late: Frames that were done after the next one was due; None in a scenario without such a due time.
        dropped: Calls that were due and not made; None in a scenario without due times.
        cut_short: Windows that ended early, because they held more calls than there was room to time.
        windows: Each window; ``inferences`` counts units.
        rate_hz: Calls per second of each stream that were due; None in a scenario without a rate.
        streams: Cameras or threads at once, where there is a rate.
    """

    name: str
    unit: str
    units_per_call: int
    count: int = 0
    energy_j_per_unit: Energy | None = None
    latency_s: Latency | None = None
    throughput_per_s: float | None = None
    late: int | None = None
    dropped: int | None = None
    cut_short: int = 0
    windows: list[Window] = []
    rate_hz: float | None = None
    streams: int | None = None


class Saturation(Struct):
    """Which rates a number of streams kept.

    Attributes:
        streams: At once.
        kept_hz: The highest rate of each stream at which at least 99 % of the calls that were due were made; None: at
            none.
        saturated_hz: The lowest rate at which fewer were made; None: at none.
        achieved_per_s: Calls per second, of all streams together, that were made at ``saturated_hz``.
    """

    streams: int
    kept_hz: float | None = None
    saturated_hz: float | None = None
    achieved_per_s: float | None = None


class Loads(Struct):
    """What several rates and streams of one workload show.

    Attributes:
        saturation: For each number of streams, the fewest first.
        stream_power_w: Watts that each further stream takes at ``stream_rate_hz``; None where that was not asked for,
            or nothing measured it.
        stream_power_ci95: Its interval.
        stream_rate_hz: The highest rate that both the fewest and the most streams kept.
    """

    saturation: list[Saturation] = []
    stream_power_w: float | None = None
    stream_power_ci95: tuple[float, float] | None = None
    stream_rate_hz: float | None = None


class TokenTime(Struct):
    """A time of a part of a call (a token of a language model, a stage), in seconds, over all calls in the windows.

    Attributes:
        mean: Of all samples.
        p50: The median; the other quantiles likewise; None with fewer than 10 / (1 − p) samples.
        samples: How many times were read.
    """

    mean: float
    p50: float | None
    p90: float | None
    p99: float | None
    samples: int


class Closure(Struct):
    """Whether the phases of a request, measured apart, add up to the request: their sum over the request's own figure.

    Attributes:
        energy: Of gross joules; None where they are not known, or of fewer than two windows.
        time: Of seconds.
    """

    energy: Ratio | None = None
    time: Ratio | None = None


class Perplexity(Struct):
    """How likely a language model finds a text, by llama-perplexity's convention: pieces of ``chunk`` tokens, of which
    the second half is scored.

    Attributes:
        value: exp(−mean log-likelihood of a token).
        ci95: By a block bootstrap over tokens; None with too few.
        tokens: How many were scored.
        chunk: Tokens of one piece.
        text: The name of the text's file.
        text_sha256: Of the whole text.
        tokens_sha256: Of the tokens that were read: two models can be paired where it is the same.
        ratio: Over the baseline's perplexity, paired by token; None for the baseline, and for another tokenizer.
        log_likelihoods: Of each scored token, float32 little-endian in base64, so that results can be paired later.
    """

    value: float
    ci95: Interval | None
    tokens: int
    chunk: int
    text: str
    text_sha256: str
    tokens_sha256: str
    ratio: Ratio | None = None
    log_likelihoods: str | None = None


class Language(Struct):
    """What a language model was asked for, and what only language models have. Joules and tokens per second stand in
    the variant's ``workloads``: ``request``, ``prefill`` (per prompt token) and ``decode`` (per output token).

    Attributes:
        prompt_tokens: Read by a request.
        generated_tokens: By a request, the first of them from reading the prompt.
        depth: Tokens in the cache before the request.
        context: Tokens that the cache holds; None: unknown.
        kv_type: Of the cache's numbers; None: unknown.
        method: How the phases were told apart: ``phase-windows`` (each in windows of its own), or ``requests`` (only
            whole requests were measured).
        architecture: ``llama``, ``qwen2`` …, from the file's header, as the next three.
        parameters: Weights.
        bits_per_weight: 8 · bytes of all tensors / weights, whatever the name of the file says.
        tensor_bytes: Tensor type → bytes; None: of a type whose size is not known.
        ttft_s: From the beginning of a request to its first token.
        tpot_s: (Time of the last token − TTFT) / (tokens − 1), of each request.
        itl_s: Between one token and the next, over all tokens.
        closure: Whether the phases add up; None where they were not measured apart.
        batch: Requests that were read and answered at once.
        random_weights: Whether the weights mean nothing: time, memory and joules are real, what it says is not.
        perplexity: Of the text that was given; None without one.
    """

    prompt_tokens: int
    generated_tokens: int
    depth: int = 0
    context: int | None = None
    kv_type: str | None = None
    method: str = "phase-windows"
    architecture: str | None = None
    parameters: int | None = None
    bits_per_weight: float | None = None
    tensor_bytes: dict[str, int | None] = {}
    ttft_s: TokenTime | None = None
    tpot_s: TokenTime | None = None
    itl_s: TokenTime | None = None
    closure: Closure | None = None
    batch: int = 1
    random_weights: bool = False
    perplexity: Perplexity | None = None


class Microcontroller(Struct):
    """The device that ran a model beside the machine that measured.

    Attributes:
        name: What it calls itself.
        model: Which model of MLPerf Tiny its firmware says that it holds.
        port: Where it was reached.
        arena_bytes: Memory of the model's tensors, as the firmware or the user says.
        flash_bytes: Size of the firmware, likewise.
        ram_bytes: Memory in use, likewise.
        clock_ppm: How much faster its clock runs than this machine's, in millionths.
        clock_u_ppm: The half-width of that, from the delays of its reports.
    """

    name: str
    model: str | None = None
    port: str | None = None
    arena_bytes: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    clock_ppm: float | None = None
    clock_u_ppm: float | None = None


class StageEnergy(Struct):
    """Joules of one call of a stage; see ``Energy`` and ``EnergyFigure``."""

    provenance: Provenance
    rail: str | None
    covers: str | None
    gross: EnergyFigure
    net: EnergyFigure


class Stage(Struct):
    """One stage of a pipeline, or of a program that marks its stages.

    Attributes:
        name: As the application calls it.
        calls_per_frame: How often a frame calls it; None where the program tells no frames.
        seconds: Of one call, in place.
        method: How its joules came about: ``repeat`` (frames with the stage called more often, against frames without),
            ``regression`` (of the readings on when each stage ran), or ``time-share``: it has times and no joules.
        separable: Whether its joules can be told from the other stages': their standard uncertainty is at most 20 %.
        energy_j_per_call: Joules of one call; None where nothing told them.
        frame_share: Its share of the time of all stages, which is no share of the joules.
        alone_s: Seconds of a call that runs over and over by itself on recorded inputs (median); None: not known.
        repeats: How often it was called again in each frame of its windows.
        calls: How many calls there were, where a program marked them.
        reason: Why joules are missing; None: they are not.
    """

    name: str
    calls_per_frame: float | None = None
    seconds: TokenTime | None = None
    method: Literal["repeat", "regression", "time-share"] = "time-share"
    separable: bool = False
    energy_j_per_call: StageEnergy | None = None
    frame_share: float | None = None
    alone_s: float | None = None
    repeats: int | None = None
    calls: int | None = None
    reason: str | None = None


class Pipeline(Struct):
    """What a pipeline was measured with, and what its stages leave of a frame.

    Attributes:
        source: Where its frames came from.
        frames: How many frames make the loop that every window replays whole.
        rest: Joules of a frame beside its stages: stages + rest = frame. None where a stage's are unknown.
        rest_s: Seconds of a frame beside its stages (mean).
    """

    source: str
    frames: int
    rest: EnergyFigure | None = None
    rest_s: float | None = None


class Variant(Struct):
    name: str
    recipe: list[dict[str, Any]]
    status: Status
    reasons: list[Reason]
    model: Model
    runtime: RuntimeUse | None
    inferences: int = 0
    throughput_per_s: float | None = None
    latency_s: Latency | None = None
    energy_j_per_inference: Energy | None = None
    power_w: Power | None = None
    memory_bytes: Memory | None = None
    temperature_c: Temperature | None = None
    utilization: Utilization | None = None
    gpu: Gpu | None = None
    throttled: bool | None = None
    accuracy: Accuracy | None = None
    steady: Steady | None = None
    windows: list[Window] = []
    last_words: str | None = None
    #: The main one first: it is what ``energy_j_per_inference``, ``latency_s`` and ``throughput_per_s`` say. Empty in a
    #: result of edgeprof 0.1 and of a variant that was not measured.
    workloads: list[Workload] = []
    #: Of a language model; None of any other.
    language: Language | None = None
    #: Where its time goes, the longest first, then the sum of the others and the rest; empty where it was not asked for
    #: or cannot be told.
    operators: list[Operator] = []
    #: Of a .tflite file, where tflite-micro is installed; None: nothing told.
    microcontroller_need: MicrocontrollerNeed | None = None
    #: Of a model that ran on a device of its own; None of any other.
    microcontroller: Microcontroller | None = None
    #: Of a pipeline, in the order in which a frame passes through them.
    stages: list[Stage] = []
    pipeline: Pipeline | None = None
    #: Of a workload that was measured at several rates or with several streams.
    loads: Loads | None = None

    @property
    def unit(self) -> str:
        """What ``energy_j_per_inference`` is for one of: the unit of the main workload."""
        return self.workloads[0].unit if self.workloads else "inference"


def workload_view(variant: Variant, name: str) -> Variant | None:
    """The variant as one of its workloads sees it: energy, latency, throughput and windows are that workload's.

    Whatever reads a variant's main figures reads those of another workload from such a view.

    Args:
        variant: The variant; it is not changed.
        name: The workload's name.

    Returns:
        The view, with that workload alone; None where the variant has no workload of that name.
    """
    workload = next((workload for workload in variant.workloads if workload.name == name), None)
    if workload is None:
        return None
    return msgspec.structs.replace(
        variant,
        inferences=workload.count,
        throughput_per_s=workload.throughput_per_s,
        latency_s=workload.latency_s,
        energy_j_per_inference=workload.energy_j_per_unit,
        windows=workload.windows,
        workloads=[workload],
    )


class TraceStrip(Struct):
    """A decimated power trace for the report: seconds since the run's start, watts (None in a gap)."""

    channel: str
    times_s: list[float]
    power_w: list[float | None]


class Result(Struct):
    id: str
    created: str
    edgeprof: str
    host: Host
    sensors: list[SensorUse]
    protocol: Protocol
    variants: list[Variant]
    comparisons: list[Comparison] = []
    pareto: list[str] = []
    #: None in a file of an edgeprof that did not store it: ``verdicts.recommend.recommendation_of`` judges it then.
    recommendation: Recommendation | None = None
    reasons: list[Reason] = []
    interrupted: bool = False
    self_cost: SelfCost | None = None
    traces: list[TraceStrip] = []
    #: The words of the command that made it, so that a person can repeat it; None where no command did, or where the
    #: edgeprof of that time did not keep it.
    command: list[str] | None = None
    #: None where the board was not proved
    proof: Proof | None = None
    schema: str = SCHEMA
