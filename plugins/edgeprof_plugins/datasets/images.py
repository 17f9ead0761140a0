"""Images: a folder per class, or a CSV table of files and labels."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.evaluation.labels import absent
from edgeprof.evaluation.samples import Samples, split_options
from edgeprof.worker.arrays import LIMIT_BYTES, LIMIT_RATIO, map_array, read_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

#: The usual names of columns, which are recognised where no names are given.
_HEADERS = {
    "file": {"file", "filename", "file_name", "path", "filepath", "image", "image_path"},
    "label": {"label", "class", "class_id", "classid", "target", "y"},
}
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".gif", ".tif", ".tiff"})
TABLE = "labels.csv"
#: Pillow mode of grey images → their values.
_RANGES = {"L": "8 bits", "I;16": "16 bits", "I": "32 bits", "F": "floats"}
#: Colours of 16 bits per channel, for which Pillow has no mode.
_DEEP = "RGB;16"
#: A raw mode of Pillow that takes one byte of each 16-bit value → the one that takes the other byte.
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def open_folders(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a folder with one subfolder per class; classes are counted from 0 in the order of the subfolder names.

    The order is alphabetical, or numerical where all names are numbers. A folder that contains only images has no
    labels; it can be used for calibration.

    Raises:
        InputError: there are no images, or an option is not known.
    """
    _, rest = split_options(options, (), "folders")
    root = Path(spec)
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if all(entry.name.isdecimal() for entry in classes):
        classes.sort(key=lambda entry: int(entry.name))  # 10 comes after 9
    files: list[Path] = []
    labels: list[int] = []
    for number, folder in enumerate(classes):
        pictures = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        files += pictures
        labels += [number] * len(pictures)
    if files:
        return image_samples(root.name, files, np.asarray(labels, np.int64), rest)
    files = sorted(entry for entry in root.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{root} has no images, in folders of classes or not")
    return image_samples(root.name, files, absent(len(files)), rest)


def open_table(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a CSV table of images (or .npy arrays) with their class numbers; paths are relative to the table.

    Options: ``file`` and ``label``, the names of the columns or their numbers from 1; by default the columns with usual
    names (such as path and class), else the first and the second. A first line whose label is not a number is the
    header. Columns are separated by commas, semicolons or tabs, whichever is most frequent in the first line.

    Raises:
        InputError: a line has no label, or a column or a file does not exist.
    """
    settings, rest = split_options(options, {"file", "label"}, "table")
    path = Path(spec)
    path = path / TABLE if path.is_dir() else path
    try:
        text = whole_files.read_text(path, "utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(number, row) for number, row in enumerate(reader, start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not rows:
        raise InputError(f"{path} is empty")
    header = rows[0][1]
    where = [_find_column(path, header, settings.get(name), _usual_column(header, name)) for name in ("file", "label")]
    first_is_header = not _is_number(header, where[1]) and (
        settings.get("label") in header
        or _is_named(header, where)
        or any(_is_number(row, where[1]) for _, row in rows[1:])
    )
    rows = rows[1:] if first_is_header else rows
    words = [row[where[1]].strip() if max(where) < len(row) else "" for _, row in rows]
    labels = _parse_labels(path, rows, words, named="label" in settings)
    files = [path.parent / row[where[0]].strip() for _, row in rows]
    missing = [file for file in files if not is_file(file)]
    if missing:
        raise InputError(f"{path} names {len(missing)} files that do not exist, as {missing[0]}")
    return image_samples(path.parent.name if path.name == TABLE else path.name, files, labels, rest)


def is_file(path: Path) -> bool:
    """Return whether the path is a file; False for names that no file system accepts (too long, or with a NUL)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _usual_column(header: Sequence[str], name: str) -> int:
    """Return the column with a usual name for the file or the label; by default the first or the second column."""
    named = [i for i, cell in enumerate(header) if cell.strip().lower().replace(" ", "_") in _HEADERS[name]]
    return named[0] if named else ("file", "label").index(name)


def _find_column(path: Path, header: Sequence[str], name: str | None, default: int) -> int:
    if name is None:
        return default
    names = [cell.strip() for cell in header]
    if name in names:
        return names.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    raise InputError(f"{path} has no column {name}", remedy=f"Its first line is {','.join(names)}.")


def _is_named(header: Sequence[str], where: Sequence[int]) -> bool:
    """Whether a line has usual names in the columns of files and labels."""
    cells = [header[column].strip().lower().replace(" ", "_") if column < len(header) else "" for column in where]
    return cells[0] in _HEADERS["file"] and cells[1] in _HEADERS["label"]


def _parse_labels(
    path: Path, rows: Sequence[tuple[int, list[str]]], words: Sequence[str], named: bool
) -> npt.NDArray[Any]:
    """Return the labels as integers if possible, else as floats, or as strings only where the user named the column.

    Raises:
        InputError: a line has no label, or a label is a word where numbers are expected.
    """
    if all(_is_whole(word) for word in words):
        return np.array([int(word) for word in words], np.int64)
    numbers = [_is_number([word], 0) for word in words]
    if all(numbers):
        return np.array([float(word) for word in words], np.float64)
    if named and all(words) and not any(numbers):
        return np.array(words, np.str_)
    number, row = next(line for line, is_number in zip(rows, numbers, strict=True) if not is_number)
    raise InputError(
        f"{path} line {number} has no class number: {','.join(row)}",
        remedy="Name the column of the labels with --preprocess label=COLUMN.",
    )


def _is_whole(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


def _is_number(row: Sequence[str], column: int) -> bool:
    try:
        float(row[column])
    except (IndexError, ValueError):
        return False
    return True


def image_samples(name: str, files: Sequence[Path], labels: npt.NDArray[Any], options: Mapping[str, str]) -> Samples:
    """Create a dataset of image files, each as ``image_reader`` reads it."""
    return Samples(name, labels, image_reader(name, files), options, kind=image_kind(files, options))


def image_kind(files: Sequence[Path], options: Mapping[str, str]) -> Callable[[int], Hashable]:
    """Return a function from the number of a file to its mode, and to its size if no option resizes the images."""
    sized = any(key in options for key in ("resize", "resize_short", "letterbox"))

    def kind(number: int) -> Hashable:
        mode, size = _looked_at(files[number])
        return mode if sized else (mode, size)

    return kind


def image_reader(name: str, files: Sequence[Path], *, colour: bool = False) -> Callable[[int], npt.NDArray[Any]]:
    """Return a function from the number of a file to its pixels, as ``read_image`` returns them.

    Grey images among coloured ones get three equal channels, as in the conversions of Pillow, torchvision and Keras.
    Where all images are grey, their shape stays (height, width) unless ``colour`` is set.

    Raises:
        InputError: on reading a sample, if grey images have values of different ranges, such as 8 and 16 bits.
    """

    @functools.cache
    def colours() -> str | None:
        first: dict[str, Path] = {}
        mode = ""
        for file in files:
            mode = _looked_at(file)[0]
            if mode in {"RGB", _DEEP}:
                return mode
            if mode in _RANGES:
                first.setdefault(_RANGES[mode], file)
        if len(first) > 1:
            listed = " and ".join(f"{file} has {values}" for values, file in first.items())
            raise InputError(
                f"the grey images of {name} have different ranges: {listed}", remedy="Convert them to one form."
            )
        return (_DEEP if mode == "I;16" else "RGB") if colour else None

    return lambda number: read_image(files[number], colours())


def _looked_at(path: Path) -> tuple[str, tuple[int, ...]]:
    """Return the mode (as ``_pillow_mode``) and size from a file's header; for an .npy file, its dtype and shape."""
    with _reading(path):
        if path.suffix == ".npy":
            array = map_array(os.fspath(path))
            return array.dtype.str, array.shape
        with pillow().open(path) as image:
            return _pillow_mode(image), image.size


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert any error of an image decoder to an InputError with the name of the file."""
    try:
        yield
    except EdgeprofError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow passes on errors of its decoders, such as SyntaxError and struct.error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}") from None


def _require_bounds(path: Path, image: Any) -> None:
    """Reject an image whose pixels would take far more memory than its file, before it is decoded.

    Raises:
        InputError: the pixels would take more memory than the limit.
    """
    size, unpacked = path.stat().st_size, image.width * image.height * 4
    if unpacked > max(LIMIT_BYTES, LIMIT_RATIO * size):
        raise InputError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}",
            remedy="Scale the images down to what the model takes.",
        )


def _pillow_mode(image: Any) -> str:
    """Return the Pillow mode in which an image is read, or RGB;16 for 16 bits per colour."""
    mode = str(image.mode)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):  # older versions of Pillow widen 16-bit PNGs
        return "I;16"
    if mode in {"I", "F"}:
        return mode
    if _is_deep(image):
        return _DEEP
    return "L" if mode in {"1", "L", "LA", "La"} else "RGB"


def _raw_arguments(image: Any) -> tuple[Any, ...]:
    """Return the arguments of an image's decoder in Pillow, the raw mode first; empty if it has none."""
    arguments = image.tile[0][3] if image.tile else ()
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _is_deep(image: Any) -> bool:
    """Whether the values of a file with several channels have more than the 8 bits to which Pillow cuts them."""
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(258, (8,))) > 8)  # BitsPerSample
    arguments = _raw_arguments(image)
    if image.format == "PPM":
        return isinstance(arguments[-1], int) and arguments[-1] > 255  # the largest value
    return image.format == "PNG" and ";16" in str(arguments[0])


def _read_deep(path: Path, image: Any) -> npt.NDArray[Any]:
    """Read all bits of an image with 16 bits per colour.

    Pillow decodes one byte of each value, the first or the second according to the raw mode; both are read in turn.

    Raises:
        InputError: Pillow has no raw mode for the other byte, as with grey and alpha.
    """
    codec, extents, offset, _ = image.tile[0]
    raw, *rest = _raw_arguments(image)
    largest = 0xFFFF
    if codec == "ppm":
        largest, codec, raw, rest = rest[0], "raw", "RGB;16B", [0, 1]
    deep = re.fullmatch(r"(RGB[AX]?;16)([BLN])", str(raw))
    if deep is None or len(image.tile) > 1:
        raise InputError(
            f"{path} has 16 bits per channel in a form of which Pillow reads only 8 ({image.format}, {raw})",
            remedy="Save it as a 16-bit PNG in RGB, or as grey without alpha, or with 8 bits.",
        )
    planes = []
    for last in (deep[2], _OTHER_BYTE[deep[2]]):
        with pillow().open(path) as opened:
            tile = (codec, extents, offset, (deep[1] + last, *rest) if rest else deep[1] + last)
            # The type of the tile is a plain tuple before Pillow 11.
            opened.tile = [type(opened.tile[0])(*tile) if hasattr(opened.tile[0], "_fields") else tile]
            opened.load()  # np.asarray would hide its errors
            planes.append(np.asarray(opened)[..., :3].astype(np.uint16))
    pixels = planes[0] << 8 | planes[1]
    return pixels if largest == 0xFFFF else np.rint(pixels * (0xFFFF / largest)).astype(np.uint16)


def read_image(path: Path, colours: str | None = None) -> npt.NDArray[Any]:
    """Read an image with the bit depth of its file, or an .npy file unchanged.

    Args:
        path: The file.
        colours: The mode of the coloured images beside it, RGB or RGB;16, if a grey image gets three equal channels.

    Returns:
        A uint8 or uint16 array ``(height, width, 3)``; for a grey image ``(height, width)``, as uint8, or as uint16,
        int32 or float32 where the file has more bits.

    Raises:
        InputError: the file cannot be read.
        UnavailableError: Pillow is not installed.
    """
    with _reading(path):
        if path.suffix == ".npy":
            array: npt.NDArray[Any] = read_arrays(os.fspath(path)).get("", np.zeros(0))
            return array
        with pillow().open(path) as image:
            _require_bounds(path, image)
            mode = _pillow_mode(image)
            if mode == _DEEP:
                pixels = _read_deep(path, image)
            elif mode in {"L", "RGB"}:
                pixels = np.asarray(image.convert(mode))
            else:
                pixels = np.asarray(image).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    if colours is None or pixels.ndim == 3:
        return pixels
    if pixels.dtype == np.uint16 and colours != _DEEP:
        pixels = (pixels >> 8).astype(np.uint8)  # the coloured images of the dataset have 8 bits
    if pixels.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise InputError(
            f"{path} has {pixels.dtype} values, and the images beside it are coloured",
            remedy="Prepare the images in one form.",
        )
    return np.repeat(pixels[..., None], 3, axis=2)


def _has_images(path: Path) -> bool:
    if not path.is_dir() or (path / TABLE).is_file():  # the labels are in the table
        return False
    entries = list(path.iterdir())
    folders = (entry for entry in entries if entry.is_dir())
    return any(f.suffix.lower() in SUFFIXES for listing in (entries, *(f.iterdir() for f in folders)) for f in listing)


open_folders.recognises = _has_images  # type: ignore[attr-defined] # load_dataset asks the factory
open_folders.generic = open_table.generic = True  # type: ignore[attr-defined] # and asks more specific formats first
open_folders.layout = "a folder with a folder of images for each class"  # type: ignore[attr-defined] # for its messages
open_table.layout = "a .csv with a file and a class number in each line, or a folder with labels.csv"  # type: ignore[attr-defined] # as above
open_table.recognises = lambda path: (  # type: ignore[attr-defined] # as above
    (path / TABLE).is_file() or (path.suffix == ".csv" and path.name != "y_labels.csv")
)


def pillow() -> Any:
    """Return Pillow's Image module.

    Raises:
        UnavailableError: Pillow is not installed; the remedy is the command that installs it.
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
