"""Times and joules of the stages that a program marked, by regression of the sensors' readings. Pure.

A stage is much shorter than most sensors can resolve. ``online.stage_regression`` describes how its power is determined
nevertheless, and when that is impossible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.online.stage_regression import fit_stages, shape_of
from edgeprof.energy.online.stage_timeline import Ran, Timeline
from edgeprof.energy.stages import MOST_RELATIVE_U
from edgeprof.energy.uncertainty import RECTANGULAR, Component, combine_components
from edgeprof.provenance import worst
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from edgeprof.energy.online.stage_regression import Power, StageFit
    from edgeprof.energy.recording import Recording
    from edgeprof.sensing.sensor import Channel
    from edgeprof.stage_rings import StageRings, StageSpan
    from edgeprof.staging import Key

#: The stage that contains all others of a frame; calls are counted per frame.
FRAME = "frame"
#: The most names in one reason.
_MOST_NAMED = 5


@dataclass(frozen=True)
class StageReport:
    """The stages of a program.

    Attributes:
        stages: The stages, in the order in which they first ended.
        reasons: What limits their figures.
    """

    stages: list[schema.Stage] = field(default_factory=list)
    reasons: list[schema.Reason] = field(default_factory=list)


@dataclass(frozen=True)
class _Draw:
    """The power (W) of one stage beyond the baseline, summed over the headline's channels."""

    watts: float
    components: list[Component]
    baseline_w: float
    baseline_components: list[Component]
    is_collinear: bool


def report_stages(recording: Recording, spans: Sequence[StageSpan], rings: StageRings | None = None) -> StageReport:
    """Times and joules of each stage.

    Args:
        recording: The recording of the sensors while the stages ran.
        spans: The spans of the stages.
        rings: The rings that the spans were read from, which know of lost and unfinished ones.
    """
    reasons = list(_marking_reasons(spans, rings))
    if not spans:
        return StageReport([], reasons)
    timeline = Timeline()
    timeline.add(Ran(span.key, span.start_s, span.end_s, span.thread) for span in spans)
    timeline.advance(max(span.end_s for span in spans))
    calls: dict[Key, list[float]] = {}
    for span in spans:
        calls.setdefault(span.key, []).append(span.end_s - span.start_s)
    headline = recording.topology.headline
    draws, why = _fit_draws(recording, timeline, spans)
    frames = len(calls.get((FRAME, "", "", ""), []))
    total_s = math.fsum(timeline.own_s.values())
    stages = []
    for key, seconds in calls.items():
        stage = schema.Stage(
            name=" ".join(part for part in key if part),
            calls_per_frame=len(seconds) / frames if frames else None,
            seconds=_time_statistics(seconds),
            frame_share=timeline.own_s.get(key, 0.0) / total_s if total_s else None,
            calls=len(seconds),
        )
        draw = draws.get(key)
        if draw is None:
            stage.reason = why or "more stages ran than can be told apart"
        else:
            _quote_stage(stage, draw, timeline, key)
            if stage.energy_j_per_call is not None:
                stage.energy_j_per_call.rail, stage.energy_j_per_call.covers = headline.rail, headline.covers
                stage.energy_j_per_call.provenance = worst([channel.provenance for channel in headline.channels])
        stages.append(stage)
    return StageReport(stages, [*reasons, *_refusal_reasons(stages)])


def _time_statistics(seconds: Sequence[float]) -> schema.TokenTime:
    values = np.asarray(seconds, float)

    def quantile(p: float) -> float | None:
        return float(np.quantile(values, p)) if values.size * (1 - p) >= 10 else None

    return schema.TokenTime(
        mean=float(values.mean()),
        p50=float(np.median(values)),
        p90=quantile(0.9),
        p99=quantile(0.99),
        samples=values.size,
    )


def _fit_draws(
    recording: Recording, timeline: Timeline, spans: Sequence[StageSpan]
) -> tuple[dict[Hashable, _Draw], str | None]:
    """The power of each stage from all channels of the headline; or an empty dict and the reason."""
    channels = recording.topology.headline.channels
    if not channels:
        return {}, recording.topology.headline.reason or "nothing measures power here"
    first_s, last_s = min(span.start_s for span in spans), max(span.end_s for span in spans)
    fits: list[tuple[Channel, StageFit]] = []
    for channel in channels:
        known = recording.series(channel).channel  # with the fitted filter
        read = recording.trace.readings(channel.key)
        readings = [
            (time_s, value)
            for time_s, value in zip(read.times, read.values, strict=True)
            if first_s - 5.0 <= time_s <= last_s and math.isfinite(value)
        ]
        fit = fit_stages(readings, timeline, shape_of(known))
        if fit is None:
            return {}, f"{channel.name} was read for too short a time: half a minute of stages is needed"
        fits.append((known, fit))
    return {key: _combine_fits(fits, key) for key in fits[0][1].powers}, None


def _combine_fits(fits: Sequence[tuple[Channel, StageFit]], key: Hashable) -> _Draw:
    powers: list[tuple[Channel, Power]] = [(channel, fit.powers[key]) for channel, fit in fits]
    baseline_w = math.fsum(fit.baseline_w for _, fit in fits)
    components = [Component("repeatability", power.u_w, power.degrees_of_freedom) for _, power in powers]
    offsets = []
    for channel, fit in fits:
        power = fit.powers[key]
        gain = _relative_gain(channel)
        components.append(Component("gain", gain * abs(power.watts), rectangular=True))
        level = (channel.offset_limit or 0.0) * RECTANGULAR if channel.quantity == "power" else 0.0
        offsets += [
            Component("offset", level, rectangular=True),
            Component("gain", gain * abs(fit.baseline_w), rectangular=True),
        ]
    return _Draw(
        watts=math.fsum(power.watts for _, power in powers),
        components=components,
        baseline_w=baseline_w,
        baseline_components=offsets,
        is_collinear=any(power.is_collinear for _, power in powers),
    )


