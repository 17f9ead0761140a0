"""Read .npz and .npy files within bounds: the sizes that a file states are checked before memory is taken for them.

Python 3.6 grammar: the worker reads inputs and calibration samples with this module, the parent process datasets.
"""

import os
import zipfile
from typing import Any, Dict, Tuple

import numpy as np

from edgeprof.worker import zips

#: Every archive may unpack to this many bytes; a large one may also unpack to this many times its own size.
LIMIT_BYTES = 256 << 20
LIMIT_RATIO = 20
#: Of an array, before numpy 2; it has no name for it.
_MOST_DIMENSIONS = 32


class ArraysError(ValueError):
    """Raised for a file that holds anything but plain arrays, or too much; its text is one clause that says why."""


def read_arrays(path: str) -> Dict[str, Any]:
    """Return the arrays of an .npz file by name; the only array of an .npy file has the empty name.

    Raises:
        ArraysError: the file is cut or damaged, holds Python objects or entries that are no arrays, or unpacks to too
            much.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(6)
        if head == b"\x93NUMPY":
            return {"": _read_array(file, size, path)}
        if head[:2] != b"PK":
            raise ArraysError("it is no .npz")
        try:
            archive = zips.open_zip(file)
        except zips.UnreadableError as error:
            raise ArraysError(str(error)) from None
        total = sum(info.file_size for info in archive.infolist())
        if total > max(LIMIT_BYTES, LIMIT_RATIO * size):
            raise ArraysError("it has {:,} bytes and unpacks to {:,}".format(size, total))
        return {_entry_name(info): _read_entry(archive, info) for info in archive.infolist()}


def map_array(path: str) -> Any:
    """Return the array of an .npy file without reading it: it is in memory as far as it is used.

    Raises:
        ArraysError: the file is no .npy, is cut or damaged, or holds Python objects.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        shape, is_fortran, dtype = _read_checked_header(file, os.fstat(file.fileno()).st_size, path)
        if not np.prod(shape, dtype=object):
            return np.zeros(shape, dtype)
        order: Any = "F" if is_fortran else "C"
        return np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)


def _entry_name(info: zipfile.ZipInfo) -> str:
    if not info.filename.endswith(".npy"):
        raise ArraysError("it holds {}, which is no array".format(ascii(info.filename)[:100]))
    return info.filename[: -len(".npy")]


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    try:
        with archive.open(info) as stream:
            return _read_array(stream, info.file_size, info.filename)
    except ArraysError:
        raise
    except zips.ERRORS as error:
        raise ArraysError("{} is damaged ({})".format(ascii(info.filename)[:100], type(error).__name__)) from None


def _read_array(stream: Any, size: int, name: str) -> Any:
    """Read one .npy file.

    Args:
        stream: The .npy file, open for reading at any position.
        size: How many bytes it has.
        name: What messages call it.
    """
    shape, is_fortran, dtype = _read_checked_header(stream, size, name)
    content = bytearray(size - stream.tell())
    if stream.readinto(content) != len(content):
        raise ArraysError("{} is cut off".format(ascii(name)[:100]))
    if not content:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape[::-1]).transpose() if is_fortran else flat.reshape(shape)


def _read_checked_header(stream: Any, size: int, name: str) -> Tuple[Tuple[int, ...], bool, Any]:
    """Read the header of an .npy file of ``size`` bytes, whose content then fits it, and stay at its end."""
    stream.seek(0)
    shape, is_fortran, dtype = _read_header(stream, name)
    count = 1
    for length in shape:
        count *= int(length)
    if dtype.hasobject:
        raise ArraysError("it holds Python objects (text is saved with array.astype(str))")
    fits = dtype.itemsize and all(0 <= length < 1 << 62 for length in shape) and len(shape) <= _MOST_DIMENSIONS
    if not fits or count * dtype.itemsize != size - stream.tell():
        shown = "{} of {}".format(shape, dtype)[:100]
        raise ArraysError("{} promises {}, and has {:,} bytes".format(ascii(name)[:100], shown, size))
    return shape, is_fortran, dtype


def _read_header(stream: Any, name: str) -> Tuple[Tuple[int, ...], bool, Any]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # noqa: BLE001 - numpy lets through whatever Python's own tokenizer and parser raise
        raise ArraysError("the header of {} is damaged ({})".format(ascii(name)[:100], type(error).__name__)) from None
