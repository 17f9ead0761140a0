"""The result file, ``edgeprof.result/1``: names of fields contain the unit; None, never 0, stands for unknown.

These structures are the file, field for field. ``document.py`` writes and reads it.
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
    variant_label,
)
from edgeprof.results.schema_figures import (
    Accuracy,
    Budget,
    Clock,
    Energy,
    EnergyFigure,
    Gpu,
    Histogram,
    IsolatedFigures,
    IsolatedSum,
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
    "Gpu", "Histogram", "Host", "Interval", "IsolatedFigures", "IsolatedSum", "KvCache",
    "Language", "Latency", "Marginal", "Memory",
    "Microcontroller", "MicrocontrollerNeed", "Model", "Operator", "Perplexity", "Pipeline", "Power", "Proof",
    "ProofCheck", "Protocol", "Ratio", "Reason", "Recommendation", "Result", "RuntimeUse", "SelfCost",
    "SensorUse", "Stage", "StageEnergy", "Status", "Steady", "Struct", "Temperature", "TokenTime", "TraceStrip",
    "Utilization", "Variant", "Verdict", "Window", "Workload", "WorkloadComparison", "model_name", "sense",
    "variant_label", "workload_view",
]  # fmt: skip

SCHEMA = "edgeprof.result/1"


class Steady(Struct):
    """The warm-up: its inferences and seconds, and whether a steady state was reached."""

    reached: bool
    inferences: int
    seconds: float
    reason: str | None = None


class Window(Struct):
    """One measured window, kept for the report's traces and for paired comparisons."""

    start_s: float
    end_s: float
    inferences: int
    #: Position in the interleaved order of the whole run.
    order: int
    energy_j: float | None = None
    mean_power_w: float | None = None
    latency_median_s: float | None = None
    #: Only of a window in which the device itself repeated the calls: their mean is known, and no median.
    latency_mean_s: float | None = None
    #: Whether the device lost synchronisation in this window and repeated the calls after it was regained.
    is_second_try: bool = False


