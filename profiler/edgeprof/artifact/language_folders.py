"""Folders of language models: their format, the files that belong to the model, and missing parts.

Nothing is loaded: configurations are read as JSON, and of the weights only the header is read. Weights in pickles
(``pytorch_model.bin``) and models with their own code (``auto_map``) are rejected.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "config.json"
#: The files that identify a folder's format, in the order in which the formats are tried.
_MARKS = {
    "onnxruntime-genai": ("genai_config.json",),
    "openvino-genai": ("openvino_model.xml", "openvino_model.bin"),
    "ctranslate2": (CONFIG, "model.bin"),
}
#: Names of files that hold a tokenizer; a model needs one of them.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "openvino_tokenizer.xml")
#: CTranslate2 stores a vocabulary; the tokenizer itself may be elsewhere.
_VOCABULARIES = ("vocabulary.json", "vocabulary.txt", "shared_vocabulary.json", "shared_vocabulary.txt")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
#: The longest configuration, index or header of weights that is read, in bytes.
_LIMIT = 64 << 20
_DOWNLOAD = "Download the whole model again."


def format_of(names: set[str]) -> str | None:
    """Return the format of a folder by the names of its files; None for a folder without a language model."""
    for name, marks in _MARKS.items():
        if all(mark in names for mark in marks):
            return name
    return "transformers" if CONFIG in names or any(name.endswith(".safetensors") for name in names) else None


def files_of(folder: Path, model_format: str) -> list[Path]:
    """Return the files that belong to the model; of a Hugging Face folder, without weights in other formats."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if model_format != "transformers":
        return files
    texts = (".json", ".txt", ".model", ".jinja")
    return [path for path in files if path.suffix == ".safetensors" or path.name.endswith(texts)]


def check(spec: str, folder: Path, model_format: str, *, random_weights: bool) -> None:
    """Check that the model in a folder is complete and runs no code of its own.

    Args:
        spec: The folder, or a single ``config.json``, as the user gave it.
        folder: The same as a path.
        model_format: The result of ``format_of``.
        random_weights: Whether to run a configuration with random weights.

    Raises:
        InputError: The model is incomplete, would run its own code, or cannot be run with random weights.
    """
    if random_weights:
        _check_bare(spec, folder, model_format)
        return
    if folder.is_file():
        raise InputError(
            f"{spec} is the configuration of a language model without its weights",
            remedy="Give the folder that has both, or --random-weights to measure a model of its size.",
        )
    names = {path.name for path in folder.iterdir()}
    if model_format == "transformers":
        _check_transformers(spec, folder, names)
    known = _TOKENIZERS + (_VOCABULARIES if model_format == "ctranslate2" else ())
    if not names.intersection(known):
        raise InputError(
            f"{spec} holds a language model without its tokenizer (tokenizer.json)",
            remedy="Download the whole model, or measure one of its size: give its config.json and --random-weights.",
        )


def _check_bare(spec: str, path: Path, model_format: str) -> None:
    if model_format != "transformers":
        raise InputError(
            f"--random-weights is for the configuration of a transformers model, and {spec} is {model_format}",
            remedy="Leave --random-weights out.",
        )
    if path.is_dir() and any(path.glob("*.safetensors")):
        raise InputError(
            f"{spec} has weights, and --random-weights asks for none", remedy="Leave --random-weights out."
        )
    read_config(spec, path)


def _check_transformers(spec: str, folder: Path, names: set[str]) -> None:
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    if CONFIG not in names:
        raise InputError(
            f"{spec} holds weights ({weights[0]}) without the model's {CONFIG}",
            remedy="Copy the model's config.json beside them.",
        )
    read_config(spec, folder)
    if not weights:
        pickles = sorted(name for name in names if name.endswith(_PICKLES))
        if pickles:
            raise InputError(
                f"{spec} keeps its weights in {pickles[0]}, a pickle, which runs its author's code when it is loaded",
                remedy="Take the model's safetensors files, or convert them on a machine that you can lose.",
            )
        raise InputError(
            f"{spec} holds the configuration of a language model without its weights (*.safetensors)",
            remedy="Download them too, or give --random-weights to measure a model of its size.",
        )
    _check_index(spec, folder, names)
    for name in weights:
        _check_weights(spec, folder / name)


def read_config(spec: str, path: Path) -> dict[str, Any]:
    """Read the configuration in a folder, or in the file itself.

    Raises:
        InputError: The file is not a model's configuration, or requires code that comes with the model.
    """
    config = _read_json(spec, path / CONFIG if path.is_dir() else path)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{spec}: {CONFIG} names no model_type", remedy=_DOWNLOAD)
    if config.get("auto_map"):
        raise InputError(
            f"{spec} wants to run code that its author keeps beside it (auto_map in {CONFIG})",
            remedy="edgeprof runs no such code. Convert the model to GGUF, and bench that.",
        )
    return config


def is_config(path: Path, size: int) -> bool:
    """Return whether a file is the configuration of a language model."""
    if path.suffix != ".json" or size > _LIMIT:
        return False
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def _read_json(spec: str, path: Path) -> Any:
    try:
        if path.stat().st_size > _LIMIT:
            raise InputError(f"{spec}: {path.name} is too large", remedy=_DOWNLOAD)
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{spec}: {path.name} is no JSON", remedy=_DOWNLOAD) from None
    except OSError as error:
        raise InputError(f"{spec}: {path.name} cannot be read: {error.strerror}", remedy=_DOWNLOAD) from None


def _check_index(spec: str, folder: Path, names: set[str]) -> None:
    """Check that each part of weights in several files exists in this folder."""
    for name in sorted(names):
        if not name.endswith(".safetensors.index.json"):
            continue
        index = _read_json(spec, folder / name)
        placed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(placed, dict):
            raise InputError(f"{spec}: {name} names no files", remedy=_DOWNLOAD)
        missing = sorted({str(part) for part in placed.values()} - names)
        if missing:
            raise InputError(f"{spec} lacks {missing[0]}, a part of its weights", remedy=_DOWNLOAD)


def _check_weights(spec: str, path: Path) -> None:
    """Check that a safetensors file has the size that its header implies (huggingface/safetensors README, "Format")."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        header: Any = None
        if length <= min(size - 8, _LIMIT):
            try:
                header = json.loads(file.read(length))
            except (ValueError, RecursionError):
                header = None
    tensors = [value for key, value in header.items() if key != "__metadata__"] if isinstance(header, dict) else []
    ends = [tensor["data_offsets"][1] for tensor in tensors if _has_offsets(tensor)]
    if not tensors or len(ends) < len(tensors) or size != 8 + length + max(ends):
        raise InputError(f"{spec}: {path.name} is cut off or damaged", remedy=_DOWNLOAD)


def _has_offsets(tensor: Any) -> bool:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(offset, int) for offset in offsets)
