"""Verification and TAR@FAR against what is counted by hand and by a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof.evaluation.labels import pairs
from edgeprof_plugins.metrics.verification import TrueAccepts, Verification, _best_threshold


def embeddings(similar, draw=None):
    """Pairs of vectors whose cosines are these, of any length."""
    lengths = np.ones(2 * len(similar)) if draw is None else draw.uniform(0.1, 9, 2 * len(similar))
    angle = np.arccos(similar)
    made = np.zeros((2 * len(similar), 3))
    made[::2, 0] = 1
    made[1::2] = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(len(angle))])
    return {"embedding": (made * lengths[:, None]).astype(np.float32)}


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_each_fold_is_judged_by_the_threshold_of_the_others(seed):
    draw = np.random.default_rng(seed)
    same = np.tile([True, False], 20)
    similar = np.clip(draw.normal(np.where(same, 0.5, 0.1), 0.25), -0.99, 0.99).round(2)
    folds = np.repeat(np.arange(4), 10)
    outputs, labels = embeddings(similar, draw), pairs(same, folds)
    found = Verification().score(outputs, labels)
    assert Verification().similarities(outputs, labels) == pytest.approx(similar, abs=1e-6)
    similar = Verification().similarities(outputs, labels)  # float32 parts what was equal
    for fold in range(4):
        others, held = folds != fold, folds == fold
        best = max(((similar[others] > t) == same[others]).sum() for t in (-1, *similar))
        threshold = _best_threshold(similar[others], same[others])
        assert ((similar[others] > threshold) == same[others]).sum() == best
        assert found.correct[held].tolist() == ((similar[held] > threshold) == same[held]).tolist()
    assert found.value == pytest.approx(found.correct.mean())
    assert found.ci95[0] <= found.value <= found.ci95[1]


def test_pairs_that_are_far_apart_are_all_told_without_folds():
    same = np.array([True] * 30 + [False] * 30)  # sorted, as lists often are
    found = Verification().score(embeddings(np.where(same, 0.9, 0.1)), pairs(same, np.zeros(60)))
    assert (found.value, found.samples) == (1.0, 60)


def test_noise_is_told_by_chance():
    draw = np.random.default_rng(1)
    same = draw.random(600) < 0.5
    found = Verification().score({"e": draw.normal(size=(1200, 8))}, pairs(same, np.arange(600) % 10))
    assert 0.42 < found.value < 0.58


def test_tar_at_far():
    different = np.linspace(-0.5, 0.49, 100)
    same = np.array([0.3, 0.475, 0.485, 0.6])
    labels = pairs([False] * 100 + [True] * 4, np.zeros(104))
    outputs = embeddings(np.concatenate([different, same]))
    # Of 100 one may be accepted, 0.49; the threshold is the next, 0.48.
    assert TrueAccepts(0.01).score(outputs, labels).value == pytest.approx(0.5)
    assert TrueAccepts(0.03).score(outputs, labels).value == pytest.approx(0.75)
    found = TrueAccepts(0.01).score(outputs, labels)
    assert found.ci95[0] <= found.value <= found.ci95[1]
    assert found.replicates is not None


def test_equal_similarities_are_never_accepted_beyond_the_rate():
    labels = pairs([False] * 100 + [True] * 100, np.zeros(200))
    assert TrueAccepts(0.01).score(embeddings(np.full(200, 0.5)), labels).value == 0.0


@pytest.mark.parametrize("metric", [Verification(), TrueAccepts(0.01)])
def test_what_cannot_be_judged_is_refused(metric):
    with pytest.raises(InputError, match="judges by pairs, but the labels of this dataset are classes"):
        metric.check(np.arange(4))
    with pytest.raises(InputError, match="all 3 are the same"):
        metric.check(pairs([True] * 3, [0] * 3))
    labels = pairs([True] + [False] * 100, [0] * 101)
    with pytest.raises(InputError, match="one output, the embedding"):
        metric.score({"a": np.zeros((202, 2)), "b": np.zeros((202, 2))}, labels)


def test_a_rate_that_so_few_pairs_cannot_show_is_refused():
    with pytest.raises(InputError, match=r"tar@far=0\.001 needs at least 1000 different pairs, but there are 99"):
        TrueAccepts(0.001).check(pairs([True] + [False] * 99, [0] * 100))


def test_an_embedding_of_zeros_is_like_nothing():
    labels = pairs([True, False] * 10, np.arange(20) % 10)
    assert np.isfinite(Verification().score({"e": np.zeros((40, 4))}, labels).value)
