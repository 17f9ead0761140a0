"""Reading the header of a GGUF file: the facts of its language model, without the weights.

Source: ggml-org/ggml, docs/gguf.md (the layout) and ggml-common.h (blocks of each tensor type). Everything is
little-endian. Version 1 had 32-bit lengths; llama.cpp no longer reads it.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: The most keys, tensors, and strings of one array: a large model has 60 keys, 2,000 tensors, and arrays of 600,000
#: strings (its vocabulary and its merges).
LIMIT_KEYS = 10_000
LIMIT_TENSORS = 100_000
LIMIT_STRINGS = 4_000_000
#: The longest text that is read; the format allows keys of 65,535 bytes.
LIMIT_TEXT_BYTES = 64 << 10

#: Type number → (name, weights of one block, bytes of one block).
_TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}

#: Type number of a key's value → its struct format; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

#: Keys of architectures whose cache does not grow by a constant amount per token.
_OTHER_CACHES = ("attention.sliding_window", "attention.kv_lora_rank", "ssm.state_size", "wkv.head_size")

_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class GgufError(Exception):
    """Raised if a GGUF file cannot be read; the text continues a sentence that begins with the file's name."""


class GgufTensor(NamedTuple):
    """One tensor in a GGUF file.

    Attributes:
        name: Its name.
        kind: Its type, such as ``Q4_0``.
        weights: The number of its weights.
        start: The position of its first byte in the file.
        rank: The number of its dimensions.
    """

    name: str
    kind: str
    weights: int
    start: int
    rank: int


@dataclass(frozen=True)
class GgufHeader:
    """The facts in the header of a GGUF file.

    Attributes:
        version: The version of the format.
        kind: ``general.type``: ``model``, ``adapter``, ``mmproj``, ``imatrix``; by default ``model``.
        architecture: ``llama``, ``qwen2`` …; None if the file does not state it.
        name: The author's name for the model.
        parameters: The number of weights in all tensors of this file.
        tensor_bytes: Bytes of all tensors of each type: ``{"Q4_0": …, "F32": …}``; a type that this module does not
            know has a name such as ``type 99`` and the value None.
        context_length: The context in tokens for which the model was trained; None if the file does not state it.
        split: (number of this part from 1, number of parts) for a split file; None for a whole one.
        cache_numbers_per_token: How many keys and values the attention of all layers caches per token; None if the
            file does not state it, or the cache is built differently (a sliding window, a state, latent attention).
        is_random: Whether the file declares its weights as random (``edgeprof.random_weights``).
        tensors: All tensors of this file, in file order.
    """

    version: int
    kind: str
    architecture: str | None
    name: str | None
    parameters: int
    tensor_bytes: dict[str, int | None] = field(default_factory=dict)
    context_length: int | None = None
    split: tuple[int, int] | None = None
    cache_numbers_per_token: int | None = None
    is_random: bool = False
    tensors: tuple[GgufTensor, ...] = ()

    @property
    def bits_per_weight(self) -> float | None:
        """8 · bytes of the tensors / weights; None without weights or with a tensor type of unknown size."""
        sizes = list(self.tensor_bytes.values())
        known = [size for size in sizes if size is not None]
        return 8 * sum(known) / self.parameters if self.parameters and len(known) == len(sizes) else None


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, and check that its tensors lie within the file.

    Raises:
        GgufError: The file is cut off or damaged, or its version is not supported.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=1 << 18) as file:
        try:
            return _Reader(file, size).header()
        except (struct.error, UnicodeDecodeError):
            raise GgufError(
                "is cut off or damaged: its header ends too early, or has no text where text belongs"
            ) from None


def describe(header: GgufHeader) -> str:
    """What a header says, as part of a sentence: ``llama, 135 M parameters, 5.8 bits per weight``."""
    if not header.tensor_bytes:
        return f"{header.architecture or 'an unknown architecture'}, a vocabulary without weights"
    words = [header.architecture or "of unknown architecture", f"{header.parameters / 1e6:.4g} M parameters"]
    if header.bits_per_weight is not None:
        words.append(f"{header.bits_per_weight:.3g} bits per weight")
    if header.kind != "model":
        words.append(f"a part of another model ({header.kind})")
    if header.split is not None:
        words.append("part {} of {}".format(*header.split))
    return ", ".join(words)


