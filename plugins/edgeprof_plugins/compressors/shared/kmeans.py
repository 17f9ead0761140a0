"""One-dimensional k-means clustering of weights: deterministic, and fast because it works on a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Parameter

if TYPE_CHECKING:
    import numpy.typing as npt

COUNT = Parameter("n", "int", default=16, minimum=2, maximum=256, help="distinct values of each layer's weights")
#: Histogram bins between the smallest and the largest weight; finer than any codebook needs.
_BINS = 1 << 16
_COARSE = 256
_ROUNDS = 300
_BLOCK = 1 << 20


def codebook(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Return at most ``n`` values that represent all values with the least squared error that Lloyd's algorithm finds.

    The algorithm starts at equal steps of Σ|f|^(1/3), where f is the density of the values: the optimal density of
    codewords when there are many (Panter and Dite 1951). Zero stays zero: pruned weights form their own codeword.

    Returns:
        The codewords in ascending order; float64 where the values are, else float32.
    """
    kind = _exact_type(values)
    flat = np.asarray(values, kind).reshape(-1)
    has_zero = bool((flat == 0).any())
    used = flat[flat != 0] if has_zero else flat
    distinct = np.unique(used) if used.size <= 1 << 16 else None
    room = max(1, n - has_zero)
    if distinct is not None and len(distinct) <= room:
        return np.union1d(distinct, [0.0]).astype(kind) if has_zero else distinct.astype(kind)
    low, high = float(used.min()), float(used.max())
    counts = np.zeros(_BINS, np.int64)
    step = (high - low) / _BINS or 1.0
    for start in range(0, used.size, _BLOCK):
        place = np.clip(((used[start : start + _BLOCK] - low) / step).astype(np.int64), 0, _BINS - 1)
        counts += np.bincount(place, minlength=_BINS)
    centres = low + (np.arange(_BINS, dtype=np.float64) + 0.5) * step
    codes = _lloyd_codes(centres, counts, room).astype(kind)
    return np.union1d(codes, [0.0]).astype(kind) if has_zero else np.unique(codes)


def _lloyd_codes(centres: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    # The density needs coarser bins than the sums: fine bins that hold one weight each would all have the same density.
    coarse = counts.reshape(_COARSE, -1).sum(axis=1)
    density = np.cumsum(np.cbrt(coarse.astype(np.float64)))
    places = centres.reshape(_COARSE, -1).mean(axis=1)
    codes: npt.NDArray[np.float64] = np.interp((np.arange(n) + 0.5) / n * density[-1], density, places)
    mass = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    moment = np.concatenate([[0.0], np.cumsum(counts * centres)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(centres, (codes[1:] + codes[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(centres)]])
        weight, total = np.diff(mass[edges]), np.diff(moment[edges])
        moved: npt.NDArray[np.float64] = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), codes)
        if np.array_equal(moved, codes):
            break
        codes = moved
    return codes


def nearest(values: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the index of the nearest code for each value, in the shape of ``values``."""
    return np.searchsorted((codes[1:] + codes[:-1]) / 2, np.asarray(values, _exact_type(values)))


def _exact_type(values: npt.NDArray[Any]) -> type[np.floating[Any]]:
    """The float type that holds each value exactly: float32 for float16, bfloat16 and 8-bit integers."""
    return np.float64 if values.dtype.itemsize > 4 else np.float32
