"""The contract of a metric: outputs and labels in, a score with its interval out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
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
