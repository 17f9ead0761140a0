"""The uncertainty between runs: how much two runs of the same variant differ without a cause in the variant.

All windows of a run share the conditions of its start: the layout of memory, other loaded programs, the temperature of
the room. Another run has other conditions, and no window of the first run shows how much that matters. Repeated runs
show it; without them a value is assumed.
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

#: Relative standard uncertainty of a figure from one run to the next, assumed if it was not measured.
STATED = 0.01
#: Fewest runs of a variant that measure the uncertainty. Two may be the runs before and after a change.
_LEAST_RUNS = 3


@dataclass(frozen=True)
class BetweenRuns:
    """The uncertainty between runs.

    Attributes:
        u: Relative standard uncertainty of the figure of one run.
        runs: Number of runs that it was measured from; 0 if it is assumed.
        freedom: Degrees of freedom of ``u``.
    """

    u: float = STATED
    runs: int = 0
    freedom: float = math.inf

    def component(self) -> Component:
        """The component of the ratio of two runs, each of which has the uncertainty ``u``."""
        return Component("model", math.sqrt(2) * self.u, self.freedom)

    def as_json(self) -> dict[str, object]:
        return {"u": self.u, "runs": self.runs, "measured": self.runs > 0}

    def sentence(self) -> str:
        """Say what the intervals allow for, and where the value comes from."""
        share = f"{100 * self.u:.2g} %"
        if self.runs:
            return f"the intervals include that runs differ by {share} (standard deviation of {self.runs} stored runs)"
        return f"the intervals contain an assumed {share} between runs; three stored runs of one variant measure it"


def between_runs(compared: Sequence[Result], repeats: Iterable[Result]) -> BetweenRuns:
    """Estimate the uncertainty between runs: the standard deviation pooled over all variants, or the assumed value.

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
