"""MLPerf Tiny's folders: raw .bin samples and a y_labels.csv with ``file,classes,label`` (eembc/energyrunner)."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.samples import Samples, split_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

INDEX = "y_labels.csv"
_RAW = ("uint8", "int8", "float32")


def open_folder(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a folder.

    Option: ``raw``, the type of the values, which the files do not state. Usually ``shape`` is needed too.

    Raises:
        InputError: ``raw`` is not declared, the table is invalid, or a file is missing.
    """
    settings, rest = split_options(options, {"raw"}, "mlperf-tiny")
    raw = settings.get("raw")
    if raw not in _RAW:
        raise InputError(
            f"the samples of {spec} are raw bytes that do not say their type"
            if raw is None
            else f"raw={raw} is no type that samples can have",
            remedy=f"Declare --preprocess raw=uint8 (images), raw=int8 (kws01) or one of {', '.join(_RAW)}.",
        )
    folder = Path(spec)
    index = folder / INDEX if folder.is_dir() else folder
    folder = index.parent
    files, labels = [], []
    try:
        lines = io.StringIO(whole_files.read_text(index), newline="")
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row:
                continue
            try:
                name, _, label = (cell.strip() for cell in row[:3])
                labels.append(int(label))
            except ValueError:
                raise InputError(f"{index} line {number} is not file,classes,label: {','.join(row)}") from None
            files.append(folder / name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {index}: {getattr(error, 'strerror', None) or error}") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} of the {len(files)} files of {INDEX}, as {missing[0]}")

    def read(number: int) -> npt.NDArray[Any]:
        try:
            content = files[number].read_bytes()
            return np.frombuffer(content, raw)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {files[number]}: {getattr(error, 'strerror', None) or error}") from None

    name = folder.parent.name if folder.name == "data" else folder.name
    return Samples(name, np.asarray(labels, np.int64), read, rest)


def recognises(path: Path) -> bool:
    return (path / INDEX).is_file() or path.name == INDEX


open_folder.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory


@hookimpl
def register_datasets(register: Register) -> None:
    register("mlperf-tiny", open_folder)
