"""A reference for language runtimes: Llama's forward pass in numpy, double precision, of ``gguf_files.llama``.

Source: Touvron et al. 2023 (Llama 2: RMSNorm, rotary positions on neighbouring pairs, SwiGLU, shared KV heads).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

HEADS, KV_HEADS = 4, 2


def weights_of(path: Path) -> dict[str, Any]:
    """The tensors of a GGUF file that ``gguf_files.gguf`` wrote in F32, each with its rows first."""
    data = path.read_bytes()
    at = 24
    tensors, keys = struct.unpack_from("<QQ", data, 8)

    def text() -> str:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at].decode()

    sizes = {4: 4, 5: 4, 6: 4, 7: 1, 2: 2, 10: 8}
    for _ in range(keys):
        text()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                if inner == 8:
                    text()
                else:
                    at += sizes[inner]
        else:
            at += sizes[kind]
    found = []
    for _ in range(tensors):
        name = text()
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        at += 4 + 8 * dimensions + 4
        (offset,) = struct.unpack_from("<Q", data, at)
        at += 8
        found.append((name, shape, offset))
    start = -(-at // 32) * 32
    return {
        name: np.frombuffer(data, "<f4", int(np.prod(shape)), start + offset).reshape(shape[::-1]).astype(np.float64)
        for name, shape, offset in found
    }


def log_likelihoods(weights: dict[str, Any], tokens: list[int], first: int) -> Any:
    """As ``Session.log_likelihoods``."""
    x = weights["token_embd.weight"][tokens]
    count, width = x.shape
    head = width // HEADS
    angles = np.outer(np.arange(count), 10000.0 ** (-np.arange(0, head, 2) / head))
    mask = np.triu(np.full((count, count), -np.inf), 1)
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blk."))
    for layer in range(layers):
        w = {name.split(".")[2]: value for name, value in weights.items() if name.startswith(f"blk.{layer}.")}
        h = _norm(x, w["attn_norm"])
        q = _rotated((h @ w["attn_q"].T).reshape(count, HEADS, head), angles)
        k = _rotated((h @ w["attn_k"].T).reshape(count, KV_HEADS, head), angles)
        v = (h @ w["attn_v"].T).reshape(count, KV_HEADS, head)
        mixed = np.empty((count, HEADS, head))
        for one in range(HEADS):
            shared = one // (HEADS // KV_HEADS)
            scores = q[:, one] @ k[:, shared].T / np.sqrt(head) + mask
            weighted = np.exp(scores - scores.max(1, keepdims=True))
            mixed[:, one] = weighted / weighted.sum(1, keepdims=True) @ v[:, shared]
        x = x + mixed.reshape(count, width) @ w["attn_output"].T
        h = _norm(x, w["ffn_norm"])
        gate = h @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
    logits = _norm(x, weights["output_norm.weight"]) @ weights.get("output.weight", weights["token_embd.weight"]).T
    rows = logits[first - 1 : count - 1]
    rows = rows - rows.max(1, keepdims=True)
    rows = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    return rows[np.arange(len(rows)), tokens[first:]]


def _norm(x: Any, weight: Any) -> Any:
    return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5) * weight


def _rotated(x: Any, angles: Any) -> Any:
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    turned = np.empty_like(x)
    turned[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    turned[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return turned
