"""What a diagnosis knows, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.diagnosis.advice import Methods
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import MicrocontrollerNeed

Status = Literal["fail", "warn", "unknown", "ok"]

#: The gravest first; what cannot be told is said before what is fine.
ORDER: dict[Status, int] = {"fail": 0, "warn": 1, "unknown": 2, "ok": 3}


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        check: Its name.
        status: ``fail``: this is why; ``warn``: it costs something; ``unknown``: it cannot be
            told, and the sentence says why; ``ok``.
        number: What was measured or counted.
        unit: Of the number: ``ratio``, ``dB``, ``samples`` …
        threshold: What the number is held against.
        sentence: With the number.
        fix: What to do about it.
        weight: How much it explains; the headline is the heaviest failure.
        chain: The next step that ``fix`` names, as ``--with`` takes it; None where it is no method.
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
    """Everything that is known; leave out what is not.

    Attributes:
        graph: Of the variant, as executed.
        baseline: Of what it came from.
        size: Bytes of the variant, plain and zipped.
        baseline_size: Of the baseline.
        instructions: What the CPU has of ``dot`` (8-bit dot products): their name, or "" for none; None: unknown.
        arch: Machine, for messages.
        recipe: The variant's steps, as in its provenance.
        preprocessing: Of the data that it is judged on.
        speed_up: Baseline's latency over the variant's, measured.
        latency_s: Of the variant.
        agreement: Share of samples with the baseline's top-1 answer, and how many samples.
        accuracy: Variant's and baseline's.
        sqnr_db: Layer → signal to noise of its output against the baseline's.
        clipped: Layer → share of its values outside its range.
        dead: Layer → share of its range that is never used.
        batch_error: Largest relative difference between a batch and its samples one by one.
        output_db: Output → signal to noise against the baseline's, as the runtime really gives them; infinite: equal.
        methods: What can be done with a model of the baseline's format; None: unknown, and no method is advised.
        microcontroller_need: What the model needs of one; None: unknown.
        costly: ``option=value`` of the runtime → what it is, the seconds of a call by default, and with it.
        engine: The backend that a quantised model was prepared for and the one that runs it, where these can differ.
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
    microcontroller_need: MicrocontrollerNeed | None = None
    costly: dict[str, tuple[str, float, float]] = field(default_factory=dict)
