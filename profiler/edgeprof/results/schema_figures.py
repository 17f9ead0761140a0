"""The parts of a result that hold what was measured: latency, energy, power, memory, GPU, temperature, accuracy."""

from __future__ import annotations

from typing import Literal

from edgeprof.provenance import Provenance
from edgeprof.results.schema_context import Interval, Struct


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


class KvCache(Struct):
    """The cache of a language model's attention, in bytes.

    Attributes:
        bytes: What it takes; None: unknown.
        formula_bytes: 2 · layers · KV heads · head width · tokens · bytes of its type; None where that is not how the
            model's cache is built, or the header does not say.
        source: Where ``bytes`` comes from: ``measured`` (told by the library that allocated it) or ``formula``.
    """

    bytes: int | None
    formula_bytes: int | None
    source: Literal["measured", "formula"]


class Memory(Struct):
    """Memory of the worker's process, in bytes; None: unknown.

    Attributes:
        peak_rss: The most that the model itself held, the windows' own time-stamps left out.
        loaded_rss: Resident after loading, before the first inference: mapped weights are not yet in it.
        gpu_peak: The most device memory.
        anonymous: Resident after the windows and of no file: the kernel cannot drop it.
        mapped: Resident after the windows and of a file, as weights that are mapped: the kernel may drop it.
        load_peak: The most that was resident while loading, the first inference included.
        kv_cache: Of a language model.
        compute_buffer: Of a language model: what its library reserves for intermediate results; a part of it may not be
            resident.
        runtime_rss: Resident with the runtime's library (Python and numpy included) and no model: what the library
            costs, whatever it runs.
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


class Operator(Struct):
    """What one operator of a model takes of an inference, or a group of them, or what is in none of them.

    Attributes:
        name: As the runtime calls it, of the graph that it executes.
        type: ``Conv``, ``FullyConnected`` …; None where there are several, or none.
        share: Of a call's time, in a run beside the windows; those of a variant add up to 1.
        seconds: The share of the mean latency in the windows.
        energy_j_attributed: The share of the joules of an inference (J): an attribution, not a measurement.
        method: ``time-share``: the joules are shared out as if each operator drew the mean power.
    """

    name: str
    type: str | None
    share: float
    seconds: float | None
    energy_j_attributed: float | None
    method: Literal["time-share", "isolated"] = "time-share"


class MicrocontrollerNeed(Struct):
    """What a model needs of a microcontroller, by TensorFlow Lite for Microcontrollers.

    Attributes:
        arena_bytes: RAM for its tensors, planned on this machine, whose pointers are larger: an upper bound. None where
            it does not run there; ``reason`` says why.
        head_bytes: The part for activations.
        tail_bytes: The part that stays for the whole run.
        flash_bytes: Of the model's file; the code that runs it comes on top.
        unsupported_operators: Those that are missing there, or do not take these types.
        reason: Why the arena is not known; None: it is.
    """

    arena_bytes: int | None
    head_bytes: int | None
    tail_bytes: int | None
    flash_bytes: int
    unsupported_operators: list[str] = []
    reason: str | None = None


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
