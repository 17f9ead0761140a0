"""Two perplexities are compared token by token, and only if the tokens are the same."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeprof.evaluation import perplexity
from edgeprof.results import schema
from edgeprof.verdicts import gate, pareto, requests
from edgeprof.verdicts.across import across
from edgeprof.verdicts.compare import compare, comparisons
from edgeprof.verdicts.recommend import recommend
from tests.profiler.results import samples
from tests.profiler.synthetic import variant

BASE = -3.0 + np.random.default_rng(0).normal(size=1530)


def read(values, tokens="t") -> schema.Perplexity:
    score = perplexity.summarise(values)
    return schema.Perplexity(
        value=score.value,
        ci95=score.ci95,
        tokens=len(values),
        chunk=512,
        text="wiki.txt",
        text_sha256="0" * 64,
        tokens_sha256=tokens,
        log_likelihoods=perplexity.packed(values),
    )


def model(name, joules=(0.01, 0.0101, 0.0099), *, worse=None, tokens="t", **shape):
    asked = {"prompt_tokens": 512, "generated_tokens": 128, **shape}
    made = msgspec.structs.replace(variant(name, list(joules)), language=schema.Language(**asked))
    if worse is not None:
        made.language.perplexity = read(BASE - worse, tokens)
        value = made.language.perplexity.value
        made.accuracy = schema.Accuracy(
            metric="perplexity", value=value, ci95=None, samples=1530, preprocessing=tokens, higher_is_better=False
        )
    return made


def test_a_comparison_holds_the_ratio_of_the_same_tokens():
    found = compare(model("q4", worse=0.05), model("f16", worse=0.0)).perplexity_ratio
    assert found.value == pytest.approx(np.exp(0.05), rel=1e-4)
    assert found.ci95[0] == pytest.approx(found.ci95[1], rel=1e-3)  # the same loss at every token: no uncertainty
    assert compare(model("q4", worse=0.05, tokens="u"), model("f16", worse=0.0)).perplexity_ratio is None
    assert compare(model("q4"), model("f16", worse=0.0)).perplexity_ratio is None


def test_a_gate_takes_the_paired_interval_for_how_much_perplexity_may_rise():
    before, after = samples.one(), samples.one()
    before.variants, after.variants = [model("f16", worse=0.0)], [model("q4", worse=0.05)]
    limit = gate.Limits(max_accuracy_drop=0.04)
    (found,) = gate.check(after, limit, against=across(before, after))
    assert (found.passed, found.unsure, found.quantity) == (False, False, "perplexity rise")
    assert found.value == pytest.approx(np.exp(0.05) - 1, rel=1e-3)
    assert gate.check(after, gate.Limits(max_accuracy_drop=0.06), against=across(before, after))[0].passed
    after.variants[0].language.perplexity.ratio = schema.Ratio(value=1.05, ci95=(1.03, 1.07))
    after.variants[0].accuracy.drop = 1.0
    (within,) = gate.check(after, limit)
    assert (within.value, within.unsure) == (pytest.approx(0.05), False)


def test_requests_of_other_lengths_are_not_compared_and_never_beat_one_another():
    small, long = model("a prompt=128", (0.001,) * 3, prompt_tokens=128), model("a prompt=512")
    assert requests.difference(long, small) == "prompt 512 against 128"
    assert requests.difference(model("s", prompt_tokens=513), model("t")) is None  # a server counts tokens itself
    found = compare(long, small)
    assert (found.verdict, found.reason) == ("not_comparable", "their requests differ: prompt 512 against 128")
    other = [model("b prompt=128", (0.002,) * 3, prompt_tokens=128), model("b prompt=512", (0.02,) * 3)]
    variants = [small, long, *other]
    assert [(c.variant, c.baseline) for c in comparisons(variants)] == [
        ("b prompt=128", "a prompt=128"),
        ("b prompt=512", "a prompt=512"),
    ]
    assert pareto.front(variants, comparisons(variants)) == ["a prompt=128", "a prompt=512"]
    result = samples.one()
    result.variants, result.comparisons = variants[::-1], comparisons(variants[::-1])
    assert recommend(result).variant == "a prompt=512"  # the cheapest of those that are asked as much as the first one


def test_a_perplexity_of_other_tokens_is_on_another_scale():
    from edgeprof.verdicts.accuracy import against, difference

    mine, its = model("a", worse=0.0).accuracy, model("b", worse=0.5, tokens="u").accuracy
    assert against(mine, its) == "not_comparable"
    assert difference(mine, its) is None
