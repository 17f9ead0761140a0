"""CIFAR's binary version: one label byte (CIFAR-100: two), then 1024 values each of red, green and blue.

Format: cs.toronto.edu/~kriz.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.samples import Samples, split_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

_PIXELS = 3 * 32 * 32
_SPLITS = {"test": ("test_batch.bin", "test.bin"), "train": ("data_batch_*.bin", "train.bin")}


def open_cifar(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a .bin file, or a folder of .bin files. Samples are 32 × 32 × 3 uint8.

    Options: ``split``, for a folder: ``test`` (the default) or ``train``; ``classes``: 10 (the default) or 100, which
    have one and two labels per sample.

    Raises:
        InputError: an option is wrong, or a file is missing or does not contain a whole number of samples.
    """
    settings, rest = split_options(options, {"split", "classes"}, "cifar")
    split, classes = settings.get("split", "test"), settings.get("classes", "10")
    if split not in _SPLITS or classes not in {"10", "100"}:
        raise InputError(f"split={split} and classes={classes}: a split is test or train, classes are 10 or 100")
    path = Path(spec)
    files = [path]
    if path.is_dir():
        files = [f for pattern in _SPLITS[split] for f in sorted(path.glob(pattern))]
    if not files:
        raise InputError(f"{path} has no {' or '.join(_SPLITS[split])}")
    label_bytes = 1 if classes == "10" else 2
    rows = []
    for file in files:
        try:
            content = whole_files.read_bytes(file)
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
        if not content or len(content) % (label_bytes + _PIXELS):
            raise InputError(
                f"{file} has {len(content)} bytes, not a whole number of {label_bytes + _PIXELS}",
                remedy="It is truncated, or --preprocess classes=100 (or 10) is meant.",
            )
        rows.append(np.frombuffer(content, np.uint8).reshape(-1, label_bytes + _PIXELS))
    table = np.concatenate(rows)
    images = table[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Samples(path.name, table[:, label_bytes - 1].astype(np.int64), images.__getitem__, rest)


def recognises(path: Path) -> bool:
    names = [pattern for patterns in _SPLITS.values() for pattern in patterns]
    if path.is_dir():
        return any(True for name in names for _ in path.glob(name))
    return any(path.match(name) for name in names)


open_cifar.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory


@hookimpl
def register_datasets(register: Register) -> None:
    register("cifar", open_cifar)
