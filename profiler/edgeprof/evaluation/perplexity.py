"""The perplexity of a language model on a text, and the ratio of two perplexities, paired token by token.

The convention is that of llama-perplexity: the text's tokens are cut into pieces of equal length, the model reads each
piece separately after its begin token, and the tokens of the second half of each piece are scored. Perplexity is
exp(−mean log-likelihood). Neighbouring tokens are not independent samples, so intervals come from a circular block
bootstrap (Politis and Romano 1992). Its resamples are the same for every model scored on the same number of tokens,
which pairs the models: 1,500 tokens distinguish Q8_0 from Q4_K_M although the interval of each is ±15 %.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.errors import InputError
from edgeprof.evaluation.metric import FEWEST, RESAMPLES, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Tokens = npt.NDArray[np.int64]

NAME = "perplexity"
#: Tokens in one piece of a text, and how many pieces are scored by default: 1,530 tokens.
CHUNK, CHUNKS = 512, 6
#: Tokens in one block of the bootstrap: likelihoods are correlated over about a sentence.
BLOCK = 32
#: The largest text that is read, in bytes.
LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Text:
    """A text whose perplexity is requested.

    Attributes:
        name: The name of its file.
        content: The text in UTF-8.
        sha256: The hash of the content, hexadecimal.
        chunk: Tokens per piece.
        chunks: The largest number of pieces that are scored; 0 for all.
    """

    name: str
    content: bytes
    sha256: str
    chunk: int = CHUNK
    chunks: int = CHUNKS


@dataclass(frozen=True)
class Likelihoods:
    """The likelihoods that a model assigns to the tokens of a text.

    Attributes:
        values: The natural logarithm of each scored token's probability, shape ``(scored,)``.
        tokens_sha256: The hash of the tokens that were read, in pieces; it is the same for models with one tokenizer.
    """

    values: Floats
    tokens_sha256: str


def read_text(path: Path, *, chunk: int = CHUNK, chunks: int = CHUNKS) -> Text:
    """Read a text file.

    Raises:
        InputError: The file cannot be read, is empty, is too large, or is not UTF-8.
    """
    remedy = "Give a text file in UTF-8, as a part of WikiText-2."
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"--text {path} is no file", remedy=remedy)
        if size > LIMIT_BYTES:
            raise InputError(f"--text {path} has {size:,} bytes; {LIMIT_BYTES:,} are read at most", remedy=remedy)
        content = path.read_bytes()
        content.decode("utf-8")
    except OSError as error:
        raise InputError(f"--text {path} cannot be read: {error.strerror}", remedy=remedy) from None
    except UnicodeDecodeError:
        raise InputError(f"--text {path} is no UTF-8 text", remedy=remedy) from None
    if not content.strip():
        raise InputError(f"--text {path} is empty", remedy=remedy)
    return Text(path.name, content, hashlib.sha256(content).hexdigest(), chunk, chunks)


def pieces(tokens: Tokens, begin: int | None, text: Text) -> list[Tokens]:
    """Return the pieces of a text that are scored, each with ``text.chunk`` tokens; the first token of a piece is
    replaced by ``begin``, if there is one. A shorter rest is left out, as in llama-perplexity.

    Raises:
        InputError: The text is shorter than one piece.
    """
    count = len(tokens) // text.chunk
    if not count:
        raise InputError(
            f"{text.name} has {len(tokens)} tokens, and its perplexity needs {text.chunk} at least",
            remedy="Give a longer text, or a smaller --context.",
        )
    count = min(count, text.chunks) if text.chunks else count
    cut = tokens[: count * text.chunk].reshape(count, text.chunk).copy()
    if begin is not None:
        cut[:, 0] = begin
    return list(cut)


def score(
    read: tuple[Tokens, int | None], log_likelihoods: Callable[[Tokens, int], Floats], text: Text
) -> Iterator[tuple[int, int, Likelihoods | None]]:
    """Score a text piece by piece.

    Args:
        read: The text's tokens and the begin token (``Session.text_tokens``).
        log_likelihoods: ``Session.log_likelihoods``.
        text: The text.

    Yields:
        (pieces done, number of pieces, None), and at the end the same with the likelihoods.

    Raises:
        InputError: The text is too short, or a likelihood is not finite.
    """
    cut = pieces(*read, text)
    first = text.chunk // 2 + 1
    scored = []
    for done, piece in enumerate(cut):
        yield done, len(cut), None
        values = log_likelihoods(piece, first)
        if not np.isfinite(values).all():
            raise InputError(f"the model gives tokens of {text.name} a likelihood that is no number")
        scored.append(values)
    digest = hashlib.sha256(np.stack(cut).astype("<i8").tobytes()).hexdigest()
    yield len(cut), len(cut), Likelihoods(np.concatenate(scored), digest)


def perplexity(values: Floats) -> float:
    """Return exp(−mean log-likelihood); infinity on overflow."""
    return _power(-float(values.mean()))


def summarise(values: Floats) -> Score:
    """Return the perplexity, its 95 % interval, and its value under each resample, which pairs models."""
    value = perplexity(values)
    if len(values) < FEWEST * BLOCK:
        return Score(value=value, ci95=None, samples=len(values))
    replicates = np.exp(np.minimum(-_resampled_means(values), 700.0))
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Score(
        value=value, ci95=(min(float(low), value), max(float(high), value)), samples=len(values), replicates=replicates
    )


def paired_ratio(variant: Floats, baseline: Floats) -> tuple[float, tuple[float, float]] | None:
    """Return the ratio of the variant's perplexity to the baseline's, and its 95 % interval, from paired tokens.

    Args:
        variant: The variant's log-likelihoods.
        baseline: The baseline's log-likelihoods of the same tokens in the same order.

    Returns:
        The ratio and its interval; None if there are too few tokens, or the numbers of tokens differ.
    """
    if len(variant) != len(baseline) or len(variant) < FEWEST * BLOCK:
        return None
    differences = baseline - variant
    mean = float(differences.mean())
    low, high = np.quantile(_resampled_means(differences), [0.025, 0.975])
    # With few blocks, percentile intervals are too narrow by about this factor (Student's t / normal quantile).
    wider = 1 + 1.2 / (len(variant) / BLOCK)
    low, high = mean - wider * (mean - float(low)), mean + wider * (float(high) - mean)
    return _power(mean), (_power(low), _power(high))


def _power(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _resampled_means(values: Floats) -> Floats:
    """Return the mean under each resample of circular blocks, shape ``(RESAMPLES,)``."""
    count = len(values)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:BLOCK]]))])
    starts = _block_starts(count)
    means: Floats = (sums[starts + BLOCK] - sums[starts]).mean(axis=1) / BLOCK
    return means


@functools.lru_cache(maxsize=4)
def _block_starts(count: int) -> Tokens:
    """Return the blocks' starts; they depend only on the number of tokens, which pairs models."""
    return np.random.default_rng(count).integers(0, count, (RESAMPLES, math.ceil(count / BLOCK)))


def packed(values: Floats) -> str:
    """Encode log-likelihoods for a result: float32, little-endian, base64 (5.3 bytes per token)."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> Floats | None:
    """Decode a text that ``packed`` has written; None for any other text."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    except ValueError:
        return None
