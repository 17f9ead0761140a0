"""The operators of a model by time: the profile of a separate run, as shares of the measured latency and joules.

The joules are an attribution by time and not a measurement: an operator gets its share of them as if each operator drew
the mean power. If operators differ in power, those of low power get several times their energy (docs/runtimes.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError
from edgeprof.launch.supervisor import Worker
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.launch.supervisor import WorkerSpec
    from edgeprof.worker.runtime import OperatorProfile, OperatorTime

#: Operators that a result keeps by default.
KEPT = 10
#: How long a model is profiled, approximately (s).
SECONDS = 1.0
#: The name of the time outside all operators: starting them, moving data, the library's harness.
OUTSIDE = "outside of all operators"


def look_into(spec: WorkerSpec, runtime: str) -> tuple[OperatorProfile | None, list[schema.Reason]]:
    """Profile a model in a separate worker, which is then discarded; return the profile, or the reason for its absence.

    Args:
        spec: The worker with which the model was measured.
        runtime: The name of the runtime, for the reason.
    """
    try:
        with Worker(spec) as worker:
            worker.load()
            profile = worker.profile(SECONDS)
        missing = f"the runtime {runtime} has no profiler of operators"
    except EdgeprofError as error:
        profile, missing = None, error.message
    if profile is not None:
        return profile, []
    return None, [schema.Reason(code=Code.NO_PROFILE, message=f"where its time goes cannot be told: {missing}")]


def add_findings(row: schema.Variant, record: VariantRecord, most_rows: int) -> None:
    """Add what was measured outside the windows: the operators, and the memory needed on a microcontroller.

    Args:
        row: The variant of the result, with latency and joules.
        record: The record of the same variant.
        most_rows: How many operators get their own row.
    """
    if record.profile is not None:
        energy, latency_s = row.energy_j_per_inference, row.latency_s
        mean_s, joules = latency_s.mean if latency_s else None, energy.gross.value if energy else None
        row.operators = operators_of(record.profile, most_rows, mean_s, joules)
    if record.microcontroller_need is not None:
        row.microcontroller_need = schema.MicrocontrollerNeed(**record.microcontroller_need._asdict())


def operators_of(
    profile: OperatorProfile, most_rows: int, latency_s: float | None, energy_j: float | None
) -> list[schema.Operator]:
    """Return the slowest operators, the sum of the others, and the time outside all operators; the shares sum to 1.

    Operators that run concurrently may together take longer than the call. Their times are then scaled down to it, and
    the time outside is 0.

    Args:
        profile: The profile, from a run that may be slower than the windows.
        most_rows: How many operators get their own row.
        latency_s: Mean seconds of a call in the windows; None if unknown.
        energy_j: Gross joules of an inference in the windows; None if unknown.
    """
    ordered = sorted(profile.operators, key=lambda operator: -operator.seconds)
    inside_s = sum(operator.seconds for operator in ordered)
    whole_s = max(profile.seconds, inside_s)
    if not inside_s > 0:
        return []
    rows: list[tuple[str, str | None, float]] = [
        (operator.name, operator.type, operator.seconds) for operator in ordered[:most_rows]
    ]
    others = ordered[most_rows:]
    if others:
        rows.append(
            (f"{len(others)} other operators", _common_type(others), sum(operator.seconds for operator in others))
        )
    rows.append((OUTSIDE, None, whole_s - inside_s))
    return [
        schema.Operator(
            name=name,
            type=kind,
            share=seconds / whole_s,
            seconds=None if latency_s is None else seconds / whole_s * latency_s,
            energy_j_attributed=None if energy_j is None else seconds / whole_s * energy_j,
        )
        for name, kind, seconds in rows
    ]


def _common_type(operators: Sequence[OperatorTime]) -> str | None:
    """Return the type that all operators have; None if they have several."""
    types = {operator.type for operator in operators}
    return types.pop() if len(types) == 1 else None