class Workload(Struct):
    """What a model was asked to do repeatedly, with its figures per unit.

    Attributes:
        name: ``inference``, ``prefill``, ``frame`` …
        unit: The name of what is counted, in the singular: ``inference``, ``prompt token``, ``frame`` …
        units_per_call: How many units one call completes.
        count: Units completed in all windows together.
        energy_j_per_unit: Joules per unit.
        latency_s: Seconds per call.
        throughput_per_s: Units per second.
        late: Frames that finished after the next one was due; None in a scenario without due times for frames.
        dropped: Calls that were due and not made; None in a scenario without due times.
        cut_short: Windows that ended early, because there was no room to store the times of more calls.
        windows: Each window; its ``inferences`` counts units.
        rate_hz: Calls per second of each stream that were due; None in a scenario without a rate.
        streams: Cameras or threads at the same time, in a scenario with a rate.
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
    """Which rates a number of streams could sustain.

    Attributes:
        streams: Streams at the same time.
        kept_hz: The highest rate per stream at which at least 99 % of the due calls were made; None if there was none.
        saturated_hz: The lowest rate per stream at which fewer were made; None if there was none.
        achieved_per_s: Calls per second, of all streams together, that were made at ``saturated_hz``.
    """

    streams: int
    kept_hz: float | None = None
    saturated_hz: float | None = None
    achieved_per_s: float | None = None


class Loads(Struct):
    """The findings on one workload that was measured at several rates or with several streams.

    Attributes:
        saturation: One entry for each number of streams, the fewest first.
        stream_power_w: Watts that each further stream takes at ``stream_rate_hz``; None if it was not requested or
            could not be measured.
        stream_power_ci95: The 95 % interval of ``stream_power_w``.
        stream_rate_hz: The highest rate that both the fewest and the most streams sustained.
    """

    saturation: list[Saturation] = []
    stream_power_w: float | None = None
    stream_power_ci95: tuple[float, float] | None = None
    stream_rate_hz: float | None = None


class TokenTime(Struct):
    """The time of a part of a call (a token of a language model, a stage), in seconds, over all calls in the windows.

    Attributes:
        mean: The mean of all samples.
        p50: The median; ``p90`` and ``p99`` are quantiles, None with fewer than 10 / (1 − p) samples.
        samples: The number of samples.
    """

    mean: float
    p50: float | None
    p90: float | None
    p99: float | None
    samples: int


class Closure(Struct):
    """Whether the separately measured phases of a request add up to it: their sum divided by the request's own figure.

    Attributes:
        energy: The ratio of the gross joules; None if they are unknown or there are fewer than two windows.
        time: The ratio of the seconds.
    """

    energy: Ratio | None = None
    time: Ratio | None = None


class Perplexity(Struct):
    """A language model's perplexity on a text, by the convention of llama-perplexity: the text is read in pieces of
    ``chunk`` tokens, and the second half of each piece is scored.

    Attributes:
        value: exp(−mean log-likelihood of a token).
        ci95: The 95 % interval, by a block bootstrap over tokens; None with too few tokens.
        tokens: The number of scored tokens.
        chunk: Tokens per piece.
        text: The name of the text's file.
        text_sha256: The hash of the whole text.
        tokens_sha256: The hash of the tokens that were read: two models can be paired if it is the same.
        ratio: The ratio to the baseline's perplexity, paired by token; None for the baseline, and with another
            tokenizer.
        log_likelihoods: Each scored token's log-likelihood, float32 little-endian in base64, to pair results later.
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
    """The request to a language model, and the figures that only language models have. Joules and tokens per second are
    in the variant's ``workloads``: ``request``, ``prefill`` (per prompt token) and ``decode`` (per output token).

    Attributes:
        prompt_tokens: Tokens that a request reads.
        generated_tokens: Tokens that a request generates; reading the prompt yields the first one.
        depth: Tokens in the cache before the request.
        context: The capacity of the cache in tokens; None if unknown.
        kv_type: The type of the numbers in the cache; None if unknown.
        method: How the phases were separated: ``phase-windows`` (each phase has its own windows), or ``requests`` (only
            whole requests were measured).
        architecture: ``llama``, ``qwen2`` …; this and the next three come from the file's header.
        parameters: The number of weights.
        bits_per_weight: 8 · bytes of all tensors / weights, whatever the file name claims.
        tensor_bytes: Tensor type → bytes; None for a type whose size is unknown.
        ttft_s: The time from the beginning of a request to its first token.
        tpot_s: (Time of the last token − TTFT) / (tokens − 1), for each request.
        itl_s: The time between two consecutive tokens, over all tokens.
        closure: Whether the phases add up; None if they were not measured separately.
        batch: Requests that were read and answered at the same time.
        random_weights: Whether the weights are random: time, memory and joules are real, the answers are meaningless.
        perplexity: The perplexity of the given text; None without a text.
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
    """A separate device that ran the model, while this machine measured.

    Attributes:
        name: The name that the device reports.
        model: The MLPerf Tiny model that the firmware reports.
        port: The port on which the device was reached.
        arena_bytes: Memory of the model's tensors, as the firmware or the user reports it.
        flash_bytes: Size of the firmware, from the same source.
        ram_bytes: Memory in use, from the same source.
        clock_ppm: How much faster the device's clock runs than this machine's, in millionths.
        clock_u_ppm: The half-width of the interval of ``clock_ppm``, from the delays of the device's reports.
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
        name: The application's name for it.
        calls_per_frame: How often a frame calls it; None if the program does not mark frames.
        seconds: The time of one call within the pipeline.
        method: How its joules were found: ``repeat`` (frames that call the stage more often, compared with frames that
            do not), ``regression`` (of the readings on the times at which each stage ran), or ``time-share`` (the stage
            has times and no joules).
        separable: Whether its joules can be separated from the other stages': their standard uncertainty is at most
            20 %.
        energy_j_per_call: Joules of one call; None if unknown.
        frame_share: Its share of the time of all stages, which is not its share of the joules.
        alone_s: Seconds of a call when the stage runs repeatedly by itself on recorded inputs (median); None if
            unknown.
        repeats: How many extra calls each frame of its windows made.
        calls: The number of calls, if a program marked them.
        reason: Why joules are missing; None if they are not.
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
    """The frames that a pipeline was measured with, and the part of a frame that is outside all stages.

    Attributes:
        source: The source of the frames.
        frames: The number of frames in the loop; each window replays only whole loops.
        rest: Joules of a frame outside its stages: stages + rest = frame. None if a stage's joules are unknown.
        rest_s: Seconds of a frame outside its stages (mean).
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
    #: The main workload comes first: ``energy_j_per_inference``, ``latency_s`` and ``throughput_per_s`` are its
    #: figures. Empty in a result of edgeprof 0.1 and for a variant that was not measured.
    workloads: list[Workload] = []
    #: Only for a language model; None for any other.
    language: Language | None = None
    #: The operators by their time, the longest first, then the sum of the others and the rest; empty if they were not
    #: requested or are unknown.
    operators: list[Operator] = []
    #: Only if operators were measured alone.
    isolated_sum: IsolatedSum | None = None
    #: Only for a .tflite file, and if tflite-micro is installed; None if unknown.
    microcontroller_need: MicrocontrollerNeed | None = None
    #: Only for a model that ran on a separate device; None for any other.
    microcontroller: Microcontroller | None = None
    #: The stages of a pipeline, in the order in which a frame passes through them.
    stages: list[Stage] = []
    pipeline: Pipeline | None = None
    #: Only if the workload was measured at several rates or with several streams.
    loads: Loads | None = None

    @property
    def unit(self) -> str:
        """The unit of the main workload: ``energy_j_per_inference`` is the energy of one such unit."""
        return self.workloads[0].unit if self.workloads else "inference"


def workload_view(variant: Variant, name: str) -> Variant | None:
    """Return a copy of a variant whose energy, latency, throughput and windows are those of one workload.

    Code that reads a variant's main figures can read another workload's figures from such a copy.

    Args:
        variant: The variant; it is not changed.
        name: The workload's name.

    Returns:
        The copy, with that workload only; None if the variant has no workload of that name.
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
    #: None in a file of an edgeprof that did not store it; ``verdicts.recommend.recommendation_of`` then computes it.
    recommendation: Recommendation | None = None
    reasons: list[Reason] = []
    interrupted: bool = False
    self_cost: SelfCost | None = None
    traces: list[TraceStrip] = []
    #: The words of the command that made the result, so that a person can repeat it; None if no command made it, or if
    #: that edgeprof did not store the command.
    command: list[str] | None = None
    #: None if the board was not proved
    proof: Proof | None = None
    schema: str = SCHEMA
