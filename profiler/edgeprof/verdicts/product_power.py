"""Watts and hours of a product, computed from a variant's joules per inference and idle power, a rate and a duty.

A device that performs ``rate`` inferences per second during the share ``duty`` of the time draws

    P = duty · (p_idle + e_net · rate) + (1 − duty) · p_sleep + outside

With e_net = e_gross − p_idle · t, where t is the time per inference in the measured windows, this is

    P = a · e_gross + b · p_idle + c,   a = duty · rate,   b = awake − a · t

where awake is ``duty``, or 1 if the device idles instead of sleeping. Both e_gross and p_idle were measured, and
each has its uncertainty: U(P) = a · U(e_gross) + |b| · U(p_idle). This is the largest value for any correlation of the
two; they are correlated, since both contain the same gain error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.reasons import Code

if TYPE_CHECKING:
    from edgeprof.results.schema import Energy, Interval, Variant
    from edgeprof.verdicts.requirements import Requirements

#: Coverage factor k of a result that does not state one.
_COVERAGE = 2.0
#: Codes of reasons that explain a missing energy.
_WHY_NO_ENERGY = frozenset({Code.NO_SENSOR, Code.UNCERTAIN, Code.GAPS})


@dataclass(frozen=True)
class Draw:
    """The mean power of the product.

    Attributes:
        watts: The mean power (W).
        ci95: The 95 % interval of the power (W); None if an uncertainty that it needs is not known.
        why_no_interval: Why there is no interval.
    """

    watts: float
    ci95: Interval | None
    why_no_interval: str | None = None

    def hours(self, watt_hours: float) -> float:
        return watt_hours / self.watts if self.watts > 0 else math.inf

    def hours_ci95(self, watt_hours: float) -> Interval | None:
        """The 95 % interval of the hours; its upper end is infinite if the power may be 0."""
        if self.ci95 is None:
            return None
        low, high = self.ci95
        return (watt_hours / high if high > 0 else math.inf, watt_hours / low if low > 0 else math.inf)


def draw(variant: Variant, asked: Requirements, outside_w: float = 0.0) -> Draw | str:
    """Compute the mean power at the product's rate and duty, or return a sentence on why it is not known.

    Args:
        variant: The variant, with the figures of the workload that is asked for.
        asked: The requirements: rate, duty and sleep power.
        outside_w: Power that the owner adds (W).
    """
    energy, power = variant.energy_j_per_inference, variant.power_w
    if energy is None or energy.gross.value is None:
        return next(
            (reason.message for reason in variant.reasons if reason.code in _WHY_NO_ENERGY), "no energy was measured"
        )
    if power is None or power.idle is None:
        return "the idle power was not measured"
    seconds = seconds_per_unit(variant)
    if seconds is None or seconds <= 0:
        return "the time of one inference in the windows is not known"
    a = asked.duty * asked.rate_hz
    b = (1.0 if asked.sleep_w is None else asked.duty) - a * seconds
    watts = a * energy.gross.value + b * power.idle + (1 - asked.duty) * (asked.sleep_w or 0.0) + outside_w
    if not (math.isfinite(watts) and watts >= 0):
        return "the energy and the idle power contradict each other: the mean power would be negative"
    u_energy, u_idle = energy.gross.expanded_uncertainty, idle_uncertainty_w(variant, energy, seconds)
    if u_energy is not None and u_idle is not None and math.isfinite(u := a * u_energy + abs(b) * u_idle):
        return Draw(watts, (max(0.0, watts - u), watts + u))
    return Draw(watts, None, f"the uncertainty of the {'energy' if u_energy is None else 'idle power'} is not known")


def seconds_per_unit(variant: Variant) -> float | None:
    """Seconds per unit of work in the windows; None if the result has neither windows nor a marginal model."""
    count = sum(window.inferences for window in variant.windows)
    if count > 0:
        return math.fsum(window.end_s - window.start_s for window in variant.windows) / count
    energy = variant.energy_j_per_inference
    if energy is None or energy.marginal is None or energy.gross.value is None or energy.marginal.p_idle_w <= 0:
        return None
    return (energy.gross.value - energy.marginal.e_net_j) / energy.marginal.p_idle_w


def idle_uncertainty_w(variant: Variant, energy: Energy, seconds: float) -> float | None:
    """Expanded uncertainty of the idle power (W): its variation, and the sensor's gain and offset from the budgets.

    Args:
        variant: The variant that has the idle power.
        energy: Its energy; the budgets state joules per unit of work.
        seconds: Seconds per unit of work.
    """
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
