"""Find the time constant of an exponential filter from the way its readings fall when work ends.

Every benchmark contains such falls: after the warm-up and after the last window the load falls to idle, and the
readings follow y = a + c·exp(−t/7τ) + b·exp(−t/τ), where the slow term stands for power that settles while the chip
cools. If the load itself does not fall at once, the curve bends at its beginning. Each fall is therefore fitted a
second time without its beginning, and the disagreement of the two fits is part of the uncertainty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprof.energy.influences import chip_name, u_tau
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.energy.window import Floats
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

    Rest = tuple[float, float]
    Beside = Literal["tail", "slope", "nothing"]

#: A fall is fitted over at most this many time constants.
_LONGEST_TAUS = 6.0
#: The search range of the time constant as a factor of the stated one, and the number of points of the search grid.
_RANGE, _GRID = 8.0, 61
#: The time constant of the slow term, in time constants of the filter.
_SLOW = 7.0
#: A slow term is fitted where the fall is seen for at least this many time constants; a fall that is seen for fewer
#: than the second number determines no time constant.
_TAIL_TAUS, _LEAST_TAUS = 4.0, 1.5
#: A fall of fewer steps of the sensor is not fitted.
_LEAST_STEPS = 8.0
#: The smallest relative uncertainty that is reported for a time constant.
_LEAST_U = 0.005
#: A fit with a larger relative uncertainty is not used.
_MOST_U = 0.2


@dataclass(frozen=True)
class TimeConstant:
    """A filter's time constant as it was fitted to falls of the load.

    Attributes:
        tau_s: The time constant, in seconds.
        u_s: Its standard uncertainty, in seconds.
        falls: How many falls it was fitted to.
        stated_s: The time constant that the channel states, in seconds.
    """

    tau_s: float
    u_s: float
    falls: int
    stated_s: float


def fit_filters(
    series: Sequence[ChannelSeries], rests: Sequence[Rest]
) -> tuple[list[ChannelSeries], dict[str, TimeConstant], list[schema.Reason]]:
    """Fit the exponential filters of all chips, and return the series with the fitted time constants.

    Args:
        series: All channels; those without an exponential filter stay as they are.
        rests: Start and end (s) of stretches without work that begin where work ends.

    Returns:
        The series, the time constants by chip (``influences.chip_name``), and a reason for each one that contradicts
        the stated time constant.
    """
    constants: dict[str, TimeConstant] = {}
    reasons = []
    chips: dict[str, list[ChannelSeries]] = {}
    for channel_series in series:
        if (
            channel_series.channel.filter.kind == "exponential"
            and channel_series.channel.filter.tau_s
            and channel_series.channel.quantity == "power"
        ):
            chips.setdefault(chip_name(channel_series.channel), []).append(channel_series)
    for name, members in chips.items():
        constant = time_constant(members, rests)
        if constant is None:
            continue
        constants[name] = constant
        reason = _contradiction_reason(members[0].channel, constant)
        if reason is not None:
            reasons.append(reason)
    return (
        [_with_filter(channel_series, constants.get(chip_name(channel_series.channel))) for channel_series in series],
        constants,
        reasons,
    )


def with_time_constant(channel: Channel, constant: TimeConstant | None) -> Channel:
    """Put a fitted time constant into a channel, if it is better known than the stated one or contradicts it."""
    if constant is None or channel.filter.kind != "exponential":
        return channel
    if constant.u_s >= u_tau(channel) and _contradiction_reason(channel, constant) is None:
        return channel
    # A rectangular error with this limit has the standard uncertainty of the fit (GUM 4.3.7).
    limit = math.sqrt(3) * constant.u_s / constant.tau_s
    return replace(channel, filter=replace(channel.filter, tau_s=constant.tau_s, tau_limit=limit))


def _with_filter(series: ChannelSeries, constant: TimeConstant | None) -> ChannelSeries:
    return replace(series, channel=with_time_constant(series.channel, constant))


def _contradiction_reason(channel: Channel, constant: TimeConstant) -> schema.Reason | None:
    off = abs(constant.tau_s - constant.stated_s)
    if off <= math.sqrt(3) * u_tau(channel) + 3 * constant.u_s:
        return None
    return schema.Reason(
        Code.FILTER_CONTRADICTED,
        f"{channel.name} falls with a time constant of {constant.tau_s:.3g} ± {2 * constant.u_s:.2g} s when work ends,"
        f" where {constant.stated_s:.3g} s is stated: the one that was seen is used",
        "edgeprof calibrate --filter measures it once for all.",
    )


def time_constant(series: Sequence[ChannelSeries], rests: Sequence[Rest]) -> TimeConstant | None:
    """The time constant of a chip's filter; None where no fall determines it well enough.

    Args:
        series: The power channels of the chip, all behind the same filter.
        rests: As in ``fit_filters``.
    """
    stated = series[0].channel.filter.tau_s or 0.0
    falls = [
        fall
        for channel_series in series
        for rest in rests
        if (fall := _fit_fall(channel_series, rest, stated)) is not None
    ]  # fmt: skip
    if not falls:
        return None
    # The mean of the falls, each weighted by the inverse of its variance.
    weights = [1 / u**2 for _, u in falls]
    tau = math.fsum(w * t for w, (t, _) in zip(weights, falls, strict=True)) / math.fsum(weights)
    u = 1 / math.sqrt(math.fsum(weights))
    if len(falls) > 1:
        # Falls that disagree by more than their own uncertainties widen the result, by Birge's ratio √(χ²/(n − 1))
        # (Birge 1932, The Calculation of Errors by the Method of Least Squares).
        chi2 = math.fsum(w * (t - tau) ** 2 for w, (t, _) in zip(weights, falls, strict=True)) / (len(falls) - 1)
        u *= math.sqrt(max(1.0, chi2))
    u = max(u, _LEAST_U * tau)
    return TimeConstant(tau, u, len(falls), stated) if u < _MOST_U * tau else None


def _fit_fall(series: ChannelSeries, rest: Rest, stated: float) -> tuple[float, float] | None:
    """Fit one fall: its time constant and the standard uncertainty of that (s); None where it determines none."""
    begin, end = rest
    refresh = series.channel.update_interval_s or 0.0
    times, values = np.asarray(series.times, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
    part = (times >= begin + refresh) & (times < min(end, begin + _LONGEST_TAUS * _RANGE * stated)) & ~np.isnan(values)
    t, y = times[part] - begin, values[part]
    step = series.channel.resolution or 0.0
    if t.size < 12 or t[-1] < 2 * stated / _RANGE or abs(y[0] - y[-1]) < _LEAST_STEPS * step or y[0] == y[-1]:
        return None
    # In a fall that is seen for a few time constants only, a slope could not be told from the fall itself.
    seen_taus = float(t[-1]) / stated
    first_look: Beside = "slope" if seen_taus >= _TAIL_TAUS else "nothing"
    whole = fit_decay(t, y, stated / _RANGE, min(stated * _RANGE, float(t[-1]) / _LEAST_TAUS), beside=first_look)
    if whole is None:
        return None
    tau, u = whole
    # Fit again over at most six time constants, because the idle power may change later for other reasons.
    near = t <= _LONGEST_TAUS * tau
    beside: Beside = "tail" if t[-1] >= _TAIL_TAUS * tau else "nothing"
    again = fit_decay(t[near], y[near], tau / 2, 2 * tau, beside=beside)
    if again is None:
        return None
    tau, u = again
    later = (t >= 0.7 * tau) & near
    second = fit_decay(t[later], y[later], tau / 3, 3 * tau, beside=beside)
    if second is None:
        return tau, math.hypot(u, 0.1 * tau)
    return tau, math.hypot(u, max(0.0, abs(second[0] - tau) - 2 * second[1]))


def fit_decay(t: Floats, y: Floats, low: float, high: float, *, beside: Beside = "slope") -> tuple[float, float] | None:
    """Fit y = a + b·exp(−t/τ) + the term ``beside``, and return τ and its standard uncertainty (s).

    For each τ the linear coefficients follow by least squares (variable projection, Golub and Pereyra 1973), so that
    only τ is searched: on a logarithmic grid, refined by golden section. The uncertainty comes from the covariance of
    the full linearised model. It is doubled, because the residuals of quantised readings are correlated.

    Args:
        t: Seconds since the fall began, shape ``(n,)``.
        y: The readings (W), same shape.
        low: The smallest τ, in seconds.
        high: The largest τ, in seconds.
        beside: ``tail`` for c·exp(−t/7τ), which needs a narrow range of τ, because it could change places with the
            fall; ``slope`` for c·t; ``nothing`` for a fall that is seen for two time constants only, in which neither
            could be told from τ.

    Returns:
        None where the best τ lies at an end of the range, or there are fewer than eight readings.
    """
    if t.size < 8 or not 0 < low < high:
        return None

    def design(tau: float) -> Floats:
        columns = [np.exp(-t / tau), np.ones_like(t)]
        if beside != "nothing":
            columns.append(t if beside == "slope" else np.exp(-t / (_SLOW * tau)))
        return np.column_stack(columns)

    def misfit(logarithm: float) -> float:
        matrix = design(math.exp(logarithm))
        residuals = y - matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]
        return float(residuals @ residuals)

    grid = np.linspace(math.log(low), math.log(high), _GRID)
    best = int(np.argmin(_misfits_on_grid(np.exp(grid), t, y, beside)))
    if best in {0, _GRID - 1}:
        return None
    log_tau = _golden_section(misfit, float(grid[best - 1]), float(grid[best + 1]))
    tau = math.exp(log_tau)
    matrix = design(tau)
    height = np.linalg.lstsq(matrix, y, rcond=None)[0][0]
    # The derivative of the model by τ beside its linear terms: the Jacobian of the whole fit.
    full = np.column_stack((height * matrix[:, 0] * t / tau**2, matrix))
    covariance = np.linalg.pinv(full.T @ full) * misfit(log_tau) / max(1, t.size - full.shape[1])
    return tau, 2 * math.sqrt(float(covariance[0, 0]))


def _misfits_on_grid(taus: Floats, t: Floats, y: Floats, beside: Beside) -> Floats:
    """The sum of squared residuals of ``fit_decay`` for many τ at once, by the normal equations.

    They are less exact than ``lstsq``, but exact enough to choose a point of the grid.
    """
    falls = np.exp(-t / taus[:, None])
    others = [] if beside == "nothing" else [np.tile(t, (taus.size, 1))]
    if beside == "tail":
        others = [np.exp(-t / (_SLOW * taus[:, None]))]
    columns = np.stack([falls, *others], axis=1)
    columns -= columns.mean(axis=2, keepdims=True)
    columns /= np.maximum(np.linalg.norm(columns, axis=2, keepdims=True), np.finfo(float).tiny)
    centred = y - y.mean()
    projected = columns @ centred
    # The small diagonal keeps the equations solvable where columns are nearly equal, or zero (a fall that is over
    # before the first reading).
    products = columns @ columns.transpose(0, 2, 1) + 1e-12 * np.eye(columns.shape[1])
    solved = np.linalg.solve(products, projected[:, :, None])[:, :, 0]
    misfits: Floats = np.dot(centred, centred) - np.einsum("ij,ij->i", solved, projected)
    return misfits


def _golden_section(cost: Callable[[float], float], low: float, high: float) -> float:
    """Find the minimum of a function that has one minimum between ``low`` and ``high``, by golden section (Kiefer
    1953).
    """
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    cost_a, cost_b = cost(a), cost(b)
    for _ in range(16):
        if cost_a < cost_b:
            high, b, cost_b = b, a, cost_a
            a = high - ratio * (high - low)
            cost_a = cost(a)
        else:
            low, a, cost_a = a, b, cost_b
            b = low + ratio * (high - low)
            cost_b = cost(b)
    return (low + high) / 2


def rests(busy: Sequence[Span], end_s: float, least_s: float) -> list[Rest]:
    """Find the stretches between and after work that last ``least_s`` or longer, as start and end in seconds.

    Args:
        busy: Everything that ran.
        end_s: When the recording ends, in seconds.
        least_s: The shortest stretch, in seconds.
    """
    intervals = []
    ordered = sorted(busy, key=lambda span: span.start_s)
    until = -math.inf
    for number, span in enumerate(ordered):
        until = max(until, span.end_s)
        following = ordered[number + 1].start_s if number + 1 < len(ordered) else end_s
        if following - until >= least_s:
            intervals.append((until, following))
    return intervals
