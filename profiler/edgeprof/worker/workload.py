"""A workload: something that a loaded model can do repeatedly, and the unit in which it is counted.

Most models have one workload: ``inference``. A language model has several (a request, its prefill, its decode), a
pipeline has one for its frame and one for each stage. A scenario runs one workload in windows; figures are per unit of
that workload.
Python 3.6 grammar and the standard library.
"""

from typing import NamedTuple, Optional, Sequence

from edgeprof.worker.span import Span


class Workload(NamedTuple):
    """A repeatable piece of work that a session offers.

    Attributes:
        name: Its name in requests and in the result: ``inference``, ``prefill``, ``frame`` …
        unit: What is counted, in the singular: ``inference``, ``prompt token``, ``frame`` …
        units_per_call: How many units one call does; None means one for each sample of the batch.
        calls_in_loop: A window holds whole loops of this many calls, such as the frames of a clip, so that all windows
            do the same work.
    """

    name: str
    unit: str
    units_per_call: Optional[int] = None
    calls_in_loop: int = 1

    def units(self, batch: int) -> int:
        """How many units one call does with ``batch`` samples in a batch."""
        return batch if self.units_per_call is None else self.units_per_call


class Burst(NamedTuple):
    """Calls that a device repeated by itself, as it reports them.

    Attributes:
        span: From the reported beginning of the first call to the reported end of the last, by this machine's clock;
            it counts the calls.
        device_s: The same time by the device's own clock, in seconds; None if it reported none.
        edge_s: By how many seconds the reports of the beginning and of the end may have arrived late.
        is_second_try: Whether the device had to be brought back in step, and repeated the calls after that.
    """

    span: Span
    device_s: Optional[float]
    edge_s: float
    is_second_try: bool = False


#: The workload of a model that offers nothing else.
INFERENCE = Workload("inference", "inference")


def check_workloads(workloads: Sequence[Workload]) -> Optional[str]:
    """Return what is wrong with the workloads that a session offers, as a sentence; None if nothing is."""
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
