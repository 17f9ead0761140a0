"""Latency: quantiles, their upper bounds with 99 % confidence, and outliers, which are counted but not removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.uncertainty import betainc
from edgeprof.results.schema import Histogram, Latency

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

#: The confidence of early stopping (MLPerf inference rules, early stopping: c = 0.99, d = 0).
CONFIDENCE = 0.99
#: A modified z-score beyond this is an outlier: ten standard deviations of a normal distribution (hyperfine's rule).
OUTLIER_Z = 14.826
#: Bins of the histogram below its tail.
BINS = 40


def early_stopping_rank(count: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """t*: how many of the largest samples may lie beyond the bound (MLPerf inference rules, early stopping).

    The largest t for which I_p(n − t, t + 1) ≤ 1 − c: with that confidence, at most the share 1 − p of all requests is
    slower than the t-th largest of the ``count`` samples. ``t* − 1`` samples are discarded.

    Args:
        count: Samples n.
        percentile: p, such as 0.99.
        confidence: c.

    Returns:
        t*, or 0 if there are too few samples for this percentile (64 are needed for p90, 662 for p99).
    """

    def holds(t: int) -> bool:
        return betainc(count - t, t + 1, percentile) <= 1 - confidence

    if count < 2 or not holds(1):
        return 0
    low, high = 1, count  # the bound holds for low and not for high
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def upper_bound(ordered: npt.NDArray[np.float64], percentile: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the early-stopping estimate of a percentile: an upper bound with the given confidence.

    The samples are assumed to be independent; if latency drifts, the bound is only nominal.

    Args:
        ordered: Samples in ascending order, shape ``(n,)``, seconds.
        percentile: p, such as 0.99.
        confidence: c.

    Returns:
        Seconds, or None if there are too few samples.
    """
    rank = early_stopping_rank(ordered.size, percentile, confidence)
    return float(ordered[ordered.size - rank]) if rank else None


def quantile(ordered: npt.NDArray[np.float64], percentile: float) -> float | None:
    """Return the sample quantile, with numpy's linear interpolation between neighbours.

    Args:
        ordered: Samples in ascending order, shape ``(n,)``, seconds.
        percentile: p, such as 0.99.

    Returns:
        Seconds, or None with fewer than 1 / (1 − p) samples, because the result would be about the largest one.
    """
    if ordered.size * (1 - percentile) < 1 - 1e-9:
        return None
    return float(np.quantile(ordered, percentile))


def outliers(ordered: npt.NDArray[np.float64]) -> int:
    """Count the samples with |x − median| / MAD > 14.826 (hyperfine's modified z-score; a MAD of 0 becomes ε)."""
    deviation = np.abs(ordered - _median_of_ordered(ordered))
    mad = max(float(np.median(deviation)), float(np.finfo(np.float64).eps))
    return int(np.count_nonzero(deviation / mad > OUTLIER_Z))


def histogram(ordered: npt.NDArray[np.float64]) -> Histogram:
    """Return the distribution in bins up to the 99th percentile, and one more bin for the tail, up to the maximum.

    The bins have equal widths, or equal ratios if a long tail would put almost everything into the first bins.
    """
    low, knee, high = float(ordered[0]), float(np.quantile(ordered, 0.99)), float(ordered[-1])
    spread = np.geomspace if 0 < 4 * low < knee else np.linspace
    edges = spread(low, knee, BINS + 1)
    edges[0], edges[-1] = low, knee  # a geometric series rounds its ends, and must hold every sample
    edges = np.unique(np.append(edges, high))
    if edges.size < 2:
        return Histogram(edges=[low, high], counts=[int(ordered.size)])
    counts, _ = np.histogram(ordered, edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def summarise(windows: Iterable[npt.ArrayLike]) -> Latency | None:
    """Summarise all latencies of a variant's windows, including outliers.

    Args:
        windows: For each window, the latencies in seconds, shape ``(calls,)``, counted from the scheduled start if the
            scenario has one.

    Returns:
        The summary, or None if there is no latency.
    """
    arrays = [np.asarray(window, dtype=np.float64).ravel() for window in windows]
    ordered = np.sort(np.concatenate(arrays)) if arrays else np.empty(0)
    if ordered.size == 0:
        return None
    median = _median_of_ordered(ordered)
    return Latency(
        mean=float(ordered.mean()),
        std=float(ordered.std(ddof=1)) if ordered.size > 1 else 0.0,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        samples=int(ordered.size),
        outliers=outliers(ordered),
        p50=median,
        p90=quantile(ordered, 0.90),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        median=median,
        p50_bound=upper_bound(ordered, 0.50),
        p90_bound=upper_bound(ordered, 0.90),
        p95_bound=upper_bound(ordered, 0.95),
        p99_bound=upper_bound(ordered, 0.99),
        histogram=histogram(ordered),
    )


def mean_alone(calls: int, seconds: float) -> Latency | None:
    """Return a summary with only the mean, if the single latencies are unknown; None without calls.

    Args:
        calls: The number of calls.
        seconds: The duration of all calls together.
    """
    if not calls:
        return None
    return Latency(mean=seconds / calls, std=None, min=None, max=None, samples=calls, outliers=0)


def _median_of_ordered(ordered: npt.NDArray[np.float64]) -> float:
    middle = ordered.size // 2
    if ordered.size % 2:
        return float(ordered[middle])
    return float((ordered[middle - 1] + ordered[middle]) / 2)
