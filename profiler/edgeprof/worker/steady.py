"""Decide whether latencies have settled: MSER on medians of five, then a trend test on the values that it keeps.

Python 3.6 grammar and the standard library: this runs in the worker, between the calls of a warm-up.
"""

import math
from typing import Dict, List, NamedTuple, Optional, Sequence

#: How many values make one block, which is represented by their median. A mean would let one scheduling spike look like
#: the end of the warm-up (simulated: with 0.5 % spikes, mean-batched MSER-5 cuts up to 440 of 1000 where nothing warms
#: up).
BLOCK = 5
#: Fewer values than this make too few blocks of five; they are divided into ten blocks instead.
FEW = 10 * BLOCK
#: The trend test compares all pairs of points; more points than this would cost time and add nothing.
TREND_POINTS = 128
#: A trend counts when it is significant at this level ...
TREND_P = 0.01
#: ... and changes the latency by more than this over the kept values; a smaller change is no warm-up.
CHANGE = 0.01

Steadiness = NamedTuple(
    "Steadiness",
    [
        ("steady", bool),
        ("discard", int),  # values at the beginning that belong to the warm-up
        ("latency_s", float),  # median of the kept values
        ("trend", float),  # relative change over the kept values (Theil–Sen); 0.02: 2 % slower at their end
        ("p_value", float),  # of the trend (Mann–Kendall)
        ("reason", Optional[str]),  # why the latencies are not steady; None if they are
    ],
)


#: More latencies than this are not sorted at once.
MANY = 20000


def judge(latencies: Sequence[float]) -> Steadiness:
    """Judge the latencies of a warm-up, in seconds and in order.

    They are not steady in two cases. First, the truncation point of MSER lies in the last tenth of its range, so that
    the series still changes when it ends, and the values before that point differ from the others by more than 1 %.
    Second, the kept values have a significant trend (p < 0.01) of more than 1 % over their length: a slow drift, which
    MSER alone misses.

    Raises:
        ValueError: no latencies.
    """
    if not latencies:
        raise ValueError("no latencies to judge")
    size = BLOCK if len(latencies) >= FEW else max(1, len(latencies) // 10)
    blocks = block_medians(latencies, size)
    cut = mser(blocks)
    steady_blocks = blocks[cut:]
    discard = cut * size
    # For very many values the median of the block medians: sorting all of them would add to the model's memory figure.
    level = median(steady_blocks if len(latencies) > MANY else latencies[discard:])
    points = block_medians(steady_blocks, -(-len(steady_blocks) // TREND_POINTS))
    p_value = mann_kendall(points)
    trend = median_slope(points) * (len(points) - 1) / level if level > 0 else 0.0
    reason = None
    allowed = len(blocks) // 2
    warming = abs(median(latencies[:discard]) / level - 1.0) > CHANGE if discard and level > 0 else False
    if warming and allowed >= 2 and cut >= math.ceil(0.9 * allowed):
        reason = "latency was still settling after {} inferences".format(len(latencies))
    elif p_value < TREND_P and abs(trend) > CHANGE:
        reason = "latency {} by {:.1f} % over the last {} inferences (p = {:.2g})".format(
            "rose" if trend > 0 else "fell", 100 * abs(trend), len(latencies) - discard, p_value
        )
    return Steadiness(reason is None, discard, level, trend, p_value, reason)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle.

    Raises:
        IndexError: there are no values.
    """
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])


def block_medians(values: Sequence[float], size: int) -> List[float]:
    """Medians of consecutive blocks; an incomplete last block is dropped."""
    if size <= 1:
        return list(values)
    return [median(values[i : i + size]) for i in range(0, len(values) - size + 1, size)]


def mser(values: Sequence[float]) -> int:
    """How many values at the beginning to drop: argmin over d < n/2 of Σ_{i≥d}(y_i − ȳ_d)² / (n − d)² (White 1997).

    That score is the squared standard error of the mean of the kept values, but for a constant: dropping a biased
    beginning lowers it, dropping good values raises it.
    """
    count = len(values)
    if count < 2:
        return 0
    centre = sum(values) / count  # sums of squares about a value near the mean keep their digits
    total = squares = 0.0
    best, best_score = 0, math.inf
    for d in range(count - 1, -1, -1):  # backwards, so that one pass has the sums of every tail
        y = values[d] - centre
        total += y
        squares += y * y
        left = count - d
        score = max(0.0, squares - total * total / left) / left**2
        if d < count // 2 and score <= best_score:  # <=: of equal scores the earlier cut wins, which keeps more values
            best, best_score = d, score
    return best


def mann_kendall(values: Sequence[float]) -> float:
    """Two-sided p-value of no monotonic trend, normal approximation with the correction for ties (Kendall 1975)."""
    count = len(values)
    if count < 3:
        return 1.0
    score = 0
    for i in range(count - 1):
        y = values[i]
        for z in values[i + 1 :]:
            score += (z > y) - (z < y)
    ties: Dict[float, int] = {}
    for y in values:
        ties[y] = ties.get(y, 0) + 1
    # The variance of S under no trend; each group of t equal values lowers it (Kendall 1975, Rank Correlation Methods).
    variance = (count * (count - 1) * (2 * count + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())) / 18.0
    if variance <= 0 or score == 0:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(variance)  # − 1: the continuity correction, S moves in steps of 2
    return math.erfc(z / math.sqrt(2.0))


def median_slope(values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of values, per step from one value to the next (Sen 1968)."""
    count = len(values)
    if count < 2:
        return 0.0
    return median([(values[j] - values[i]) / (j - i) for i in range(count - 1) for j in range(i + 1, count)])
