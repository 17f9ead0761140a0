"""What is inside a zip or a pickle, told without unpickling: loading a pickle runs whatever its author wrote."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: How much of a pickle is looked at; a whole model's structure is far smaller, its arrays come after.
_PICKLE_BYTES = 16 << 20
#: The first bytes of torch.save's format before 1.6: a pickled magic number (torch/serialization.py, MAGIC_NUMBER).
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Modules whose objects a state_dict is made of.
_WEIGHT_MODULES = ("collections", "torch._utils", "torch.storage", "torch._tensor", "numpy", "builtins", "__builtin__")
_NUMPY_PARTS = ("numpy.core.multiarray", "numpy._core.multiarray", "_codecs", "copyreg", "copy_reg")


class BadArchiveError(Exception):
    """A zip that cannot be read to its end."""


def identify_zip(path: Path) -> tuple[str | None, str | None]:
    """What a zip holds: a format's name, or None with what it is instead; and a detail for the message.

    Raises:
        BadArchiveError: it is cut or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _identify_names(archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(str(error)) from None


def _identify_names(archive: zipfile.ZipFile) -> tuple[str | None, str | None]:
    names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}  # PyTorch puts everything into one folder
    torch = _torch_kind(names, inner)
    if torch is not None:
        return torch, None
    for name in names:
        if name.partition("/")[2] == "data.pkl" or name == "data.pkl":
            with archive.open(name) as stream:
                return _weights_or_object(stream)
    if "config.json" in names and any(n.endswith(".weights.h5") for n in names):
        return "keras", None
    if any(n.endswith(".tflite") for n in names):
        return "mediapipe", None
    if names and all(n.endswith(".npy") for n in names):
        return None, "npz"
    models = [n for n in names if PurePosixPath(n).suffix in (".onnx", ".pt", ".pt2", ".engine", ".pb", ".gguf", ".h5")]
    return None, models[0] if models else "zip"


def _torch_kind(names: list[str], inner: set[str]) -> str | None:
    """PyTorch's archives of programs. Source: torch/export/pt2_archive/constants.py, torch/csrc/jit/serialization."""
    if any(n.startswith(("serialized_exported_program", "models/")) for n in (*names, *inner)):
        return "pt2"
    if "archive_format" in inner:
        return "aoti"
    if "constants.pkl" in inner and any(n.startswith("code/") for n in inner):
        return "torchscript"
    return "ptl" if "bytecode.pkl" in inner else None


def identify_pickle(path: Path) -> tuple[str, str | None]:
    """``state_dict`` or ``pickle``, with the class of the object where it is told."""
    with path.open("rb") as file:
        if file.read(len(LEGACY_TORCH)) == LEGACY_TORCH:
            for _ in range(2):  # the protocol's version and the system's sizes come before the object
                for _op in pickletools.genops(file):
                    pass
        else:
            file.seek(0)
        return _weights_or_object(file)


def _weights_or_object(stream: IO[bytes]) -> tuple[str, str | None]:
    foreign = [name for name in _globals(stream.read(_PICKLE_BYTES)) if not _is_weight(name)]
    if not foreign:
        return "state_dict", None
    return "pickle", foreign[0]


def _is_weight(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "torch":
        return attribute.endswith(("Storage", "Size", "device")) or attribute.islower() or attribute[-1:].isdigit()
    return module in _WEIGHT_MODULES or module in _NUMPY_PARTS


def _globals(pickled: bytes) -> list[str]:
    """Every ``module.name`` that a pickle would import, in order, found by reading its opcodes."""
    found: dict[str, None] = {}
    memo: dict[int, str] = {}
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
            if opcode.name in ("GLOBAL", "INST"):
                found[str(argument).replace(" ", ".", 1)] = None
            elif opcode.name == "STACK_GLOBAL":
                found[".".join(texts[-2:])] = None
            elif "UNICODE" in opcode.name or opcode.name.endswith("STRING"):
                texts.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif opcode.name.endswith("PUT") and isinstance(argument, int):
                memo[argument] = texts[-1] if texts else ""
            elif opcode.name.endswith("GET") and isinstance(argument, int):
                texts.append(memo.get(argument, ""))
    except (ValueError, UnicodeDecodeError, IndexError, OverflowError):
        pass  # cut: what was found so far is what can be said
    return list(found)
