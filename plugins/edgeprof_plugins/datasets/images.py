"""Images: a folder per class, or a CSV table of files and labels."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError, UnavailableError
from edgeprof.evaluation.labels import absent
from edgeprof.evaluation.samples import Samples, split_options
from edgeprof.worker.arrays import read_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

#: What columns are called where their names are not given.
_HEADERS = {
    "file": {"file", "filename", "file_name", "path", "filepath", "image", "image_path"},
    "label": {"label", "class", "class_id", "classid", "target", "y"},
}
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".gif", ".tif", ".tiff"})
TABLE = "labels.csv"


def open_folders(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a folder of folders; the classes are their names in alphabetical order (numbers in theirs), counted from 0.

    A folder of images alone has no labels, and serves calibration.

    Raises:
        InputError: there are no images, or an option is not understood.
    """
    _, rest = split_options(options, (), "folders")
    root = Path(spec)
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if all(entry.name.isdecimal() for entry in classes):
        classes.sort(key=lambda entry: int(entry.name))  # 10 comes after 9
    files: list[Path] = []
    labels: list[int] = []
    for number, folder in enumerate(classes):
        found = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        files += found
        labels += [number] * len(found)
    if files:
        return _samples(root.name, files, np.asarray(labels, np.int64), rest)
    files = sorted(entry for entry in root.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{root} has no images, in folders of classes or not")
    return _samples(root.name, files, absent(len(files)), rest)


def open_table(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a CSV table of images (or .npy arrays), relative to it, with their class numbers.

    Options: ``file`` and ``label``, the columns' names or numbers from 1; by default those whose names say it (as path
    and class), else the first and the second. A first line whose label is no number is the header. Columns are parted
    by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        InputError: a line without a label, a column that does not exist, or a file that does not.
    """
    own, rest = split_options(options, {"file", "label"}, "table")
    path = Path(spec)
    path = path / TABLE if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            first = handle.readline()
            handle.seek(0)
            reader = csv.reader(handle, delimiter=max(",;\t", key=first.count))
            rows = [(number, row) for number, row in enumerate(reader, start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not rows:
        raise InputError(f"{path} is empty")
    header = rows[0][1]
    where = [_column(path, header, own.get(name), _usual(header, name)) for name in ("file", "label")]
    if not _is_whole(header, where[1]):
        rows = rows[1:]
    files, labels = [], []
    for number, row in rows:
        if max(where) >= len(row) or not _is_whole(row, where[1]):
            raise InputError(
                f"{path} line {number} has no class number: {','.join(row)}",
                remedy="Classes are whole numbers; name the column with --preprocess label=COLUMN.",
            )
        files.append(path.parent / row[where[0]].strip())
        labels.append(int(row[where[1]]))
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{path} names {len(missing)} files that do not exist, as {missing[0]}")
    return _samples(path.parent.name if path.name == TABLE else path.name, files, np.asarray(labels, np.int64), rest)


def _usual(header: Sequence[str], name: str) -> int:
    """The column whose name says that it is the file or the label; else the first and the second."""
    named = [i for i, cell in enumerate(header) if cell.strip().lower().replace(" ", "_") in _HEADERS[name]]
    return named[0] if named else ("file", "label").index(name)


def _column(path: Path, header: Sequence[str], name: str | None, default: int) -> int:
    if name is None:
        return default
    names = [cell.strip() for cell in header]
    if name in names:
        return names.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    raise InputError(f"{path} has no column {name}", remedy=f"Its first line is {','.join(names)}.")


def _is_whole(row: Sequence[str], column: int) -> bool:
    return column < len(row) and row[column].strip().removeprefix("-").isdecimal()


def _samples(name: str, files: Sequence[Path], labels: npt.NDArray[Any], options: Mapping[str, str]) -> Dataset:
    return Samples(name, labels, lambda number: read_image(files[number]), options)


def read_image(path: Path) -> npt.NDArray[Any]:
    """An image as ``(height, width, 3)`` uint8, grey ones as ``(height, width)``; an .npy file as it is.

    Raises:
        InputError: it cannot be read.
        UnavailableError: Pillow is not installed.
    """
    try:
        if path.suffix == ".npy":
            array: npt.NDArray[Any] = read_arrays(os.fspath(path)).get("", np.zeros(0))
            return array
        with pillow().open(path) as image:
            grey = image.mode in {"L", "1"}
            return np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNGs
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _has_images(path: Path) -> bool:
    if not path.is_dir():
        return False
    entries = list(path.iterdir())
    folders = (entry for entry in entries if entry.is_dir())
    return any(f.suffix.lower() in SUFFIXES for found in (entries, *(f.iterdir() for f in folders)) for f in found)


open_folders.recognises = _has_images  # type: ignore[attr-defined] # load_dataset asks the factory
open_folders.generic = open_table.generic = True  # type: ignore[attr-defined] # and those that know more before it
open_folders.layout = "a folder with a folder of images for each class"  # type: ignore[attr-defined] # for its messages
open_table.layout = "a .csv with a file and a class number in each line, or a folder with labels.csv"  # type: ignore[attr-defined] # as above
open_table.recognises = lambda path: (  # type: ignore[attr-defined] # as above
    (path / TABLE).is_file() or (path.suffix == ".csv" and path.name != "y_labels.csv")
)


def pillow() -> Any:
    """Pillow's Image module.

    Raises:
        UnavailableError: it is not installed; the remedy is the command.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UnavailableError(
            "reading images needs Pillow, which is not installed",
            remedy="pip install 'edgeprof[images]'",
        ) from None
    return Image


@hookimpl
def register_datasets(register: Register) -> None:
    register("folders", open_folders)
    register("table", open_table)
