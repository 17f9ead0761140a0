"""A dataset over anything that can hand out raw samples by their number; what every format here comes down to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, unknown
from edgeprof.evaluation.dataset import Dataset
from edgeprof.evaluation.preprocess import KEYS, from_options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.preprocess import Preprocess

#: Options that every format takes beside the preprocessing.
COMMON = frozenset({"limit", "label_offset"})


class Samples(Dataset):
    """Raw samples with declared preprocessing.

    Args:
        name: For people.
        labels: Shape ``(n, …)``.
        read: Number of a sample → its raw values; images as ``(height, width[, 3])`` uint8.
        options: The preprocessing, and ``limit`` (only the first so many samples) and ``label_offset`` (added to each
            label, as 1 for a model with a background class).

    Raises:
        InputError: no samples, or an option that is not understood.
    """

    def __init__(
        self,
        name: str,
        labels: npt.NDArray[Any],
        read: Callable[[int], npt.NDArray[Any]],
        options: Mapping[str, str],
    ) -> None:
        limit = _whole("limit", options.get("limit"), least=1)
        offset = _whole("label_offset", options.get("label_offset"))
        self.preprocess: Preprocess = from_options({k: v for k, v in options.items() if k not in COMMON})
        self.preprocessing = self.preprocess.digest
        self.quantise = self.preprocess.quantise
        if len(labels) == 0:
            raise InputError(f"{name} has no samples")
        count = len(labels) if limit is None else min(limit, len(labels))
        self.name = name if count == len(labels) else f"{name} (first {count})"
        self._labels = labels[:count] if offset is None else labels[:count] + offset
        self._read = read

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> npt.NDArray[Any]:
        return self._labels

    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        for start in range(0, len(self), size):
            samples = [
                self.preprocess.sample(self._read(i), f"sample {i} of {self.name}")
                for i in range(start, min(start + size, len(self)))
            ]
            shapes = {sample.shape for sample in samples}
            if len(shapes) > 1:
                raise InputError(
                    f"samples {start} to {start + len(samples) - 1} of {self.name} have different shapes:"
                    f" {', '.join(map(str, sorted(shapes)))}",
                    remedy="Make them one size: --preprocess resize=HxW",
                )
            yield {"": self.preprocess.batch(np.stack(samples), self.name)}


def split_options(options: Mapping[str, str], own: Collection[str], kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a format takes itself, and what is preprocessing.

    Raises:
        InputError: an option that is neither; the nearest name is in the remedy.
    """
    for key in options:
        if key not in KEYS | COMMON and key not in own:
            raise unknown(f"option of a dataset of kind {kind}", key, KEYS | COMMON | set(own))
    return {k: v for k, v in options.items() if k in own}, {k: v for k, v in options.items() if k not in own}


def _whole(name: str, text: str | None, least: int | None = None) -> int | None:
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or (least is not None and value < least):
        above = "" if least is None else f" of at least {least}"
        raise InputError(f"{name}={text} is not a whole number{above}")
    return value
