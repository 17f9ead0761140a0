"""Joules where nothing measures: CPU time times a wattage, with the wide uncertainty that this deserves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.figures import Measured, figure, unknown, unmeasured
from edgeprof.energy.uncertainty import Component
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.worker.span import Span


#: The power of a busy core if the user gives none: a wide interval, labelled as a guess wherever it appears.
_CORE_WATTS = {"x86_64": 6.0, "aarch64": 1.5, "armv7l": 0.8}
_STATED_HALF_WIDTH, _GUESSED_HALF_WIDTH = 0.5, 0.8


@dataclass(frozen=True)
class CoreWatts:
    """What joules are estimated from where nothing measures.

    Attributes:
        core_w: Watts that one busy core is taken to draw.
        half_width: Relative half-width of its 95 % interval.
        stated: Whether the user gave the wattage; else it is a guess and says so.
    """

    core_w: float
    half_width: float = _STATED_HALF_WIDTH
    stated: bool = True

    @classmethod
    def for_host(cls, watts: float | None, host: schema.Host) -> CoreWatts:
        """``--estimate-power WATTS``, else a guess by architecture that says so."""
        if watts is not None:
            return cls(watts)
        return cls(_CORE_WATTS.get(host.arch, 3.0), _GUESSED_HALF_WIDTH, stated=False)


def estimate(
    windows: Sequence[Span],
    cpu_seconds: Sequence[float | None],
    core_w: float,
    *,
    relative_uncertainty: float = 0.5,
    stated: bool = True,
    reason: str = "nothing measures power here",
) -> Measured:
    """Joules per unit of work from CPU time: E = cpu_s · core_w, for the work alone.

    The rule that withholds a figure beyond U/E = 20 % does not apply: an estimate is always beyond, and always says so.

    Args:
        windows: The measured spans.
        cpu_seconds: CPU time (user and system) that the worker used in each window; None where it is not known.
        core_w: Watts that one busy core draws.
        relative_uncertainty: Half-width of the 95 % interval, relative: 0.5 is ±50 %.
        stated: Whether the user gave the wattage; otherwise it is a guess.
        reason: Why nothing measures.

    Returns:
        A gross figure of provenance ``estimated``; no net one, because the idle power is not known either.

    Raises:
        ValueError: a wattage that is not positive, or windows and CPU times that do not pair up.
    """
    if core_w <= 0 or len(windows) != len(cpu_seconds):
        raise ValueError(f"{core_w} W, {len(windows)} windows and {len(cpu_seconds)} CPU times make no estimate")
    estimate_reason = schema.Reason(
        Code.ESTIMATED,
        f"{reason}: the joules are CPU time × {core_w:g} W a core ({'stated' if stated else 'a guess'}),"
        f" ±{100 * relative_uncertainty:.0f} %",
        None if stated else "State what a busy core draws: --estimate-power WATTS.",
    )
    joules = [None if cpu is None else cpu * core_w for cpu in cpu_seconds]
    known = [(j, w.seconds, w.count) for j, w in zip(joules, windows, strict=True) if j is not None and w.count > 0]
    if not known:
        why = schema.Reason(Code.NO_CPU_TIME, "no window has an inference and a known CPU time to estimate joules from")
        return unmeasured("estimated", "cpu", None, [estimate_reason, why])
    values = [j / n for j, _, n in known]
    model = abs(math.fsum(values) / len(values)) * relative_uncertainty / 1.96
    quoted = figure(values, [Component("model", model)])
    low, high = quoted.value - quoted.total.expanded, quoted.value + quoted.total.expanded
    quoted.figure.ci95 = (max(0.0, low), high)
    energy = schema.Energy(provenance="estimated", rail=None, covers="cpu", gross=quoted.figure, net=unknown())
    power = schema.Power(
        mean=math.fsum(j for j, _, _ in known) / math.fsum(s for _, s, _ in known), max=None, idle=None
    )
    return Measured(energy, power, joules, [estimate_reason])
