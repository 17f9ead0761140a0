"""Accuracy: intervals of proportions, and the paired test against a baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.analysis.uncertainty import betainc
from edgeprof.evaluation.metric import wilson
from edgeprof.results import schema

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["difference", "mcnemar", "wilson"]


def mcnemar(baseline: npt.ArrayLike, variant: npt.ArrayLike) -> float:
    """McNemar's exact test: whether two models, judged on the same samples, err equally often.

    Only samples that one gets right and the other wrong speak: b and c of them. p is twice the probability that a fair
    coin falls at most min(b, c) times of b + c (McNemar 1947, exact binomial form), at most 1.

    Args:
        baseline: Whether each sample was judged correctly, shape ``(n,)``.
        variant: The same samples in the same order.

    Returns:
        The two-sided p-value; 1 where they never disagree.

    Raises:
        ValueError: the shapes differ.
    """
    one, other = np.asarray(baseline, dtype=bool), np.asarray(variant, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(f"{one.shape} and {other.shape} are not the same samples")
    b, c = int(np.count_nonzero(one & ~other)), int(np.count_nonzero(~one & other))
    fewer, both = min(b, c), b + c
    if 2 * fewer == both:
        return 1.0
    # P(X ≤ k) of a binomial is I_{1−p}(n − k, k + 1).
    return min(1.0, 2 * betainc(both - fewer, fewer + 1, 0.5))


def difference(variant: schema.Accuracy, baseline: schema.Accuracy) -> schema.Difference | None:
    """The variant's accuracy minus the baseline's; None where the metrics, or the data they were asked of, differ.

    The interval is Newcombe's (1998, method 10, from the two single intervals); it does not know that the samples are
    paired and is therefore, for two models that err alike, too wide: McNemar's p-value decides about a drop.
    """
    if variant.metric != baseline.metric or variant.dataset != baseline.dataset:
        return None
    d = variant.value - baseline.value
    if variant.ci95 is None or baseline.ci95 is None:
        return schema.Difference(value=d, ci95=None)
    low = d - math.hypot(variant.value - variant.ci95[0], baseline.ci95[1] - baseline.value)
    high = d + math.hypot(variant.ci95[1] - variant.value, baseline.value - baseline.ci95[0])
    return schema.Difference(value=d, ci95=(low, high))