def shortcoming(header: GgufHeader) -> str | None:
    """Return why a whole GGUF file holds nothing to run, as the rest of a sentence that begins with its name."""
    if not header.tensor_bytes:
        return "holds the vocabulary of a language model without its weights"
    if header.kind != "model":
        return f"holds no whole language model but a part of one ({header.kind})"
    if header.architecture is None:
        return "does not say what architecture its weights are for"
    return None


def read_model(paths: Sequence[Path]) -> GgufHeader:
    """Read the header of a model from all its files.

    Raises:
        GgufError: See ``read_header``.
    """
    return merge_headers([read_header(path) for path in paths])


def merge_headers(headers: Sequence[GgufHeader]) -> GgufHeader:
    """Return one header for all parts of a split model: the facts of the first part, and the weights of all."""
    first = headers[0]
    sizes: dict[str, int | None] = {}
    for header in headers:
        for kind, size in header.tensor_bytes.items():
            before = sizes.get(kind, 0)
            sizes[kind] = None if size is None or before is None else before + size
    return GgufHeader(
        first.version,
        first.kind,
        first.architecture,
        first.name,
        sum(header.parameters for header in headers),
        sizes,
        first.context_length,
        first.split,
        first.cache_numbers_per_token,
        first.is_random,
        tuple(tensor for header in headers for tensor in header.tensors),
    )


