"""The contract of a metric: outputs and labels in, a score with its interval out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Outputs = dict[str, npt.NDArray[Any]]

#: Of a bootstrap: enough for the ends of a 95 % interval, and a p-value of 0.004 at the least.
RESAMPLES = 500
#: Samples below which a bootstrap would promise what it cannot know.
FEWEST = 10


@dataclass(frozen=True)
class Score:
    """A metric's outcome.

    Attributes:
        value: The score; a ratio (0 to 1) where the metric has one.
        ci95: Its 95 % interval, or None where the metric has none.
        samples: How many samples it rests on.
        correct: For metrics that judge each sample: one bool each, in order, which pairs variants (McNemar).
        replicates: For others: the value under each of a bootstrap's resamples, shape ``(RESAMPLES,)``, NaN where a
            resample has none. The resamples are the same for every model judged on as many samples, which pairs them.
    """

    value: float
    ci95: tuple[float, float] | None
    samples: int
    correct: npt.NDArray[np.bool_] | None = None
    replicates: npt.NDArray[np.float64] | None = None


class Metric(ABC):
    """A score on labelled outputs.

    Attributes:
        name: As registered: ``top1``.
        higher_is_better: Whether a drop is bad. Where it is not (perplexity), the value has a unit of its own and is
            not shown in percent, and what a variant loses is what it rises.
        output: The name of the only output to judge, or its number from 0; None: all that begin with the batch.
        title: What people call it, in tables and sentences: ``top-1``; None for its name.
    """

    name: str
    title: str | None = None
    higher_is_better: bool = True
    output: str | None = None

    def check(self, labels: npt.NDArray[Any]) -> None:  # noqa: B027 - most have nothing to object to
        """See, before anything runs, that these labels can be judged and that what is needed is installed.

        Raises:
            InputError: the labels are of another kind; the remedy names a metric for them.
            UnavailableError: a library is missing; the remedy is the command.
        """

    def reduce(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Outputs:
        """What is kept of a batch's outputs until all are judged; by default everything.

        Logits of a language model or candidate boxes of a detector would fill the memory; a metric keeps what it needs.

        Args:
            outputs: Output name → array ``(n, …)``.
            labels: Of these n samples.

        Returns:
            Arrays ``(n, …)`` by name, of the same shape behind the first dimension for every batch.

        Raises:
            InputError: outputs and labels do not fit; the sentence names the shapes.
        """
        del labels
        return outputs

    def rehearse(self, outputs: Outputs, labels: npt.NDArray[Any]) -> None:
        """See, by the answers to one sample, that the model's outputs can be judged, before anything is measured.

        Args:
            outputs: Output name → array ``(1, …)``.
            labels: All of the dataset.

        Raises:
            InputError: they cannot; the sentence names the shapes.
        """
        self.reduce(outputs, labels[:1])

    @abstractmethod
    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Judge all samples at once.

        Args:
            outputs: What ``reduce`` kept: name → array ``(samples, …)``, in the dataset's order.
            labels: ``(samples, …)``.

        Raises:
            InputError: outputs and labels do not fit; the sentence names the shapes.
        """


def wilson(correct: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): inside 0 to 1, and honest for all or none correct.

    Args:
        correct: k of n.
        samples: n, at least 1.
        confidence: Two-sided.

    Raises:
        ValueError: not 0 ≤ k ≤ n, or n is 0.
    """
    if samples < 1 or not 0 <= correct <= samples:
        raise ValueError(f"{correct} of {samples} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, z2 = correct / samples, z * z / samples
    middle = (p + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(p * (1 - p) / samples + z2 / (4 * samples))
    # At the ends rounding would leave 1e-17 outside.
    return (0.0 if correct == 0 else middle - half, 1.0 if correct == samples else middle + half)


def proportion(correct: npt.NDArray[np.bool_]) -> Score:
    """The score of a metric that judges each sample right or wrong.

    Args:
        correct: Shape ``(samples,)``, at least one.
    """
    right, count = int(correct.sum()), int(correct.size)
    return Score(value=right / count, ci95=wilson(right, count), samples=count, correct=correct)


def _require_counts(statistic: Callable[[npt.NDArray[np.int64]], float], samples: int) -> None:
    """See that a statistic weighs samples by counts: one sample counted n times is beyond every index of n samples.

    Raises:
        InputError: it does not.
    """
    counts = np.zeros(samples, np.int64)
    counts[:1] = samples
    try:
        with np.errstate(all="ignore"):
            statistic(counts)
    except IndexError:
        raise InputError(
            "the statistic of a bootstrapped metric takes the counts that it gets for indices of samples",
            remedy="It gets how often each sample counts: weigh by it, or take np.repeat(np.arange(n), counts).",
        ) from None
    except (ArithmeticError, ValueError):  # of one sample alone it may have no value
        pass


def bootstrapped(statistic: Callable[[npt.NDArray[np.int64]], float], samples: int) -> Score:
    """The score of a metric that judges samples together, its interval by the percentile bootstrap (Efron 1979).

    Args:
        statistic: How often each sample counts, shape ``(samples,)`` → the metric; NaN where it is undefined.
        samples: How many there are; what is drawn with replacement, so they must be independent: images, sequences.

    Returns:
        The value with every sample counted once; neither interval nor replicates for fewer than ``FEWEST`` samples.

    Raises:
        InputError: ``statistic`` takes the counts for indices of samples.
    """
    _require_counts(statistic, samples)
    value = statistic(np.ones(samples, np.int64))
    if samples < FEWEST:
        return Score(value=value, ci95=None, samples=samples)
    draw = np.random.default_rng(samples)  # by the number of samples alone: what pairs one model with another
    share = np.full(samples, 1 / samples)
    values = np.array([statistic(draw.multinomial(samples, share)) for _ in range(RESAMPLES)], np.float64)
    known = values[~np.isnan(values)]
    ends = None if known.size == 0 else np.quantile(known, [0.025, 0.975])
    # Where the bootstrap is biased (few samples), the interval is widened to hold the value that is reported.
    ci95 = None if ends is None else (min(float(ends[0]), value), max(float(ends[1]), value))
    return Score(value=value, ci95=ci95, samples=samples, replicates=values)
