"""Which weights are the smallest: exact thresholds without holding all weights at once, and 2:4 patterns."""

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
    """Zeroes what is smaller, and of what is exactly as large the first ``ties``, so that the share is met exactly.

    Attributes:
        bits: Of the threshold, a float of ``width`` bits, without its sign.
        width: 32 or 64.
        ties: How many values of exactly this magnitude become zero.
    """

    bits: int
    width: int
    ties: int

    def apply(self, values: Array) -> Array:
        """A pruned copy; call it once for each weight, in one order."""
        magnitude = _magnitude_bits(values, self.width)
        pruned: Array = np.where(magnitude < self.bits, values.dtype.type(0), values)
        if self.ties > 0:
            equal = np.flatnonzero(magnitude.reshape(-1) == self.bits)[: self.ties]
            pruned.reshape(-1)[equal] = 0
            self.ties -= len(equal)
        return pruned


def find_threshold(amount: float, weights: Callable[[], Iterable[Array]]) -> Threshold:
    """The magnitude below which a share of all weights lies: a radix selection, exact for floats of any width.

    A float's bits without its sign order as its magnitude does. Each pass over the weights counts 16 of them, among the
    weights that agree in those counted before: two passes, and four where a weight has 64 bits.

    Args:
        amount: The share, 0 to 1.
        weights: Goes over all weights each time that it is called.
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
    """The zeros of one model, layer by layer; weights are held one at a time.

    Attributes:
        amount: Share of the weights that become zero.
        threshold: One for all layers; None for one a layer.
        changed: Layer → whether any of its values became zero that was not.
    """

    amount: float
    threshold: Threshold | None = None
    changed: dict[str, bool] = field(default_factory=dict)
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any], weights: Callable[[], Iterable[Array]]) -> Pruning:
        """By ``PARAMETERS``; ``weights()`` goes over all of them, in the order in which they are pruned then."""
        amount = parameters["amount"]
        return cls(amount, None if parameters["scope"] == "layer" else find_threshold(amount, weights))

    def prune(self, name: str, values: Array) -> Array:
        """A copy with its zeros; call it once for each layer."""
        pruned = zero_below(values, self.amount) if self.threshold is None else self.threshold.apply(values)
        zeros = int(pruned.size - np.count_nonzero(pruned))
        self._layers[name] = (zeros, pruned.size)
        self.changed[name] = zeros > pruned.size - np.count_nonzero(values)
        return pruned

    def facts(self) -> dict[str, Any]:
        """How many zeros there are now, in all and in each layer."""
        zeros, total = (sum(counts) for counts in zip(*self._layers.values(), strict=True))
        layers = {name: round(count / size, 4) for name, (count, size) in self._layers.items()}
        return {"zeros": zeros, "weights": total, "reached": zeros / total, "layers": layers}


def zero_below(values: Array, amount: float) -> Array:
    """A copy in which the ``amount`` smallest values are zero; of equal ones the first."""
    return find_threshold(amount, lambda: [values]).apply(values)


def prune_24(values: Array, axis: int) -> Array:
    """A copy with the two smallest of every four neighbours along ``axis`` (a multiple of four long) zero."""
    moved = np.moveaxis(values, axis, -1)
    groups = np.array(moved, order="C").reshape(-1, 4)
    order = np.argsort(np.abs(groups), axis=1, kind="stable")
    np.put_along_axis(groups, order[:, :2], 0, axis=1)
    pruned: Array = np.array(np.moveaxis(groups.reshape(moved.shape), -1, axis), order="C")
    return pruned


def _exact_bits(values: Array) -> int:
    """Bits of the float that holds each value exactly: bfloat16 and float16 fit into 32."""
    return 64 if values.dtype.itemsize > 4 else 32


def _magnitude_bits(values: Array, width: int) -> npt.NDArray[Any]:
    """Magnitudes as integers of the same order."""
    kind, unsigned = (np.float64, np.uint64) if width == 64 else (np.float32, np.uint32)
    magnitude: npt.NDArray[Any] = np.array(values, dtype=kind, order="C").view(unsigned)
    magnitude &= unsigned((1 << (width - 1)) - 1)
    return magnitude


def _magnitude_blocks(values: Array, width: int) -> Iterator[npt.NDArray[Any]]:
    """Magnitudes in pieces: counting makes 64-bit copies of what it counts."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield _magnitude_bits(flat[start : start + _BLOCK], width)


def sqnr_db(values: Array, approximation: Array) -> float | None:
    """Signal to quantisation noise, 10·log10(Σx² / Σ(x − x̂)²) in dB; None where nothing was lost."""
    if values.dtype.itemsize < 4:  # bfloat16 and float16 have no room for the difference
        values, approximation = values.astype(np.float32), approximation.astype(np.float32)
    noise = float(np.square(values - approximation, dtype=np.float64).sum())
    signal = float(np.square(values, dtype=np.float64).sum())
    return round(float(10 * np.log10(signal / noise)), 2) if noise and signal else None


def worst(values: Mapping[str, float | None]) -> str | None:
    """The name of the smallest SQNR."""
    known = {name: value for name, value in values.items() if value is not None}
    return min(known, key=lambda name: known[name]) if known else None
