"""Small GGUF files, written by hand according to docs/gguf.md of ggml-org/ggml: a header, and zeros as weights."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

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
    if kind == "i32s":
        return struct.pack("<IIQ", 9, 5, len(content)) + struct.pack(f"<{len(content)}i", *content)
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
    keys: dict[str, tuple[str, Any]] | None = None,
    tensors: tuple[Tensor, ...] = TENSORS,
    version: int = 3,
    weights: Callable[[int], bytes] = bytes,
) -> bytes:
    """Return the content of a file.

    Args:
        keys: Name → (kind, value).
        tensors: The tensors that the header declares.
        version: The version of the format.
        weights: Returns the bytes of a tensor, given their number.
    """
    keys = KEYS if keys is None else keys
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    head += b"".join(text(key) + value(*content) for key, content in keys.items())
    offset = 0
    for name, shape, kind, size in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += -(-size // 32) * 32
    data = b"".join(weights(size) + bytes(-size % 32) for _, _, _, size in tensors)
    return head + bytes(-len(head) % 32) + data


def _byte_tokenizer() -> dict[str, tuple[str, Any]]:
    """Return a tokenizer in GPT-2's spelling: a token for each byte, one for two blanks, and three controls."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]
    return {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "gpt-2"),
        "tokenizer.ggml.tokens": ("strs", [*letters, *(f"<|{n}|>" for n in range(3)), "ĠĠ"]),
        "tokenizer.ggml.token_type": ("i32s", [1] * 256 + [3] * 3 + [1]),
        "tokenizer.ggml.merges": ("strs", ["Ġ Ġ"]),
        "tokenizer.ggml.bos_token_id": ("u32", 256),
        "tokenizer.ggml.eos_token_id": ("u32", 257),
    }


def llama(
    width: int = 64,
    layers: int = 2,
    vocabulary: int = 128,
    context: int = 512,
    *,
    tokenizer: bool = False,
    half: bool = False,
    weights: Callable[[int], bytes] | None = None,
) -> bytes:
    """Return a language model that llama.cpp runs, without a tokenizer or with one of bytes.

    Its weights are random by default, and of F32; ``half`` makes the matrices F16, as openvino-genai needs them.
    """
    vocabulary = 260 if tokenizer else vocabulary
    chance = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (width, vocabulary), "output_norm.weight": (width,)}
    for layer in range(layers):
        block = {"attn_norm": (width,), "ffn_norm": (width,), "attn_output": (width, width), "attn_q": (width, width)}
        block |= {"attn_k": (width, width // 2), "attn_v": (width, width // 2)}
        block |= {"ffn_gate": (width, 2 * width), "ffn_up": (width, 2 * width), "ffn_down": (2 * width, width)}
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    keys = {
        "general.architecture": ("str", "llama"),
        "general.name": ("str", "random"),
        "llama.block_count": ("u32", layers),
        "llama.context_length": ("u32", context),
        "llama.embedding_length": ("u32", width),
        "llama.feed_forward_length": ("u32", 2 * width),
        "llama.attention.head_count": ("u32", 4),
        "llama.attention.head_count_kv": ("u32", 2),
        "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5),
        "llama.vocab_size": ("u32", vocabulary),
        "tokenizer.ggml.model": ("str", "none"),
    }
    if half:
        keys["general.file_type"] = ("u32", 1)
    if tokenizer:
        keys |= _byte_tokenizer()
    kinds = [int(half and len(shape) == 2) for shape in shapes.values()]
    tensors = tuple(
        (name, shape, kind, (4 - 2 * kind) * math.prod(shape))
        for (name, shape), kind in zip(shapes.items(), kinds, strict=True)
    )
    if weights is not None:
        return gguf(keys, tensors, weights=weights)
    layouts = iter(["<f2" if kind else "<f4" for kind in kinds])

    def draw(size: int) -> bytes:
        layout = np.dtype(next(layouts))
        return (0.1 * chance.standard_normal(size // layout.itemsize)).astype(layout).tobytes()

    return gguf(keys, tensors, weights=draw)
