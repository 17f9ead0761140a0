"""The interface of a dataset: labelled samples, with preprocessing that is declared and never guessed."""

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
        name: A name for messages: the file or folder.
        preprocessing: The hash of the declared preprocessing; calibration and evaluation must agree on it.
        declared: The preprocessing of that hash in words; None if unknown.
        accepts: Hashes, or their beginnings, of other preprocessing that the user allows: a variant that was calibrated
            or trained with it may still be judged on this data.
        quantise: ``input`` if the batches are real numbers that are quantised with the scale and zero point of the
            model's input; None if the model takes the batches unchanged.
    """

    name: str
    preprocessing: str
    declared: str | None = None
    accepts: tuple[str, ...] = ()
    quantise: str | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @property
    @abstractmethod
    def labels(self) -> npt.NDArray[Any]:
        """The labels, shape ``(len(self), …)``: one class index per sample, or another form that the metric takes."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """Yield preprocessed inputs in order: input name ("" for a model with one input) → array ``(n ≤ size, …)``."""

    def representatives(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """Yield one sample of each form, like ``batches(1)``, to check whether a model takes all forms.

        By default this is the first sample, because all samples have the same form.
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
