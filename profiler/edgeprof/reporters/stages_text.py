"""The lines about a pipeline's stages below the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.verdicts.savings import savings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import EnergyFigure, Pipeline, Result, Stage
    from edgeprof.verdicts.savings import Saved, Saving


def stage_lines(result: Result) -> list[str]:
    """Write one line for each pipeline: the shares of its stages in a frame's joules, or else in its time; and one for
    each of its variants: what a frame saves with it.
    """
    lines = [
        f"{variant.name}: {_replayed_frames(variant.pipeline)}{_sum_of_parts(variant.stages, variant.pipeline)}"
        f"{_slowest_stage(variant.stages)}."
        for variant in result.variants
        if variant.stages and variant.pipeline is not None
    ]
    return [*lines, *map(_saving_line, savings([result]))]


def _saving_line(saving: Saving) -> str:
    """Say what a frame saves with a variant, or spends more, and in which stages."""
    frame = f"a frame's {units.quantity(saving.baseline_j, 'J')}"
    if not saving.frame.is_certain:
        return f"{saving.variant.name} saves {amount_text(saving.frame)} of {frame}: it may be nothing."
    parts = [f"{name} {amount_text(amount)}" for name, amount in saving.stages.items() if amount.is_certain]
    where = f" ({', '.join(parts)})" if parts else ""
    if saving.frame.value < 0:
        return f"{saving.variant.name} spends more than {frame}; it saves {amount_text(saving.frame)}{where}."
    return f"{saving.variant.name} saves {amount_text(saving.frame)} of {frame}{where}."


def _replayed_frames(pipeline: Pipeline) -> str:
    return f"each window replays {pipeline.frames} frames of {pipeline.source} in whole loops; "


def _slowest_stage(stages: Sequence[Stage]) -> str:
    """Name the stage that limits the frame rate."""
    known = [stage for stage in stages if stage.frame_share is not None and stage.seconds is not None]
    if len(known) < 2:
        return ""
    slowest = max(known, key=lambda stage: stage.frame_share or 0.0)
    seconds = slowest.seconds.mean if slowest.seconds is not None else 0.0
    return f"; {slowest.name} limits the frame rate, with {units.quantity(seconds, 's')} of each frame's time"


def _sum_of_parts(stages: Sequence[Stage], pipeline: Pipeline) -> str:
    joules = [gross_joules(stage) for stage in stages]
    known = [value for value in joules if value is not None]
    if len(known) == len(stages):
        rest = pipeline.rest.value if pipeline.rest is not None else None
        total = sum(known) + (rest or 0.0)
        shares = [f"{stage.name} {100 * value / total:.0f} %" for stage, value in zip(stages, known, strict=True)]
        left = "" if rest is None else f", and {rest_text(pipeline.rest)} are spent outside the stages"
        return f"a frame's joules are {' + '.join(shares)}{left}"
    times = [f"{stage.name} {100 * stage.frame_share:.0f} %" for stage in stages if stage.frame_share is not None]
    return f"a frame's time (not its joules) is {' + '.join(times)}"


def gross_joules(stage: Stage) -> float | None:
    """The gross energy of a call (J); None if it is unknown or must not be quoted."""
    return stage.energy_j_per_call.gross.value if stage.energy_j_per_call is not None else None


def rest_text(rest: EnergyFigure | None) -> str:
    """The energy outside the stages, as ``0.2 ± 0.5 mJ``."""
    if rest is None or rest.value is None:
        return "–"
    return units.plus_minus(rest.value, rest.expanded_uncertainty, "J")


def amount_text(amount: Saved) -> str:
    """Write joules that are saved, as ``12.3 mJ (8.1 to 16.2)``."""
    factor, prefix = units.prefix_for([max(abs(amount.value), abs(amount.low), abs(amount.high))])
    value, low, high = (
        f"{joules / factor:.3g}".replace("-", "−") for joules in (amount.value, amount.low, amount.high)
    )
    return f"{value} {prefix}J ({low} to {high})"


def marked_stage_lines(stages: Sequence[Stage]) -> list[str]:
    """Write a line for each stage that a program marked: calls, times, and joules per call or why there are none."""
    if not stages:
        return []
    widest = max(len(stage.name) for stage in stages)
    return [f"  {stage.name.ljust(widest)}  {' · '.join(_stage_facts(stage))}" for stage in stages]


def _stage_facts(stage: Stage) -> list[str]:
    facts = [f"{stage.calls} calls"] if stage.calls is not None else []
    if stage.calls_per_frame is not None:
        facts.append(f"{units.significant(stage.calls_per_frame)} a frame")
    if stage.seconds is not None:
        tail = "" if stage.seconds.p99 is None else f" (p99 {units.quantity(stage.seconds.p99, 's')})"
        facts.append(units.quantity(stage.seconds.p50 or stage.seconds.mean, "s") + tail)
    energy = stage.energy_j_per_call
    if energy is not None and energy.gross.value is not None:
        word = "" if energy.provenance in {"counter", "measured"} else f" {energy.provenance}"
        facts.append(f"{units.plus_minus(energy.gross.value, energy.gross.expanded_uncertainty, 'J')}{word}")
        if energy.net.value is not None:
            facts.append(f"{units.plus_minus(energy.net.value, energy.net.expanded_uncertainty, 'J')} net")
    if not stage.separable and stage.reason:
        facts.append(stage.reason)
    return facts
