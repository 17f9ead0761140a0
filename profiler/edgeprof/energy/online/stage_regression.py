"""The power of stages that are shorter than a sensor can show, by regression of its readings on when each stage ran.

The rule. A reading is what the sensor makes of a baseline and of the stages that ran. Of each stage its occupancy (1
while it runs; its own time alone, where another stage runs within it) is passed through the sensor's own filter, and
the readings are explained by these by least squares, with a baseline of its own for each ``BASELINE_S``, which takes
drift away. What a stage draws beyond the baseline is found as far as its time varies apart from the others'.

Standard errors are those of sums over stretches that are long beside the filter (a sandwich over clusters: Liang and
Zeger 1986, with the small-sample factor of Cameron and Miller 2015), because neighbouring readings behind a filter are
no independent ones.

Standard library only: the daemon and ``edgeprof.record`` use the same code, so that they agree about one run.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from edgeprof.energy.online.stage_timeline import Timeline
    from edgeprof.sensing.sensor import Channel

#: Each stretch of this many seconds, and of this many clusters at least, has a baseline of its own.
BASELINE_S, BASELINE_CLUSTERS = 10.0, 5
#: A cluster lasts so long (s), so many time constants of the filter, and so many readings.
CLUSTER_S, CLUSTER_TAUS, CLUSTER_READINGS = 1.0, 8.0, 8
#: The most stages that are told apart; the time of further ones belongs to the baseline.
MOST_STAGES = 16
#: How late readings are is tried at these parts of a refresh, then between the best of them by so many golden
#: sections; what that leaves uncertain is seen from so much of a refresh beside.
_LAGS, _SECTIONS, _SIDE = (-0.4, 0.0, 0.4, 0.8, 1.2), 6, 0.1
#: A time constant is looked for so far from the stated one, and its uncertainty so far from what is found.
_TAU_RANGE, _TAU_SIDE = 0.1, 0.03
#: No lag or time constant is less certain than so many of these steps.
_MOST_STEPS = 3.0
#: Nor more certain than this, in steps and in seconds: readings are stamped when they are read, a stage when its
#: program comes to it, and no source is regular to its last digit.
_LEAST_STEPS, _LEAST_LAG_S = 0.5, 0.2e-3
#: A stage whose time is explained by the others' to this share is collinear with them.
COLLINEAR = 0.9999


#: What is added to the scaled moments' diagonal, and the least moment of a stage (s² of readings).
_RIDGE, _LEAST_MOMENT = 1e-9, 1e-12


class Power(NamedTuple):
    """What a stage draws beyond the baseline, or the baseline itself.

    Attributes:
        watts: W.
        u_w: Standard error, W; infinite where it cannot be told.
        degrees_of_freedom: Of the standard error.
        is_collinear: Whether its time moves with that of the other stages.
    """

    watts: float
    u_w: float
    degrees_of_freedom: float
    is_collinear: bool


class StageFit(NamedTuple):
    """What the readings of a channel say of the stages.

    Attributes:
        powers: Stage → what it draws beyond the baseline; of the first ``MOST_STAGES`` stages.
        baseline_w: Mean watts without any stage.
        lag_s: How late the readings are.
    """

    powers: dict[Hashable, Power]
    baseline_w: float
    lag_s: float


class Shape(NamedTuple):
    """What a reading is of the power before it.

    Attributes:
        kind: ``exponential``, ``block``, ``instantaneous``; or ``counter``, whose readings are joules.
        seconds: The filter's time constant, or the block's length (s).
        update_s: How often the source has something new (s).
    """

    kind: str
    seconds: float = 0.0
    update_s: float = 0.0


def shape_of(channel: Channel) -> Shape:
    """What the readings of a channel are, as the regression needs it."""
    update_s = channel.update_interval_s or 0.0
    if channel.kind == "counter":
        return Shape("counter", 0.0, update_s)
    seconds = channel.filter.tau_s if channel.filter.kind == "exponential" else channel.filter.length_s
    return Shape(channel.filter.kind if seconds else "instantaneous", seconds or 0.0, update_s)


def fit_stages(
    readings: Sequence[tuple[float, float]], timeline: Timeline, shape: Shape, lag_s: float | None = None
) -> StageFit | None:
    """Explain readings by the stages that ran.

    A reading may be as old as the source's refresh, or as the distance of readings. How late readings are is what fits
    them best, and what that leaves uncertain is in the standard errors.

    Args:
        readings: Seconds of CLOCK_MONOTONIC, and watts (of a counter, joules), in order of time, repeats included.
        timeline: Settled until the last of them.
        shape: Of the channel.
        lag_s: How late readings were found to be before; None: it is looked for.

    Returns:
        The fit; None where there are no stages, or too few readings.
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
    there = solve(best_s, seconds)
    around = [solution for lag, length in beside if (solution := solve(lag, length)) is not None]
    if there is None or len(around) < len(beside):
        return None
    least_steps = max(_LEAST_STEPS, _LEAST_LAG_S / (_SIDE * step_s))
    return StageFit(_with_shape_errors(there, around, least_steps), there.baseline_w, best_s)


