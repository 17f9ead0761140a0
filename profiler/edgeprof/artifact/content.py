"""Recognise a file by its bytes: the result is a format, or an error that names what the file is instead of a model."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.artifact import archives, flatbuffer, gguf, protobuf
from edgeprof.artifact.formats import FORMATS
from edgeprof.errors import InputError
from edgeprof.worker import tensorrt_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AGAIN = "Download or export it again, and compare its size with the original's."
_MODEL_WANTED = "Give a model: .onnx, .tflite, .pt, .pt2, or FILE.py:FUNCTION."
_UNPACK = "Unpack it, and name the model inside."

#: The identifier of ExecuTorch's flatbuffers; its digits are the version of the format.
_EXECUTORCH = b"ET12"
#: (offset, bytes) → format. Sources: each format's own specification or reader.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"ftrt", "tensorrt"),  # seen in plans of TensorRT 7 to 10
    (0, b"ptrt", "tensorrt"),  # seen in plans of TensorRT 5 and 6
    (0, b"GGUF", "gguf"),
    (0, b"lmgg", "ggml"),
    (0, b"fmgg", "ggml"),
    (0, b"tjgg", "ggml"),
    (4, _EXECUTORCH, "executorch"),
    (4, b"ORTM", "ort"),
    (0, b"RKNN", "rknn"),
    (0, b"\x01HEF", "hef"),
    (0, b"LITERTLM", "litertlm"),
    (0, b"7767517\n", "ncnn"),
)

#: (offset, bytes, description, remedy) of files that are not models.
_NO_MODEL: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _MODEL_WANTED),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x93NUMPY", "a numpy array", "It may be data for --input-data or --dataset (as .npz). " + _MODEL_WANTED),
    (0, b"\x89PNG", "a PNG image", _MODEL_WANTED),
    (0, b"\xff\xd8\xff", "a JPEG image", _MODEL_WANTED),
    (0, b"GIF8", "a GIF image", _MODEL_WANTED),
    (0, b"RIFF", "an audio, video or image file (RIFF)", _MODEL_WANTED),
    (0, b"%PDF", "a PDF document", _MODEL_WANTED),
    (0, b"SQLite format 3", "an SQLite database", _MODEL_WANTED),
    (0, b"\x7fELF", "a program or library (ELF)", "To measure a program: edgeprof run -- PROGRAM. " + _MODEL_WANTED),
    (0, b"MZ", "a Windows program", _MODEL_WANTED),
)


class Content(NamedTuple):
    """A format, and further facts from the bytes."""

    format: str
    detail: str | None = None


def identify(path: Path, size: int) -> Content:
    """Recognise a file.

    Args:
        path: A readable, regular file that is not empty.
        size: The file's size in bytes.

    Raises:
        InputError: The file is not a model, or only a part of one; the message says what it is.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    content = _by_structure(path, head, size) or _by_magic(path, head) or _by_text(path, head) or _by_protobuf(path)
    if content is None and path.suffix.lower() == ".mnn" and _is_flatbuffer(head, size):
        content = Content("mnn")  # its bytes have no signature
    if content is None:
        raise _unknown_format_error(path, head)
    return content


def _is_flatbuffer(head: bytes, size: int) -> bool:
    """Return whether the bytes can be a flatbuffer, which begins with the offset of its root table."""
    return len(head) >= 8 and 4 <= int(struct.unpack("<I", head[:4])[0]) <= size - 4


