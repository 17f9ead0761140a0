"""The contract of a metric: outputs and labels in, a score with its interval out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Score:
    """A metric's outcome.

    Attributes:
        value: The score; a ratio (0 to 1) where the metric has one.
        ci95: Its 95 % interval, or None where the metric has none.
        samples: How many samples it rests on.
        correct: For metrics that judge each sample: one bool each, in order, which pairs variants (McNemar).
    """

    value: float
    ci95: tuple[float, float] | None
    samples: int
    correct: npt.NDArray[np.bool_] | None = None


class Metric(ABC):
    """A score on labelled outputs.

    Attributes:
        name: As registered: ``top1``.
        higher_is_better: Whether a drop is bad.
    """

    name: str
    higher_is_better: bool = True

    @abstractmethod
    def score(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Score:
        """Judge all samples at once.

        Args:
            outputs: Output name → array ``(samples, …)``, in the dataset's order.
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
