"""numpy's .npz files: inputs ``x`` and labels ``y`` (or similar names), or one array per model input and the labels.

Samples without labels can be used for calibration.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.evaluation.dataset import Dataset
from edgeprof.evaluation.labels import absent
from edgeprof.evaluation.samples import COMMON, Samples, split_options
from edgeprof.worker.arrays import ArraysError, read_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from edgeprof.hookspecs import Register

_LABELS = ("y", "labels", "label", "targets")


class NamedArrays(Dataset):
    """Several inputs per sample, each an array named after a model input; they are fed unchanged."""

    def __init__(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], samples: Samples) -> None:
        self.name, self.preprocessing = samples.name, samples.preprocessing
        self.declared, self.accepts = samples.declared, samples.accepts
        self._arrays, self._samples = {key: array[samples.first :] for key, array in arrays.items()}, samples
        for key, array in self._arrays.items():
            if len(array) < len(samples):
                raise InputError(f"{name}: {key} has {len(array)} samples, but there are {len(samples)} labels")

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def labels(self) -> npt.NDArray[Any]:
        return self._samples.labels

    def fingerprint(self) -> str | None:
        return self._samples.fingerprint()

    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield {key: array[start:stop] for key, array in self._arrays.items()}


def open_npz(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open an .npz file.

    Options: ``x`` and ``y``, the names of the arrays of inputs and labels, where the defaults do not apply.

    Raises:
        InputError: the file is not an .npz, holds Python objects, or its arrays have different lengths.
    """
    settings, rest = split_options(options, {"x", "y"}, "npz")
    arrays = _read_arrays(Path(spec))
    label_key = settings.get("y") or next((key for key in _LABELS if key in arrays), None)
    for key in (label_key, settings.get("x")):
        if key is not None and key not in arrays:
            raise InputError(f"{spec} has no array {key}", remedy=f"It has {', '.join(arrays)}.")
    inputs = {k: v for k, v in arrays.items() if k != label_key and settings.get("x") in {None, k}}
    if not inputs:
        raise InputError(f"{spec} has labels and no inputs" if arrays else f"{spec} has no arrays")
    labels = arrays[label_key] if label_key else absent(max((len(a) for a in inputs.values() if a.ndim), default=0))
    name = Path(spec).name
    for key, array in inputs.items():
        if array.ndim == 0 or labels.ndim == 0 or len(array) != len(labels):
            other = f"{label_key} {labels.shape}" if label_key else "the other arrays"
            raise InputError(f"{spec}: {key} {array.shape} and {other} are not sample by sample")
    if len(inputs) == 1:
        (x,) = inputs.values()
        return Samples(name, labels, x.__getitem__, rest)
    declared = sorted(set(rest) - COMMON)
    if declared:
        raise InputError(
            f"{spec} has several inputs ({', '.join(inputs)}), which are fed as they are; {', '.join(declared)}"
            " cannot be declared for them",
            remedy="Prepare the arrays, or choose one with --preprocess x=NAME",
        )
    return NamedArrays(name, inputs, Samples(name, labels, next(iter(inputs.values())).__getitem__, rest))


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        arrays = read_arrays(os.fspath(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except ArraysError as error:
        raise InputError(
            f"{path} is no whole .npz of plain arrays: {error}", remedy="Write it with numpy.savez(file, x=…, y=…)."
        ) from None
    if set(arrays) == {""}:
        raise InputError(f"{path} is a single array, not an .npz with inputs and labels")
    return arrays


def recognises(path: Path) -> bool:
    return path.suffix == ".npz"


open_npz.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory


@hookimpl
def register_datasets(register: Register) -> None:
    register("npz", open_npz)