def _with_shape_errors(there: _Solution, around: Sequence[_Solution], least_steps: float) -> dict[Hashable, Power]:
    """The powers with what the lag and the time constant leave uncertain, from the solutions at either side of each."""
    variances = dict.fromkeys(there.powers, 0.0)
    for before, after in zip(around[::2], around[1::2], strict=True):
        u = max(least_steps, _nuisance_error(before, there, after))
        for key in variances:
            variances[key] += (u * (after.powers[key].watts - before.powers[key].watts) / 2) ** 2
    return {key: power._replace(u_w=math.sqrt(power.u_w**2 + variances[key])) for key, power in there.powers.items()}


def _on_own_clock(
    readings: Sequence[tuple[float, float]], update_s: float, interval_s: float
) -> tuple[list[tuple[float, float]], float] | None:
    """The readings of a source that is slower than it is read, at the times of its own regular clock, and its period.

    A new value is seen at some moment of the reading's distance after it was there. The source's clock is regular: its
    period is the slope of the times at which values were seen to change, and its phase that of the earliest of them.

    Returns:
        One reading a tick, and the period (s); None where no regular clock shows.
    """
    changed = [
        later
        for earlier, later in pairwise(readings)
        if later[1] != earlier[1] and later[0] - earlier[0] < 1.5 * interval_s  # after a pause it is older
    ]
    distances = sorted(b[0] - a[0] for a, b in pairwise(changed))
    if update_s < 3 * interval_s or len(distances) < CLUSTER_READINGS:
        return None
    period = distances[len(distances) // 2]
    for _ in range(2):  # the second time with a period that is known better
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
    """Of the least-squares line."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    products = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / math.fsum((a - mean_x) ** 2 for a in x)


def _best_time_constant(solve: Callable[[float], _Solution | None], stated_s: float) -> float:
    """The time constant with the least misfit: the lowest point of a parabola near the stated one."""
    solutions = [solve(stated_s * (1 + side * _TAU_RANGE)) for side in (-1, 0, 1)]
    low, middle, high = (math.inf if solution is None else solution.misfit for solution in solutions)
    curvature = low - 2 * middle + high
    if not 0 < curvature < math.inf:
        return stated_s
    moved = min(1.2, max(-1.2, (low - high) / (2 * curvature)))
    return stated_s * (1 + moved * _TAU_RANGE)


def _best_lag(solve: Callable[[float], _Solution | None], step_s: float) -> float:
    """The lag with the least misfit: on a grid, then by golden section between its neighbours."""

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


def _nuisance_error(before: _Solution, there: _Solution, after: _Solution) -> float:
    """Standard error of a lag or a time constant, in steps between the solutions: by the curvature of the misfit."""
    curvature = before.misfit - 2 * there.misfit + after.misfit
    variance = there.misfit / there.readings * there.inflation
    return min(_MOST_STEPS, math.sqrt(2 * variance / curvature)) if curvature > 0 else _MOST_STEPS


class _Cluster:
    """Sums over neighbouring readings: of a row (occupancies …, watts) and of its products."""

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
    """The readings in stretches that are long beside the filter; the last one may be short and is left out."""
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
    """For each reading that has something new: its time, what the sensor shows of each stage, and watts."""
    keys = timeline.keys[:MOST_STAGES]
    filtered = [0.0] * len(keys)
    span = shape.seconds if shape.kind == "block" else max(shape.update_s, 1e-4)
    settled_s = readings[0][0] + CLUSTER_TAUS * shape.seconds
    last_s, last = readings[0]
    for time_s, value in readings[1:]:
        start_s, end_s = last_s - lag_s, time_s - lag_s
        if shape.kind == "exponential":
            left = math.exp((start_s - end_s) / shape.seconds)
            filtered = [
                left * old + timeline.decayed(key, start_s, end_s, shape.seconds)
                for key, old in zip(keys, filtered, strict=True)
            ]
            if time_s >= settled_s:  # what ran before the first reading is forgotten
                yield time_s, [*filtered, value]
        elif shape.kind == "counter":
            if value <= last:
                continue  # it has not ticked: the rise counts from the tick before
            yield time_s, [*_mean_occupancies(keys, start_s, end_s, timeline), (value - last) / (time_s - last_s)]
        elif value != last or shape.update_s <= 1.5 * (time_s - last_s):
            yield time_s, [*_mean_occupancies(keys, end_s - span, end_s, timeline), value]
        last_s, last = time_s, value


def _mean_occupancies(keys: Sequence[Hashable], start_s: float, end_s: float, timeline: Timeline) -> list[float]:
    """The occupancy of each stage over a stretch."""
    return [(timeline.seconds(key, end_s) - timeline.seconds(key, start_s)) / (end_s - start_s) for key in keys]


class _Solution(NamedTuple):
    """A fit at one lag.

    Attributes:
        powers: By stage.
        baseline_w: Without any stage.
        misfit: Sum of squared residuals, W².
        readings: How many they are.
        inflation: By how much the variance of a coefficient is larger than that of independent residuals.
    """

    powers: dict[Hashable, Power]
    baseline_w: float
    misfit: float
    readings: int
    inflation: float


def _solve_clusters(clusters: Sequence[_Cluster], keys: Sequence[Hashable]) -> _Solution | None:
    """Least squares with a baseline for each stretch, and the sandwich of its clusters."""
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
    scores = [[m[i][size] - _dot_product(m[i][:size], watts) for i in range(size)] for m in moments]
    readings = sum(cluster.count for cluster in clusters)
    misfit = max(0.0, math.fsum(m[size][size] for m in moments) - _dot_product(watts, right))
    powers, ratios = {}, []
    for i, key in enumerate(keys):
        variance = len(clusters) / freedom * math.fsum(_dot_product(inverse[i], score) ** 2 for score in scores)
        # 1 − R² of this occupancy on the others.
        unexplained = 1 / (inverse[i][i] * normal[i][i]) if normal[i][i] > _LEAST_MOMENT else 0.0
        powers[key] = Power(watts[i], math.sqrt(variance), freedom, unexplained < 1 - COLLINEAR)
        ratios.append(variance / (inverse[i][i] * misfit / readings) if misfit > 0 else 1.0)
    sums = [math.fsum(cluster.sums[i] for cluster in clusters) for i in range(size + 1)]
    return _Solution(
        powers, (sums[size] - _dot_product(sums[:size], watts)) / readings, misfit, readings, math.fsum(ratios) / size
    )


def _dot_product(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def _baseline_groups(clusters: Sequence[_Cluster]) -> list[list[_Cluster]]:
    """The clusters in stretches that have a baseline of their own."""
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
    """The mean row of a stretch."""
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
    """The inverse of a symmetric matrix without negative eigenvalues (Gauss and Jordan, after scaling).

    A ridge of ``_RIDGE`` makes those that move together, or not at all, enormous, and leaves the others what they are.
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
