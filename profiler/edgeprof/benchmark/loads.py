"""One workload under several loads: joules per frame at each rate, the rate at which it saturates, watts per camera.

All functions are pure.
"""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.benchmark.records import WorkloadRecord
from edgeprof.energy.uncertainty import Component, combine_components
from edgeprof.results import schema
from edgeprof.worker.scenario import SATURATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.worker.scenario import Scenario
    from edgeprof.worker.workload import Workload


def records(workload: Workload, scenario: Scenario, further: Sequence[tuple[float, int]]) -> list[WorkloadRecord]:
    """Return the workload at the scenario's own rate and streams and at further ones; each name contains its load."""
    scenarios = [scenario, *(scenario._replace(rate_hz=rate, streams=streams) for rate, streams in further)]
    with_streams = len({load.streams for load in scenarios}) > 1
    return [
        WorkloadRecord(
            workload._replace(name=_load_name(workload.name, load, with_streams=with_streams)),
            scenario=load,
            asked=workload.name,
        )
        for load in scenarios
    ]


def _load_name(name: str, scenario: Scenario, *, with_streams: bool) -> str:
    """Return a name such as ``frame at 15/s`` or ``frame at 15/s × 2 streams``."""
    streams = f" × {scenario.streams} stream{'s' if scenario.streams > 1 else ''}" if with_streams else ""
    return f"{name} at {units.significant(scenario.rate_hz or 0.0)}/s{streams}"


def are_several(record: VariantRecord) -> bool:
    """Return whether a variant's main workload was measured under several loads."""
    return len(_of_main(record)) > 1


def add_findings(row: schema.Variant, record: VariantRecord) -> None:
    """Fill ``loads`` of a variant that was measured under several loads; do nothing for any other variant."""
    measured = [load for load in _of_main(record) if load.windows]
    if not are_several(record) or not measured:
        return
    by_streams = {
        count: [load for load in measured if _stream_count(load) == count] for count in map(_stream_count, measured)
    }
    row.loads = schema.Loads([_find_saturation(count, alike) for count, alike in sorted(by_streams.items())])
    _add_stream_power(row, [load for load in measured if not _is_saturated(load)])


def _find_saturation(streams: int, measured: Sequence[WorkloadRecord]) -> schema.Saturation:
    """Return which rates this number of streams sustained."""
    kept_hz = max((_rate_hz(load) for load in measured if not _is_saturated(load)), default=None)
    saturation = schema.Saturation(streams, kept_hz)
    # A rate below one that was kept was disturbed by other programs, and not too high.
    saturated = (load for load in measured if _is_saturated(load) and _rate_hz(load) > (kept_hz or 0.0))
    lowest = min(saturated, key=_rate_hz, default=None)
    if lowest is not None:
        saturation.saturated_hz = _rate_hz(lowest)
        saturation.achieved_per_s = fmean(window.achieved_hz for window in lowest.windows)
    return saturation


def _add_stream_power(row: schema.Variant, unsaturated: Sequence[WorkloadRecord]) -> None:
    """Add the watts of each further stream, from the alternating windows with the most and with the fewest streams."""
    assert row.loads is not None
    for rate in sorted({_rate_hz(load) for load in unsaturated}, reverse=True):
        alike = sorted((load for load in unsaturated if _rate_hz(load) == rate), key=_stream_count)
        more = _stream_count(alike[-1]) - _stream_count(alike[0])
        if not more:
            continue
        fewest, most = (_workload_named(row, load.workload.name) for load in (alike[0], alike[-1]))
        pairs = [(a.mean_power_w, b.mean_power_w) for a, b in zip(fewest.windows, most.windows, strict=False)]
        watts = [(b - a) / more for a, b in pairs if a is not None and b is not None]
        if len(watts) < 2 or most.energy_j_per_unit is None:
            continue
        gross = most.energy_j_per_unit.gross
        gain = (gross.budget.gain or 0.0) / gross.value if gross.budget and gross.value else 0.0
        mean = fmean(watts)
        total = combine_components(
            [
                Component("repeatability", stdev(watts) / len(watts) ** 0.5, len(watts) - 1),
                Component("gain", abs(mean) * gain, rectangular=True),
            ]
        )
        row.loads.stream_power_w, row.loads.stream_rate_hz = mean, rate
        row.loads.stream_power_ci95 = (mean - total.expanded, mean + total.expanded)
        return


def _of_main(record: VariantRecord) -> list[WorkloadRecord]:
    """Return the records of the main workload that have a rate."""
    asked = record.main.asked
    return [load for load in record.workloads if load.asked == asked and load.scenario and load.scenario.rate_hz]


def _workload_named(row: schema.Variant, name: str) -> schema.Workload:
    return next(workload for workload in row.workloads if workload.name == name)


def _is_saturated(record: WorkloadRecord) -> bool:
    due = sum(window.due or 0 for window in record.windows)
    return sum(window.calls for window in record.windows) < SATURATION * due


def _rate_hz(record: WorkloadRecord) -> float:
    return (record.scenario and record.scenario.rate_hz) or 0.0


def _stream_count(record: WorkloadRecord) -> int:
    return record.scenario.threads if record.scenario is not None else 1
