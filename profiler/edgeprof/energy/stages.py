"""The energy of one stage of a pipeline: the additional energy of a frame in which the stage runs more often. Pure.

Windows with and without the repetition alternate (ABBA) and replay the same frames, so that drift, the content of the
frames and all errors of the sensor that affect both equally cancel in the difference. Even a slow sensor suffices,
because it measures whole windows and not the stage itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeprof.energy.figures import make_figure, unknown_figure, withhold_value
from edgeprof.energy.influences import OWN
from edgeprof.energy.uncertainty import Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.figures import Estimate, Statistic
    from edgeprof.results import schema

#: The energy of a stage is withheld if its standard uncertainty is larger than the first share of it, or the half-width
#: of its interval (which is much wider for few windows) larger than the second.
MOST_RELATIVE_U, MOST_RELATIVE_WIDTH = 0.20, 0.50
#: Lines of a budget that differ from window to window, and those that all windows share.
_RANDOM = ("sync", "resolution", "filter")
_SHARED = ("gain", "offset", "idle", "model")
#: The line of the budget that an influence belongs to, by the first word of its name.
_LINES = {"gain": "gain", "meter": "gain", "offset": "offset", "clock": "filter", OWN: "resolution"}


def marginal_energy(
    frame: schema.EnergyFigure,
    repeated: schema.EnergyFigure,
    calls: float,
    statistic: Statistic = "mean",
) -> schema.EnergyFigure:
    """Joules of one call of a stage.

    Args:
        frame: Joules of a frame, window by window.
        repeated: Joules of a frame in which the stage is called more often; its n-th window ran next to the n-th window
            of ``frame``.
        calls: How many more calls such a frame has.
        statistic: Which statistic of the windows is quoted.

    Returns:
        The figure; without a value if the stage is not separable (``is_separable``).
    """
    pairs = list(zip(repeated.windows, frame.windows, strict=False))
    if not pairs or len(repeated.windows) != len(frame.windows):
        return unknown_figure()
    influences = _influence_differences(repeated.influences, frame.influences, calls)
    estimate = make_figure(
        [(after - before) / calls for after, before in pairs],
        [*_own_components(frame, repeated, calls), *_shared_components(frame, repeated, calls, influences)],
        statistic,
        influences,
    )
    return estimate.figure if is_separable(estimate) else withhold_value(estimate)


def is_separable(estimate: Estimate) -> bool:
    """Whether the energy is known well enough to be separated from that of the other stages."""
    is_sure = estimate.total.u <= MOST_RELATIVE_U * estimate.value
    return estimate.value > 0 and is_sure and estimate.total.expanded <= MOST_RELATIVE_WIDTH * estimate.value


def rest_energy(
    frame: schema.EnergyFigure, stages: Sequence[schema.EnergyFigure], statistic: Statistic = "mean"
) -> schema.EnergyFigure:
    """Joules of a frame beyond those of its stages, window by window, so that stages + rest = frame.

    Args:
        frame: Joules of a frame.
        stages: Joules of one call of each stage; a frame calls each stage once.
        statistic: Which statistic of the windows is quoted.

    Returns:
        The figure; unknown if one of the stages has another number of windows.
    """
    if not frame.windows or any(len(stage.windows) != len(frame.windows) for stage in stages):
        return unknown_figure()
    remainders = [
        joules - math.fsum(parts) for joules, *parts in zip(frame.windows, *(s.windows for s in stages), strict=True)
    ]
    influences = dict(frame.influences)
    for stage in stages:
        for name, u in stage.influences.items():
            before = influences.get(name, 0.0)
            influences[name] = math.hypot(before, u) if name.startswith(OWN) else before - u
    components = [_influence_component(name, u) for name, u in influences.items()]
    known = {_line_of(name) for name in influences}
    for line in _SHARED:  # as in an estimate, whose error has no cause of its own
        if line not in known:
            u = abs(_budget_line(frame, line) - math.fsum(_budget_line(stage, line) for stage in stages))
            components.append(Component(line, u))
    return make_figure(remainders, components, statistic, influences).figure


def _influence_differences(after: dict[str, float], before: dict[str, float], calls: float) -> dict[str, float]:
    """The effect of each shared error on the difference; errors particular to one workload are added as squares."""
    differences = {}
    for name in after.keys() | before.keys():
        both = after.get(name, 0.0), before.get(name, 0.0)
        differences[name] = (math.hypot(*both) if name.startswith(OWN) else both[0] - both[1]) / calls
    return differences


def _own_components(frame: schema.EnergyFigure, repeated: schema.EnergyFigure, calls: float) -> list[Component]:
    """The errors that differ from window to window, of both figures, without the influences that all windows share."""
    components = []
    for line in _RANDOM:
        squares = 0.0
        for energy in (frame, repeated):
            shared = math.fsum(u**2 for name, u in energy.influences.items() if _line_of(name) == line)
            squares += max(0.0, (_budget_line(energy, line)) ** 2 - shared)
        components.append(Component(line, math.sqrt(squares) / calls, random=True))
    return components


def _shared_components(
    frame: schema.EnergyFigure, repeated: schema.EnergyFigure, calls: float, influences: dict[str, float]
) -> list[Component]:
    """The errors that all windows share: from their causes where these are known, otherwise from the budget's lines."""
    components = [_influence_component(name, u) for name, u in influences.items()]
    known = {_line_of(name) for name in influences}
    for line in _SHARED:
        if line not in known:
            u = abs(_budget_line(repeated, line) - _budget_line(frame, line)) / calls
            components.append(Component(line, u))
    return components


def _influence_component(name: str, u: float) -> Component:
    return Component(_line_of(name), abs(u), rectangular=name.startswith(("gain", "offset", "meter")))


def _line_of(influence: str) -> str:
    return _LINES.get(influence.partition(" ")[0], "model")


def _budget_line(energy: schema.EnergyFigure, line: str) -> float:
    return getattr(energy.budget, line, None) or 0.0
