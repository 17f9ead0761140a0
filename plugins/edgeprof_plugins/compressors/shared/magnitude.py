"""Magnitude pruning: exact thresholds without holding all weights in memory at once, and 2:4 patterns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_BLOCK = 1 << 20

PARAMETERS = (
    Parameter("amount", "float", default=0.5, minimum=0.0, maximum=0.99, help="share of the weights set to zero"),
    Parameter(
        "scope", "str", default="layer", choices=("global", "layer"), help="one threshold a layer, or one for all"
    ),
)


@dataclass
class Threshold:
    """Zeroes smaller values, and the first ``ties`` values of exactly this magnitude, so that the share is met exactly.

    Attributes:
        bits: The bits of the threshold, a float of ``width`` bits, without its sign.
        width: 32 or 64.
        ties: How many more values of exactly this magnitude become zero.
    """

    bits: int
    width: int
    ties: int

    def apply(self, values: Array) -> Array:
        """Return a pruned copy; call it once for each weight tensor, in the order used for ``find_threshold``."""
        magnitude = _magnitude_bits(values, self.width)
        pruned: Array = np.where(magnitude < self.bits, values.dtype.type(0), values)
        if self.ties > 0:
            equal = np.flatnonzero(magnitude.reshape(-1) == self.bits)[: self.ties]
            pruned.reshape(-1)[equal] = 0
            self.ties -= len(equal)
        return pruned


def find_threshold(amount: float, weights: Callable[[], Iterable[Array]]) -> Threshold:
    """Find the magnitude below which a share of all weights lies, by radix selection; exact for floats of any width.

    The bits of a float without its sign sort in the same order as its magnitude. Each pass over the weights counts 16
    bits of the weights whose higher bits match: two passes for 32-bit floats, four for 64-bit floats.

    Args:
        amount: The share, 0 to 1.
        weights: Returns an iterable over all weight tensors each time it is called.
    """
    total, width = 0, 32
    for values in weights():
        total += values.size
        width = max(width, _exact_bits(values))
    wanted, prefix = round(amount * total), 0
    for shift in range(width - 16, -1, -16):
        counts = np.zeros(1 << 16, np.int64)
        for values in weights():
            for bits in _magnitude_blocks(values, width):
                fitting = bits[bits >> (shift + 16) == prefix] if shift + 16 < width else bits
                counts += np.bincount((fitting >> shift & 0xFFFF).astype(np.intp), minlength=1 << 16)
        before = np.cumsum(counts)
        digit = min(int(np.searchsorted(before, wanted, side="left")), (1 << 16) - 1)
        wanted -= int(before[digit] - counts[digit])
        prefix = prefix << 16 | digit
    return Threshold(prefix, width, wanted)


@dataclass
class Pruning:
    """Prunes one model layer by layer and counts the zeros; only one weight tensor is in memory at a time.

    Attributes:
        amount: Share of the weights that become zero.
        threshold: The threshold for all layers; None where each layer has its own.
        changed: Layer → whether pruning set any nonzero value to zero.
    """

    amount: float
    threshold: Threshold | None = None
    changed: dict[str, bool] = field(default_factory=dict)
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any], weights: Callable[[], Iterable[Array]]) -> Pruning:
        """Create from ``PARAMETERS``; ``weights()`` gives all weights in the order in which they will be pruned."""
        amount = parameters["amount"]
        return cls(amount, None if parameters["scope"] == "layer" else find_threshold(amount, weights))

    def prune(self, name: str, values: Array) -> Array:
        """Return a pruned copy; call it once for each layer."""
        pruned = zero_below(values, self.amount) if self.threshold is None else self.threshold.apply(values)
        zeros = int(pruned.size - np.count_nonzero(pruned))
        self._layers[name] = (zeros, pruned.size)
        self.changed[name] = zeros > pruned.size - np.count_nonzero(values)
        return pruned

    def facts(self) -> dict[str, Any]:
        """Return the number of zeros after pruning, in total, and their share in each layer."""
        zeros, total = (sum(counts) for counts in zip(*self._layers.values(), strict=True))
        layers = {name: round(count / size, 4) for name, (count, size) in self._layers.items()}
        return {"zeros": zeros, "weights": total, "reached": zeros / total, "layers": layers}


def zero_below(values: Array, amount: float) -> Array:
    """Return a copy in which the share ``amount`` of the values, the smallest, is zero; ties go to the first values."""
    return find_threshold(amount, lambda: [values]).apply(values)


def prune_24(values: Array, axis: int) -> Array:
    """Return a copy in which the two smallest of every four neighbours along ``axis`` are zero.

    The length of ``axis`` must be a multiple of four.
    """
    moved = np.moveaxis(values, axis, -1)
    groups = np.array(moved, order="C").reshape(-1, 4)
    order = np.argsort(np.abs(groups), axis=1, kind="stable")
    np.put_along_axis(groups, order[:, :2], 0, axis=1)
    pruned: Array = np.array(np.moveaxis(groups.reshape(moved.shape), -1, axis), order="C")
    return pruned


def _exact_bits(values: Array) -> int:
    """The width in bits of the float that holds each value exactly: bfloat16 and float16 fit into 32."""
    return 64 if values.dtype.itemsize > 4 else 32


def _magnitude_bits(values: Array, width: int) -> npt.NDArray[Any]:
    """The magnitudes as integers that sort in the same order."""
    kind, unsigned = (np.float64, np.uint64) if width == 64 else (np.float32, np.uint32)
    magnitude: npt.NDArray[Any] = np.array(values, dtype=kind, order="C").view(unsigned)
    magnitude &= unsigned((1 << (width - 1)) - 1)
    return magnitude


def _magnitude_blocks(values: Array, width: int) -> Iterator[npt.NDArray[Any]]:
    """The magnitudes in blocks, because counting makes 64-bit copies of its input."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield _magnitude_bits(flat[start : start + _BLOCK], width)


def sqnr_db(values: Array, approximation: Array) -> float | None:
    """Return the signal-to-quantisation-noise ratio, 10·log10(Σx² / Σ(x − x̂)²) in dB.

    The result is None where the noise or the signal is zero.
    """
    if values.dtype.itemsize < 4:  # bfloat16 and float16 cannot hold the difference exactly
        values, approximation = values.astype(np.float32), approximation.astype(np.float32)
    noise = float(np.square(values - approximation, dtype=np.float64).sum())
    signal = float(np.square(values, dtype=np.float64).sum())
    return round(float(10 * np.log10(signal / noise)), 2) if noise and signal else None


def worst(values: Mapping[str, float | None]) -> str | None:
    """Return the name with the smallest SQNR; None where no SQNR is known."""
    known = {name: value for name, value in values.items() if value is not None}
    return min(known, key=lambda name: known[name]) if known else None
