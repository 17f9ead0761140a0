"""Perplexity of a text: llama-perplexity's convention, and intervals that allow for dependent neighbouring tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.errors import InputError
from edgeprof.evaluation import perplexity
from edgeprof.evaluation.perplexity import Text, paired_ratio, pieces, read_text, score, summarise

if TYPE_CHECKING:
    from pathlib import Path


def text(chunk: int = 8, chunks: int = 0) -> Text:
    return Text("a.txt", b"words", "0" * 64, chunk, chunks)


def test_the_second_half_of_each_piece_is_scored_and_a_rest_is_left_out() -> None:
    asked: list[tuple[list[int], int]] = []

    def likelihoods(piece: np.ndarray, first: int) -> np.ndarray:
        asked.append((list(piece), first))
        return np.full(len(piece) - first, -1.0)

    *steps, (_, _, found) = score((np.arange(100, 119), 7), likelihoods, text())
    assert asked == [([7, *range(101, 108)], 5), ([7, *range(109, 116)], 5)]  # as llama-perplexity: n_ctx/2 − 1 each
    assert [(done, of) for done, of, _ in steps] == [(0, 2), (1, 2)]
    assert list(found.values) == [-1.0] * 6
    assert perplexity.perplexity(found.values) == pytest.approx(math.e)


def test_a_text_is_read_as_far_as_asked_and_without_a_begin_token_as_it_is() -> None:
    assert [list(piece) for piece in pieces(np.arange(40), None, text(chunks=2))] == [
        list(range(8)),
        list(range(8, 16)),
    ]
    with pytest.raises(InputError, match=r"a\.txt has 5 tokens, and its perplexity needs 8 at least"):
        pieces(np.arange(5), None, text())


def test_a_likelihood_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="a likelihood that is no number"):
        list(score((np.arange(16), None), lambda piece, first: np.full(len(piece) - first, np.nan), text()))


def dependent_noise(count: int, chance: np.random.Generator) -> np.ndarray:
    """Return noise whose neighbours have a correlation of 0.5, similar to the likelihoods of a sentence."""
    noise = chance.normal(size=count + 20)
    for i in range(1, len(noise)):
        noise[i] = 0.5 * noise[i - 1] + math.sqrt(0.75) * noise[i]
    return noise[20:]


def test_the_intervals_hold_the_truth_about_95_times_in_100() -> None:
    chance = np.random.default_rng(5)
    own = paired = 0
    for _ in range(150):
        base = -3.0 + 1.5 * dependent_noise(1530, chance)
        variant = base - 0.02 + 0.2 * dependent_noise(1530, chance)
        low, high = summarise(base).ci95
        own += low <= math.exp(3.0) <= high
        _, (low, high) = paired_ratio(variant, base)
        paired += low <= math.exp(0.02) <= high
    assert 0.88 <= own / 150 <= 0.99
    assert 0.88 <= paired / 150 <= 0.99


def test_pairing_tells_apart_what_single_intervals_cannot() -> None:
    chance = np.random.default_rng(1)
    base = -3.0 + 1.8 * chance.normal(size=1530)
    worse = base - 0.05 + 0.3 * chance.normal(size=1530)
    assert summarise(worse).ci95[0] < summarise(base).value
    value, (low, high) = paired_ratio(worse, base)
    assert 1 < low < value < high < 1.1
    assert value == pytest.approx(summarise(worse).value / summarise(base).value)


def test_too_few_tokens_have_a_value_and_no_interval() -> None:
    few = np.full(255, -2.0)
    assert summarise(few).value == pytest.approx(math.exp(2))
    assert summarise(few).ci95 is None
    assert paired_ratio(few, few) is None
    assert paired_ratio(np.zeros(400), np.zeros(401)) is None


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_overflow() -> None:
    assert summarise(np.full(400, -1e5)).value == math.inf


def test_what_a_result_keeps_is_read_back() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert perplexity.unpacked(perplexity.packed(values)) == pytest.approx(values, rel=1e-6)
    assert perplexity.unpacked("no base64!") is None
    assert perplexity.unpacked("AAA=") is None  # no whole number of floats


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), (b"", "is empty"), (b"\xff\xfe", "no UTF-8")])
def test_a_text_that_cannot_be_used_is_told(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_text(path)
    with pytest.raises(InputError, match="is no file"):
        read_text(tmp_path)
