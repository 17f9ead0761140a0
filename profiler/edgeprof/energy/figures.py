"""Energy figures: the values of the windows, an uncertainty budget and an interval; and a quote of joules per unit."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edgeprof import units
from edgeprof.energy.uncertainty import Combined, Component, combine_components, mean_and_error
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.provenance import Provenance

Statistic = Literal["mean", "median"]

#: The standard error of the median divided by that of the mean, for normally distributed windows: √(π/2). It is a
#: little less for few windows. Source: Kenney and Keeping, Mathematics of Statistics, part 1.
_MEDIAN_PENALTY = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Measured:
    """The figures that ``measure_spans`` and ``estimate_joules`` return.

    Attributes:
        energy: Joules per unit of work.
        power: The power of the headline, in watts.
        windows: Joules of each window, None where it could not be measured; empty where none could.
        reasons: What degrades the figures, or why there are none.
    """

    energy: schema.Energy
    power: schema.Power
    windows: list[float | None]
    reasons: list[schema.Reason] = field(default_factory=list)


@dataclass(frozen=True)
class Quote:
    """Joules per unit of work, how sure they are, and why anything is missing.

    Attributes:
        key: The key of the spans that are quoted.
        unit: The unit of work that the joules refer to, in the singular.
        count: How many units were done.
        seconds: How many seconds they took together.
        energy: Gross and net energy per unit, each with its interval and its budget, and the energy of every rail.
        power: The power during the work and without it, in watts.
        windows: Joules of each span, None where it could not be measured; empty where none could.
        reasons: What degrades the figures, or why there are none.
    """

    key: tuple[str, ...]
    unit: str
    count: int
    seconds: float
    energy: schema.Energy
    power: schema.Power
    windows: Sequence[float | None] = ()
    reasons: Sequence[schema.Reason] = field(default_factory=list)

    @property
    def value(self) -> float | None:
        """Gross joules per unit; None where they are unknown, and ``reasons`` say why."""
        return self.energy.gross.value

    @property
    def uncertainty(self) -> float | None:
        """The half-width (J per unit) of the value's 95 % interval; None without a value."""
        return None if self.value is None else self.energy.gross.expanded_uncertainty

    @property
    def net(self) -> schema.EnergyFigure:
        """The energy per unit beyond what the device draws without work; unknown if no idle was recorded."""
        return self.energy.net

    @property
    def budget(self) -> dict[str, float]:
        """The standard uncertainties (J per unit) of which ``uncertainty`` consists, by their causes."""
        lines = self.energy.gross.budget
        known = msgspec.structs.asdict(lines) if lines is not None else {}
        return {name: u for name, u in known.items() if u is not None}

    @property
    def provenance(self) -> Provenance:
        """How the joules were obtained: ``counter``, ``measured``, ``estimated``, ``simulated`` or ``none``."""
        return self.energy.provenance

    @property
    def rail(self) -> str | None:
        """The rails that the joules were read from."""
        return self.energy.rail

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "key": list(self.key),
            "unit": self.unit,
            "count": self.count,
            "seconds": self.seconds,
            "energy_j_per_unit": msgspec.to_builtins(self.energy),
            "power_w": msgspec.to_builtins(self.power),
            "windows_j": list(self.windows),
            "reasons": msgspec.to_builtins(list(self.reasons)),
        }

    def __str__(self) -> str:
        """``4.20 ± 0.10 mJ/frame, measured, VDD_IN``."""
        if self.value is None:
            why = self.reasons[0].message if self.reasons else "nothing was measured"
            return f"no joules per {self.unit}: {why}"
        joules = units.plus_minus(self.value, self.uncertainty, "J")
        return ", ".join(part for part in (f"{joules}/{self.unit}", self.provenance, self.rail) if part)


@dataclass(frozen=True)
class Estimate:
    """A figure before it is decided whether it may be quoted.

    Attributes:
        value: Joules per unit.
        total: Its combined uncertainty.
        figure: Both of them, in the form of the result file.
    """

    value: float
    total: Combined
    figure: schema.EnergyFigure


