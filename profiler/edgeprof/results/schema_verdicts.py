"""The parts of a result that compare and recommend its variants."""

from __future__ import annotations

from typing import Literal

from edgeprof.results.schema_context import Interval, Struct, Verdict


class Ratio(Struct):
    """A variant's figure over its baseline's; below 1 is better.

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
    """One workload of a variant against the same workload of its baseline, where there are several."""

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
    #: Why not comparable, or what the verdict rests on.
    reason: str | None = None
    #: The variant's accuracy minus the baseline's, in the metric's unit (where less is better, below 0 is a gain).
    accuracy_difference: Difference | None = None
    #: Each workload that both have, where there are several; the main one is what the ratios above are of.
    workloads: list[WorkloadComparison] = []
    #: Of two language models that read the same text with the same tokenizer, paired by token; below 1 is better.
    perplexity_ratio: Ratio | None = None


class Recommendation(Struct):
    """The one verdict on a result, which every table, page and file shows.

    Attributes:
        variant: The variant to take; None where none can be recommended.
        reason: Why, in one sentence.
        praise: What its row may be called: ``best`` where accuracy was judged, else ``cheapest``, ``fastest``,
            ``smallest`` (of what is tied), or ``keep`` (the untouched model, of what is tied); None where there was
            nothing to choose from.
        criterion: What decided: ``energy``, or ``latency`` where no energy is known.
        ties: The variants that cannot be told from it in the criterion.
        untouched: Whether it is the baseline: no change is worth making.
    """

    variant: str | None
    reason: str
    praise: str | None = None
    criterion: Literal["energy", "latency"] | None = None
    ties: list[str] = []
    untouched: bool = False


def sense(ratio: Ratio, relevant: float = 0.01) -> Verdict:
    """What one ratio says: tied where its interval contains 1, or lies wholly within 1 ± ``relevant``."""
    low, high = ratio.ci95
    if low <= 1 <= high or (low > 1 - relevant and high < 1 + relevant):
        return "tied"
    return "better" if high < 1 else "worse"
