"""The parts of a result that hold the figures: latency, energy, power, memory, GPU, temperature, accuracy."""

from __future__ import annotations

from typing import Literal

from edgeprof.provenance import Provenance
from edgeprof.results.schema_context import Interval, Struct


class Histogram(Struct):
    """The number of values between each two neighbouring edges: ``len(counts) == len(edges) - 1``."""

    edges: list[float]
    counts: list[int]


class Latency(Struct):
    """Seconds per call (an inference request).

    ``p50`` … ``p99`` are the samples' quantiles, and ``p50_bound`` … ``p99_bound`` are upper bounds of the true
    quantiles with 99 % confidence (MLPerf's early stopping); each is None if there are too few samples. ``median`` is
    p50. If the device itself repeats the calls, only ``mean`` and ``samples`` are known; everything else is None.
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
    #: For the report; its edges are in seconds, and its last bin is the tail up to the maximum.
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
        value: The figure; None if it must not be quoted, and the variant's reasons explain why.
        expanded_uncertainty: U = k·u_c.
        ci95: value ± U.
        windows: Each window's figure.
        coverage_factor: k.
        degrees_of_freedom: ν_eff after Welch and Satterthwaite; None for infinite.
        autocorrelation: The correlation of each window with the next (lag 1), −1 to 1; None with fewer than five
            windows. Near 0 the windows are independent, as the interval assumes.
        influences: Errors that all windows share, by cause: signed standard uncertainties (J per inference). If two
            variants have an influence of the same name, it is one error, and cancels in their ratio as far as the two
            values agree; influences whose names begin with ``level`` are separate errors of each variant.
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
    #: the highest reading, which is an average over ``max_over_s``: shorter peaks may be higher
    max: float | None
    idle: float | None
    idle_before: float | None = None
    idle_after: float | None = None
    #: time constant of the sensor's filter, or length of its blocks, s; None if a reading is an instantaneous value
    max_over_s: float | None = None


class KvCache(Struct):
    """The cache of a language model's attention, in bytes.

    Attributes:
        bytes: The size; None if unknown.
        formula_bytes: 2 · layers · KV heads · head width · tokens · bytes of its type; None if the model's cache is
            built in another way, or the header lacks a value.
        source: The source of ``bytes``: ``measured`` (reported by the library that allocated it) or ``formula``.
    """

    bytes: int | None
    formula_bytes: int | None
    source: Literal["measured", "formula"]


class Memory(Struct):
    """Memory of the worker's process, in bytes; None if unknown.

    Attributes:
        peak_rss: The highest resident memory, without the time stamps that edgeprof stores for the windows.
        loaded_rss: Resident memory after loading, before the first inference; it does not yet contain mapped weights.
        gpu_peak: The highest device memory.
        anonymous: Resident memory after the windows that no file backs: the kernel cannot drop it.
        mapped: Resident memory after the windows that a file backs, such as mapped weights: the kernel may drop it.
        load_peak: The highest resident memory while loading, including the first inference.
        kv_cache: The cache of a language model's attention; None for any other model.
        compute_buffer: The memory that a language model's library reserves for intermediate results; a part of it may
            not be resident.
        runtime_rss: Resident memory with the runtime's library (including Python and numpy) and without a model: the
            cost of the library, whatever it runs.
    """

    peak_rss: int | None
    loaded_rss: int | None
    gpu_peak: int | None
    runtime_rss: int | None = None
    anonymous: int | None = None
    mapped: int | None = None
    load_peak: int | None = None
    kv_cache: KvCache | None = None
    compute_buffer: int | None = None


class IsolatedFigures(Struct):
    """A model, or one of its operators, in windows of its own.

    Attributes:
        seconds: Seconds of one execution (mean).
        seconds_ci95: The 95 % interval of that mean, from the scatter of the windows; None for a single window.
        energy_j: Joules per inference; None if unknown.
    """

    seconds: float
    seconds_ci95: Interval | None
    energy_j: Energy | None


class IsolatedSum(Struct):
    """The operators that were measured alone, compared with the whole model in the same turns.

    Attributes:
        operators: How many operators were measured alone.
        whole: The whole model, in windows between those of the operators.
        rest_s: Seconds of the whole model minus those of all these operators (mean).
        rest_s_ci95: Its 95 % interval; None for a single window.
        rest_j: The same difference in gross joules per inference; without a value if a figure is unknown.
    """

    operators: int
    whole: IsolatedFigures
    rest_s: float
    rest_s_ci95: Interval | None
    rest_j: EnergyFigure


class Operator(Struct):
    """The part of an inference that one operator takes, or a group of operators, or the rest outside all operators.

    Attributes:
        name: The runtime's name for it, in the graph that the runtime executes.
        type: ``Conv``, ``FullyConnected`` …; None if there are several types, or none.
        share: The share of a call's time, from a run outside the windows; the shares of a variant add up to 1.
        seconds: The same share of the mean latency in the windows.
        energy_j_attributed: The same share of the joules of an inference (J): an attribution, not a measurement.
        method: ``time-share``: the joules are shared out as if each operator drew the mean power. ``isolated``: in
            addition, the operator was measured alone.
        isolated: The figures that were measured alone; None if they were not.
    """

    name: str
    type: str | None
    share: float
    seconds: float | None
    energy_j_attributed: float | None
    method: Literal["time-share", "isolated"] = "time-share"
    isolated: IsolatedFigures | None = None


class MicrocontrollerNeed(Struct):
    """The memory that a model needs on a microcontroller, according to TensorFlow Lite for Microcontrollers.

    Attributes:
        arena_bytes: RAM for the model's tensors. It is planned on this machine, whose pointers are larger, so that it
            is an upper bound. None if the model does not run there; ``reason`` explains why.
        head_bytes: The part of the arena for activations.
        tail_bytes: The part of the arena that stays allocated for the whole run.
        flash_bytes: The size of the model's file; the code that runs it is not included.
        unsupported_operators: Operators that are missing there, or do not support the model's types.
        reason: Why ``arena_bytes`` is unknown; None if it is known.
    """

    arena_bytes: int | None
    head_bytes: int | None
    tail_bytes: int | None
    flash_bytes: int
    unsupported_operators: list[str] = []
    reason: str | None = None


class Clock(Struct):
    """The frequency of a clock while the windows ran, in hertz."""

    min: float
    median: float
    max: float


class Gpu(Struct):
    """The figures of a GPU. Times are medians in seconds per inference request, from inferences outside the windows
    (because timing them costs some microseconds); None if the runtime does not provide them.

    Attributes:
        compute_s: Computation on the device, by the device's own clock.
        h2d_s: Copying the inputs to the device.
        d2h_s: Copying the outputs back.
        enqueue_s: Starting the computation, on the host.
        wall_s: The same inferences by the host's clock.
        transfer_ratio: Time of the copies divided by time of the copies and the computation.
        compute_cov: Coefficient of variation of the computation; above 0.01 the clocks are not steady (trtexec).
        samples: The number of timed inferences.
        queue: ``full`` if the next inference was queued while one ran, ``empty`` if the host waited for each one.
        memory_bytes: Device memory of the worker's process, as the driver reports it.
        clock_hz: The clock of the GPU.
        throttle_reasons: Why the GPU's clock was reduced in any sample within the windows.
        energy_j_per_inference: Joules on the GPU's own rail or board, in addition to the headline's joules.
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
        value: A ratio (0 to 1), or a value in the metric's own unit.
        ci95: The 95 % interval; Wilson's for proportions.
        drop: How much worse it is than the baseline: the baseline's value minus this one, or the reverse if lower is
            better; 0 for the baseline itself, None without a baseline.
        p_value: The p-value against the baseline, paired by sample: McNemar's exact test, or a bootstrap for metrics
            that judge samples together.
        preprocessing: Hash of the declared preprocessing.
        higher_is_better: False if a lower value is better, as for perplexity.
        title: The metric's usual title, such as ``top-1``; None if it has none, and its name is shown.
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
        """1 or −1, such that a higher ``value * sign`` is better."""
        return 1 if self.higher_is_better else -1

    @property
    def is_ratio(self) -> bool:
        """Whether the value is a proportion, shown in percent; otherwise it is in the metric's own unit."""
        return self.higher_is_better and 0.0 <= self.value <= 1.0
