"""Find the power of stages that are too short for a sensor, by regression of its readings on when each stage ran.

The model: a reading is the filtered sum of a baseline and of the power of the stages that ran. The occupancy of each
stage (1 while it is the innermost stage, otherwise 0) is passed through the sensor's own filter, and the readings are
fitted by these by least squares. Each stretch of ``BASELINE_S`` has a baseline of its own, which removes drift. The
power of a stage beyond the baseline can be determined as far as its occupancy varies independently of the others.

Neighbouring readings behind a filter are correlated. The standard errors therefore come from sums over clusters,
stretches that are long compared with the filter: the sandwich estimator of Liang and Zeger (1986) with the small-sample
factor of Cameron and Miller (2015).

Standard library only: the daemon and ``edgeprof.record`` use the same code, so that they agree about one run.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from edgeprof.energy.online.stage_timeline import Timeline
    from edgeprof.sensing.sensor import Channel

#: Each stretch of this many seconds and at least this many clusters has a baseline of its own.
BASELINE_S, BASELINE_CLUSTERS = 10.0, 5
#: The least length of a cluster in seconds, in time constants of the filter, and in readings.
CLUSTER_S, CLUSTER_TAUS, CLUSTER_READINGS = 1.0, 8.0, 8
#: The most stages in one regression; the time of further stages belongs to the baseline.
MOST_STAGES = 16
#: The delay of readings is searched at these fractions of a refresh interval, then around the best one by this many
#: golden sections. Its uncertainty comes from the misfit at this fraction of a refresh interval to either side.
_LAGS, _SECTIONS, _SIDE = (-0.4, 0.0, 0.4, 0.8, 1.2), 6, 0.1
#: The time constant is fitted at this relative distance from the stated one, and its uncertainty at this distance from
#: the fitted one.
_TAU_RANGE, _TAU_SIDE = 0.1, 0.03
#: The largest uncertainty of a delay or a time constant, in such steps.
_MOST_STEPS = 3.0
#: The smallest uncertainty, in steps and in seconds: time-stamps of readings and of stages are late by varying times,
#: and no source is perfectly regular.
_LEAST_STEPS, _LEAST_LAG_S = 0.5, 0.2e-3
#: A stage is collinear with the others if they explain this share of the variance of its occupancy.
COLLINEAR = 0.9999


#: The ridge that is added to the diagonal of the scaled moments, and the least moment of a stage.
_RIDGE, _LEAST_MOMENT = 1e-9, 1e-12


class Power(NamedTuple):
    """The power of a stage beyond the baseline.

    Attributes:
        watts: The power, in W.
        u_w: Its standard error, in W.
        degrees_of_freedom: The degrees of freedom of the standard error.
        is_collinear: Whether the stage runs when the other stages run, so that its power cannot be separated.
    """

    watts: float
    u_w: float
    degrees_of_freedom: float
    is_collinear: bool


class StageFit(NamedTuple):
    """The regression of one channel's readings.

    Attributes:
        powers: Stage → its power beyond the baseline, for the first ``MOST_STAGES`` stages.
        baseline_w: The mean power without any stage, in W.
        lag_s: The delay of the readings, in seconds.
    """

    powers: dict[Hashable, Power]
    baseline_w: float
    lag_s: float


class Shape(NamedTuple):
    """How a reading depends on the power before it.

    Attributes:
        kind: ``exponential``, ``block``, ``instantaneous``; or ``counter``, whose readings are joules.
        seconds: The time constant of the filter, or the length of the block, in seconds.
        update_s: The update interval of the source, in seconds; 0 if unknown.
    """

    kind: str
    seconds: float = 0.0
    update_s: float = 0.0


def shape_of(channel: Channel) -> Shape:
    """The shape of a channel's readings."""
    update_s = channel.update_interval_s or 0.0
    if channel.kind == "counter":
        return Shape("counter", 0.0, update_s)
    seconds = channel.filter.tau_s if channel.filter.kind == "exponential" else channel.filter.length_s
    return Shape(channel.filter.kind if seconds else "instantaneous", seconds or 0.0, update_s)


