"""Watts and hours of a product from one measured variant: E per inference, idle power, rate and duty. Pure.

A device that does ``rate`` inferences a second for the share ``duty`` of the time draws

    P = duty · (p_idle + e_net · rate) + (1 − duty) · p_sleep + outside

With e_net = e_gross − p_idle · t, where t is the time that the measured windows took for an inference, this is

    P = a · e_gross + b · p_idle + c,   a = duty · rate,   b = awake − a · t

(awake: ``duty``, or 1 where the device idles between its times awake). What was measured is e_gross and p_idle, and
each brings its own uncertainty: U(P) = a · U(e_gross) + |b| · U(p_idle), the widest that any correlation of the two
allows, since a gain error is common to both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.reasons import Code

if TYPE_CHECKING:
    from edgeprof.results.schema import Energy, Interval, Variant
    from edgeprof.verdicts.requirements import Requirements

#: k where the result does not say its own.
_COVERAGE = 2.0
#: Reasons that say why there is no energy.
_WHY_NO_ENERGY = frozenset({Code.NO_SENSOR, Code.UNCERTAIN, Code.GAPS})


@dataclass(frozen=True)
class Draw:
    """What the product draws on average.

    Attributes:
        watts: The mean power (W).
        ci95: Its 95 % interval; None where an uncertainty that it needs is not known.
        why_no_interval: The reason, where there is none.
    """

    watts: float
    ci95: Interval | None
    why_no_interval: str | None = None

    def hours(self, watt_hours: float) -> float:
        return watt_hours / self.watts if self.watts > 0 else math.inf

    def hours_ci95(self, watt_hours: float) -> Interval | None:
        """The interval of the hours; infinite above where the power may be 0."""
        if self.ci95 is None:
            return None
        low, high = self.ci95
        return (watt_hours / high if high > 0 else math.inf, watt_hours / low if low > 0 else math.inf)


def draw(variant: Variant, asked: Requirements, outside_w: float = 0.0) -> Draw | str:
    """The mean power at the product's rate and duty, or why it is not known.

    Args:
        variant: As the asked workload sees it: its figures are per unit of it.
        asked: Rate, duty and sleep power.
        outside_w: What the owner adds (W).
    """
    energy, power = variant.energy_j_per_inference, variant.power_w
    if energy is None or energy.gross.value is None:
        return next(
            (reason.message for reason in variant.reasons if reason.code in _WHY_NO_ENERGY), "no energy was measured"
        )
    if power is None or power.idle is None:
        return "the power without work was not measured"
    seconds = seconds_per_unit(variant)
    if seconds is None or seconds <= 0:
        return "the time of one inference in the windows is not known"
    a = asked.duty * asked.rate_hz
    b = (1.0 if asked.sleep_w is None else asked.duty) - a * seconds
    watts = a * energy.gross.value + b * power.idle + (1 - asked.duty) * (asked.sleep_w or 0.0) + outside_w
    if not (math.isfinite(watts) and watts >= 0):
        return "the energy and the idle power do not belong together: the mean power would be negative"
    u_energy, u_idle = energy.gross.expanded_uncertainty, idle_uncertainty_w(variant, energy, seconds)
    if u_energy is not None and u_idle is not None and math.isfinite(u := a * u_energy + abs(b) * u_idle):
        return Draw(watts, (max(0.0, watts - u), watts + u))
    return Draw(watts, None, f"the uncertainty of the {'energy' if u_energy is None else 'idle power'} is not known")


def seconds_per_unit(variant: Variant) -> float | None:
    """Seconds of the windows for one unit of work; None where the result keeps no windows and no marginal model."""
    count = sum(window.inferences for window in variant.windows)
    if count > 0:
        return math.fsum(window.end_s - window.start_s for window in variant.windows) / count
    energy = variant.energy_j_per_inference
    if energy is None or energy.marginal is None or energy.gross.value is None or energy.marginal.p_idle_w <= 0:
        return None
    return (energy.gross.value - energy.marginal.e_net_j) / energy.marginal.p_idle_w


def idle_uncertainty_w(variant: Variant, energy: Energy, seconds: float) -> float | None:
    """U of the idle power (W): how it varied, and the sensor's gain and offset, which the budgets state per unit."""
    power, net, gross = variant.power_w, energy.net, energy.gross
    if power is None or power.idle is None or seconds <= 0:
        return None
    parts = []
    if net.budget is not None and net.budget.idle is not None:
        parts.append(net.budget.idle / seconds)
    if power.idle_before is not None and power.idle_after is not None:
        parts.append(abs(power.idle_before - power.idle_after) / 2)
    if not parts:
        return None
    offset = gain = 0.0
    if gross.budget is not None:
        offset = (gross.budget.offset or 0.0) / seconds
        gain = (gross.budget.gain or 0.0) / gross.value * power.idle if gross.value else 0.0
    return (gross.coverage_factor or _COVERAGE) * (max(parts) + offset + gain)
