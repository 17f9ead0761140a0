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
from edgeprof.results.schema_verdicts import Comparison, Difference, Ratio, Recommendation, WorkloadComparison, sense

__all__ = [
    "SCHEMA", "Accuracy", "Budget", "Clock", "Closure", "Comparison", "Difference", "Energy", "EnergyFigure",
    "Gpu", "Histogram", "Host", "Interval", "Language", "Latency", "Marginal", "Memory", "Microcontroller",
    "Model", "Pipeline", "Power", "Proof", "ProofCheck", "Protocol", "Ratio", "Reason", "Recommendation",
    "Result", "RuntimeUse", "SelfCost", "SensorUse", "Stage", "StageEnergy", "Status", "Steady", "Struct",
    "Temperature", "TokenTime", "TraceStrip", "Utilization", "Variant", "Verdict", "Window", "Workload",
    "WorkloadComparison", "model_name", "sense", "workload_view",
]  # fmt: skip

SCHEMA = "edgeprof.result/1"


class Histogram(Struct):
    """How often a value fell between two neighbouring edges: ``len(counts) == len(edges) - 1``."""

    edges: list[float]
    counts: list[int]


class Latency(Struct):
    """Seconds per call (an inference request).

    ``p50`` … ``p99`` are the samples' quantiles and ``p50_bound`` … ``p99_bound`` upper bounds of the true quantiles
    that hold with 99 % confidence (MLPerf's early stopping); each is None where the samples do not suffice. ``median``
    is p50. Where a device repeats the calls by itself, only their mean is known, and all else is None but ``samples``.
    """

    mean: float
    std: float | None
    min: float | None
    max: float | None
    samples: int
    outliers: int
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    median: float | None = None
    p50_bound: float | None = None
    p90_bound: float | None = None
    p95_bound: float | None = None
    p99_bound: float | None = None
    #: For the report; edges in seconds, the last bin is the tail up to the maximum.
    histogram: Histogram | None = None


class Budget(Struct):
    """Standard uncertainties (k = 1) of one energy figure, in its unit (J per inference); None: does not apply."""

    repeatability: float | None = None
    gain: float | None = None
    offset: float | None = None
    sync: float | None = None
    resolution: float | None = None
    filter: float | None = None
    idle: float | None = None
    model: float | None = None  # of an estimate


class EnergyFigure(Struct):
    """Joules per inference.

    Attributes:
        value: None where it must not be quoted; the variant's reasons say why.
        expanded_uncertainty: U = k·u_c.
        ci95: value ± U.
        windows: Each window's figure.
        coverage_factor: k.
        degrees_of_freedom: ν_eff after Welch and Satterthwaite; None for infinite.
        autocorrelation: Of each window with the next (lag 1), −1 to 1; None with fewer than five windows. Near 0 the
            windows are independent, as the interval takes them to be.
        influences: Errors that all windows share, by their cause: signed standard uncertainties (J per inference). Of
            two variants, those of one name are one error, and cancel in the ratio as far as they are alike; those
            whose name begins with ``level`` are errors of each variant's own.
    """

    value: float | None
    expanded_uncertainty: float | None
    ci95: Interval | None
    windows: list[float] = []
    median: float | None = None
    budget: Budget | None = None
    coverage_factor: float | None = None
    degrees_of_freedom: float | None = None
    autocorrelation: float | None = None
    influences: dict[str, float] = {}


class Marginal(Struct):
    """Energy of one inference at a rate below the maximum: E(rate) = e_net_j + p_idle_w / rate (J)."""

    e_net_j: float
    p_idle_w: float
    max_rate_hz: float


class Energy(Struct):
    provenance: Provenance
    rail: str | None
    covers: str | None
    gross: EnergyFigure
    net: EnergyFigure
    rails: dict[str, float] = {}
    marginal: Marginal | None = None


class Power(Struct):
    mean: float | None
    #: the highest reading, which is an average over ``max_over_s``: shorter peaks are higher
    max: float | None
    idle: float | None
    idle_before: float | None = None
    idle_after: float | None = None
    #: time constant of the sensor's filter, or length of its blocks, s; None where a reading stands for its moment
    max_over_s: float | None = None


class Memory(Struct):
    peak_rss: int | None
    loaded_rss: int | None
    gpu_peak: int | None


class Clock(Struct):
    """A clock while the windows ran, hertz."""

    min: float
    median: float
    max: float


class Gpu(Struct):
    """What a device that computes on its own adds. Times are medians in seconds per inference request, of inferences
    beside the windows (looking costs some microseconds); None where the runtime cannot tell.

    Attributes:
        compute_s: On the device, by its own clock.
        h2d_s: Copying inputs to it.
        d2h_s: Copying outputs back.
        enqueue_s: What the host needed to start the computation.
        wall_s: The same inferences by the host's clock.
        transfer_ratio: Copies over copies and computation.
        compute_cov: Coefficient of variation of the computation; above 0.01 the clocks are not steady (trtexec).
        samples: Inferences looked at.
        queue: ``full``: the next inference was waiting while one ran; ``empty``: each was waited for.
        memory_bytes: Of the worker's process, by the driver.
        clock_hz: Of the GPU.
        throttle_reasons: Why its clock was held down in some sample of the windows.
        energy_j_per_inference: Of the GPU's own rail or board, beside the headline.
    """

    compute_s: float | None = None
    h2d_s: float | None = None
    d2h_s: float | None = None
    enqueue_s: float | None = None
    wall_s: float | None = None
    transfer_ratio: float | None = None
    compute_cov: float | None = None
    samples: int = 0
    queue: Literal["full", "empty"] | None = None
    memory_bytes: int | None = None
    clock_hz: Clock | None = None
    throttle_reasons: list[str] = []
    energy_j_per_inference: float | None = None


class Temperature(Struct):
    start: float | None
    max: float | None


class Utilization(Struct):
    cpu: float | None
    gpu: float | None


class Accuracy(Struct):
    """A score on labelled data, on the same runtime and artifact as the latency and the joules.

    Attributes:
        value: A ratio (0 to 1) or the metric's own unit.
        ci95: Wilson's interval for proportions.
        drop: How much worse than the baseline: its value minus this one's, or, where less is better, this one's minus
            its; 0 for the baseline itself, None without one.
        p_value: Against the baseline, paired by sample: McNemar's exact test, or the bootstrap's for metrics that judge
            samples together.
        preprocessing: Hash of the declared preprocessing.
        higher_is_better: False where a rise is bad, as of perplexity.
        title: What people call the metric: ``top-1``; None where it says nothing, and its name serves.
    """

    metric: str
    value: float
    ci95: Interval | None
    samples: int
    drop: float | None = None
    p_value: float | None = None
    dataset: str | None = None
    preprocessing: str | None = None
    higher_is_better: bool = True
    title: str | None = None

    @property
    def sign(self) -> int:
        """What makes more of it better: value · sign."""
        return 1 if self.higher_is_better else -1

    @property
    def is_ratio(self) -> bool:
        """Whether it is a share of what there is, shown in percent; else it has a unit of its own."""
        return self.higher_is_better and 0.0 <= self.value <= 1.0


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
    #: Of a model that ran on a device of its own; None of any other.
    microcontroller: Microcontroller | None = None
    #: Of a pipeline, in the order in which a frame passes through them.
    stages: list[Stage] = []
    pipeline: Pipeline | None = None

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