def _relative_gain(channel: Channel) -> float:
    if channel.calibration is not None:
        return channel.calibration.u_gain / channel.calibration.gain
    return (channel.gain_limit or 0.0) * RECTANGULAR


def _quote_stage(stage: schema.Stage, draw: _Draw, timeline: Timeline, key: Key) -> None:
    """Set the joules of one call: net is the energy beyond the baseline, gross adds its part of the baseline."""
    assert stage.calls
    own_s, shared_s = timeline.own_s[key] / stage.calls, timeline.shared_s[key] / stage.calls
    stage.method = "regression"
    u_w = math.sqrt(math.fsum(c.u**2 for c in draw.components if c.name == "repeatability"))
    stage.separable = not draw.is_collinear and draw.watts > 0 and u_w <= MOST_RELATIVE_U * draw.watts
    if not stage.separable:
        stage.reason = (
            "it runs when the other stages run, so that its joules are not separable"
            if draw.is_collinear
            else "its joules are not separable: their standard error is above 20 % of them"
        )
    net = _stage_figure(draw.watts * own_s, [(draw.components, own_s)], quoted=stage.separable)
    joules = draw.watts * own_s + draw.baseline_w * shared_s
    gross = _stage_figure(
        joules, [(draw.components, own_s), (draw.baseline_components, shared_s)], quoted=not draw.is_collinear
    )
    if gross.value is not None and gross.expanded_uncertainty is not None:
        is_sure = gross.expanded_uncertainty <= 2 * MOST_RELATIVE_U * gross.value
        gross = gross if is_sure else _stage_figure(joules, [(draw.components, own_s)], quoted=False)
    stage.energy_j_per_call = schema.StageEnergy(provenance="none", rail=None, covers=None, gross=gross, net=net)


def _stage_figure(
    joules: float, parts: Sequence[tuple[Sequence[Component], float]], *, quoted: bool
) -> schema.EnergyFigure:
    scaled = [
        Component(part.name, part.u * seconds, part.nu, part.rectangular)
        for components, seconds in parts
        for part in components
    ]
    total = combine_components(scaled)
    return schema.EnergyFigure(
        value=joules if quoted else None,
        expanded_uncertainty=total.expanded if quoted else None,
        ci95=(joules - total.expanded, joules + total.expanded) if quoted else None,
        budget=total.budget,
        coverage_factor=total.k,
        degrees_of_freedom=None if math.isinf(total.nu) else total.nu,
    )


def _refusal_reasons(stages: Sequence[schema.Stage]) -> Iterator[schema.Reason]:
    for stage in stages:
        if stage.method == "regression" and not stage.separable:
            yield schema.Reason(
                Code.NOT_SEPARABLE,
                f"{stage.name}: {stage.reason}",
                "Run it longer, on input that changes; or make it an edgeprof.pipeline, whose stages are repeated.",
            )


def _marking_reasons(spans: Sequence[StageSpan], rings: StageRings | None) -> Iterator[schema.Reason]:
    """Reasons for the ways in which a program may have marked its stages wrongly."""
    crossing = _find_crossing(spans)
    if crossing is not None:
        first, second = crossing
        yield schema.Reason(
            Code.STAGES_CROSS,
            f"the stages {first[0]} and {second[0]} overlap in one thread, and neither is within the other: the time "
            f"that they share counts for {second[0]}",
            "End the one that began last first, as a with statement does.",
        )
    if rings is None:
        return
    if rings.unfinished:
        names = ", ".join(dict.fromkeys(key[0] for key in rings.unfinished[:_MOST_NAMED]))
        yield schema.Reason(
            Code.STAGES_UNFINISHED,
            f"{len(rings.unfinished)} stages had begun and never ended, and are not counted: {names}",
            "End each stage that begins: with edgeprof.stage(...).",
        )
    if any(span.key[0] == "other" for span in spans):
        yield schema.Reason(
            Code.STAGES_RENAMED,
            "more than 63 names of stages: the rest are counted under other",
            "Give a stage the same name in each frame.",
        )
    if rings.lost or rings.damaged:
        yield schema.Reason(
            Code.STAGES_LOST,
            f"{rings.lost + rings.damaged} records of stages were lost: more came than were read in time, or a program "
            "was killed",
        )


def _find_crossing(spans: Sequence[StageSpan]) -> tuple[Key, Key] | None:
    """Two stages of one thread that overlap without one containing the other; None if there are none."""
    threads: dict[tuple[int, int], list[StageSpan]] = {}
    for span in spans:
        threads.setdefault(span.thread, []).append(span)
    for members in threads.values():
        stack: list[StageSpan] = []
        for span in sorted(members, key=lambda member: (member.start_s, -member.end_s)):
            while stack and stack[-1].end_s <= span.start_s:
                stack.pop()
            if stack and stack[-1].end_s < span.end_s:
                return stack[-1].key, span.key
            stack.append(span)
    return None
