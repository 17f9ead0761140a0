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
        declared: What that hash is of, in words; None where it is not told.
        accepts: Hashes, or their beginnings, of other preprocessing that a variant may have been calibrated or trained
            with and yet be judged on this data: what the user says is meant.
        quantise: ``input`` where the batches are real numbers that become integers by the model input's own scale and
            zero point; None where the batches are what the model takes.
    """

    name: str
    preprocessing: str
    declared: str | None = None
    accepts: tuple[str, ...] = ()
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

    def representatives(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """One sample of each form that there is, as ``batches(1)`` gives them: whether a model takes them all.

        By default the first sample: all have its form.
        """
        for batch in self.batches(1):
            yield batch
            return

    def fingerprint(self) -> str | None:
        """Return a hash that identifies the samples, wherever they are stored and however they are preprocessed.

        A variant stores the fingerprint of the data that it was calibrated or trained on, so that an evaluation on the
        same data is noticed. None if the dataset has no fingerprint.
        """
        return None
