"""What a loaded model can be asked to do again and again, and the unit in which that is counted.

A classic model has one workload: ``inference``. A language model has several (a request, its prefill, its decode), a
pipeline one for its frame and one for each stage. A scenario runs one workload in windows; figures are per unit of it.
Python 3.6 grammar and the standard library.
"""

from typing import NamedTuple, Optional, Sequence

from edgeprof.worker.span import Span


class Workload(NamedTuple):
    """A repeatable piece of work that a session offers.

    Attributes:
        name: What it is asked for by, and called in the result: ``inference``, ``prefill``, ``frame`` …
        unit: What one call makes some of, in the singular: ``inference``, ``prompt token``, ``frame`` …
        units_per_call: How many of them one call makes; None: one for each sample of the batch.
        calls_in_loop: Windows hold whole loops of so many calls, as of the frames of a clip, so that all do the same.
    """

    name: str
    unit: str
    units_per_call: Optional[int] = None
    calls_in_loop: int = 1

    def units(self, batch: int) -> int:
        """How many units one call makes with so many samples in a batch."""
        return batch if self.units_per_call is None else self.units_per_call


class Burst(NamedTuple):
    """Calls that a device repeated by itself, as it reports them.

    Attributes:
        span: From the reported beginning of the first call to the reported end of the last, by this machine's clock;
            it counts the calls.
        device_s: The same time by the device's own clock, seconds; None where it has none that told.
        edge_s: How much later than the work the reports of its beginning and its end may have come, seconds.
    """

    span: Span
    device_s: Optional[float]
    edge_s: float


#: The workload of a model that offers nothing else.
INFERENCE = Workload("inference", "inference")


def check_workloads(workloads: Sequence[Workload]) -> Optional[str]:
    """What is wrong with the workloads that a session offers, as a sentence; None where nothing is."""
    if not workloads:
        return "the runtime offers no workload; one at least is needed"
    names = [workload.name for workload in workloads]
    for workload in workloads:
        if not (workload.name and workload.unit):
            return "the runtime offers a workload without a name or a unit: {!r}".format(workload)
        if names.count(workload.name) > 1:
            return "the runtime offers two workloads with the name {!r}".format(workload.name)
        if workload.units_per_call is not None and workload.units_per_call < 1:
            return "the workload {!r} makes {} units in a call".format(workload.name, workload.units_per_call)
        if workload.calls_in_loop < 1:
            return "the workload {!r} has {} calls in a loop".format(workload.name, workload.calls_in_loop)
    return None