def part_names(name: str, count: int) -> list[str] | None:
    """Derive the names of all parts of a split model, in order, from one such as ``model-00001-of-00003.gguf``.

    Returns:
        The names; None if the name does not have this form, or states another number of parts than ``count``.
    """
    match = _PART_NAME.fullmatch(name)
    if match is None or int(match["count"]) != count:
        return None
    return [f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


class _Reader:
    """One pass over a header; nothing is read beyond what the file's size allows."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def header(self) -> GgufHeader:
        self._file.seek(4)
        version = self._number("I")
        if version and version & 0xFFFF == 0:
            raise GgufError("is written for a big-endian machine, which no runtime here reads")
        if version not in (2, 3):
            raise GgufError(f"is of GGUF version {version}; versions 2 and 3 are read")
        tensors, keys = self._number("Q"), self._number("Q")
        if keys > LIMIT_KEYS or tensors > LIMIT_TENSORS:
            raise GgufError(f"is damaged: it claims {keys:,} keys and {tensors:,} tensors")
        facts = dict(self._key() for _ in range(keys))
        alignment = facts.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise GgufError(f"is damaged: it aligns its tensors to {alignment!r} bytes")
        parameters, sizes, listed = self._tensors(tensors, alignment)
        architecture = _text_fact(facts, "general.architecture")
        context = facts.get(f"{architecture}.context_length")
        return GgufHeader(
            version,
            _text_fact(facts, "general.type") or "model",
            architecture,
            _text_fact(facts, "general.name"),
            parameters,
            sizes,
            context if isinstance(context, int) and not isinstance(context, bool) else None,
            _split_position(facts),
            _cache_numbers(facts, architecture),
            facts.get("edgeprof.random_weights") is True,
            listed,
        )

    def _tensors(self, count: int, alignment: int) -> tuple[int, dict[str, int | None], tuple[GgufTensor, ...]]:
        """Return the number of weights, the bytes by type, and the tensors; each must lie within the file."""
        parameters = 0
        listed = []
        sizes: dict[str, int | None] = {}
        end, last = 0, ""
        for _ in range(count):
            name, rank, weights, kind, offset = self._tensor()
            parameters += weights
            known = _TENSOR_TYPES.get(kind)
            label = known[0] if known else f"type {kind}"
            if known is None:
                sizes[label] = None
                bytes_of_it = 0
            else:
                bytes_of_it = -(-weights // known[1]) * known[2]
                sizes[label] = (sizes.get(label) or 0) + bytes_of_it
            listed.append((name, label, weights, offset, rank))
            if offset % alignment:
                raise GgufError(f"is damaged: its tensor {name!r} is not aligned")
            if offset + bytes_of_it >= end:
                end, last = offset + bytes_of_it, name
        start = -(-self._file.tell() // alignment) * alignment
        if count and start + end > self._size:
            raise GgufError(
                f"is cut off or damaged: its tensor {last!r} ends at byte {start + end:,}, and it has {self._size:,}"
            )
        tensors = tuple(
            GgufTensor(name, label, weights, start + offset, rank) for name, label, weights, offset, rank in listed
        )
        return parameters, sizes, tensors

    def _tensor(self) -> tuple[str, int, int, int, int]:
        """Return a tensor's name, number of dimensions and weights, type number and offset."""
        name = self._string()
        dimensions = self._number("I")
        if dimensions > 4:
            raise GgufError(f"is damaged: its tensor {name!r} has {dimensions} dimensions")
        shape = [self._number("Q") for _ in range(dimensions)]
        weights = math.prod(shape)
        if weights > 8 * self._size * 8:  # no type has fewer than an eighth of a bit; this keeps the sums small
            raise GgufError(f"is cut off or damaged: its tensor {name!r} of shape {shape} cannot be in it")
        return name, dimensions, weights, self._number("I"), self._number("Q")

    def _key(self) -> tuple[str, Any]:
        key, kind = self._string(), self._number("I")
        if kind == _STRING:
            return key, self._string(keep=key.startswith("general."))
        if kind == _ARRAY:
            self._skip_array()
            return key, None
        if kind not in _SCALARS:
            raise GgufError(f"is damaged: its key {key!r} is of type {kind}")
        return key, self._number(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            if count > LIMIT_STRINGS:
                raise GgufError(f"is damaged: it claims an array of {count:,} strings")
            for _ in range(count):
                self._skip(self._number("Q"))
        elif kind in _SCALARS:
            self._skip(count * struct.calcsize("<" + _SCALARS[kind]))
        else:
            raise GgufError(f"is damaged: it has an array of type {kind}")

    def _string(self, *, keep: bool = True) -> str:
        length = self._number("Q")
        if not keep or length > LIMIT_TEXT_BYTES:
            self._skip(length)
            return ""
        data = self._file.read(length)
        if len(data) < length:
            raise struct.error
        return data.decode("utf-8")

    def _skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise struct.error
        self._file.seek(count, 1)

    def _number(self, kind: str) -> Any:
        layout = "<" + kind
        return struct.unpack(layout, self._file.read(struct.calcsize(layout)))[0]


def _text_fact(facts: dict[str, Any], key: str) -> str | None:
    value = facts.get(key)
    return value if isinstance(value, str) and value else None


def bytes_of(kind: str, count: int) -> int | None:
    """Return the bytes of ``count`` numbers of a tensor type (``f16``, ``Q8_0``); None for an unknown type."""
    for name, numbers, size in _TENSOR_TYPES.values():
        if name == kind.upper():
            return -(-count // numbers) * size
    return None


def _cache_numbers(facts: dict[str, Any], architecture: str | None) -> int | None:
    """See ``GgufHeader.cache_numbers_per_token``."""
    if any(f"{architecture}.{key}" in facts for key in _OTHER_CACHES):
        return None

    def count(key: str, default: int | None = None) -> int | None:
        value = facts.get(f"{architecture}.{key}", default)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    layers, width, heads = count("block_count"), count("embedding_length"), count("attention.head_count")
    if layers is None or width is None or heads is None:
        return None
    kv_heads = count("attention.head_count_kv", heads)
    keys, values = count("attention.key_length", width // heads), count("attention.value_length", width // heads)
    if kv_heads is None or keys is None or values is None:
        return None  # for example a list with one number for each layer
    return layers * kv_heads * (keys + values)


def _split_position(facts: dict[str, Any]) -> tuple[int, int] | None:
    number, count = facts.get("split.no"), facts.get("split.count")
    if not isinstance(number, int) or not isinstance(count, int) or count < 2:
        return None
    return number + 1, count
