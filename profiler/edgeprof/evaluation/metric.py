"""The interface of a metric: it computes a score with an interval from outputs and labels."""

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

#: The resamples of a bootstrap: enough for the ends of a 95 % interval; the smallest p-value is 0.004.
RESAMPLES = 500
#: The fewest samples for a bootstrap; with fewer, its interval would be misleading.
FEWEST = 10


@dataclass(frozen=True)
class Score:
    """The outcome of a metric.

    Attributes:
        value: The score: a ratio (0 to 1), or a value in the metric's own unit.
        ci95: Its 95 % interval, or None if the metric has none.
        samples: The number of samples that it is based on.
        correct: For metrics that judge each sample: one bool per sample, in order, to pair variants (McNemar).
        replicates: For other metrics: the value under each resample of a bootstrap, shape ``(RESAMPLES,)``, NaN where
            it is undefined. The resamples are the same for every model judged on the same number of samples, to pair
            the models.
    """

    value: float
    ci95: tuple[float, float] | None
    samples: int
    correct: npt.NDArray[np.bool_] | None = None
    replicates: npt.NDArray[np.float64] | None = None


class Metric(ABC):
    """A score on labelled outputs.

    Attributes:
        name: The name under which it is registered, such as ``top1``.
        higher_is_better: Whether a higher value is better. If not (perplexity), the value has the metric's own unit, is
            not shown in percent, and a rise is a loss.
        output: The name of the only output to judge, or its number from 0; None for all that begin with the batch.
        title: Its title in tables and sentences, such as ``top-1``; None to use its name.
    """

    name: str
    title: str | None = None
    higher_is_better: bool = True
    output: str | None = None

    def check(self, labels: npt.NDArray[Any]) -> None:  # noqa: B027 - most have nothing to object to
        """Check, before anything runs, that these labels can be judged and that the required libraries are installed.

        Raises:
            InputError: The labels are of another kind; the remedy names a metric for them.
            UnavailableError: A library is missing; the remedy is the command that installs it.
        """

    def reduce(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Outputs:
        """Reduce a batch's outputs to what is kept until all samples are judged; by default everything is kept.

        Logits of a language model or candidate boxes of a detector would fill the memory; a metric keeps what it needs.

        Args:
            outputs: Output name → array ``(n, …)``.
            labels: The labels of these n samples.

        Returns:
            Arrays ``(n, …)`` by name, with the same shape after the first dimension for every batch.

        Raises:
            InputError: Outputs and labels do not fit; the message names the shapes.
        """
        del labels
        return outputs

    def rehearse(self, outputs: Outputs, labels: npt.NDArray[Any]) -> None:
        """Check with the outputs for one sample, before anything is measured, that the model's outputs can be judged.

        Args:
            outputs: Output name → array ``(1, …)``.
            labels: All labels of the dataset.

        Raises:
            InputError: The outputs cannot be judged; the message names the shapes.
        """
        self.reduce(outputs, labels[:1])

    @abstractmethod
    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Judge all samples at once.

        Args:
            outputs: The joined results of ``reduce``: name → array ``(samples, …)``, in the dataset's order.
            labels: All labels, shape ``(samples, …)``.

        Raises:
            InputError: Outputs and labels do not fit; the message names the shapes.
        """


def wilson(correct: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927), which lies within 0 to 1, even for k = 0 or k = n.

    Args:
        correct: k, the number of correct samples.
        samples: n, at least 1.
        confidence: The two-sided confidence.

    Raises:
        ValueError: k is not within 0 to n, or n is 0.
    """
    if samples < 1 or not 0 <= correct <= samples:
        raise ValueError(f"{correct} of {samples} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, z2 = correct / samples, z * z / samples
    middle = (p + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(p * (1 - p) / samples + z2 / (4 * samples))
    # At the ends, rounding would miss 0 or 1 by 1e-17.
    return (0.0 if correct == 0 else middle - half, 1.0 if correct == samples else middle + half)


def proportion(correct: npt.NDArray[np.bool_]) -> Score:
    """Return the score of a metric that judges each sample right or wrong.

    Args:
        correct: Shape ``(samples,)``, at least one.
    """
    right, count = int(correct.sum()), int(correct.size)
    return Score(value=right / count, ci95=wilson(right, count), samples=count, correct=correct)


def _require_counts(statistic: Callable[[npt.NDArray[np.int64]], float], samples: int) -> None:
    """Check that a statistic weighs samples by counts: a count of n is out of range if it is used as an index.

    Raises:
        InputError: The statistic uses the counts as indices.
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
    except (ArithmeticError, ValueError):  # for a single sample it may be undefined
        pass


def bootstrapped(statistic: Callable[[npt.NDArray[Any]], float], samples: int, *, keeps_all: bool = False) -> Score:
    """Return the score of a metric that judges samples together, with a percentile-bootstrap interval (Efron 1979).

    Args:
        statistic: A function from the count of each sample, shape ``(samples,)``, to the metric; NaN if undefined.
        samples: The number of samples. They are drawn with replacement, so they must be independent (images,
            sequences).
        keeps_all: Whether each sample gets a positive weight in place of a count that may be 0 (the Bayesian bootstrap,
            Rubin 1981). A mean over classes needs this: a class in few samples would drop out of many resamples, and
            the others alone have another mean. ``statistic`` must then accept weights that are not whole numbers.

    Returns:
        The value with every sample counted once; without interval and replicates for fewer than ``FEWEST`` samples.

    Raises:
        InputError: ``statistic`` uses the counts as indices of samples.
    """
    _require_counts(statistic, samples)
    value = statistic(np.ones(samples, np.int64))
    if samples < FEWEST:
        return Score(value=value, ci95=None, samples=samples)
    draw = np.random.default_rng(samples)  # the seed depends only on the number of samples, which pairs models
    share = np.full(samples, 1 / samples)

    def weights() -> npt.NDArray[Any]:
        return samples * draw.dirichlet(np.ones(samples)) if keeps_all else draw.multinomial(samples, share)

    values = np.array([statistic(weights()) for _ in range(RESAMPLES)], np.float64)
    known = values[~np.isnan(values)]
    ends = None if known.size == 0 else np.quantile(known, [0.025, 0.975])
    # If the bootstrap is biased (few samples), the interval is widened to contain the reported value.
    ci95 = None if ends is None else (min(float(ends[0]), value), max(float(ends[1]), value))
    return Score(value=value, ci95=ci95, samples=samples, replicates=values)
