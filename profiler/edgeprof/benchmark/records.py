"""The conductor's records of a run, from which the result is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.benchmark.foreign_load import ForeignLoad
from edgeprof.energy.influences import chip_name
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
    """Everything kept of one workload of a variant while it ran.

    Attributes:
        windows: In order of time.
        orders: The place of each window in the whole run, from 1.
        throttles: Throttling events that the device counted during its windows, as sentences.
        device_times: After each window: part → seconds of some inferences, by the device's clock.
        token_times: Of each request in its windows, where it is one of a language model: seconds to each token.
        stage_times: After each window, where it is that of a pipeline's frames: frames × stages, seconds.
        scenario: How its windows are loaded, where not as those of the main workload.
        asked: What the worker calls the workload, where the result calls it otherwise.
        standstills: Why windows were left out and measured again: ``was stopped by a signal``.
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
    """Everything kept of one variant while it ran."""

    name: str
    recipe: list[dict[str, Any]]
    artifact: Artifact
    runtime: str | None  # None: there is nothing to run, and the failure says why
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
    microcontroller_need: MicrocontrollerNeed | None = None
    text: Text | None = None  # whose perplexity was asked for, and what the model made of it
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
        start_s: The monotonic time that traces in the result count from.
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
        """What was fitted, by power channel, as ``corrections.keep_fitted`` takes it."""
        fitted, _ = self.recording.fitted_filters()
        return {
            channel.key: MeasuredFilter(fit.tau_s, fit.u_s, channel.filter.tau_s or 0.0, date, fit.falls)
            for channel in self.of("power")
            if channel.filter.kind == "exponential" and (fit := fitted.get(chip_name(channel))) is not None
        }

    def of(self, quantity: str) -> list[Channel]:
        """The channels of a quantity that were sampled."""
        return self.recording.of(quantity)
