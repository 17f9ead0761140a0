"""What is said of a workload that was measured at several rates or with several streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Loads, Variant, Workload


def load_lines(variants: Sequence[Variant]) -> list[str]:
    """For each variant with several loads: joules at each, the rate that it keeps, and what another stream takes."""
    lines = []
    for variant in variants:
        if variant.loads is None:
            continue
        rated = [workload for workload in variant.workloads if workload.rate_hz is not None]
        sentences = [
            f"{_joules_by_rate(rated)}; {_rates_kept(variant.loads, rated[0].unit)}",
            *_stream_cost(variant.loads),
        ]
        lines.append(f"{variant.name}: {'. '.join(sentences)}.")
    return lines


def _joules_by_rate(rated: Sequence[Workload]) -> str:
    """``one frame takes 0.81 ± 0.02 J at 5/s, 0.42 ± 0.01 J at 15/s``."""
    several = len({workload.streams for workload in rated}) > 1
    parts = []
    for workload in rated:
        figure = workload.energy_j_per_unit.gross if workload.energy_j_per_unit is not None else None
        known = figure is not None and figure.value is not None
        joules = units.plus_minus(figure.value, figure.expanded_uncertainty, "J") if figure and known else "–"
        streams = f" × {workload.streams}" if several else ""
        parts.append(f"{joules} at {units.significant(workload.rate_hz or 0.0)}/s{streams}")
    return f"one {rated[0].unit} takes {', '.join(parts)}"


def _rates_kept(loads: Loads, unit: str) -> str:
    """``15/s is kept, and 30/s saturates it, where 22.4 frames/s are done``, for each number of streams."""
    several = len(loads.saturation) > 1
    parts = []
    for saturation in loads.saturation:
        rate = "no rate" if saturation.kept_hz is None else f"{units.significant(saturation.kept_hz)}/s"
        limit = ", and no rate saturates it"
        if saturation.saturated_hz is not None and saturation.achieved_per_s is not None:
            done = f"{units.significant(saturation.achieved_per_s)} {unit}s/s are done"
            limit = f", and {units.significant(saturation.saturated_hz)}/s saturates it, where {done}"
        streams = f"with {saturation.streams} stream{'s' if saturation.streams > 1 else ''} " if several else ""
        parts.append(f"{streams}{rate} is kept{limit}")
    return "; ".join(parts)


def _stream_cost(loads: Loads) -> list[str]:
    if loads.stream_power_w is None or loads.stream_power_ci95 is None or loads.stream_rate_hz is None:
        return []
    low, high = loads.stream_power_ci95
    power = units.plus_minus(loads.stream_power_w, (high - low) / 2, "W")
    return [f"Each further stream takes {power} at {units.significant(loads.stream_rate_hz)}/s"]
