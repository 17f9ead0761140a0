"""Pairs for verification: LFW's ``pairs.txt`` (vis-www.cs.umass.edu/lfw), or a CSV table of two files and 1 or 0."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.labels import pairs
from edgeprof.evaluation.samples import split_options
from edgeprof_plugins.datasets.images import image_samples, is_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

    Pair = tuple[Path, Path, bool, int]

_NAMES = ("pairs.txt", "pairs.csv")
_PLACES = ("", "lfw", "lfw-deepfunneled", "lfw_funneled")
LAYOUT = "LFW's pairs.txt beside lfw/NAME/NAME_0001.jpg, or a pairs.csv with first,second,same"


def open_pairs(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open the list, or the folder that contains it. The two files of each pair are consecutive samples.

    A line of a CSV table is ``first,second,same``, optionally followed by the number of a cross-validation fold. Files
    (images or .npy arrays) are relative to the table. A first line whose third cell is neither 0 nor 1 is the header.

    Options: ``images``, the folder of the images, relative to the list; ``skip`` and ``limit`` count pairs.

    Raises:
        InputError: a line is not a pair, or files do not exist.
    """
    settings, rest = split_options(options, {"images", "skip", "limit"}, "pairs")
    path = Path(spec)
    if path.is_dir():
        lists = [path / name for name in _NAMES if (path / name).is_file()]
        if not lists:
            raise InputError(f"{path} has no list of pairs", remedy=f"It wants {LAYOUT}.")
        path = lists[0]
    try:
        text = whole_files.read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    listed = (
        _read_table(path, text, settings.get("images"))
        if path.suffix == ".csv"
        else _read_lfw(path, text, settings.get("images"))
    )
    files = [file for first, second, _, _ in listed for file in (first, second)]
    missing = [file for file in files if not is_file(file)]
    if missing:
        raise InputError(
            f"{path} names {len(missing)} files that do not exist, as {missing[0]}",
            remedy="Say where they are, relative to the list: --preprocess images=FOLDER",
        )
    for name in ("skip", "limit"):
        if name in settings:
            rest[name] = str(2 * int(settings[name])) if settings[name].isdecimal() else settings[name]
    labels = pairs([same for _, _, same, _ in listed], [fold for _, _, _, fold in listed])
    return image_samples(path.name, files, labels, rest)


def _read_table(path: Path, text: str, images: str | None) -> list[Pair]:
    folder = path.parent / (images or "")
    pairs = []
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and len(cells) > 2 and cells[2] not in {"0", "1"}):
            continue
        if len(cells) < 3 or cells[2] not in {"0", "1"} or not all(cell.isdecimal() for cell in cells[3:4]):
            raise InputError(f"{path} line {number} is not first,second,same (1 or 0): {','.join(row)}")
        fold = int(cells[3]) if len(cells) > 3 else 0
        pairs.append((folder / cells[0], folder / cells[1], cells[2] == "1", fold))
    return pairs


def _read_lfw(path: Path, text: str, images: str | None) -> list[Pair]:
    """Read LFW's list: ``FOLDS N``, then in each fold N lines ``name 1 2`` (same) and N lines ``name 1 other 2``.

    A first line with only ``N`` means one fold.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    head = lines[0] if lines and all(cell.isdecimal() for cell in lines[0]) else []
    if len(head) not in {1, 2} or int(head[-1]) < 1:
        raise InputError(f"{path} does not begin with the numbers of folds and pairs, as LFW's pairs.txt does")
    each = 2 * int(head[-1])
    folds = int(head[0]) if len(head) == 2 else 1
    if len(lines) - 1 != folds * each:
        raise InputError(f"{path} promises {folds * each} pairs and has {len(lines) - 1}: it is truncated")
    folder = path.parent / images if images is not None else None
    if folder is None:
        places = [path.parent / place for place in _PLACES]
        folder = next((place for place in places if lines[1:] and (place / lines[1][0]).is_dir()), path.parent)
    pairs: list[Pair] = []
    for number, cells in enumerate(lines[1:], start=2):
        same = len(cells) == 3
        name, number_a, other, number_b = [*cells[:2], cells[0], *cells[2:]] if same else [*cells, "", "", "", ""][:4]
        if len(cells) > 4 or not (number_a.isdecimal() and number_b.isdecimal()):
            raise InputError(f"{path} line {number} is not NAME N M or NAME N NAME M: {' '.join(cells)}")
        pairs.append(
            (_find_image(folder, name, number_a), _find_image(folder, other, number_b), same, (number - 2) // each)
        )
    return pairs


def _find_image(folder: Path, name: str, number: str) -> Path:
    stem = folder / name / f"{name}_{int(number):04d}"
    jpeg, png = stem.with_name(stem.name + ".jpg"), stem.with_name(stem.name + ".png")
    return png if png.is_file() and not jpeg.is_file() else jpeg


def recognises(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _NAMES)
    return path.name.startswith("pairs") and path.suffix in {".txt", ".csv"}


open_pairs.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory
open_pairs.layout = LAYOUT  # type: ignore[attr-defined] # and reports the layout where no data is found


@hookimpl
def register_datasets(register: Register) -> None:
    register("pairs", open_pairs)
