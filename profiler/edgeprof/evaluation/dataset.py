"""The contract of a dataset: labelled samples, with preprocessing that is declared and never guessed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt


class Dataset(ABC):
    """Labelled samples.

    Attributes:
        name: For people: the file or folder.
        preprocessing: The hash of the declared preprocessing; calibration and evaluation must agree on it.
        quantise: ``input`` where the batches are real numbers that become integers by the model input's own scale and
            zero point; None where the batches are what the model takes.
    """

    name: str
    preprocessing: str
    quantise: str | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @property
    @abstractmethod
    def labels(self) -> npt.NDArray[Any]:
        """Shape ``(len(self), …)``: a class index each, or what the metric takes."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """Preprocessed inputs in order: input name (or "" for a model with one input) → array ``(n ≤ size, …)``."""
