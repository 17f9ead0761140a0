"""The evidence and the findings of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.diagnosis.advice import Methods
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import CycleEstimate, MicrocontrollerNeed

Status = Literal["fail", "warn", "unknown", "ok"]

#: The most severe first; unknown facts come before what is fine.
ORDER: dict[Status, int] = {"fail": 0, "warn": 1, "unknown": 2, "ok": 3}


@dataclass(frozen=True)
class Finding:
    """The finding of one check.

    Attributes:
        check: The check's name.
        status: ``fail``: it is a cause; ``warn``: it costs something; ``unknown``: it cannot be determined, and the
            sentence gives the reason; ``ok``.
        number: The measured or counted value.
        unit: The unit of the number: ``ratio``, ``dB``, ``samples`` …
        threshold: The threshold for the number.
        sentence: The finding in one sentence, with the number.
        fix: What the user can do about it.
        weight: How much it explains; the headline is the failure with the highest weight.
        chain: The next step that ``fix`` names, in the form for ``--with``; None if the fix is not a method.
    """

    check: str
    status: Status
    number: float | None
    unit: str
    threshold: float | None
    sentence: str
    fix: str | None = None
    weight: float = 1.0
    chain: str | None = None


@dataclass
class Evidence:
    """The known facts; an unknown fact keeps its default.

    Attributes:
        graph: The variant's graph, as executed.
        baseline: The baseline's graph.
        size: Bytes of the variant, plain and zipped.
        baseline_size: Bytes of the baseline, plain and zipped.
        instructions: The CPU's 8-bit dot product by name, or "" for none; None if unknown.
        arch: The machine's architecture, for messages.
        recipe: The variant's steps, as in its provenance.
        preprocessing: The preprocessing of the data for the evaluation.
        speed_up: The baseline's latency divided by the variant's, measured.
        latency_s: The variant's latency, seconds.
        agreement: Share of samples with the baseline's top-1 answer, and the number of samples.
        accuracy: The variant's accuracy and the baseline's.
        sqnr_db: Layer → signal-to-noise ratio of its output against the baseline's, dB.
        clipped: Layer → share of its values outside its range.
        dead: Layer → share of its range that is never used.
        batch_error: Largest relative difference between a batch and its samples one by one.
        output_db: Output → signal-to-noise ratio against the baseline's, dB, with the outputs that the runtime really
            gives; infinite if they are equal.
        methods: The methods for a model of the baseline's format; None if unknown, and no method is advised.
        microcontroller_need: The memory that the model needs on a microcontroller; None if unknown.
        cycles: The cycles of one inference that a maker's compiler estimates for the maker's processors.
        costly: ``option=value`` of the runtime → its description, and the seconds of a call by default and with it.
        resident: ``option=value`` of the runtime → its description, and the resident bytes by default and with it.
        stages: For a pipeline: stage → its mean seconds in a frame.
        baseline_stages: The same of the baseline.
        stage_models: The stages whose models are parameters.
        engine: The engine for which a quantised model was prepared and the one that runs it, if these can differ.
    """

    graph: Graph | None = None
    baseline: Graph | None = None
    size: tuple[int, int] | None = None
    baseline_size: tuple[int, int] | None = None
    instructions: str | None = None
    arch: str = ""
    recipe: Sequence[Mapping[str, Any]] = ()
    preprocessing: str | None = None
    speed_up: float | None = None
    latency_s: float | None = None
    agreement: tuple[float, int] | None = None
    accuracy: tuple[float, float] | None = None
    sqnr_db: Mapping[str, float] = field(default_factory=dict)
    clipped: Mapping[str, float] = field(default_factory=dict)
    dead: Mapping[str, float] = field(default_factory=dict)
    batch_error: float | None = None
    output_db: Mapping[str, float] = field(default_factory=dict)
    methods: Methods | None = None
    engine: tuple[str, str] | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    baseline_stages: Mapping[str, float] = field(default_factory=dict)
    stage_models: Sequence[str] = ()
    microcontroller_need: MicrocontrollerNeed | None = None
    cycles: Sequence[CycleEstimate] = ()
    costly: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    resident: dict[str, tuple[str, int, int]] = field(default_factory=dict)
