"""MNIST's IDX files, plain or gzipped: big-endian, with the magic bytes 0 0 TYPE RANK and then the sizes.

Format: yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.samples import Samples, split_options
from edgeprof.worker.arrays import LIMIT_BYTES, LIMIT_RATIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PATTERN = "*-idx[0-9]-ubyte*"


def open_idx(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open a folder with an image file and a label file, or an image file with its label file in the same folder.

    Option: ``split``, such as ``t10k`` or ``train``, where a folder has several.

    Raises:
        InputError: one of the two files is missing, ambiguous, truncated or not an IDX file.
    """
    settings, rest = split_options(options, {"split"}, "idx")
    path = Path(spec)
    images = _find_images(path, settings.get("split")) if path.is_dir() else path
    candidates = [images.parent / other for other in _label_names(images.name)]
    labels = next((c for c in candidates if c.exists()), None)
    if labels is None:
        raise InputError(f"{images} has no labels beside it", remedy=f"Put {candidates[0].name} there.")
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y):
        raise InputError(f"{images.name} {x.shape} and {labels.name} {y.shape} are not sample by sample")
    return Samples(images.name, y.astype(np.int64), x.__getitem__, rest)


def _find_images(folder: Path, split: str | None) -> Path:
    candidates = sorted(f for f in folder.glob(_PATTERN) if "images" in f.name and f.name.startswith(split or ""))
    if len(candidates) != 1:
        names = ", ".join(f.name for f in candidates)
        raise InputError(
            f"{folder} has {'several files' if candidates else 'no file'} of images{f' ({names})' if names else ''}",
            remedy="Choose one: --preprocess split=t10k" if candidates else None,
        )
    return candidates[0]


def _label_names(images: str) -> list[str]:
    name = images.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    return [name, plain, plain + ".gz"]


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read one IDX file as an array.

    Raises:
        InputError: the file cannot be read, is truncated, or is not an IDX file.
    """
    try:
        content = whole_files.read_bytes(path)
        if content[:2] == b"\x1f\x8b":
            content = _unpack_gzip(path, content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise InputError(f"{path} is no IDX file: it does not begin with 0 0 and a type")
    kind, rank = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise InputError(f"{path} is truncated: its sizes are missing")
    shape = struct.unpack(f">{rank}I", content[4:start])
    count = math.prod(shape)
    if len(content) - start != count * kind.itemsize:
        raise InputError(
            f"{path} is truncated: it promises {count * kind.itemsize} bytes of data and has {len(content) - start}"
        )
    return np.frombuffer(content, kind, count, start).reshape(shape).astype(kind.newbyteorder("="))


def _unpack_gzip(path: Path, content: bytes) -> bytes:
    """Decompress a file within a memory limit.

    Raises:
        InputError: the file would decompress to far more memory than its size.
    """
    limit = max(LIMIT_BYTES, LIMIT_RATIO * len(content))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
        unpacked = packed.read(limit + 1)
    if len(unpacked) > limit:
        raise InputError(f"{path} has {len(content):,} bytes and unpacks to more than {limit:,}")
    return unpacked


def recognises(path: Path) -> bool:
    return any("images" in f.name for f in path.glob(_PATTERN)) if path.is_dir() else path.match(_PATTERN)


open_idx.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory


@hookimpl
def register_datasets(register: Register) -> None:
    register("idx", open_idx)
