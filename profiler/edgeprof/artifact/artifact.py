"""A model file, recognised: where it is, what it is, how big."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.artifact.formats import suffixes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A model.

    Attributes:
        spec: As the user gave it.
        path: The file or folder; None for ``package.module:attribute``.
        target: What ``Runtime.load`` gets: an absolute path, ``/abs/file.py:attribute`` or ``module:attribute``.
        format: A key of FORMATS, or a format that a plugin recognises itself.
        size_bytes: Of all its files; None for a Python callable, whose size says nothing of a model's.
        sha256: Of its bytes, hexadecimal; of several files, over each one's name and content in order; None without a
            file.
        files: All files that belong to it, the named one first (an ONNX model may keep its weights beside it).
        detail: What else the content told, as the custom operators of a TFLite model; for messages.
        own_formats: The formats of plugins that were asked about it, by which files made of it are recognised too.
    """

    spec: str
    path: Path | None
    target: str
    format: str
    size_bytes: int | None
    sha256: str | None
    files: tuple[Path, ...] = ()
    detail: str | None = None
    own_formats: Mapping[str, tuple[int, bytes]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How files of its format usually end, the most usual first; of a plugin's format, as this one does."""
        return suffixes_of(self.format) or ((self.path.suffix,) if self.path is not None else ())

    def size_compressed(self) -> int | None:
        """Bytes after deflate at level 6, as a download or an update would carry it; None where ``size_bytes`` is.

        Reads and compresses the whole file (tens of megabytes a second), so ask once, and not while measuring.
        """
        if self.size_bytes is None:
            return None
        total = 0
        for path in self.files:
            deflate = zlib.compressobj(6)
            total += sum(len(deflate.compress(block)) for block in _read_blocks(path)) + len(deflate.flush())
        return total


def checksum(files: Iterable[Path], base: Path) -> str:
    """SHA-256 of one file's content; of several, over each one's name relative to ``base``, size and content."""
    files = list(files)
    digest = hashlib.sha256()
    for path in files:
        if len(files) > 1:
            digest.update(f"{path.relative_to(base).as_posix()}\0{path.stat().st_size}\0".encode())
        for block in _read_blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