def make_figure(
    values: Sequence[float],
    components: Sequence[Component],
    statistic: Statistic = "mean",
    influences: Mapping[str, float] | None = None,
) -> Estimate:
    """The mean or the median of the windows, with its uncertainty budget.

    Args:
        values: Joules per unit of each window, at least one.
        components: Type B standard uncertainties (J per unit, GUM 4.3); the scatter of the windows is added to them.
        statistic: Which of the two is quoted; MLPerf Tiny asks for the median.
        influences: Kept in the figure for comparisons (``schema.EnergyFigure.influences``).
    """
    mean, error = mean_and_error(values)
    value = mean if statistic == "mean" else statistics.median(values)
    parts = list(components)
    if error is not None:
        penalty = 1.0 if statistic == "mean" else _MEDIAN_PENALTY
        parts.append(repeatability_component(error * penalty, len(values), components))
    total = combine_components(parts)
    return Estimate(
        value,
        total,
        schema.EnergyFigure(
            value=value,
            expanded_uncertainty=total.expanded,
            ci95=(value - total.expanded, value + total.expanded),
            windows=list(values),
            median=statistics.median(values),
            budget=total.budget,
            coverage_factor=total.k,
            degrees_of_freedom=None if math.isinf(total.nu) else total.nu,
            autocorrelation=lag_one_correlation(values),
            influences=dict(influences or {}),
        ),
    )


def lag_one_correlation(values: Sequence[float]) -> float | None:
    """The correlation of each value with the next one; None for fewer than five values, or if all are equal."""
    if len(values) < 5:
        return None
    mean = math.fsum(values) / len(values)
    deviations = [value - mean for value in values]
    total = math.fsum(d * d for d in deviations)
    return math.fsum(d * after for d, after in itertools.pairwise(deviations)) / total if total > 0 else None


def repeatability_component(error: float, count: int, components: Sequence[Component]) -> Component:
    """The scatter of the windows that the sensor's random errors do not explain, as a line of the budget.

    The scatter of the windows already contains the random errors of the sensor; if they were counted twice, every
    interval would be too wide. So the squares of the two lines add up to the larger of the observed scatter and the
    known random errors.

    The remainder r of a scatter s is known no better than the scatter itself. The variance of K windows has itself the
    variance 2·s⁴/(K − 1), so r has (K − 1)·(r/s)⁴ degrees of freedom (GUM G.3.3). The Welch–Satterthwaite formula (GUM
    G.4.1) then gives K − 1 for the two lines together, as it should.

    Args:
        error: The standard error s/√K of the windows, in joules per unit.
        count: The number K of windows.
        components: The other lines; those that are ``random`` are subtracted.
    """
    known = math.fsum(c.u**2 for c in components if c.random)
    remainder = max(0.0, error**2 - known)
    if remainder <= 0:
        return Component("repeatability", 0.0)
    return Component("repeatability", math.sqrt(remainder), (count - 1) * (remainder / error**2) ** 2)


def withhold_value(estimate: Estimate) -> schema.EnergyFigure:
    """Take the value out of a figure; its windows and its budget stay as evidence."""
    figure = estimate.figure
    figure.value = figure.ci95 = figure.median = None
    return figure


def unknown_figure() -> schema.EnergyFigure:
    """A figure whose value is not known."""
    return schema.EnergyFigure(value=None, expanded_uncertainty=None, ci95=None)


def without_figures(
    provenance: Provenance, covers: str | None, rail: str | None, reasons: Sequence[schema.Reason]
) -> Measured:
    """The result of a measurement that has no figure at all, with the reasons."""
    energy = schema.Energy(
        provenance=provenance, rail=rail, covers=covers, gross=unknown_figure(), net=unknown_figure()
    )
    return Measured(energy, schema.Power(mean=None, max=None, idle=None), [], list(reasons))


def nothing_measured(reason: str) -> Measured:
    """The result where nothing measures and nothing can be estimated; ``reason`` is a sentence that says why."""
    return without_figures("none", None, None, [schema.Reason(Code.NO_SENSOR, reason)])


def largest_line(budget: schema.Budget | None) -> str:
    """The name of the largest line of a budget."""
    names = ("repeatability", "gain", "offset", "sync", "resolution", "filter", "idle", "model")
    return max(names, key=lambda name: getattr(budget, name, None) or 0.0)
