"""The conductor's records of a run, from which the result is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.benchmark.foreign_load import ForeignLoad
from edgeprof.energy.influences import chip_name
from edgeprof.reasons import Code
from edgeprof.sensing.corrections import MeasuredFilter
from edgeprof.worker.workload import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.energy.recording import Readings, Recording
    from edgeprof.errors import VariantError
    from edgeprof.evaluation.metric import Score
    from edgeprof.evaluation.perplexity import Likelihoods, Text
    from edgeprof.launch.loaded import Loaded, Warmup
    from edgeprof.launch.worker_memory import WorkerMemory
    from edgeprof.results.schema import Reason
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.sampler import ChannelStats
    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key
    from edgeprof.worker.runtime import LoadOptions, MicrocontrollerNeed, OperatorProfile
    from edgeprof.worker.scenario import Scenario, Window
    from edgeprof.worker.span import Span
    from edgeprof.worker.workload import Workload


@dataclass
class WorkloadRecord:
    """Everything that is recorded of one workload of a variant while it runs.

    Attributes:
        windows: The windows, in order of time.
        orders: The position of each window in the whole run, from 1.
        throttles: Throttling events that the device counted during the windows, as sentences.
        device_times: After each window: part → seconds of some inferences, by the device's clock.
        token_times: Only for a language model: for each request in the windows, the seconds until each token.
        stage_times: Only for a pipeline's frames: for each window, seconds, shape ``(frames, stages)``.
        scenario: The scenario of the windows, if it differs from the main workload's.
        asked: The worker's name for the workload, if the result uses another name.
        standstills: Why windows were left out and measured again, such as ``was stopped by a signal``.
    """

    workload: Workload
    warmup: Warmup | None = None
    windows: list[Window] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    throttles: list[str] = field(default_factory=list)
    device_times: list[Mapping[str, npt.NDArray[np.float64]]] = field(default_factory=list)
    token_times: list[npt.NDArray[np.float64]] = field(default_factory=list)
    stage_times: list[npt.NDArray[np.float64]] = field(default_factory=list)
    scenario: Scenario | None = None
    asked: str | None = None
    standstills: list[str] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        return [window.span for window in self.windows]


@dataclass
class VariantRecord:
    """Everything that is recorded of one variant while it runs."""

    name: str
    recipe: list[dict[str, Any]]
    artifact: Artifact
    runtime: str | None  # None: there is nothing to run, and ``failure`` gives the reason
    options: LoadOptions
    loaded: Loaded | None = None
    workloads: list[WorkloadRecord] = field(default_factory=list)  # the main one first; empty before it is loaded
    idles: list[Span] = field(default_factory=list)
    memory: WorkerMemory | None = None
    gpu_process_bytes: int | None = None
    score: Score | None = None
    metric: str | None = None
    metric_title: str | None = None
    dataset: str | None = None
    preprocessing: str | None = None
    higher_is_better: bool = True
    notes: list[Reason] = field(default_factory=list)
    foreign_load: ForeignLoad = field(default_factory=ForeignLoad)
    failure: VariantError | None = None
    profile: OperatorProfile | None = None
    alone: VariantRecord | None = None  # the windows of operators alone, and of the whole model between them
    microcontroller_need: MicrocontrollerNeed | None = None
    text: Text | None = None  # the text whose perplexity was requested; ``likelihoods`` are the model's
    likelihoods: Likelihoods | None = None

    @property
    def main(self) -> WorkloadRecord:
        """The main workload; an empty record before the model is loaded."""
        return self.workloads[0] if self.workloads else WorkloadRecord(INFERENCE)


@dataclass(frozen=True)
class Sampled:
    """The readings of the sensors over a run.

    Attributes:
        recording: The readings and the spans of the whole run.
        start_s: The monotonic time at which the times of the result's traces begin.
        cores: CPU cores of the device.
    """

    recording: Recording
    stats: Sequence[ChannelStats]
    start_s: float
    cores: int

    @property
    def topology(self) -> Topology:
        return self.recording.topology

    @property
    def trace(self) -> Readings:
        return self.recording.trace

    def series(self, channel: Channel) -> ChannelSeries:
        return self.recording.series(channel)

    def fits(self, date: str) -> dict[Key, MeasuredFilter]:
        """Return the fitted filters by power channel, in the form for ``corrections.keep_fitted``."""
        fitted, _ = self.recording.fitted_filters()
        return {
            channel.key: MeasuredFilter(fit.tau_s, fit.u_s, channel.filter.tau_s or 0.0, date, fit.falls)
            for channel in self.of("power")
            if channel.filter.kind == "exponential" and (fit := fitted.get(chip_name(channel))) is not None
        }

    def of(self, quantity: str) -> list[Channel]:
        """Return the sampled channels of a quantity."""
        return self.recording.of(quantity)


def charge_load(preflight: list[Reason], records: Sequence[VariantRecord]) -> list[Reason]:
    """Note the load of other programs during each variant's windows, and return the reasons that concern the whole run.

    If the load during the windows is unknown, the load before the run is noted instead, which degrades the variant.
    """
    before = [reason for reason in preflight if reason.code == Code.COMPETING_LOAD]
    for record in records:
        if record.workloads and record.main.windows:
            seen = record.foreign_load.reason()
            record.notes += before if record.foreign_load.share is None else [seen] if seen is not None else []
    return [reason for reason in preflight if reason.code != Code.COMPETING_LOAD]
