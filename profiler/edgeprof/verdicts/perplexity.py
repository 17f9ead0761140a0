"""The ratio of two models' perplexities on the same text, paired token by token, from the results' log-likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.results import schema

if TYPE_CHECKING:
    from edgeprof.results.schema import Perplexity, Variant


def ratio(variant: Variant, baseline: Variant) -> schema.Ratio | None:
    """The variant's perplexity divided by its baseline's; None if they did not read the same tokens."""
    mine, its = _perplexity_of(variant), _perplexity_of(baseline)
    if mine is None or its is None or mine.tokens_sha256 != its.tokens_sha256:
        return None
    from edgeprof.evaluation import perplexity  # noqa: PLC0415 - most results have none, and are compared without numpy

    values = [perplexity.unpacked(each.log_likelihoods) for each in (mine, its) if each.log_likelihoods]
    if len(values) < 2 or values[0] is None or values[1] is None:
        return None
    interval = perplexity.paired_ratio(values[0], values[1])
    return None if interval is None else schema.Ratio(value=interval[0], ci95=interval[1])


def _perplexity_of(variant: Variant) -> Perplexity | None:
    return None if variant.language is None else variant.language.perplexity
