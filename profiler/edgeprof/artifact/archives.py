"""Find out what is in a zip or a pickle without unpickling it, because loading a pickle runs its author's code."""

from __future__ import annotations

import io
import pickletools
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from edgeprof.worker import pickles, zips

if TYPE_CHECKING:
    import zipfile
    from pathlib import Path

#: The first bytes of torch.save's format before 1.6: a pickled magic number (torch/serialization.py, MAGIC_NUMBER).
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: The longest header in that format: two small pickles before the object, with a version and the sizes of types.
_LEGACY_HEADER_BYTES = 4096
#: The modules of the objects in a state_dict.
_WEIGHT_MODULES = ("collections", "torch._utils", "torch.storage", "torch._tensor", "numpy", "builtins", "__builtin__")
_NUMPY_PARTS = ("numpy.core.multiarray", "numpy._core.multiarray", "_codecs", "copyreg", "copy_reg")


class BadArchiveError(Exception):
    """Raised if a zip cannot be read to its end or exceeds a limit; the text gives the reason."""


def identify_zip(path: Path) -> tuple[str | None, str | None]:
    """Return the format of a zip's content, or None if it is not a model, and a detail for the message.

    Raises:
        BadArchiveError: The zip is cut off or damaged, or has too many entries.
    """
    try:
        with path.open("rb") as file:
            return _identify_names(zips.open_zip(file))
    except (zips.UnreadableError, OSError) as error:
        raise BadArchiveError(str(error)) from None


def _identify_names(archive: zipfile.ZipFile) -> tuple[str | None, str | None]:
    names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}  # PyTorch puts everything into one folder
    torch = _torch_kind(names, inner)
    if torch is not None:
        return torch, None
    for info in archive.infolist():
        if info.filename.partition("/")[2] == "data.pkl" or info.filename == "data.pkl":
            return _weights_or_object(zips.read_start(archive, info, pickles.LIMIT_BYTES))
    if "config.json" in names and any(n.endswith(".weights.h5") for n in names):
        return "keras", None
    if any(n.endswith(".tflite") for n in names):
        return "mediapipe", None
    if names and all(n.endswith(".npy") for n in names):
        return None, "npz"
    models = [n for n in names if PurePosixPath(n).suffix in (".onnx", ".pt", ".pt2", ".engine", ".pb", ".gguf", ".h5")]
    return None, models[0] if models else "zip"


def _torch_kind(names: list[str], inner: set[str]) -> str | None:
    """Recognise PyTorch's program archives (torch/export/pt2_archive/constants.py, torch/csrc/jit/serialization)."""
    if any(n.startswith(("serialized_exported_program", "models/")) for n in (*names, *inner)):
        return "pt2"
    if "archive_format" in inner:
        return "aoti"
    if "constants.pkl" in inner and any(n.startswith("code/") for n in inner):
        return "torchscript"
    return "ptl" if "bytecode.pkl" in inner else None


def identify_pickle(path: Path) -> tuple[str, str | None]:
    """Return ``state_dict`` or ``pickle``, with the class of the object if it is known."""
    with path.open("rb") as file:
        if file.read(len(LEGACY_TORCH)) == LEGACY_TORCH:
            _skip_legacy_header(file)
        else:
            file.seek(0)
        return _weights_or_object(file.read(pickles.LIMIT_BYTES))


def _skip_legacy_header(file: IO[bytes]) -> None:
    """Move to the object after the header (a version and sizes of types); move to the header if it is damaged."""
    start = file.tell()
    header = io.BytesIO(file.read(_LEGACY_HEADER_BYTES))
    try:
        for _ in range(2):
            for _op in pickletools.genops(header):
                pass
    except (ValueError, IndexError, OverflowError, KeyError):
        header.seek(0)
    file.seek(start + header.tell())


def _weights_or_object(pickled: bytes) -> tuple[str, str | None]:
    scan = pickles.scan(pickled)
    foreign = [name for name in scan.names if not _is_weight(name)]
    if foreign:
        return "pickle", foreign[0]
    return ("state_dict", None) if not scan.reason or scan.names else ("pickle", None)


def _is_weight(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "torch":
        return attribute.endswith(("Storage", "Size", "device")) or attribute.islower() or attribute[-1:].isdigit()
    return module in _WEIGHT_MODULES or module in _NUMPY_PARTS