def fit_stages(
    readings: Sequence[tuple[float, float]], timeline: Timeline, shape: Shape, lag_s: float | None = None
) -> StageFit | None:
    """Fit the powers of stages to readings.

    A reading may be as old as the source's update interval or the interval of the readings. The delay that fits best is
    used, and its uncertainty is part of the standard errors.

    Args:
        readings: Times (seconds of CLOCK_MONOTONIC) and watts (joules of a counter) in order of time, including
            repeats.
        timeline: When the stages ran, settled until the last reading.
        shape: The shape of the channel's readings.
        lag_s: The delay of the readings in seconds, if it was found before; None: it is searched.

    Returns:
        The fit; None where there are no stages or too few readings.
    """
    keys = timeline.keys[:MOST_STAGES]
    if not keys or len(readings) < 3 * CLUSTER_READINGS:
        return None
    interval_s = (readings[-1][0] - readings[0][0]) / (len(readings) - 1)
    step_s = min(shape.update_s, interval_s) if shape.update_s else interval_s

    def solve(lag: float, seconds: float) -> _Solution | None:
        return _solve_clusters(_make_clusters(readings, timeline, shape._replace(seconds=seconds), lag), keys)

    seconds = shape.seconds
    ticking = _on_own_clock(readings, shape.update_s, interval_s) if shape.kind in {"block", "counter"} else None
    if ticking is not None:
        readings, period = ticking
        # A block that lasts from tick to tick has the length that its ticks show.
        seconds = period if abs(seconds / shape.update_s - 1) < _TAU_RANGE else seconds
        shape = shape._replace(update_s=0.0)  # each of the readings is a new one
    best_s = _best_lag(lambda lag: solve(lag, seconds), step_s) if lag_s is None else lag_s
    beside = [(best_s - _SIDE * step_s, seconds), (best_s + _SIDE * step_s, seconds)]
    if shape.kind == "exponential":
        seconds = _best_time_constant(lambda tau_s: solve(best_s, tau_s), seconds)
        beside = [(best_s + side * _SIDE * step_s, seconds) for side in (-1, 1)]
        beside += [(best_s, seconds * (1 + side * _TAU_SIDE)) for side in (-1, 1)]
    best = solve(best_s, seconds)
    around = [solution for lag, length in beside if (solution := solve(lag, length)) is not None]
    if best is None or len(around) < len(beside):
        return None
    least_steps = max(_LEAST_STEPS, _LEAST_LAG_S / (_SIDE * step_s))
    powers = _with_edge_errors(_with_shape_errors(best, around, least_steps), timeline)
    return StageFit(powers, best.baseline_w, best_s)


def _with_shape_errors(best: _Solution, around: Sequence[_Solution], least_steps: float) -> dict[Hashable, Power]:
    """Add the uncertainty of the delay and of the time constant to the powers.

    Args:
        best: The best solution.
        around: The solutions at either side of it, first for the delay, then for the time constant.
        least_steps: The smallest uncertainty of either, in steps between the solutions.
    """
    variances = dict.fromkeys(best.powers, 0.0)
    for before, after in zip(around[::2], around[1::2], strict=True):
        u = max(least_steps, _nuisance_error(before, best, after))
        for key in variances:
            # The sensitivity of a power to the parameter is its slope between the two sides (GUM 5.1.3).
            variances[key] += (u * (after.powers[key].watts - before.powers[key].watts) / 2) ** 2
    return {key: power._replace(u_w=math.sqrt(power.u_w**2 + variances[key])) for key, power in best.powers.items()}


def _with_edge_errors(powers: Mapping[Hashable, Power], timeline: Timeline) -> dict[Hashable, Power]:
    """Add the uncertainty of the edges of each stage to its power.

    At an edge, ``_LEAST_LAG_S`` of a neighbouring stage may count for this one, at the power of the strongest stage at
    most. Without this, a stage of 2 or 3 ms is quoted in the runs in which chance makes its power large.
    """
    strongest_w = max((abs(power.watts) for power in powers.values()), default=0.0)
    return {
        key: power._replace(
            u_w=math.hypot(power.u_w, strongest_w * _LEAST_LAG_S * timeline.stretches[key] / timeline.own_s[key])
        )
        for key, power in powers.items()
    }


