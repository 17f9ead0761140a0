"""How far two runs of one thing differ for no reason of its own: what a comparison of two results must allow for.

Windows of one run share its start: where memory lay, what else was loaded, how warm the room was. Another run draws all
that anew, and no window of the first shows by how much. Repeats show it; without them a value is stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import Component
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.results.schema import Result, Variant

#: Standard uncertainty of a figure from one run to the next where nothing is known of it (relative).
STATED = 0.01
#: So many runs of one variant say how far its runs differ; of two it may be what changed between them that does.
_LEAST_RUNS = 3


@dataclass(frozen=True)
class BetweenRuns:
    """What one run differs by from another.

    Attributes:
        u: Standard uncertainty of one run's figure, relative.
        runs: How many repeats it was measured from; 0 where it is stated.
        freedom: Degrees of freedom of ``u``.
    """

    u: float = STATED
    runs: int = 0
    freedom: float = math.inf

    def component(self) -> Component:
        """For the ratio of two runs: both draw it."""
        return Component("model", math.sqrt(2) * self.u, self.freedom)

    def as_json(self) -> dict[str, object]:
        return {"u": self.u, "runs": self.runs, "measured": self.runs > 0}

    def sentence(self) -> str:
        """What was allowed for, and where it comes from."""
        share = f"{100 * self.u:.2g} %"
        if self.runs:
            return f"runs differ by {share} (standard deviation of {self.runs} stored runs), which the intervals hold"
        return f"{share} between runs is assumed and in the intervals; three stored runs of one variant measure it"


def between_runs(compared: Sequence[Result], repeats: Iterable[Result]) -> BetweenRuns:
    """The standard deviation from run to run of what is compared, pooled over its variants; else the stated one.

    Args:
        compared: The two results.
        repeats: Other results; those of the same device, protocol and model files count.
    """
    groups: dict[tuple[object, ...], dict[str, float]] = {}
    wanted = {_pairing_key(result, variant) for result in compared for variant in result.variants}
    for result in [*compared, *repeats]:
        for variant in result.variants:
            joules = _figure_of(variant)
            if joules is not None and _pairing_key(result, variant) in wanted:
                groups.setdefault(_pairing_key(result, variant), {})[result.id] = math.log(joules)
    squares, freedom = 0.0, 0
    repeated = [figures for figures in groups.values() if len(figures) >= _LEAST_RUNS]
    for figures in repeated:
        mean = math.fsum(figures.values()) / len(figures)
        squares += math.fsum((figure - mean) ** 2 for figure in figures.values())
        freedom += len(figures) - 1
    if not freedom:
        return BetweenRuns()
    runs = len({run for figures in repeated for run in figures})
    return BetweenRuns(math.sqrt(squares / freedom), runs, freedom)


def _pairing_key(result: Result, variant: Variant) -> tuple[object, ...]:
    protocol = result.protocol
    return (
        result.host.fingerprint, variant.model.sha256 or schema.model_name(variant.model), variant.name,
        (variant.runtime.name, variant.runtime.version, variant.runtime.device) if variant.runtime else None,
        protocol.scenario, protocol.batch, protocol.threads, protocol.rate_hz, protocol.streams, protocol.queue,
    )  # fmt: skip


def _figure_of(variant: Variant) -> float | None:
    energy = variant.energy_j_per_inference
    value = energy.gross.value if energy is not None else None
    if value is None and variant.latency_s is not None:
        value = variant.latency_s.p50 or variant.latency_s.mean
    return value if value and value > 0 else None
