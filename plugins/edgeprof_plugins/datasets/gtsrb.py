"""GTSRB, the German traffic sign benchmark, as published (benchmark.ini.rub.de) and as repacked on Kaggle.

The published training data has a folder for each of the 43 classes with .ppm images and a table such as
``GT-00000.csv`` (columns separated by ``;``); the test data is one folder of .ppm images with ``GT-final_test.csv``.
Kaggle has ``Train.csv`` and ``Test.csv`` with a column ``Path``. All tables have ``ClassId`` and the rectangle of the
sign, ``Roi.X1`` to ``Roi.Y2``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.samples import Samples, split_options
from edgeprof_plugins.datasets.images import image_reader, is_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

_PLACES = ("", "Images", "Final_Training/Images", "Final_Test/Images")
_ROI = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
_TEST = "GT-final_test.csv"
LAYOUT = (
    "a folder with GTSRB/Final_Training/Images/00000/GT-00000.csv … and GTSRB/Final_Test/Images/GT-final_test.csv, or"
    " Kaggle's with Train.csv and Test.csv"
)


def open_gtsrb(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open the folder, at any level, or one of its tables.

    Options: ``split``: ``test`` (the default where it exists) or ``train``; ``roi=crop`` crops to the rectangle of the
    sign, as part of the preprocessing.

    Raises:
        InputError: tables or images are missing, or a line is incomplete.
    """
    settings, rest = split_options(options, {"split", "roi"}, "gtsrb")
    split, roi = settings.get("split"), settings.get("roi", "full")
    if split not in {None, "test", "train"} or roi not in {"full", "crop"}:
        raise InputError(f"split={split} and roi={roi}: a split is test or train, roi is full or crop")
    root = Path(spec)
    tables = {"": [root]} if root.is_file() else _split_tables(root)
    chosen = next(iter(tables.values()), []) if split is None else tables.get(split, [])
    if not chosen:
        raise InputError(
            f"{root} has no table of GTSRB{f' to {split}' if split else ''}",
            remedy=f"It wants {LAYOUT}. The table of the test comes by itself: GTSRB_Final_Test_GT.zip.",
        )
    rows = [row for table in chosen for row in _table_rows(table, root)]
    if not rows:
        raise InputError(f"{chosen[0]} lists no images")
    missing = [file for file, _, _ in rows if not is_file(file)]
    if missing:
        raise InputError(f"{chosen[0]} names {len(missing)} images that do not exist, as {missing[0]}")

    pixels_of = image_reader(root.name, [file for file, _, _ in rows], colour=True)

    def read(number: int) -> npt.NDArray[Any]:
        file, _, (left, top, right, bottom) = rows[number]
        pixels = pixels_of(number)
        if roi == "full":
            return pixels
        if not (0 <= left < right <= pixels.shape[1] and 0 <= top < bottom <= pixels.shape[0]):
            raise InputError(f"{file} is {pixels.shape[1]} x {pixels.shape[0]}: its rectangle lies outside")
        return pixels[top:bottom, left:right]

    labels = np.asarray([label for _, label, _ in rows], np.int64)
    return Samples(root.name, labels, read, rest, {"roi": "crop"} if roi == "crop" else None)


def _split_tables(root: Path) -> dict[str, list[Path]]:
    """Return the tables of each split that exists, the test split first."""
    places = [root / top / below for top in ("", "GTSRB") for below in _PLACES]
    test = [p for place in places for p in (place / "Test.csv", place / _TEST) if p.is_file()]
    train = [p for place in places for p in (place / "Train.csv",) if p.is_file()]
    train = train or [p for place in places for p in sorted(place.glob("[0-9]*/GT-[0-9]*.csv"))]
    return {split: tables for split, tables in (("test", test[:1]), ("train", train)) if tables}


def _table_rows(table: Path, root: Path) -> list[tuple[Path, int, list[int]]]:
    """Return the image, class and rectangle of each line."""
    try:
        text = whole_files.read_text(table, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {table}: {getattr(error, 'strerror', None) or error}") from None
    lines = text.splitlines()
    reader = csv.DictReader(lines, delimiter=";" if lines and ";" in lines[0] else ",")
    folder = _image_folder(table, root)
    try:
        return [
            (
                table.parent / row["Path"] if row.get("Path") else folder / row["Filename"],
                int(row["ClassId"]),
                [int(row[name]) for name in _ROI],
            )
            for row in reader
        ]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{table} line {reader.line_num} has no image with {', '.join(('ClassId', *_ROI))}",
            remedy="The table without classes comes with the test images; the one with them is in"
            " GTSRB_Final_Test_GT.zip.",
        ) from None


def _image_folder(table: Path, root: Path) -> Path:
    """Return the folder of a table's images: the table's own, or Final_Test/Images for a test table without images."""
    if table.name != _TEST or any(table.parent.glob("*.ppm")):
        return table.parent
    places = [root / top / "Final_Test/Images" for top in ("", "GTSRB")]
    return next((place for place in places if place.is_dir()), table.parent)


def recognises(path: Path) -> bool:
    if path.is_dir():
        return bool(_split_tables(path)) and not (path / "labels.csv").exists()
    return path.match("GT-*.csv")


open_gtsrb.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory
open_gtsrb.layout = LAYOUT  # type: ignore[attr-defined] # and reports the layout where no data is found


@hookimpl
def register_datasets(register: Register) -> None:
    register("gtsrb", open_gtsrb)
