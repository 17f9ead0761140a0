"""Student's t, the incomplete beta function, uncertainty budgets and their degrees of freedom, without scipy.

scipy is too large for a board with 2 GB, and only three of its formulas are needed. The tests compare them with scipy.

"GUM" in this package is the Guide to the Expression of Uncertainty in Measurement (JCGM 100:2008), and "A&S" is
Abramowitz and Stegun, Handbook of Mathematical Functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

from edgeprof.results.schema import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Standard deviation of a rectangular distribution of half-width 1 (GUM 4.3.7).
RECTANGULAR = 1 / math.sqrt(3)

#: From this many degrees of freedom on, the normal distribution with one correction is more exact than the beta
#: function.
_NEARLY_NORMAL = 1e7
_TINY = 1e-300
_EPSILON = 1e-15


def betainc(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b).

    The continued fraction of Abramowitz and Stegun 26.5.8, evaluated by Lentz's method.

    Args:
        a: The first parameter, greater than 0.
        b: The second parameter, greater than 0.
        x: The upper limit of the integral, 0 to 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if a <= 0 or b <= 0 or not 0 <= x <= 1:
        raise ValueError(f"betainc({a}, {b}, {x}): a and b must be positive and x between 0 and 1")
    if x in {0.0, 1.0}:
        return x
    # log1p(-x) and not log(1 - x): 1 - x loses its digits for a small x
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    # The fraction converges quickly below this x; above it, I_x(a, b) = 1 − I_{1−x}(b, a) (A&S 26.5.2).
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(a, b, x) / a
    return 1 - front * _continued_fraction(b, a, 1 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of ``betainc``, which needs about sqrt(max(a, b)) steps (modified Lentz method)."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 100 + int(20 * math.sqrt(max(a, b)))):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = 1 + numerator / c
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return value


def t_cdf(t: float, nu: float) -> float:
    """The probability that Student's t with ``nu`` degrees of freedom is at most ``t`` (A&S 26.7.1)."""
    if math.isinf(nu):
        return NormalDist().cdf(t)
    tail = 0.5 * betainc(nu / 2, 0.5, nu / (nu + t * t))
    return 1 - tail if t > 0 else tail


def t_quantile(p: float, nu: float) -> float:
    """The ``p`` quantile of Student's t with ``nu`` degrees of freedom, which need not be whole; normal for infinity.

    Raises:
        ValueError: ``p`` is not inside (0, 1), or ``nu`` is not positive.
    """
    if not 0 < p < 1 or nu <= 0:
        raise ValueError(f"t_quantile({p}, {nu}): p must be between 0 and 1 and nu positive")
    if math.isinf(nu):
        return NormalDist().inv_cdf(p)
    if nu > _NEARLY_NORMAL:
        # ν/(ν + t²) loses its digits and then equals 1; the first Cornish–Fisher term is exact to 1/ν² (A&S 26.7.5).
        z = NormalDist().inv_cdf(p)
        return z + (z**3 + z) / (4 * nu)
    if p < 0.5:
        return -t_quantile(1 - p, nu)
    # Newton's method on the upper tail and not on the CDF, because 1 − p keeps its digits where the CDF is all nines.
    # The tail is convex for t > 0 and the normal quantile lies left of the root, so that each step comes from the left.
    tail, t = 1 - p, NormalDist().inv_cdf(p)
    log_density = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - math.log(nu * math.pi) / 2
    for _ in range(200):
        density = math.exp(log_density - (nu + 1) / 2 * math.log1p(t * t / nu))
        step = (0.5 * betainc(nu / 2, 0.5, nu / (nu + t * t)) - tail) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


@dataclass(frozen=True)
class Component:
    """One line of a budget.

    Attributes:
        name: The line of the budget: a field of ``schema.Budget``.
        u: The standard uncertainty (k = 1), in the unit of the figure; not negative.
        nu: Its degrees of freedom; infinite for a type B evaluation (GUM G.4.3).
        rectangular: Whether the error lies anywhere within a limit, which is √3·u, and never beyond it (GUM 4.3.7).
        random: Whether the error differs from window to window, so that the scatter of the windows already contains it.
    """

    name: str
    u: float
    nu: float = math.inf
    rectangular: bool = False
    random: bool = False


