"""The stage of a pipeline that holds its frame rate back, and what another model of it could gain at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.diagnosis.finding import Evidence, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A stage with less than this share of a frame's time holds the rate back no more than the others.
_MATTERS = 0.3


def frame_rate(e: Evidence) -> Iterator[Finding]:
    """Name the slowest stage: the stages of a frame run one after the other, so their times add up to the frame's."""
    frame_s = sum(e.stages.values())
    if not e.stages or frame_s <= 0:
        return
    slowest = max(e.stages, key=lambda name: e.stages[name])
    share, rest_s = e.stages[slowest] / frame_s, frame_s - e.stages[slowest]
    most = f", and however fast it were, {_rate(rest_s)}" if rest_s > 0 else ""
    sentence = (
        f"it takes {units.quantity(e.stages[slowest], 's')} of a frame's {units.quantity(frame_s, 's')}"
        f" ({share:.0%}); the frame allows {_rate(frame_s)}{most}"
    )
    if share < _MATTERS:
        yield Finding(
            "frame-rate",
            "ok",
            share,
            "ratio",
            _MATTERS,
            f"no stage alone holds the frame rate back; {slowest} is the slowest: {sentence}",
        )
    else:
        yield Finding(
            "frame-rate", "warn", share, "ratio", _MATTERS, f"{slowest} holds the frame rate back: {sentence}",
            _remedy(slowest, with_model=slowest in e.stage_models), 4.0,
        )  # fmt: skip
    yield from _against_baseline(e.stages, e.baseline_stages)


def _against_baseline(stages: Mapping[str, float], baseline: Mapping[str, float]) -> Iterator[Finding]:
    common = [name for name in stages if baseline.get(name)]
    if not common:
        return
    ratios = ", ".join(f"{name} {stages[name] / baseline[name]:.2f} ×" for name in common)
    whole = sum(stages.values()) / sum(baseline.values())
    yield Finding(
        "stages", "ok", whole, "ratio", None, f"a frame takes {whole:.2f} × its baseline's time ({ratios} theirs)"
    )


def _remedy(stage: str, *, with_model: bool) -> str:
    if with_model:
        return f"Try other models of it: edgeprof sweep with recipes such as {stage}=int8-static."
    return (
        f"Do less there (a smaller picture), or, if it runs a model, make that a parameter {stage} of the pipeline's"
        " function and try others with edgeprof sweep."
    )


def _rate(seconds: float) -> str:
    return f"{units.significant(1 / seconds)} frames/s"
