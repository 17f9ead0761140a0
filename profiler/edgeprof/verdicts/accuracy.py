"""Accuracy: intervals of proportions, and paired tests against a baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import betainc
from edgeprof.results import schema

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "SIGNIFICANT",
    "against",
    "bootstrap_p",
    "difference",
    "drop_scale",
    "goodness_interval",
    "has_dropped",
    "mcnemar",
]

#: A difference is significant if the p-value of its paired test is below this.
SIGNIFICANT = 0.05


def has_dropped(accuracy: schema.Accuracy | None) -> bool:
    """Whether an accuracy is worse than its baseline's, and no paired test explains the difference by chance."""
    if accuracy is None or not accuracy.drop or accuracy.drop < 0:
        return False
    return accuracy.p_value is None or accuracy.p_value < SIGNIFICANT


def against(first: schema.Accuracy, second: schema.Accuracy) -> schema.Verdict:
    """Compare two accuracies of one result: ``better``, ``worse``, ``tied`` or ``not_comparable``.

    They differ if their intervals do not overlap, or if one has dropped below the common baseline and the other has
    not. Values of two metrics, or with two kinds of preprocessing, are not comparable.
    """
    if first.metric != second.metric or first.preprocessing != second.preprocessing:
        return "not_comparable"
    (low, high), (others_low, others_high) = goodness_interval(first), goodness_interval(second)
    if low > others_high or high < others_low:
        return "better" if low > others_high else "worse"
    if has_dropped(first) != has_dropped(second):
        return "worse" if has_dropped(first) else "better"
    return "tied"


def goodness_interval(accuracy: schema.Accuracy) -> tuple[float, float]:
    """The ends of the interval on a scale on which a larger value is better."""
    low, high = sorted(accuracy.sign * end for end in accuracy.ci95 or (accuracy.value, accuracy.value))
    return low, high


def mcnemar(baseline: npt.ArrayLike, variant: npt.ArrayLike) -> float:
    """McNemar's exact test of whether two models, judged on the same samples, err equally often.

    Only samples that one model gets right and the other gets wrong count: there are b of one kind and c of the other. p
    is twice the probability that a fair coin, tossed b + c times, shows heads at most min(b, c) times, but at most 1
    (McNemar 1947, exact binomial form).

    Args:
        baseline: Whether each sample was judged correctly, shape ``(n,)``.
        variant: The same samples in the same order.

    Returns:
        The two-sided p-value; 1 if the models never disagree.

    Raises:
        ValueError: the shapes differ.
    """
    import numpy as np  # noqa: PLC0415 - reports read the p-values that are stored

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
    """The bootstrap's two-sided p-value of whether two models differ that were judged on the same resamples.

    p = 2 · min(#(d ≤ 0) + 1, #(d ≥ 0) + 1) / (B + 1) for the B differences d, but at most 1. It is the level at which
    the percentile interval of the paired difference would just contain 0 (Efron and Tibshirani 1993, chapters 15, 16).

    Args:
        baseline: The metric under each resample, shape ``(B,)``, NaN where it is undefined.
        variant: The same resamples in the same order.

    Returns:
        The p-value; None if the resamples are not the same, or no resample is defined for both models.
    """
    import numpy as np  # noqa: PLC0415 - as in mcnemar

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
    """The factor that converts a drop in the metric's unit to the share that a limit such as 1 % refers to.

    It is 1 for a ratio, whose limit is in points. For any other metric it is 1 / |baseline's value|: a limit of 1 %
    lets perplexity rise by 1 % of the baseline's.

    Args:
        accuracy: The variant's accuracy.
        drop: How much worse the variant is than the baseline, in the metric's unit.

    Returns:
        The factor; None if the baseline's value is 0.
    """
    base = accuracy.value + accuracy.sign * drop
    if accuracy.is_ratio and 0.0 <= base <= 1.0:
        return 1.0
    return 1 / abs(base) if base else None


def _judged_by(accuracy: schema.Accuracy) -> tuple[str | None, ...]:
    """What must agree for two scores to be on one scale; for perplexity the preprocessing is the tokenizer."""
    return accuracy.metric, accuracy.dataset, None if accuracy.higher_is_better else accuracy.preprocessing


def difference(variant: schema.Accuracy, baseline: schema.Accuracy) -> schema.Difference | None:
    """The variant's accuracy minus the baseline's; None if the metrics or their data differ.

    The interval is Newcombe's (1998, method 10), which combines the two single intervals. It ignores that the samples
    are paired, so it is too wide for two models that make similar errors; McNemar's p-value decides about a drop.
    """
    if _judged_by(variant) != _judged_by(baseline):
        return None
    d = variant.value - baseline.value
    if variant.ci95 is None or baseline.ci95 is None:
        return schema.Difference(value=d, ci95=None)
    low = d - math.hypot(variant.value - variant.ci95[0], baseline.ci95[1] - baseline.value)
    high = d + math.hypot(variant.ci95[1] - variant.value, baseline.value - baseline.ci95[0])
    return schema.Difference(value=d, ci95=(low, high))
