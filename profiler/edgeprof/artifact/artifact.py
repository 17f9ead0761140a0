"""A recognised model file: its path, format and size."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.artifact.formats import suffixes_of
from edgeprof.worker.pipeline import join_models, split_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A model.

    Attributes:
        spec: The text that the user gave.
        path: The file or folder; None for ``package.module:attribute``.
        target: The argument for ``Runtime.load``: an absolute path, ``/abs/file.py:attribute`` or ``module:attribute``,
            for a pipeline with the models of its stages (``pipeline.join_models``).
        format: A key of FORMATS, or a format that a plugin itself recognises.
        size_bytes: The size of all its files; None for a Python callable, whose size does not reflect the model's,
            unless it is a pipeline whose models are named.
        sha256: The hash of its bytes, hexadecimal; for several files, of each file's name, size and content in order;
            None without a file.
        files: All files that belong to it, the given one first (an ONNX model may store its weights in other files; a
            Python program names files with weights, and modules beside it).
        detail: Further facts from the content, such as the custom operators of a TFLite model; for messages.
        own_formats: The formats of plugins that were tried; files that are made from this model are also tried.
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
    def name(self) -> str:
        """A short name: of its file, of the attribute of a program, with the files of a pipeline's models."""
        return short_name(self.spec)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The usual suffixes of its format, the most usual first; for a plugin's format, the suffix of this file."""
        return suffixes_of(self.format) or ((self.path.suffix,) if self.path is not None else ())

    def size_compressed(self) -> int | None:
        """Return the size in bytes after deflate at level 6, as in a download; None if ``size_bytes`` is None.

        This reads and compresses all files (tens of megabytes per second): call it once, and not while measuring.
        """
        if self.size_bytes is None:
            return None
        total = 0
        for path in self.files:
            deflate = zlib.compressobj(6)
            total += sum(len(deflate.compress(block)) for block in _read_blocks(path)) + len(deflate.flush())
        return total


def short_name(spec: str) -> str:
    """Return the name of a model without folders, as ``app.py:pipeline,detect=int8.onnx``."""
    target, models = split_models(spec)
    return join_models(Path(target).name, {stage: Path(path).name for stage, path in models.items()})


def checksum(files: Iterable[Path], base: Path) -> str:
    """Return the SHA-256 of one file's content; of several, of each name relative to ``base``, size and content."""
    files = list(files)
    digest = hashlib.sha256()
    for path in files:
        if len(files) > 1:
            name = Path(os.path.relpath(path, base)).as_posix()
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        for block in _read_blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
