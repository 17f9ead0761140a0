"""A dataset from any source whose raw samples are read by number: the base of all built-in dataset formats."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, unknown
from edgeprof.evaluation.dataset import Dataset
from edgeprof.evaluation.labels import are_absent
from edgeprof.evaluation.preprocess import KEYS, digest, from_options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.preprocess import Preprocess

#: Options that every format takes in addition to the preprocessing.
COMMON = frozenset({"limit", "skip", "label_offset", "accepts"})
#: The number of samples in a fingerprint.
_LOOKED_AT = 16


class Samples(Dataset):
    """Raw samples with declared preprocessing.

    Args:
        name: A name for messages.
        labels: Shape ``(n, …)``; ``labels.absent(n)`` if there are none.
        read: Number of a sample → its raw values; images as ``(height, width[, 3])`` uint8.
        options: The preprocessing, and ``skip`` (how many samples to leave out at the beginning), ``limit`` (the
            largest number of samples after them), ``label_offset`` (added to each label, such as 1 for a model with a
            background class) and ``accepts`` (see ``Dataset``; several joined by commas).
        does: The preprocessing by ``read`` itself, such as a crop; it becomes a part of the declared preprocessing.
        kind: Number of a sample → the facts that decide its form, such as mode and size of an image, without reading
            the whole sample. None if all samples have one form.

    Attributes:
        first: How many samples were left out at the beginning.

    Raises:
        InputError: There are no samples, or an option is not valid.
    """

    def __init__(
        self,
        name: str,
        labels: npt.NDArray[Any],
        read: Callable[[int], npt.NDArray[Any]],
        options: Mapping[str, str],
        does: Mapping[str, str] | None = None,
        *,
        kind: Callable[[int], Hashable] | None = None,
    ) -> None:
        limit = _parse_whole_number("limit", options.get("limit"), least=1)
        skip = _parse_whole_number("skip", options.get("skip"), least=0) or 0
        offset = _parse_whole_number("label_offset", options.get("label_offset")) or 0
        self.preprocess: Preprocess = from_options({k: v for k, v in options.items() if k not in COMMON})
        steps = {**self.preprocess.declared, **(does or {})}
        self.preprocessing, self.declared = digest(steps), _in_words(steps)
        self.accepts = _parse_hashes(options.get("accepts", ""))
        self.quantise = self.preprocess.quantise
        if len(labels) <= skip:
            raise InputError(f"{name} has no samples" + (f" after the first {len(labels)}" if len(labels) else ""))
        stop = len(labels) if limit is None else min(skip + limit, len(labels))
        self.name = (
            f"{name} ({skip + 1} to {stop})" if skip else name if stop == len(labels) else f"{name} (first {stop})"
        )
        self.first = skip
        self._given = labels[skip:stop]
        if offset and are_absent(labels):
            raise InputError(f"{name} has no labels that label_offset={offset} could be added to")
        if offset and (labels.dtype.kind not in "iuf" or (labels.dtype.kind == "f" and (labels % 1).any())):
            raise InputError(f"the labels of {name} are no whole numbers that label_offset={offset} could be added to")
        # In 64 bits, because a uint8 would overflow.
        self._labels = self._given.astype(np.int64) + offset if offset else self._given
        # A sample of an array with one dimension is a scalar, which has no indices if it is a string.
        self._read: Callable[[int], npt.NDArray[Any]] = lambda number: np.asarray(read(skip + number))
        self._kind = kind
        self._fingerprint: str | None = None  # computed on first use, because it reads samples

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> npt.NDArray[Any]:
        return self._labels

    def fingerprint(self) -> str | None:
        if self._fingerprint is None:
            digest = hashlib.sha256(np.ascontiguousarray(self._given).tobytes())
            for number in np.unique(np.linspace(0, len(self) - 1, min(_LOOKED_AT, len(self))).round().astype(int)):
                digest.update(np.ascontiguousarray(self._read(int(number))).tobytes())
            self._fingerprint = "sha256:" + digest.hexdigest()
        return self._fingerprint

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
            self._require_one_type(samples)
            yield {"": self.preprocess.batch(np.stack(samples), self.name)}

    def _require_one_type(self, samples: Sequence[npt.NDArray[Any]]) -> None:
        """Reject samples of different types, such as images of 8 and 16 bits, whose values have different ranges."""
        types = {sample.dtype.newbyteorder("=") for sample in samples if sample.dtype.kind in "biuf"}
        if len(types) > 1:
            raise InputError(
                f"samples of {self.name} have different types: {', '.join(sorted(map(str, types)))}",
                remedy="Convert them to one type, so that their values have one range.",
            )

    def representatives(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        seen = set()
        first = None
        for number in range(len(self)):
            kind = None if self._kind is None else self._kind(self.first + number)
            if kind in seen:
                continue
            seen.add(kind)
            sample = self.preprocess.sample(self._read(number), f"sample {number} of {self.name}")
            first = sample if first is None else first
            self._require_one_type((first, sample))
            yield {"": self.preprocess.batch(sample[None], self.name)}
            if self._kind is None:
                return


def split_options(
    options: Mapping[str, str], format_keys: Collection[str], kind: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Split options into those of the dataset's format and those of the preprocessing.

    Raises:
        InputError: An option is neither; the remedy names the nearest.
    """
    for key in options:
        if key not in KEYS | COMMON and key not in format_keys:
            raise unknown(f"option of a dataset of kind {kind}", key, KEYS | COMMON | set(format_keys))
    return {k: v for k, v in options.items() if k in format_keys}, {
        k: v for k, v in options.items() if k not in format_keys
    }


def _in_words(steps: Mapping[str, Any]) -> str:
    """Write preprocessing as a user declares it: ``resize=32x32 scale=0.0039``."""
    words = []
    for name, value in sorted(steps.items()):
        sizes = isinstance(value, tuple) and name not in {"mean", "std"}
        parts = value if isinstance(value, tuple) else (value,)
        shown = (f"{part:.6g}" if isinstance(part, float) else str(part) for part in parts)
        words.append(f"{name}={('x' if sizes else ',').join(shown)}")
    return " ".join(words) or "nothing"


def _parse_hashes(text: str) -> tuple[str, ...]:
    """Parse hashes of preprocessing; each needs at least 8 digits, because a shorter prefix could fit by chance."""
    hashes = tuple(filter(None, (part.strip() for part in text.split(","))))
    for hash_text in hashes:
        digits = hash_text.removeprefix("sha256:")
        if not hash_text.startswith("sha256:") or len(digits) < 8 or not all(c in "0123456789abcdef" for c in digits):
            raise InputError(
                f"accepts={hash_text} is no hash of preprocessing", remedy="Copy it from the message that asked for it."
            )
    return hashes


def _parse_whole_number(name: str, text: str | None, least: int | None = None) -> int | None:
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
