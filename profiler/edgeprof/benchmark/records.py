"""What the conductor keeps of a run, for the result to be made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.energy.filters import fitted, rests, with_time_constant
from edgeprof.energy.influences import chip
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.worker.workload import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.energy.filters import TimeConstant
    from edgeprof.errors import VariantError
    from edgeprof.evaluation.metric import Score
    from edgeprof.launch.supervisor import Loaded, Warmup, WorkerMemory
    from edgeprof.results.schema import Host, Reason
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.sampler import ChannelStats
    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Trace
    from edgeprof.worker.runtime import LoadOptions
    from edgeprof.worker.scenario import Window
    from edgeprof.worker.span import Span
    from edgeprof.worker.workload import Workload

#: A stretch without work that is shorter shows no fall (s).
_LEAST_REST_S = 0.3
#: What a busy core draws where nobody said: wide, and said to be a guess wherever it shows.
_CORE_WATTS = {"x86_64": 6.0, "aarch64": 1.5, "armv7l": 0.8}
_STATED_HALF_WIDTH, _GUESSED_HALF_WIDTH = 0.5, 0.8


@dataclass
class WorkloadRecord:
    """Everything kept of one workload of a variant while it ran.

    Attributes:
        windows: In order of time.
        orders: The place of each window in the whole run, from 1.
        throttles: Throttling events that the device counted during its windows, as sentences.
        device_times: After each window: part → seconds of some inferences, by the device's clock.
        standstills: Why windows were left out and measured again: ``was stopped by a signal``.
    """

    workload: Workload
    warmup: Warmup | None = None
    windows: list[Window] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    throttles: list[str] = field(default_factory=list)
    device_times: list[Mapping[str, npt.NDArray[np.float64]]] = field(default_factory=list)
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
    failure: VariantError | None = None

    @property
    def main(self) -> WorkloadRecord:
        """The main workload; an empty record before the model is loaded."""
        return self.workloads[0] if self.workloads else WorkloadRecord(INFERENCE)


@dataclass(frozen=True)
class Sampled:
    """What the sensing plane brought.

    Attributes:
        start_s: The monotonic time that traces in the result count from.
        cores: CPU cores of the device.
        busy: Everything that ran; between its spans nothing did.
        filters: By chip, the time constants that its falls after work showed.
    """

    topology: Topology
    trace: Trace
    stats: Sequence[ChannelStats]
    start_s: float
    cores: int
    busy: Sequence[Span] = ()
    filters: Mapping[str, TimeConstant] = field(default_factory=dict)

    def series(self, channel: Channel) -> ChannelSeries:
        samples = self.trace.series(channel.key)
        known = with_time_constant(channel, self.filters.get(chip(channel)))
        return ChannelSeries(known, samples.times, samples.values)

    def behind_fitted_filters(self) -> tuple[Sampled, list[Reason]]:
        """The same, with every exponential filter's time constant from the falls after work; what contradicts it."""
        series = [self.series(channel) for channel in self.of("power")]
        latest = [float(times[-1]) for one in series if (times := np.asarray(one.times, dtype=np.float64)).size]
        end_s = max(latest, default=self.start_s)
        _, found, reasons = fitted(series, rests(self.busy, end_s, _LEAST_REST_S))
        return replace(self, filters=found), reasons

    def of(self, quantity: str) -> list[Channel]:
        """The channels of a quantity that were sampled."""
        keys = {channel.key for channel in self.trace.channels}
        return [c for c in self.topology.channels if c.quantity == quantity and c.key in keys]


@dataclass(frozen=True)
class Estimate:
    """How joules are estimated where nothing measures.

    Attributes:
        core_w: Watts that one busy core is taken to draw.
        half_width: Relative half-width of its 95 % interval.
        stated: Whether the user gave the wattage; else it is a guess and says so.
    """

    core_w: float
    half_width: float
    stated: bool

    @classmethod
    def for_host(cls, watts: float | None, host: Host) -> Estimate:
        """``--estimate-power WATTS``, else a guess by architecture that says so."""
        if watts is not None:
            return cls(watts, _STATED_HALF_WIDTH, stated=True)
        return cls(_CORE_WATTS.get(host.arch, 3.0), _GUESSED_HALF_WIDTH, stated=False)
