"""Samples for calibration: taken evenly from a dataset, and checked before any range is derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset

    Batch = dict[str, npt.NDArray[np.generic]]


class Calibration:
    """The samples for a static quantiser.

    Args:
        data: The dataset; at most ``samples`` of its samples are used, evenly spread, so that all classes of a dataset
            sorted by class are covered.
        inputs: The model's inputs: name → (shape with None for an open size, dtype).
        samples: The largest number of samples.
    """

    def __init__(
        self, data: Dataset, inputs: Mapping[str, tuple[Sequence[int | None], str]], samples: int = 128
    ) -> None:
        self.data, self.inputs = data, dict(inputs)
        if len(data) == 0:
            raise InputError(f"{data.name} has no samples to calibrate with")
        self._check_batched()
        count = min(samples, len(data))
        self.chosen = np.unique(np.linspace(0, len(data) - 1, count).round().astype(int))

    def batches(self, fixed_batch: int | None = None) -> list[Batch]:
        """Return the samples in batches of one; a model with a fixed batch gets batches of that size.

        Raises:
            InputError: A sample has NaN or infinite values, or does not fit the model; the message names it.
        """
        sizes = {shape[0] for shape, _ in self.inputs.values() if shape and shape[0] is not None}
        size = fixed_batch or (sizes.pop() if len(sizes) == 1 else 1) or 1
        chosen = list(self._chosen())
        batches: list[Batch] = []
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            part += [part[-1]] * (size - len(part))
            batches.append({name: np.concatenate([sample[name] for sample in part]) for name in part[0]})
        return batches

    def facts(self) -> dict[str, Any]:
        """Return the facts for the variant's provenance: number of samples, dataset and preprocessing."""
        labels = np.asarray(self.data.labels)
        facts: dict[str, Any] = {
            "calibration": self.data.name,
            "samples": len(self.chosen),
            "preprocessing": self.data.preprocessing,
            "declared": self.data.declared,
            "fingerprint": self.data.fingerprint(),
        }
        if labels.ndim == 1 and labels.dtype.kind in "iu":
            facts["classes"] = len(np.unique(labels[self.chosen]))
            facts["classes_in_dataset"] = len(np.unique(labels))
        return facts

    def _check_batched(self) -> None:
        """Reject inputs without a batch axis: a state or setting cannot be distinguished from the samples."""
        first = {name: shape[0] if shape else 0 for name, (shape, _) in self.inputs.items()}
        sizes = set(first.values())
        if sizes <= {None, 1} or (len(sizes) == 1 and 0 not in sizes):
            return
        odd = next(name for name, size in first.items() if size not in {None, 1})
        raise InputError(
            f"the model cannot be calibrated sample by sample: its input {odd}"
            f" ({_shape_text(self.inputs[odd][0]) if first[odd] else 'a scalar'}) has no samples along its first axis",
            remedy="Use a method without calibration, as int8-weight; or export it with the batch first in all inputs.",
        )

    def _chosen(self) -> Iterator[Batch]:
        wanted = set(self.chosen.tolist())
        last = int(self.chosen[-1])
        for position, batch in enumerate(self.data.batches(1)):
            if position in wanted:
                yield self._check_batch(batch, position)
            if position >= last:
                return

    def _check_batch(self, batch: Batch, position: int) -> Batch:
        where = f"sample {position} of {self.data.name}"
        names = list(self.inputs)
        if set(batch) == {""}:
            if len(names) != 1:
                raise InputError(
                    f"{self.data.name} has one array per sample, but the model takes {len(names)}: {', '.join(names)}",
                    remedy="Give an .npz with one array per input, named as the inputs.",
                )
            batch = {names[0]: batch[""]}
        if set(batch) != set(names):
            raise InputError(
                f"the model takes {', '.join(sorted(names))}; {self.data.name} offers {', '.join(sorted(batch))}",
                remedy="Name the arrays as the inputs.",
            )
        return {name: self._fit_array(array, name, where) for name, array in batch.items()}

    def _fit_array(self, array: npt.NDArray[np.generic], name: str, where: str) -> npt.NDArray[np.generic]:
        shape, dtype = self.inputs[name]
        given, wanted = array.shape[1:], tuple(shape)[1:]
        if len(given) != len(wanted) or any(w is not None and w != g for w, g in zip(wanted, given, strict=True)):
            raise InputError(
                f"calibration data of the wrong shape: {where} is {_shape_text(given)}, the model's input {name} takes"
                f" {_shape_text(wanted)}",
                remedy="Declare preprocessing, as --preprocess layout=NCHW or resize=HxW.",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                f"{where} has NaN or infinite values: a range taken from it would be worthless",
                remedy="Clean the data, or check mean and std of the preprocessing.",
            )
        if str(array.dtype) == dtype:
            return array
        if self.data.quantise == "input" and np.dtype(dtype).kind == "f":
            return array.astype(dtype)
        raise InputError(
            f"the model's input {name} takes {dtype}, but {self.data.name} has {array.dtype}",
            remedy=f"Declare --preprocess dtype={dtype} if the numbers are meant as they are.",
        )


def _shape_text(shape: Sequence[int | None]) -> str:
    return " × ".join("?" if size is None else str(size) for size in shape) or "()"