def _by_structure(path: Path, head: bytes, size: int) -> Content | None:
    if head[4:8] == b"TFL3":
        custom = flatbuffer.custom_operators(path)
        if custom is None:
            raise damaged(path, "tflite")
        if flatbuffer.EDGE_TPU_OPERATOR in custom:
            return Content("edgetpu-tflite", flatbuffer.EDGE_TPU_OPERATOR)
        return Content("tflite", ", ".join(custom) or None)
    if head[4:6] == b"ET" and head[6:8].isdigit() and head[4:8] != _EXECUTORCH:
        raise InputError(
            f"{path} is an ExecuTorch program in the format {head[4:8].decode()}, and ExecuTorch 1 reads "
            f"{_EXECUTORCH.decode()}",
            remedy="Export it again with the release of ExecuTorch that is to run it.",
        )
    if head[:4] == b"PK\x03\x04":
        return _in_zip(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Content(*archives.identify_pickle(path))
    if head[8:9] == b"{" and b'"' in head[9:64]:
        length = int(struct.unpack("<Q", head[:8])[0])
        if size < length + 8 < 100 << 20:
            raise damaged(path, "safetensors")
        return Content("safetensors")
    return None


def _in_zip(path: Path) -> Content:
    try:
        kind, detail = archives.identify_zip(path)
    except archives.BadArchiveError as error:
        what = f"it begins as a zip, as the files of PyTorch and Keras do, but {error}"
        raise InputError(f"{path} is cut off or damaged: {what}", remedy=AGAIN) from None
    if kind is not None:
        return Content(kind, detail)
    if detail == "npz":
        raise InputError(
            f"{path} holds numpy arrays, no model", remedy=f"Is it meant for --dataset or --input-data? {_MODEL_WANTED}"
        )
    inside = f" that contains {detail}" if detail != "zip" else ""
    raise InputError(f"{path} is a zip archive{inside}", remedy=_UNPACK)


def _by_magic(path: Path, head: bytes) -> Content | None:
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Content(name, _DETAILS[name](path) if name in _DETAILS else None)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return Content("keras" if _contains_text(path, b"keras_version") else "hdf5")
    # Ultralytics writes its metadata before the plan: a length, JSON, then the plan.
    if head[4:5] == b"{":
        start = 4 + int(struct.unpack("<I", head[:4])[0])
        if head[start : start + 4] == b"ftrt":
            return Content("tensorrt", _plan_detail(path, "with Ultralytics' metadata before it"))
    for offset, magic, what, remedy in _NO_MODEL:
        if head[offset : offset + len(magic)] == magic:
            raise InputError(f"{path} is {what}, no model", remedy=remedy)
    if head[:2] == b"BM" and len(head) > 14 and struct.unpack("<I", head[2:6])[0] == path.stat().st_size:
        raise InputError(f"{path} is a BMP image, no model", remedy=_MODEL_WANTED)
    return None


def _plan_detail(path: Path, more: str = "") -> str | None:
    plan = tensorrt_plan.read_plan(str(path))
    description = tensorrt_plan.describe_plan(plan) if plan is not None and plan.version else ""
    return ", ".join(filter(None, (description, more))) or None


def _gguf_detail(path: Path) -> str:
    try:
        return gguf.describe(gguf.read_header(path))
    except gguf.GgufError as error:
        raise InputError(f"{path} is a GGUF file, but {error}", remedy=AGAIN) from None


#: Formats whose bytes contain further facts, with the functions that read them.
_DETAILS: dict[str, Callable[[Path], str | None]] = {"tensorrt": _plan_detail, "gguf": _gguf_detail}


def _by_text(path: Path, head: bytes) -> Content | None:
    if b"\0" in head:
        return None
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise only the last character is cut off
            return None
        text = head[: error.start].decode("utf-8")
    start = text.lstrip("\ufeff \t\r\n")
    if any(ord(c) < 32 and c not in "\t\r\n\f\x1b" for c in text):
        return None
    if start.startswith("version https://git-lfs.github.com/spec/"):
        size = next((line[5:] for line in start.splitlines() if line.startswith("size ")), "?")
        raise InputError(
            f"{path} is a Git LFS pointer, not the model itself ({size} bytes), which was never fetched",
            remedy="git lfs install && git lfs pull, in its repository.",
        )
    lower = start[:500].lower()
    if lower.startswith(("<!doctype html", "<html")):
        raise InputError(
            f"{path} is a web page, no model: probably the page about the file was saved instead of the file",
            remedy="Download it again from its raw or download link.",
        )
    if lower.startswith("<?xml") or start.startswith("<net"):
        if "<net" in start:
            return Content("openvino")
        raise InputError(f"{path} is an XML file, no model", remedy=_MODEL_WANTED)
    if path.suffix == ".py" or (start.startswith("#!") and "python" in start.partition("\n")[0]):
        raise InputError(
            f"{path} is a Python program; name the function in it that runs the model once",
            remedy=f"edgeprof bench {path}:FUNCTION, or measure the whole program: edgeprof run -- python {path}",
        )
    kind = "a JSON" if start.startswith(("{", "[")) else "a text"
    raise InputError(
        f"{path} is {kind} file, no model: it begins {start[:40].split(chr(10))[0]!r}", remedy=_MODEL_WANTED
    )


def _by_protobuf(path: Path) -> Content | None:
    try:
        kind, whole = protobuf.identify(path)
    except protobuf.TooManyFieldsError:
        raise _too_many_fields(path) from None
    if kind is None:
        return None
    if not whole:
        raise damaged(path, kind)
    return Content(kind)


def _too_many_fields(path: Path) -> InputError:
    return InputError(
        f"{path} has more than {protobuf.LIMIT_FIELDS:,} parts where a model has some thousand", remedy=AGAIN
    )


def external_files(path: Path) -> list[str]:
    """Return the names of the files with an ONNX model's weights; see ``protobuf.external_files``.

    Raises:
        InputError: The file has too many parts to be searched.
    """
    try:
        return protobuf.external_files(path)
    except protobuf.TooManyFieldsError:
        raise _too_many_fields(path) from None


def damaged(path: Path, kind: str) -> InputError:
    return InputError(
        f"{path} is {FORMATS[kind].describe}, but cut off or damaged: parts of it lie beyond its end", remedy=AGAIN
    )


def _unknown_format_error(path: Path, head: bytes) -> InputError:
    by_name = [f for f in FORMATS.values() if path.name.lower().endswith(f.suffixes)]
    if by_name:
        return InputError(
            f"{path} is named like {by_name[0].describe}, but its content is none (it begins {head[:8].hex(' ')})",
            remedy=AGAIN,
        )
    return InputError(f"{path} is no model that edgeprof knows (it begins {head[:8].hex(' ')})", remedy=_MODEL_WANTED)


def _contains_text(path: Path, text: bytes) -> bool:
    """Return whether the first megabyte contains a text; an HDF5 file's attributes are near its start."""
    with path.open("rb") as file:
        return text in file.read(1 << 20)
