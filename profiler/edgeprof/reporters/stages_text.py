"""What is said of a pipeline's stages beside the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import EnergyFigure, Pipeline, Stage, Variant


def stage_lines(variants: Sequence[Variant]) -> list[str]:
    """For each pipeline one line: what its stages take of a frame's joules, or else of its time, and the rest."""
    return [
        f"{variant.name}: {_frames(variant.pipeline)}{_parts(variant.stages, variant.pipeline)}."
        for variant in variants
        if variant.stages and variant.pipeline is not None
    ]


def _frames(pipeline: Pipeline) -> str:
    return f"each window replays {pipeline.frames} frames of {pipeline.source} in whole loops; "


def _parts(stages: Sequence[Stage], pipeline: Pipeline) -> str:
    joules = [gross_joules(stage) for stage in stages]
    known = [value for value in joules if value is not None]
    if len(known) == len(stages):
        rest = pipeline.rest.value if pipeline.rest is not None else None
        total = sum(known) + (rest or 0.0)
        shares = [f"{stage.name} {100 * value / total:.0f} %" for stage, value in zip(stages, known, strict=True)]
        left = "" if rest is None else f", and leaves {rest_text(pipeline.rest)} beside its stages"
        return f"a frame's joules are {' + '.join(shares)}{left}"
    times = [f"{stage.name} {100 * stage.frame_share:.0f} %" for stage in stages if stage.frame_share is not None]
    return f"a frame's time (not its joules) is {' + '.join(times)}"


def gross_joules(stage: Stage) -> float | None:
    """Gross joules of a call that may be quoted."""
    return stage.energy_j_per_call.gross.value if stage.energy_j_per_call is not None else None


def rest_text(rest: EnergyFigure | None) -> str:
    """``0.2 ± 0.5 mJ``."""
    if rest is None or rest.value is None:
        return "–"
    return units.plus_minus(rest.value, rest.expanded_uncertainty, "J")
