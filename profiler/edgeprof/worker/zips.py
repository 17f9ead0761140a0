"""Open zip archives within bounds, and tell whether another reader could see other files in them than Python does.

Python 3.6 grammar and the standard library: the parent and the worker both search archives.
"""

import os
import struct
import zipfile
import zlib
from typing import Any, Optional

#: The most entries of one archive; PyTorch writes one for each weight.
LIMIT_ENTRIES = 30000
#: The most bytes of an archive's directory.
LIMIT_DIRECTORY = 8 << 20

_END = b"PK\x05\x06"
_END_SIZE = 22
_LOCATOR = b"PK\x06\x07"
_LOCATOR_SIZE = 20
_END64 = b"PK\x06\x06"


class UnreadableError(Exception):
    """Raised for an archive that is cut, damaged or beyond the bounds; its text is one clause that says which."""


class Part:
    """A part of a file, read like a file of its own: an archive within an archive, without a copy.

    Args:
        file: A seekable file.
        start: The offset in bytes at which the part begins.
        size: The length of the part in bytes.
    """

    def __init__(self, file: Any, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size < 0 else min(size, left)
        self._file.seek(self._start + self._at)
        data: bytes = self._file.read(size)
        self._at += len(data)
        return data


def open_zip(file: Any) -> zipfile.ZipFile:
    """Open the archive in a file that is open for reading.

    Raises:
        UnreadableError: the file is no archive, is damaged, or has more entries than ``LIMIT_ENTRIES``.
    """
    try:
        _check_size(file)
        return zipfile.ZipFile(file)
    except ERRORS as error:
        raise UnreadableError(_error_sentence(error)) from None


#: What Python's zip reader raises for archives that are damaged or use features that it lacks.
ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
)


def read(archive: zipfile.ZipFile, info: Any, limit: int) -> bytes:
    """Read an entry of at most ``limit`` bytes.

    Raises:
        UnreadableError: the entry is damaged, or unpacks to more than ``limit`` bytes, whatever the directory says.
    """
    try:
        with archive.open(info) as stream:
            data = stream.read(limit + 1)
    except ERRORS as error:
        raise UnreadableError(_error_sentence(error)) from None
    if len(data) > limit:
        raise UnreadableError("an entry has more than {:,} bytes".format(limit))
    return data


def read_start(archive: zipfile.ZipFile, info: Any, size: int) -> bytes:
    """Read the first ``size`` bytes of an entry, or all of a shorter one.

    Raises:
        UnreadableError: the entry is damaged or encrypted.
    """
    try:
        with archive.open(info) as stream:
            return stream.read(size)
    except ERRORS as error:
        raise UnreadableError(_error_sentence(error)) from None


def data_offset(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The offset in the file at which the bytes of a stored entry begin.

    Raises:
        UnreadableError: the entry is compressed or encrypted, or its local header is damaged.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise UnreadableError("it is compressed")
    file: Any = archive.fp
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise UnreadableError("a local header is damaged")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset) + 30 + int(name) + int(extra)


def find_ambiguity(file: Any, archive: zipfile.ZipFile) -> Optional[str]:
    """Return why another reader could see other files in an archive than Python's does; None if it could not.

    PyTorch writes archives that begin with their first entry and end with the directory, without comments, with each
    entry once and uncompressed. Its reader ignores the difference between upper and lower case.
    """
    seen = set()
    for info in archive.infolist():
        name = info.filename
        if name.lower() in seen:
            return "it has the entry {} twice".format(ascii(name)[:100])
        seen.add(name.lower())
        if "\\" in name or name.startswith("/") or ".." in name.split("/"):
            return "an entry is named {}".format(ascii(name)[:100])
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return "the entry {} is compressed, which torch.save never does".format(ascii(name)[:100])
        if not _same_header(file, info):
            return "the entry {} has another name or size at its own place".format(ascii(name)[:100])
    return _layout_error(file, archive)


def _same_header(file: Any, info: zipfile.ZipInfo) -> bool:
    """Whether an entry's local header has the same name as the directory."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        return False
    length = struct.unpack("<H", header[26:28])[0]
    return file.read(length) in (
        info.filename.encode("utf-8", "replace"),
        info.orig_filename.encode("cp437", "replace"),
    )


def _layout_error(file: Any, archive: zipfile.ZipFile) -> Optional[str]:
    """Return why the archive's layout is ambiguous: bytes around its entries, or two places for its directory."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _END_SIZE))
    record = file.read(_END_SIZE)
    if record[:4] != _END or record[20:22] != b"\0\0":
        return "something follows its directory"
    if archive.infolist() and min(info.header_offset for info in archive.infolist()) != 0:
        return "something precedes its first entry"
    at = end - _END_SIZE - _LOCATOR_SIZE
    file.seek(max(0, at))
    locator = file.read(_LOCATOR_SIZE)
    start = archive.start_dir
    if locator[:4] == _LOCATOR:
        end64 = struct.unpack("<Q", locator[8:16])[0]
        if end64 != at - 56:
            return "it names two places for its directory"
        file.seek(end64)
        record64 = file.read(56)
        if record64[:4] != _END64:
            return "it names two places for its directory"
        offset = struct.unpack("<Q", record64[48:56])[0]
        stated = struct.unpack("<I", record[16:20])[0]
        if stated not in (offset, 0xFFFFFFFF):
            return "it names two places for its directory"
    else:
        offset = struct.unpack("<I", record[16:20])[0]
    return None if offset == start else "it names two places for its directory"


def _check_size(file: Any) -> None:
    """Check the end record before the directory is read, because reading it takes some 20 µs for each entry.

    Raises:
        UnreadableError: the archive has too many entries.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - (1 << 16) - _END_SIZE))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise UnreadableError("its end is missing")
    entries, directory = struct.unpack("<HI", tail[at + 10 : at + 16])
    locator = tail[max(0, at - _LOCATOR_SIZE) : at]
    if locator[:4] == _LOCATOR:
        file.seek(max(0, end - len(tail) + at - _LOCATOR_SIZE - 56))
        record = file.read(56)
        if record[:4] == _END64 and len(record) == 56:
            entries, directory = struct.unpack("<Q", record[32:40])[0], struct.unpack("<Q", record[40:48])[0]
    if entries > LIMIT_ENTRIES or directory > LIMIT_DIRECTORY:
        raise UnreadableError(
            "it has more than {:,} entries, or names of more than {} MiB".format(LIMIT_ENTRIES, LIMIT_DIRECTORY >> 20)
        )


def _error_sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return ascii(text)[1:-1][:200]
