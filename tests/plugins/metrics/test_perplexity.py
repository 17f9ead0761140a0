"""Perplexity against torch's formula written out, guessing, and tokens that are not judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof.evaluation.labels import pairs
from edgeprof_plugins.metrics.perplexity import Perplexity


def judged(logits, labels, names=("logits",)):
    metric = Perplexity()
    outputs = dict.fromkeys(names, logits)
    parts = [
        metric.reduce({k: v[i : i + 2] for k, v in outputs.items()}, labels[i : i + 2])
        for i in range(0, len(labels), 2)
    ]
    return metric.score({k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, labels)


@given(seed=st.integers(0, 10_000), shift=st.floats(-500, 500))
@settings(max_examples=10, deadline=None)
def test_it_is_exp_of_the_mean_negative_log_likelihood(seed, shift):
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 3, (12, 7, 11))
    labels = np.where(draw.random((12, 7)) < 0.3, -100, draw.integers(0, 11, (12, 7)))
    labels[0, 0] = 3
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    due = labels >= 0
    likelihood = np.take_along_axis(p, np.maximum(labels, 0)[..., None], 2)[..., 0][due]
    found = judged(logits + shift, labels)
    assert found.value == pytest.approx(np.exp(-np.log(likelihood).mean()), rel=1e-9)
    assert found.ci95[0] <= found.value <= found.ci95[1]


def test_guessing_is_the_vocabulary_and_certainty_is_one():
    labels = np.zeros((4, 6), np.int64)
    assert judged(np.zeros((4, 6, 50), np.float16), labels).value == pytest.approx(50)
    sure = np.zeros((4, 6, 50), np.float32)
    sure[..., 0] = 60
    assert judged(sure, labels).value == pytest.approx(1.0)
    assert not Perplexity.higher_is_better


def test_the_logits_are_found_among_other_outputs():
    labels = np.zeros((2, 3), np.int64)
    outputs = {"past": np.zeros((2, 4, 9, 9)), "logits": np.zeros((2, 3, 8))}
    metric = Perplexity()
    assert metric.score(metric.reduce(outputs, labels), labels).value == pytest.approx(8)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (
            np.zeros((2, 3)),
            np.zeros((2, 3), int),
            r"needs one output of logits, 2 x 3 x vocabulary; there are logits \(2, 3\)",
        ),
        (np.zeros((2, 4, 9)), np.zeros((2, 3), int), "needs one output of logits"),
        (np.zeros((2, 3, 9)), np.full((2, 3), 9), "labels go to 9, but the vocabulary has 9"),
        (np.zeros((2, 3, 9)), np.full((2, 3), -100), "no token is judged"),
        (np.zeros((2, 3, 9)), np.zeros(2, int), r"the labels are int64 of shape \(2,\)"),
        (np.zeros((2, 3, 9)), np.zeros((2, 3)), "float64"),
        (np.zeros((2, 3, 9)), pairs([True], [0]), "judges by classes, but the labels of this dataset are pairs"),
        (np.eye(3)[None].repeat(2, 0) * -1e4, np.tile(np.arange(3), (2, 1)), "beyond any number"),
    ],
)
def test_what_cannot_be_judged_is_refused(logits, labels, words):
    with pytest.raises(InputError, match=words):
        judged(logits, labels)