@dataclass(frozen=True)
class Combined:
    """A combined uncertainty.

    Attributes:
        u: Standard uncertainty u_c, the root of the sum of squares (GUM 5.1.2).
        nu: Effective degrees of freedom (Welch and Satterthwaite, GUM G.4.1).
        k: Coverage factor for 95 % (``coverage_factor``).
        expanded: U = k·u_c.
        budget: The components by name.
    """

    u: float
    nu: float
    k: float
    expanded: float
    budget: Budget = field(repr=False)


def combine_components(components: Iterable[Component]) -> Combined:
    """Combine the components of a budget at 95 % coverage; components of the same name are added as squares."""
    listed = list(components)
    u = math.sqrt(math.fsum(c.u**2 for c in listed))
    nu = welch_satterthwaite(listed)
    k = coverage_factor(listed)
    lines: dict[str, float] = {}
    for component in listed:
        lines[component.name] = math.hypot(lines.get(component.name, 0.0), component.u)
    return Combined(u=u, nu=nu, k=k, expanded=k * u, budget=Budget(**lines))


def coverage_factor(components: Sequence[Component]) -> float:
    """The factor k for which k·u_c covers 95 %.

    Without a rectangular component it is Student's t(0.975, ν_eff) (GUM G.4.1). A rectangular error never exceeds its
    limit, so that t would make the interval too wide. The largest rectangular component is therefore convolved exactly
    with all others, which are taken to be normal and are widened for their degrees of freedom (GUM Supplement 1, 5.3
    and 6.4.2). A rectangle alone has k = 0.95·√3.
    """
    limit = max((c.u for c in components if c.rectangular), default=0.0)
    total = math.sqrt(math.fsum(c.u**2 for c in components))
    if limit == 0 or total == 0:
        return t_quantile(0.975, welch_satterthwaite(components))
    others = list(components)
    others.remove(next(c for c in components if c.rectangular and c.u == limit))
    normal = math.sqrt(math.fsum(c.u**2 for c in others))
    normal *= t_quantile(0.975, welch_satterthwaite(others)) / NormalDist().inv_cdf(0.975)
    return _half_width(math.sqrt(3) * limit, normal) / total


def _half_width(limit: float, sigma: float) -> float:
    """The half-width that contains 95 % of the sum of a rectangular error (± ``limit``) and a normal one (``sigma``).

    With the limit a and G(x) = x·Φ(x) + φ(x), which is the integral of Φ, the sum is below U with the probability
    σ/(2a)·(G((U + a)/σ) − G((U − a)/σ)). Bisection finds the U for which this is 97.5 %.
    """
    if sigma < 1e-6 * limit:
        return 0.95 * limit
    unit = NormalDist()

    def integral(x: float) -> float:
        return x * unit.cdf(x) + unit.pdf(x)

    low, high = 0.0, limit + 5 * sigma
    for _ in range(60):
        middle = (low + high) / 2
        below = sigma / (2 * limit) * (integral((middle + limit) / sigma) - integral((middle - limit) / sigma))
        low, high = (low, middle) if below > 0.975 else (middle, high)
    return (low + high) / 2


def welch_satterthwaite(components: Sequence[Component]) -> float:
    """The effective degrees of freedom u_c⁴ / Σ(u_i⁴/ν_i) (GUM G.4.1, equation G.2b); infinite if all are infinite."""
    total = math.fsum(c.u**2 for c in components)
    if total == 0:
        return math.inf
    # Relative to u_c: the fourth power of a microjoule is near the smallest float.
    limited = math.fsum((c.u**2 / total) ** 2 / c.nu for c in components)
    return 1 / limited if limited > 0 else math.inf


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error s/√K (GUM 4.2.3); the error of a single value is unknown, None."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    s = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    return mean, s / math.sqrt(count)
