"""Estimate joules where nothing measures power: CPU time multiplied by a wattage, with a wide uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.figures import Measured, make_figure, unknown_figure, without_figures
from edgeprof.energy.uncertainty import Component
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.worker.span import Span


#: The power of a busy core (W) if the user states none. Results label it as a guess and give it a wide interval.
_CORE_WATTS = {"x86_64": 6.0, "aarch64": 1.5, "armv7l": 0.8}
_STATED_HALF_WIDTH, _GUESSED_HALF_WIDTH = 0.5, 0.8
#: Work that uses less than this share of one core waits for something else, whose power this estimate cannot see.
_LEAST_CORE_SHARE = 0.001


@dataclass(frozen=True)
class CoreWatts:
    """The power of one busy core, from which joules are estimated where nothing measures.

    Attributes:
        core_w: The assumed power of one busy core, in watts.
        half_width: The relative half-width of its 95 % interval.
        stated: Whether the user gave the wattage; otherwise it is a guess.
    """

    core_w: float
    half_width: float = _STATED_HALF_WIDTH
    stated: bool = True

    @classmethod
    def for_host(cls, watts: float | None, host: schema.Host) -> CoreWatts:
        """The wattage of ``--estimate-power``, or else a guess for the processor architecture, marked as such."""
        if watts is not None:
            return cls(watts)
        return cls(_CORE_WATTS.get(host.arch, 3.0), _GUESSED_HALF_WIDTH, stated=False)


def estimate_joules(
    windows: Sequence[Span],
    cpu_seconds: Sequence[float | None],
    core_w: float,
    *,
    relative_uncertainty: float = 0.5,
    stated: bool = True,
    reason: str = "nothing measures power here",
    working_s: float | None = None,
) -> Measured:
    """Estimate joules per unit of work from CPU time: E = cpu_s · core_w.

    The rule that withholds a figure beyond U/E = 20 % does not apply here: every estimate is beyond it, and is labelled
    as an estimate. Where another process or a GPU did the work, the CPU time of the watched process says nothing about
    the joules of the work, and there is no estimate.

    Args:
        windows: The measured spans.
        cpu_seconds: CPU time (user and system) of each window, in seconds; None where it is not known.
        core_w: The power of one busy core, in watts.
        relative_uncertainty: The relative half-width of the 95 % interval: 0.5 is ±50 %.
        stated: Whether the user gave the wattage; otherwise it is a guess.
        reason: Why nothing measures, as a clause.
        working_s: For how many seconds of all windows together work was done, if less than their length.

    Returns:
        A gross figure of provenance ``estimated``, and no net figure, because the idle power is not known either. No
        figure at all, with the reason ``no_cpu_time``, where no CPU time is known or almost none was used.

    Raises:
        ValueError: the wattage is not positive, or windows and CPU times do not correspond.
    """
    if core_w <= 0 or len(windows) != len(cpu_seconds):
        raise ValueError(f"{core_w} W, {len(windows)} windows and {len(cpu_seconds)} CPU times make no estimate")
    joules = [None if cpu is None else cpu * core_w for cpu in cpu_seconds]
    known = [(j, w.seconds, w.count) for j, w in zip(joules, windows, strict=True) if j is not None and w.count > 0]
    why = _why_not_estimated(windows, cpu_seconds, working_s)
    if why is not None:
        remedy = "edgeprof sensors says what would measure here; a power meter always does: --sensor meter:ADDRESS."
        return without_figures("none", None, None, [schema.Reason(Code.NO_CPU_TIME, f"{reason}, and {why}", remedy)])
    estimate_reason = schema.Reason(
        Code.ESTIMATED,
        f"{reason}: the joules are CPU time × {core_w:g} W a core ({'stated' if stated else 'a guess'}),"
        f" ±{100 * relative_uncertainty:.0f} %",
        None if stated else "State what a busy core draws: --estimate-power WATTS.",
    )
    values = [j / n for j, _, n in known]
    # 1.96: the half-width is that of a 95 % interval of a normal distribution (GUM 4.3.4).
    model = abs(math.fsum(values) / len(values)) * relative_uncertainty / 1.96
    quoted = make_figure(values, [Component("model", model)])
    low, high = quoted.value - quoted.total.expanded, quoted.value + quoted.total.expanded
    quoted.figure.ci95 = (max(0.0, low), high)
    energy = schema.Energy(provenance="estimated", rail=None, covers="cpu", gross=quoted.figure, net=unknown_figure())
    power = schema.Power(
        mean=math.fsum(j for j, _, _ in known) / math.fsum(s for _, s, _ in known), max=None, idle=None
    )
    return Measured(energy, power, joules, [estimate_reason])


def _why_not_estimated(
    windows: Sequence[Span], cpu_seconds: Sequence[float | None], working_s: float | None
) -> str | None:
    """Return why CPU time says nothing about the joules of the work, as a clause; None where it does."""
    known = [
        (cpu_s, span.seconds)
        for span, cpu_s in zip(windows, cpu_seconds, strict=True)
        if cpu_s is not None and span.count > 0
    ]
    if not known:
        return "the CPU time of the work is not known (another process or a GPU does it), so joules cannot be estimated"
    used_s, length_s = (math.fsum(column) for column in zip(*known, strict=True))
    share = used_s / (length_s if working_s is None else working_s) if length_s and working_s != 0 else 0.0
    if share >= _LEAST_CORE_SHARE:
        return None
    return (
        f"the process that was watched kept {100 * share:.1g} % of one core busy: it waited for something else, whose"
        " joules cannot be estimated"
    )
