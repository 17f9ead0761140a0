"""Operators that are measured alone: the windows of each, in turns with the whole model, and their sum.

An operator alone differs from the same operator in its place: its inputs and weights are in the cache, and nothing
runs before it or beside it (docs/runtimes.md). Therefore the whole model is measured in the same turns, and what the
operators do not explain is given too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprof.benchmark.records import WorkloadRecord
from edgeprof.energy.figures import unknown_figure
from edgeprof.energy.stages import rest_energy
from edgeprof.energy.uncertainty import mean_and_error, t_quantile
from edgeprof.errors import VariantError
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.energy.figures import Quote, Statistic
    from edgeprof.launch.supervisor import Worker
    from edgeprof.worker.runtime import OperatorProfile
    from edgeprof.worker.scenario import Scenario
    from edgeprof.worker.workload import Workload

#: Operators that are measured alone by default.
KEPT = 3


def longest(profile: OperatorProfile, count: int) -> list[str]:
    """Return the names of the operators that take the most time, the longest first."""
    ordered = sorted(profile.operators, key=lambda operator: -operator.seconds)
    return [operator.name for operator in ordered[:count]]


def workload_records(
    worker: Worker, whole: Workload, names: Sequence[str], load: Scenario
) -> tuple[list[WorkloadRecord], list[schema.Reason]]:
    """Cut operators out of a loaded model.

    Args:
        worker: The worker that has loaded the model.
        whole: The main workload of the model.
        names: The operators.
        load: How each window repeats its calls.

    Returns:
        The records of the whole model and of each operator, all back to back; and a remark for each operator that
        cannot be run alone.

    Raises:
        VariantError: No operator can be run alone.
    """
    isolated = worker.isolate(names)
    if isolated is None:
        raise VariantError("its runtime cannot cut operators out of a model", code=Code.NO_PROFILE)
    remarks = [_remark(f"the operator {name} is not measured alone: {why}") for name, why in isolated.refused.items()]
    if not isolated.workloads:
        raise VariantError(remarks[0].message if remarks else "it has no operators", code=Code.NO_PROFILE)
    return [WorkloadRecord(workload, scenario=load) for workload in (whole, *isolated.workloads)], remarks


def missing(error: VariantError) -> schema.Reason:
    """Return the remark on a variant whose operators could not be measured alone."""
    return _remark(f"no operator was measured alone: {error.message}", error.remedy)


def _remark(message: str, remedy: str | None = None) -> schema.Reason:
    return schema.Reason(code=Code.NO_PROFILE, message=message, remedy=remedy)


def add_findings(
    row: schema.Variant, alone: VariantRecord, figures: Sequence[tuple[schema.Workload, Quote]], statistic: Statistic
) -> None:
    """Add the operators' own figures to their rows, and their sum.

    Args:
        row: The variant of the result, with its profiled operators.
        alone: The record of the whole model and of each operator.
        figures: The figures of each of its workloads, in the same order, with the quotes of their joules.
        statistic: Which statistic of the windows is quoted.
    """
    by_name = {operator.name: operator for operator in row.operators}
    batch = figures[0][0].units_per_call
    seconds = [
        [float(np.mean(window.latencies)) * batch / workload.units_per_call for window in record.windows]
        for record, (workload, _) in zip(alone.workloads, figures, strict=True)
    ]
    measured = [_figures(times, workload) for times, (workload, _) in zip(seconds, figures, strict=True)]
    for (workload, quote), its_figures in zip(figures[1:], measured[1:], strict=True):
        operator = by_name[workload.name]
        operator.isolated, operator.method = its_figures, "isolated"
        row.reasons += _withheld(workload.name, quote)
    row.reasons += _withheld("the whole model between them", figures[0][1])
    rests_s = [whole_s - sum(parts_s) for whole_s, *parts_s in zip(*seconds, strict=True)]
    row.isolated_sum = schema.IsolatedSum(
        operators=len(measured) - 1,
        whole=measured[0],
        rest_s=mean_and_error(rests_s)[0],
        rest_s_ci95=_interval(rests_s),
        rest_j=_rest_joules(measured, statistic),
    )


def _figures(seconds: Sequence[float], workload: schema.Workload) -> schema.IsolatedFigures:
    return schema.IsolatedFigures(mean_and_error(seconds)[0], _interval(seconds), workload.energy_j_per_unit)


def _interval(seconds: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over the windows; None for a single one."""
    mean, error = mean_and_error(seconds)
    if error is None:
        return None
    half = t_quantile(0.975, len(seconds) - 1) * error
    return mean - half, mean + half


def _rest_joules(measured: Sequence[schema.IsolatedFigures], statistic: Statistic) -> schema.EnergyFigure:
    energies = [figures.energy_j.gross for figures in measured if figures.energy_j is not None]
    if len(energies) < len(measured) or any(energy.value is None for energy in energies):
        return unknown_figure()
    return rest_energy(energies[0], energies[1:], statistic)


def _withheld(name: str, quote: Quote) -> Iterator[schema.Reason]:
    """Yield a remark if the joules of an operator's windows are not quoted; the variant itself is not affected."""
    if quote.value is None and quote.reasons and quote.energy.gross.windows:
        yield _remark(f"{name} has no joules of its own: {quote.reasons[0].message}", quote.reasons[0].remedy)
