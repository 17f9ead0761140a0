"""Accuracy: intervals of proportions, and the paired test against a baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.uncertainty import betainc
from edgeprof.evaluation.metric import wilson
from edgeprof.results import schema

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["SIGNIFICANT", "against", "bootstrap_p", "difference", "drop_scale", "has_dropped", "mcnemar", "wilson"]

#: A difference whose paired test gives less than this is a difference.
SIGNIFICANT = 0.05


def has_dropped(accuracy: schema.Accuracy | None) -> bool:
    """Whether an accuracy is worse than its baseline's: below it, and no paired test says that chance explains it."""
    if accuracy is None or not accuracy.drop or accuracy.drop < 0:
        return False
    return accuracy.p_value is None or accuracy.p_value < SIGNIFICANT


def against(first: schema.Accuracy, second: schema.Accuracy) -> schema.Verdict:
    """``better``, ``worse`` or ``tied``: what two accuracies of one result say of each other.

    They differ where their intervals do not overlap, and where one has dropped below the common baseline and the other
    has not. Of two metrics nothing can be said.
    """
    if first.metric != second.metric or first.preprocessing != second.preprocessing:
        return "not_comparable"
    (low, high), (others_low, others_high) = _goodness_interval(first), _goodness_interval(second)
    if low > others_high or high < others_low:
        return "better" if low > others_high else "worse"
    if has_dropped(first) != has_dropped(second):
        return "worse" if has_dropped(first) else "better"
    return "tied"


def _goodness_interval(accuracy: schema.Accuracy) -> tuple[float, float]:
    """The ends of the interval on a scale on which more is better."""
    low, high = sorted(accuracy.sign * end for end in accuracy.ci95 or (accuracy.value, accuracy.value))
    return low, high


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
    base_right, variant_right = np.asarray(baseline, dtype=bool), np.asarray(variant, dtype=bool)
    if base_right.shape != variant_right.shape:
        raise ValueError(f"{base_right.shape} and {variant_right.shape} are not the same samples")
    b, c = int(np.count_nonzero(base_right & ~variant_right)), int(np.count_nonzero(~base_right & variant_right))
    fewer, both = min(b, c), b + c
    if 2 * fewer == both:
        return 1.0
    # P(X ≤ k) of a binomial is I_{1−p}(n − k, k + 1).
    return min(1.0, 2 * betainc(both - fewer, fewer + 1, 0.5))


def bootstrap_p(baseline: npt.ArrayLike, variant: npt.ArrayLike) -> float | None:
    """Whether two models, judged on the same resamples of the same samples, differ: the bootstrap's two-sided p-value.

    p = 2 · min(#(d ≤ 0) + 1, #(d ≥ 0) + 1) / (B + 1) of the B differences, at most 1: the level at which the percentile
    interval of the paired difference would just hold 0 (Efron and Tibshirani 1993, 15 and 16).

    Args:
        baseline: The metric under each resample, shape ``(B,)``, NaN where it is undefined.
        variant: The same resamples in the same order.

    Returns:
        None where they are not the same resamples, or none is defined for both.
    """
    base_scores, variant_scores = np.asarray(baseline, np.float64), np.asarray(variant, np.float64)
    if base_scores.shape != variant_scores.shape:
        return None
    d = variant_scores - base_scores
    d = d[~np.isnan(d)]
    if d.size == 0:
        return None
    tail = 1 + min(np.count_nonzero(d <= 0), np.count_nonzero(d >= 0))
    return float(min(1.0, 2 * tail / (d.size + 1)))


def drop_scale(accuracy: schema.Accuracy, drop: float) -> float | None:
    """What makes of a drop in the metric's unit the share that a limit such as 1 % is held against.

    That is 1 for a ratio, whose points are meant, else 1 / |the baseline's value|: perplexity may rise by 1 % of it.

    Args:
        accuracy: The variant's.
        drop: How much worse than the baseline, in the metric's unit.

    Returns:
        None where the baseline's value is 0, of which there is no share.
    """
    base = accuracy.value + accuracy.sign * drop
    if accuracy.is_ratio and 0.0 <= base <= 1.0:
        return 1.0
    return 1 / abs(base) if base else None


def _judged_by(accuracy: schema.Accuracy) -> tuple[str | None, ...]:
    """What must agree for two scores to be of one scale; a tokenizer is the preprocessing of a perplexity."""
    return accuracy.metric, accuracy.dataset, None if accuracy.higher_is_better else accuracy.preprocessing


def difference(variant: schema.Accuracy, baseline: schema.Accuracy) -> schema.Difference | None:
    """The variant's accuracy minus the baseline's; None where the metrics, or the data they were asked of, differ.

    The interval is Newcombe's (1998, method 10, from the two single intervals); it does not know that the samples are
    paired and is therefore, for two models that err alike, too wide: McNemar's p-value decides about a drop.
    """
    if _judged_by(variant) != _judged_by(baseline):
        return None
    d = variant.value - baseline.value
    if variant.ci95 is None or baseline.ci95 is None:
        return schema.Difference(value=d, ci95=None)
    low = d - math.hypot(variant.value - variant.ci95[0], baseline.ci95[1] - baseline.value)
    high = d + math.hypot(variant.ci95[1] - variant.value, baseline.value - baseline.ci95[0])
    return schema.Difference(value=d, ci95=(low, high))
