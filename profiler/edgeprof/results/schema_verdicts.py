"""The parts of a result that compare and recommend its variants."""

from __future__ import annotations

from typing import Literal

from edgeprof.results.schema_context import Interval, Struct, Verdict


class Ratio(Struct):
    """A variant's figure divided by its baseline's; below 1 is better.

    Attributes:
        value: The ratio.
        ci95: Its 95 % interval.
    """

    value: float
    ci95: Interval


class Difference(Struct):
    value: float
    ci95: Interval | None


class WorkloadComparison(Struct):
    """One workload of a variant compared with the same workload of its baseline, if there are several workloads."""

    name: str
    unit: str
    energy_ratio: Ratio | None
    latency_ratio: Ratio | None
    verdict: Verdict
    reason: str | None = None


class Comparison(Struct):
    variant: str
    baseline: str
    energy_ratio: Ratio | None
    latency_ratio: Ratio | None
    verdict: Verdict
    #: Why the two are not comparable, or what the verdict is based on.
    reason: str | None = None
    #: The variant's accuracy minus the baseline's, in the metric's unit (a negative one is a gain if lower is better).
    accuracy_difference: Difference | None = None
    #: Each workload that both have, if there are several; the ratios above are those of the main workload.
    workloads: list[WorkloadComparison] = []
    #: Only for two language models that read the same text with the same tokenizer, paired by token; below 1 is better.
    perplexity_ratio: Ratio | None = None


class Recommendation(Struct):
    """The one verdict on a result, which every table, page and file shows.

    Attributes:
        variant: The recommended variant; None if none can be recommended.
        reason: The reason, in one sentence.
        praise: The label of its row: ``best`` if accuracy was judged, otherwise ``cheapest``, ``fastest``,
            ``smallest`` (of the tied variants), or ``keep`` (the untouched model, if it is among the tied variants);
            None if there was no choice.
        criterion: The figure that decided: ``energy``, or ``latency`` if no energy is known.
        ties: The variants that cannot be distinguished from it in the criterion.
        untouched: Whether it is the baseline, so that no change is worth making.
    """

    variant: str | None
    reason: str
    praise: str | None = None
    criterion: Literal["energy", "latency"] | None = None
    ties: list[str] = []
    untouched: bool = False


def sense(ratio: Ratio, relevant: float = 0.01) -> Verdict:
    """Return the verdict on one ratio: tied if its interval contains 1 or lies entirely within 1 ± ``relevant``."""
    low, high = ratio.ci95
    if low <= 1 <= high or (low > 1 - relevant and high < 1 + relevant):
        return "tied"
    return "better" if high < 1 else "worse"
