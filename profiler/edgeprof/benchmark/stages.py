"""The part of a result that only a pipeline has: its stages with times and joules, and the rest of a frame.

All functions are pure.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgeprof import units
from edgeprof.benchmark import latency, loads
from edgeprof.benchmark.language import summarise
from edgeprof.benchmark.records import WorkloadRecord
from edgeprof.energy.stages import marginal_energy, rest_energy
from edgeprof.energy.uncertainty import mean_and_error, t_quantile
from edgeprof.reasons import Code
from edgeprof.results import schema
from edgeprof.results.schema import Reason
from edgeprof.worker.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from edgeprof.benchmark.plan import Plan
    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.launch.loaded import Loaded

#: The workload that a stage's windows are compared with, if the frames come at a rate or in several streams.
BACK_TO_BACK = "frame back to back"
#: A stage behaves differently alone or repeated if its time there differs by more than this share from that in place.
DIFFERS = 0.15
#: A rate above this multiple of the source's rate exceeds the source.
FASTER = 1.02
#: A shorter difference (s) is due to the clock and the call itself.
LEAST_DIFFERENCE_S = 20e-6


def workload_records(
    loaded: Loaded, scenario: Scenario, further: Sequence[tuple[float, int]] = ()
) -> list[WorkloadRecord]:
    """Return the records of a loaded model's workloads, the main workload first.

    The stages of a pipeline are separated by windows without pauses, whatever the scenario of its frames is.

    Args:
        loaded: The model.
        scenario: The scenario of the main workload.
        further: More rates and streams of the main workload.
    """
    records = [WorkloadRecord(workload) for workload in loaded.workloads]
    if further:
        records[:1] = loads.records(records[0].workload, scenario, further)
    if loaded.pipeline is None or scenario.name in {"single-stream", "offline"}:
        return records
    closed = Scenario(batch=scenario.batch, seed=scenario.seed)
    frame = loaded.workloads[0]
    between = WorkloadRecord(frame._replace(name=BACK_TO_BACK), scenario=closed, asked=frame.name)
    count = len(further) + 1
    for record in records[count:]:
        record.scenario = closed
    return [*records[:count], between, *records[count:]]


def add_findings(row: schema.Variant, record: VariantRecord, plan: Plan) -> None:
    """Fill ``stages`` and ``pipeline`` of a variant that is a pipeline; do nothing for any other model.

    The workloads of the stages, which were measured as frames with repetitions, become workloads of one stage call.
    """
    facts = record.loaded.pipeline if record.loaded is not None else None
    if facts is None or not row.workloads:
        return
    blocks = [times for times in record.main.stage_times if len(times)]
    times = np.concatenate(blocks) if blocks else np.zeros((0, len(facts["stages"])))
    by_name = {workload.name: workload for workload in row.workloads}
    whole = by_name.get(BACK_TO_BACK, row.workloads[0])
    row.reasons += [Reason(code=Code.CLIP_SHORTENED, message=str(note)) for note in facts["notes"]]
    row.reasons += beyond_source(facts, [workload.rate_hz for workload in row.workloads if workload.rate_hz])
    for index, asked in enumerate(facts["stages"]):
        stage = _timed_stage(asked, times, index)
        row.stages.append(stage)
        repeated = by_name.get(stage.name)
        if repeated is None:
            continue
        _set_stage_joules(stage, whole, repeated, plan)
        by_name[stage.name] = _as_calls(stage, repeated, [block[:, index] for block in blocks])
        in_place_s = [float(np.median(block[:, index])) for block in blocks]
        row.reasons += differences(stage, _repeated_seconds(whole, repeated, stage.repeats or 1), in_place_s)
    row.workloads = list(by_name.values())
    row.reasons += _stage_refusals(row.stages)
    row.pipeline = schema.Pipeline(
        source=str(facts["source"]),
        frames=int(facts["frames"]),
        rest=_joules_outside_stages(row.stages, whole, plan),
        rest_s=_rest_seconds(whole, times),
    )


def beyond_source(facts: Mapping[str, Any], rates: Sequence[float]) -> Iterator[Reason]:
    """Yield a reason if frames were requested at a higher rate than the source provides."""
    given_hz, asked_hz = facts["rate_hz"], max(rates, default=0.0)
    if given_hz is not None and asked_hz > FASTER * given_hz:
        yield Reason(
            Code.RATE_BEYOND_SOURCE,
            f"{facts['source']} gives {units.significant(given_hz)} frames a second, and was replayed at "
            f"{units.significant(asked_hz)}",
            "Lower --rate to what the camera gives.",
        )


def _timed_stage(asked: Mapping[str, Any], times: npt.NDArray[np.float64], index: int) -> schema.Stage:
    """Return a stage with its times in place; its joules are still unknown."""
    total = float(times.sum())
    is_repeated = asked["trouble"] is None
    return schema.Stage(
        name=str(asked["name"]),
        calls_per_frame=1.0,
        seconds=summarise(times[:, index]),
        alone_s=asked["alone_s"],
        frame_share=float(times[:, index].sum()) / total if total > 0 else None,
        method="repeat" if is_repeated else "time-share",
        repeats=int(asked["repeats"]) if is_repeated else None,
        reason=None if is_repeated else str(asked["trouble"]),
    )


def _set_stage_joules(stage: schema.Stage, whole: schema.Workload, repeated: schema.Workload, plan: Plan) -> None:
    """Set the joules of one call of a stage, from the windows with and without its repetition."""
    frame, more = whole.energy_j_per_unit, repeated.energy_j_per_unit
    if frame is None or more is None or not frame.gross.windows or not stage.repeats:
        stage.reason = "nothing measured the energy of its windows"
        return
    stage.energy_j_per_call = schema.StageEnergy(
        provenance=more.provenance,
        rail=more.rail,
        covers=more.covers,
        gross=marginal_energy(frame.gross, more.gross, stage.repeats, plan.statistic),
        net=marginal_energy(frame.net, more.net, stage.repeats, plan.statistic),
    )
    stage.separable = stage.energy_j_per_call.gross.value is not None
    if not stage.separable:
        stage.reason = "its joules are not separable: their standard uncertainty is above 20 % of them"


def _as_calls(
    stage: schema.Stage, repeated: schema.Workload, blocks: Sequence[npt.NDArray[np.float64]]
) -> schema.Workload:
    """Return the workload of a stage with its figures for one call, as tables and comparisons read them.

    Args:
        stage: The stage, with its joules.
        repeated: The measured workload, whose frames repeat the stage.
        blocks: For each window of frames, the seconds of the stage in place.
    """
    energy = stage.energy_j_per_call
    joules = dict(enumerate(energy.gross.windows if energy is not None else []))
    medians = dict(enumerate(float(np.median(block)) for block in blocks))
    windows = [
        msgspec.structs.replace(
            window, inferences=1, energy_j=joules.get(n), mean_power_w=None, latency_median_s=medians.get(n)
        )
        for n, window in enumerate(repeated.windows)
    ]
    return msgspec.structs.replace(
        repeated,
        count=sum(len(block) for block in blocks),
        energy_j_per_unit=None if energy is None else schema.Energy(**msgspec.structs.asdict(energy)),
        latency_s=latency.summarise(blocks) if blocks else None,
        throughput_per_s=None,
        windows=windows,
    )


def _repeated_seconds(whole: schema.Workload, repeated: schema.Workload, repeats: int) -> list[float]:
    """Return, for each pair of windows, the seconds that one repetition added to the median frame."""
    pairs = zip(repeated.windows, whole.windows, strict=False)
    medians = [(after.latency_median_s, before.latency_median_s) for after, before in pairs]
    return [(after - before) / repeats for after, before in medians if after is not None and before is not None]


def differences(stage: schema.Stage, repeated_s: Sequence[float], in_place_s: Sequence[float]) -> Iterator[Reason]:
    """Yield a reason if the stage takes a different time alone, or when it is repeated, than in place.

    Args:
        stage: The stage, with its times.
        repeated_s: Seconds of a repeated call, one value per pair of windows.
        in_place_s: Median seconds of a call in place, one value per window.
    """
    if not in_place_s:
        return
    for how, seconds in (("alone", [] if stage.alone_s is None else [stage.alone_s]), ("repeated", repeated_s)):
        if not seconds or min(seconds) <= 0:
            continue  # a call takes time, so a difference ≤ 0 only shows how much the windows themselves vary
        slack = max(DIFFERS * fmean(in_place_s), LEAST_DIFFERENCE_S)
        if how == "repeated":
            _, error_s = mean_and_error(seconds)
            if error_s is None:
                continue  # without its spread, the difference of two windows means nothing
            slack += t_quantile(0.975, len(seconds) - 1) * error_s
        # A real difference appears in every window; a single window may have been disturbed by another program.
        if min(seconds) <= max(in_place_s) + slack and max(seconds) >= min(in_place_s) - slack:
            continue
        yield Reason(
            Code.STAGE_DIFFERS,
            f"{stage.name} takes {units.quantity(fmean(in_place_s), 's')} in place and "
            f"{units.quantity(fmean(seconds), 's')} {how}: caches, threads or overlap make the difference",
            "Its joules are those of a repeated call." if how == "repeated" else None,
        )


def _stage_refusals(stages: Sequence[schema.Stage]) -> Iterator[Reason]:
    """Yield a reason for each stage without joules or with joules that are not separable."""
    for stage in stages:
        if stage.method == "time-share":
            remedy = "Let it depend on its input alone; else edgeprof.stage tells its times in your own program."
            yield Reason(Code.NOT_REPEATABLE, f"{stage.reason}: it has times and no joules", remedy)
        elif stage.energy_j_per_call is not None and not stage.separable:
            remedy = "Use more or longer windows: --windows K --window S."
            yield Reason(Code.NOT_SEPARABLE, f"{stage.name}: {stage.reason}", remedy)


def _joules_outside_stages(
    stages: Sequence[schema.Stage], whole: schema.Workload, plan: Plan
) -> schema.EnergyFigure | None:
    """Return the joules of a frame outside its stages; None if a stage's joules are unknown."""
    energies = [stage.energy_j_per_call for stage in stages]
    known = [energy.gross for energy in energies if energy is not None and energy.gross.windows]
    if whole.energy_j_per_unit is None or len(known) < len(stages):
        return None
    return rest_energy(whole.energy_j_per_unit.gross, known, plan.statistic)


def _rest_seconds(whole: schema.Workload, times: npt.NDArray[np.float64]) -> float | None:
    """Return the mean seconds of a frame outside its stages."""
    if whole.latency_s is None or not len(times):
        return None
    return whole.latency_s.mean - float(times.sum(axis=1).mean())
