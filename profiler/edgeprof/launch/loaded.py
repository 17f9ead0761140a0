"""What a worker reports of its model: how it was loaded, and how it warmed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.worker.runtime import FRAME_INPUT
from edgeprof.worker.workload import INFERENCE, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.worker.runtime import TensorSpec


@dataclass(frozen=True)
class Loaded:
    """A model that is in memory and has run once.

    Attributes:
        inputs: The inputs as the model declares them; dynamic dimensions stay dynamic.
        outputs: The outputs, likewise.
        version: The version of the runtime's library.
        facts: What really runs, in the runtime's words.
        devices: The devices that ``--device`` accepts with this runtime here.
        load_s: The seconds of ``Runtime.load``, including the import of its library.
        rss_bytes: Resident memory after loading and before the first inference.
        base_rss_bytes: Resident memory of the bare worker before loading.
        library_rss_bytes: Resident memory of the worker with the runtime's library but no model; None if unknown, as
            without a process of its own.
        python: The version of the worker's interpreter.
        first_inference_s: The seconds of the first inference.
        shapes: Input name → the shape that it is fed.
        problems: Problems with the outputs of the first inference, such as NaN: a code and a sentence each.
        workloads: The workloads that windows can repeat, the main one first.
        language: ``Session.language``; None for a model that is no language model.
        peak_rss_bytes: The most resident memory during loading and the first inference.
        microcontroller: ``Session.microcontroller``; None if this machine runs the model.
        pipeline: ``Session.pipeline``; None for a model that is no pipeline.
    """

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    version: str
    facts: dict[str, str]
    devices: list[str]
    load_s: float
    rss_bytes: int | None
    base_rss_bytes: int | None
    library_rss_bytes: int | None
    python: str
    first_inference_s: float
    shapes: dict[str, tuple[int, ...]]
    problems: list[tuple[str, str]] = field(default_factory=list)
    workloads: Sequence[Workload] = (INFERENCE,)
    language: Mapping[str, Any] | None = None
    peak_rss_bytes: int | None = None
    microcontroller: Mapping[str, Any] | None = None
    pipeline: Mapping[str, Any] | None = None

    @property
    def judged_inputs(self) -> Sequence[TensorSpec]:
        """The inputs that take the samples of a dataset: a frame, if the model is a pipeline."""
        return self.inputs if self.pipeline is None else (FRAME_INPUT,)

    @property
    def is_served(self) -> bool:
        """Whether another process or device computes, so that the worker's memory and CPU time do not show the work."""
        return self.microcontroller is not None or (self.language is not None and "place" in self.language)


@dataclass(frozen=True)
class Warmup:
    """Attributes:
    reached: Whether a steady state was found.
    inferences: Calls made.
    seconds: Time spent.
    latency_s: Median latency of a call in the steady part.
    reason: With numbers, why it is not steady; None: it is.
    """

    reached: bool
    inferences: int
    seconds: float
    latency_s: float
    reason: str | None
