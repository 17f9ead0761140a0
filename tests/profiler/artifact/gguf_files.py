"""GGUF files in small, written by hand after docs/gguf.md of ggml-org/ggml: a header, and zeros for the weights."""

from __future__ import annotations

import struct
from typing import Any

#: Type of a value → its number and struct format.
_SCALARS = {"u16": (2, "H"), "u32": (4, "I"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q")}

Tensor = tuple[str, tuple[int, ...], int, int]  # name, shape, type number, bytes


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind: str, content: Any) -> bytes:
    if kind == "str":
        return struct.pack("<I", 8) + text(content)
    if kind == "strs":
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(map(text, content))
    if kind == "f32s":
        return struct.pack("<IIQ", 9, 6, len(content)) + struct.pack(f"<{len(content)}f", *content)
    number, layout = _SCALARS[kind]
    return struct.pack("<I" + layout, number, content)


#: 64 weights of F32, 512 of Q4_K, 64 of Q8_0.
TENSORS: tuple[Tensor, ...] = (
    ("output_norm.weight", (64,), 0, 256),
    ("blk.0.ffn_up.weight", (256, 2), 12, 288),
    ("token_embd.weight", (32, 2), 8, 68),
)
KEYS: dict[str, tuple[str, Any]] = {
    "general.architecture": ("str", "llama"),
    "general.name": ("str", "Small"),
    "llama.context_length": ("u32", 2048),
    "llama.rope.freq_base": ("f32", 10000.0),
    "tokenizer.ggml.tokens": ("strs", ["a", "b", "Ġ"]),
    "tokenizer.ggml.scores": ("f32s", [0.0, 1.0, 2.0]),
}


def gguf(
    keys: dict[str, tuple[str, Any]] | None = None, tensors: tuple[Tensor, ...] = TENSORS, version: int = 3
) -> bytes:
    """A whole file."""
    keys = KEYS if keys is None else keys
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    head += b"".join(text(key) + value(*content) for key, content in keys.items())
    offset = 0
    for name, shape, kind, size in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += -(-size // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(offset)