def _on_own_clock(
    readings: Sequence[tuple[float, float]], update_s: float, interval_s: float
) -> tuple[list[tuple[float, float]], float] | None:
    """Move the readings of a source that is refreshed less often than it is read to the times of its own regular clock.

    A new value is seen up to one reading interval after it appeared. The period of the source's clock is the slope of
    the times at which values were seen to change, and its phase is that of the changes that were seen earliest.

    Returns:
        One reading for each tick, and the period (s); None where the source has no regular clock.
    """
    changed = [
        later
        for earlier, later in pairwise(readings)
        if later[1] != earlier[1] and later[0] - earlier[0] < 1.5 * interval_s  # after a pause its age is unknown
    ]
    distances = sorted(b[0] - a[0] for a, b in pairwise(changed))
    if update_s < 3 * interval_s or len(distances) < CLUSTER_READINGS:
        return None
    period = distances[len(distances) // 2]
    for _ in range(2):  # the second time with the better known period
        ticks = [0]
        for a, b in pairwise(changed):
            ticks.append(ticks[-1] + max(1, round((b[0] - a[0]) / period)))
        period = _line_slope(ticks, [time_s for time_s, _ in changed])
    phases = sorted(time_s - tick * period for tick, (time_s, _) in zip(ticks, changed, strict=True))
    earliest = phases[len(phases) // 50]
    if phases[-1 - len(phases) // 50] - earliest > 2 * interval_s:
        return None
    return [(earliest + tick * period, value) for tick, (_, value) in zip(ticks, changed, strict=True)], period


def _line_slope(x: Sequence[int], y: Sequence[float]) -> float:
    """The slope of the least-squares line."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    products = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / math.fsum((a - mean_x) ** 2 for a in x)


def _best_time_constant(solve: Callable[[float], _Solution | None], stated_s: float) -> float:
    """The time constant with the least misfit: the vertex of a parabola through three points around the stated one."""
    solutions = [solve(stated_s * (1 + side * _TAU_RANGE)) for side in (-1, 0, 1)]
    low, middle, high = (math.inf if solution is None else solution.misfit for solution in solutions)
    curvature = low - 2 * middle + high
    if not 0 < curvature < math.inf:
        return stated_s
    moved = min(1.2, max(-1.2, (low - high) / (2 * curvature)))
    return stated_s * (1 + moved * _TAU_RANGE)


def _best_lag(solve: Callable[[float], _Solution | None], step_s: float) -> float:
    """The delay with the least misfit: the best point of a grid, then golden section between its neighbours."""

    def misfit(lag: float) -> float:
        solution = solve(lag)
        return math.inf if solution is None else solution.misfit

    grid = [part * step_s for part in _LAGS]
    costs = [misfit(lag) for lag in grid]
    best = costs.index(min(costs))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    cost_a, cost_b = misfit(a), misfit(b)
    for _ in range(_SECTIONS):
        if cost_a < cost_b:
            high, b, cost_b = b, a, cost_a
            a = high - ratio * (high - low)
            cost_a = misfit(a)
        else:
            low, a, cost_a = a, b, cost_b
            b = low + ratio * (high - low)
            cost_b = misfit(b)
    return (low + high) / 2


def _nuisance_error(before: _Solution, best: _Solution, after: _Solution) -> float:
    """The standard error of the delay or the time constant, in steps between the solutions.

    Near its minimum the sum of squares is a parabola. A parameter's variance is twice the variance of the residuals
    over the second derivative of the sum of squares, which is the second difference here.
    """
    curvature = before.misfit - 2 * best.misfit + after.misfit
    variance = best.misfit / best.readings * best.inflation
    return min(_MOST_STEPS, math.sqrt(2 * variance / curvature)) if curvature > 0 else _MOST_STEPS


class _Cluster:
    """Sums over neighbouring readings: of the rows (occupancies …, watts), and of the products of their elements."""

    __slots__ = ("count", "first_s", "products", "sums")

    def __init__(self, size: int, time_s: float) -> None:
        self.count = 0
        self.first_s = time_s
        self.sums = [0.0] * size
        self.products = [[0.0] * size for _ in range(size)]

    def add(self, row: Sequence[float]) -> None:
        self.count += 1
        for i, a in enumerate(row):
            self.sums[i] += a
            self.products[i] = [old + a * b for old, b in zip(self.products[i], row, strict=True)]


def _make_clusters(
    readings: Sequence[tuple[float, float]], timeline: Timeline, shape: Shape, lag_s: float
) -> list[_Cluster]:
    """Divide the readings into clusters, which are long compared with the filter; a short last one is left out."""
    least_s = max(CLUSTER_S, CLUSTER_TAUS * shape.seconds)
    clusters: list[_Cluster] = []
    for time_s, row in _regression_rows(readings, timeline, shape, lag_s):
        newest = clusters[-1] if clusters else None
        if newest is None or (newest.count >= CLUSTER_READINGS and time_s - newest.first_s >= least_s):
            newest = _Cluster(len(row), time_s)
            clusters.append(newest)
        newest.add(row)
    return [cluster for cluster in clusters if cluster.count >= CLUSTER_READINGS]


def _regression_rows(
    readings: Sequence[tuple[float, float]], timeline: Timeline, shape: Shape, lag_s: float
) -> Iterator[tuple[float, list[float]]]:
    """For each new reading: its time, and a row of the filtered occupancy of each stage and the watts."""
    keys = timeline.keys[:MOST_STAGES]
    filtered = [0.0] * len(keys)
    span = shape.seconds if shape.kind == "block" else max(shape.update_s, 1e-4)
    settled_s = readings[0][0] + CLUSTER_TAUS * shape.seconds
    last_s, last = readings[0]
    for time_s, value in readings[1:]:
        start_s, end_s = last_s - lag_s, time_s - lag_s
        if shape.kind == "exponential":
            remaining = math.exp((start_s - end_s) / shape.seconds)
            filtered = [
                remaining * old + timeline.decayed(key, start_s, end_s, shape.seconds)
                for key, old in zip(keys, filtered, strict=True)
            ]
            if time_s >= settled_s:  # the filter has forgotten what ran before the first reading
                yield time_s, [*filtered, value]
        elif shape.kind == "counter":
            if value <= last:
                continue  # no tick: the next rise counts from the last tick
            yield time_s, [*_mean_occupancies(keys, start_s, end_s, timeline), (value - last) / (time_s - last_s)]
        elif value != last or shape.update_s <= 1.5 * (time_s - last_s):
            yield time_s, [*_mean_occupancies(keys, end_s - span, end_s, timeline), value]
        last_s, last = time_s, value


def _mean_occupancies(keys: Sequence[Hashable], start_s: float, end_s: float, timeline: Timeline) -> list[float]:
    """The mean occupancy of each stage over a stretch."""
    return [(timeline.seconds(key, end_s) - timeline.seconds(key, start_s)) / (end_s - start_s) for key in keys]


class _Solution(NamedTuple):
    """A least-squares fit for one delay and one time constant.

    Attributes:
        powers: Stage → its power.
        baseline_w: The mean power without any stage, in W.
        misfit: The sum of squared residuals, in W².
        readings: The number of readings.
        inflation: The factor by which correlated residuals raise the variance of a coefficient, on average.
    """

    powers: dict[Hashable, Power]
    baseline_w: float
    misfit: float
    readings: int
    inflation: float


def _solve_clusters(clusters: Sequence[_Cluster], keys: Sequence[Hashable]) -> _Solution | None:
    """Solve the normal equations with one baseline for each group of clusters, and compute cluster-robust errors.

    Subtracting the mean row of each group removes its baseline (the within transformation, Frisch–Waugh–Lovell), so
    that only the stages remain as unknowns.
    """
    size, groups = len(keys), _baseline_groups(clusters)
    freedom = len(clusters) - len(groups) - size
    if freedom < 1:
        return None
    moments = [
        _centred_products(cluster, centre) for group in groups for centre in [_mean_row(group)] for cluster in group
    ]
    normal = [[math.fsum(m[i][j] for m in moments) for j in range(size)] for i in range(size)]
    right = [math.fsum(m[i][size] for m in moments) for i in range(size)]
    inverse = _inverse_matrix(normal)
    watts = [_dot_product(row, right) for row in inverse]
    # The score of a cluster is Xᵀr, its contribution to the gradient; the sandwich is (XᵀX)⁻¹·Σ s·sᵀ·(XᵀX)⁻¹.
    scores = [[m[i][size] - _dot_product(m[i][:size], watts) for i in range(size)] for m in moments]
    readings = sum(cluster.count for cluster in clusters)
    misfit = max(0.0, math.fsum(m[size][size] for m in moments) - _dot_product(watts, right))
    # The sandwich's variances, and by how much they exceed those of independent residuals.
    variances = [
        len(clusters) / freedom * math.fsum(_dot_product(row, score) ** 2 for score in scores) for row in inverse
    ]
    independent = [inverse[i][i] * misfit / readings for i in range(size)]
    ratios = [a / b if b > 0 else 1.0 for a, b in zip(variances, independent, strict=True)]
    inflation = math.fsum(ratios) / size
    powers = {}
    for i, key in enumerate(keys):
        # 1 − R² of a regression of this occupancy on the others: the inverse of the variance inflation factor.
        unexplained = 1 / (inverse[i][i] * normal[i][i]) if normal[i][i] > _LEAST_MOMENT else 0.0
        # The sandwich of a few dozen clusters is small by chance now and then; the mean inflation seldom is.
        variance = max(variances[i], inflation * independent[i])
        powers[key] = Power(watts[i], math.sqrt(variance), freedom, unexplained < 1 - COLLINEAR)
    sums = [math.fsum(cluster.sums[i] for cluster in clusters) for i in range(size + 1)]
    baseline_w = (sums[size] - _dot_product(sums[:size], watts)) / readings
    return _Solution(powers, baseline_w, misfit, readings, inflation)


def _dot_product(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def _baseline_groups(clusters: Sequence[_Cluster]) -> list[list[_Cluster]]:
    """Divide the clusters into groups that have one baseline each."""
    groups: list[list[_Cluster]] = []
    for cluster in clusters:
        group = groups[-1] if groups else None
        if group is None or (len(group) >= BASELINE_CLUSTERS and cluster.first_s - group[0].first_s > BASELINE_S):
            groups.append([cluster])
        else:
            group.append(cluster)
    if len(groups) > 1 and len(groups[-1]) < BASELINE_CLUSTERS:
        last = groups.pop()
        groups[-1] += last
    return groups


def _mean_row(group: Sequence[_Cluster]) -> list[float]:
    """The mean row of a group of clusters."""
    count = sum(cluster.count for cluster in group)
    return [math.fsum(cluster.sums[i] for cluster in group) / count for i in range(len(group[0].sums))]


def _centred_products(cluster: _Cluster, centre: Sequence[float]) -> list[list[float]]:
    """Σ (row − centre)(row − centre)ᵀ over a cluster."""
    size = len(centre)
    return [
        [
            cluster.products[i][j]
            - centre[i] * cluster.sums[j]
            - cluster.sums[i] * centre[j]
            + cluster.count * centre[i] * centre[j]
            for j in range(size)
        ]
        for i in range(size)
    ]


def _inverse_matrix(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Invert a symmetric positive semidefinite matrix, by Gauss–Jordan elimination after scaling.

    The small ridge ``_RIDGE`` keeps the matrix invertible: stages that run together, or never, get enormous variances,
    and the others are hardly changed.
    """
    size = len(matrix)
    scales = [math.sqrt(max(matrix[i][i], _LEAST_MOMENT)) for i in range(size)]
    rows = [
        [matrix[i][j] / scales[i] / scales[j] + _RIDGE * (i == j) for j in range(size)]
        + [float(i == j) for j in range(size)]
        for i in range(size)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for other in range(size):
            if other != column and rows[other][column]:
                factor = rows[other][column]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[column], strict=True)]
    return [[rows[i][size + j] / scales[i] / scales[j] for j in range(size)] for i in range(size)]
