"""Bilinear resizing of images; 8-bit results equal those of Pillow's ``Image.resize(…, BILINEAR)``, as models expect.

Source: Pillow, src/libImaging/Resample.c (``precompute_coeffs``, ``normalize_coeffs_8bpc``). The filter is a triangle
as wide as the step between output pixels, so that a reduced image is averaged and not sampled. Weights have 22 bits of
fixed point. Resizing goes first along the width, then along the height, with rounding to 8 bits after each. Images of
other types keep their precision: they are resized with the same weights in 64-bit floats.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_PRECISION_BITS = 32 - 8 - 2


def resize_bilinear(pixels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return an image in another size.

    Args:
        pixels: Shape ``(height, width)`` or ``(height, width, channels)``, of any number type.
        size: Height and width, pixels.

    Returns:
        Shape ``(*size)`` or ``(*size, channels)``, of the same type.
    """
    if pixels.dtype == np.uint8:
        return _resize_axis(_resize_axis(pixels, size[1], axis=1), size[0], axis=0)
    resized = _average_axis(_average_axis(pixels.astype(np.float64), size[1], axis=1), size[0], axis=0)
    return (np.rint(resized) if pixels.dtype.kind in "iu" else resized).astype(pixels.dtype)


def _average_axis(pixels: npt.NDArray[np.float64], length: int, *, axis: int) -> npt.NDArray[np.float64]:
    if pixels.shape[axis] == length:
        return pixels
    positions, weights = _filter_taps(pixels.shape[axis], length)
    parts = weights / weights.sum(axis=0)
    shape = [1] * pixels.ndim
    shape[axis] = length
    total = np.zeros((*pixels.shape[:axis], length, *pixels.shape[axis + 1 :]))
    for position, weight in zip(positions, parts, strict=True):
        total += np.take(pixels, position, axis=axis) * weight.reshape(shape)
    return total


def _resize_axis(pixels: npt.NDArray[Any], length: int, *, axis: int) -> npt.NDArray[Any]:
    if pixels.shape[axis] == length:
        return pixels
    positions, weights = _filter_taps(pixels.shape[axis], length)
    shape = [1] * pixels.ndim
    shape[axis] = length
    # 255 times weights that add up to 2²² fits into 32 bits.
    total = np.full((*pixels.shape[:axis], length, *pixels.shape[axis + 1 :]), 1 << (_PRECISION_BITS - 1), np.int32)
    for position, weight in zip(positions, weights, strict=True):
        total += np.take(pixels, position, axis=axis) * weight.reshape(shape)
    resized: npt.NDArray[Any] = np.clip(total >> _PRECISION_BITS, 0, 255).astype(np.uint8)
    return resized


@functools.lru_cache(maxsize=64)
def _filter_taps(before: int, after: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Return the input pixels of each output pixel and their weights, both with shape ``(taps, after)``."""
    scale = before / after
    support = max(scale, 1.0)
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), before)
    index = first[:, None] + np.arange(math.ceil(support) * 2 + 1)
    weights = np.maximum(1.0 - np.abs((index - centre[:, None] + 0.5) / support), 0.0)
    weights[index >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.floor(weights * (1 << _PRECISION_BITS) + 0.5).astype(np.int32)
    return np.minimum(index, before - 1).T, fixed.T
