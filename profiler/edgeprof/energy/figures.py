"""What an energy figure is made of: windows, a budget, an interval, and the rule when it must not be quoted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprof.energy.uncertainty import Combined, Component, combine, mean_and_error
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.provenance import Provenance

Statistic = Literal["mean", "median"]

#: The median's standard error over the mean's, for normal windows (√(π/2); a little less for few windows).
_MEDIAN_PENALTY = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Measured:
    """What ``measure`` and ``estimate`` return.

    Attributes:
        energy: Joules per inference.
        power: Watts of the headline.
        windows: Joules of each window, None where it could not be measured; empty where none could.
        reasons: What degrades the figures, or why there are none.
    """

    energy: schema.Energy
    power: schema.Power
    windows: list[float | None]
    reasons: list[schema.Reason] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    """A figure before it is decided whether it may be quoted.

    Attributes:
        value: Joules per inference.
        total: Its combined uncertainty.
        figure: Both, as the result has them.
    """

    value: float
    total: Combined
    figure: schema.EnergyFigure


def figure(
    values: Sequence[float],
    components: Sequence[Component],
    statistic: Statistic = "mean",
    influences: Mapping[str, float] | None = None,
) -> Estimate:
    """The mean or median of the windows with its budget.

    Args:
        values: Joules per inference of each window, at least one.
        components: Type B standard uncertainties (J per inference); the windows' spread is added here.
        statistic: What is quoted; MLPerf Tiny wants the median.
        influences: What the figure keeps for comparisons (``schema.EnergyFigure.influences``).
    """
    mean, error = mean_and_error(values)
    value = mean if statistic == "mean" else float(np.median(values))
    parts = list(components)
    if error is not None:
        penalty = 1.0 if statistic == "mean" else _MEDIAN_PENALTY
        parts.append(repeatability(error * penalty, len(values), components))
    total = combine(parts)
    return Estimate(
        value,
        total,
        schema.EnergyFigure(
            value=value,
            expanded_uncertainty=total.expanded,
            ci95=(value - total.expanded, value + total.expanded),
            windows=list(values),
            median=float(np.median(values)),
            budget=total.budget,
            coverage_factor=total.k,
            degrees_of_freedom=None if math.isinf(total.nu) else total.nu,
            autocorrelation=autocorrelation(values),
            influences=dict(influences or {}),
        ),
    )


def autocorrelation(values: Sequence[float]) -> float | None:
    """The correlation of each value with the next; None for fewer than five values, or where all are one."""
    if len(values) < 5:
        return None
    left = np.asarray(values) - np.mean(values)
    total = float(np.dot(left, left))
    return float(np.dot(left[1:], left[:-1])) / total if total > 0 else None


def repeatability(error: float, count: int, components: Sequence[Component]) -> Component:
    """What the windows scatter beyond what the sensor's random errors explain, as a line of the budget.

    The random errors are in the scatter already; counted twice, they would make every interval too wide. The two
    lines' squares together are the larger of what is seen and of what is known. The rest of a scatter is known no
    better than the scatter, whose variance of K windows scatters by 2·s⁴/(K − 1): a rest r has (K − 1)·(r/s)⁴ degrees
    of freedom, so that Welch and Satterthwaite's formula gives K − 1 for the two lines together.

    Args:
        error: s/√K of the windows.
        count: K.
        components: Those that are ``random`` are taken off.
    """
    known = math.fsum(c.u**2 for c in components if c.random)
    rest = max(0.0, error**2 - known)
    if rest <= 0:
        return Component("repeatability", 0.0)
    return Component("repeatability", math.sqrt(rest), (count - 1) * (rest / error**2) ** 2)


def withheld(estimate: Estimate) -> schema.EnergyFigure:
    """The figure without a number to quote; its windows and its budget stay as evidence."""
    figure = estimate.figure
    figure.value = figure.ci95 = figure.median = None
    return figure


def unknown() -> schema.EnergyFigure:
    return schema.EnergyFigure(value=None, expanded_uncertainty=None, ci95=None)


def unmeasured(
    provenance: Provenance, covers: str | None, rail: str | None, reasons: Sequence[schema.Reason]
) -> Measured:
    """No figure at all, and why."""
    energy = schema.Energy(provenance=provenance, rail=rail, covers=covers, gross=unknown(), net=unknown())
    return Measured(energy, schema.Power(mean=None, max=None, idle=None), [], list(reasons))


def nothing(reason: str) -> Measured:
    """No joules, because nothing measures and nothing can be estimated; ``reason`` is a sentence."""
    return unmeasured("none", None, None, [schema.Reason(Code.NO_SENSOR, reason)])


def largest(budget: schema.Budget | None) -> str:
    """The name of the budget's largest line."""
    names = ("repeatability", "gain", "offset", "sync", "resolution", "filter", "idle", "model")
    return max(names, key=lambda name: getattr(budget, name, None) or 0.0)
