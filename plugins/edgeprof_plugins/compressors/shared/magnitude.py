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
    """Zeroes what is smaller, and of what is exactly as large the first ``ties``, so that the share is met exactly."""

    bits: int
    ties: int

    def apply(self, values: Array) -> Array:
        """A pruned copy; call it once for each weight, in one order."""
        magnitude = _bits(values)
        out: Array = np.where(magnitude < self.bits, values.dtype.type(0), values)
        if self.ties > 0:
            equal = np.flatnonzero(magnitude.reshape(-1) == self.bits)[: self.ties]
            out.reshape(-1)[equal] = 0
            self.ties -= len(equal)
        return out


@dataclass
class Counter:
    """The magnitude below which a share of all weights lies: a radix selection in two passes over them.

    A float's bits without its sign order as its magnitude does. The first pass counts their upper halves, the second,
    within the half that the threshold falls into, the lower ones: exact, in the memory of two histograms.
    """

    _upper: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    _lower: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    _wanted: int = 0
    _bin: int = 0

    def add(self, values: Array) -> None:
        """First pass."""
        for bits in _blocks(values):
            self._upper += np.bincount(bits >> 16, minlength=1 << 16)

    def settle(self, amount: float) -> None:
        """Between the passes: ``amount`` of all shall be zero."""
        self._wanted = round(amount * int(self._upper.sum()))
        before = np.cumsum(self._upper)
        self._bin = min(int(np.searchsorted(before, self._wanted, side="left")), (1 << 16) - 1)
        self._wanted -= int(before[self._bin] - self._upper[self._bin])

    def refine(self, values: Array) -> None:
        """Second pass."""
        for bits in _blocks(values):
            self._lower += np.bincount(bits[(bits >> 16) == self._bin] & 0xFFFF, minlength=1 << 16)

    def threshold(self) -> Threshold:
        before = np.cumsum(self._lower)
        low = min(int(np.searchsorted(before, self._wanted, side="left")), (1 << 16) - 1)
        return Threshold(self._bin << 16 | low, self._wanted - int(before[low] - self._lower[low]))


@dataclass
class Pruning:
    """The zeros of one model, layer by layer; weights are held one at a time.

    Attributes:
        amount: Share of the weights that become zero.
        threshold: One for all layers; None for one a layer.
    """

    amount: float
    threshold: Threshold | None = None
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Any], weights: Callable[[], Iterable[Array]]) -> Pruning:
        """By ``PARAMETERS``; ``weights()`` goes over all of them, in the order in which they are pruned then."""
        if parameters["scope"] == "layer":
            return cls(parameters["amount"])
        counter = Counter()
        for values in weights():
            counter.add(values)
        counter.settle(parameters["amount"])
        for values in weights():
            counter.refine(values)
        return cls(parameters["amount"], counter.threshold())

    def prune(self, name: str, values: Array) -> Array:
        """A copy with its zeros; call it once for each layer."""
        pruned = zero_below(values, self.amount) if self.threshold is None else self.threshold.apply(values)
        self._layers[name] = (int(pruned.size - np.count_nonzero(pruned)), pruned.size)
        return pruned

    def facts(self) -> dict[str, Any]:
        zeros, total = (sum(found) for found in zip(*self._layers.values(), strict=True))
        layers = {name: round(count / size, 4) for name, (count, size) in self._layers.items()}
        return {"zeros": zeros, "weights": total, "reached": zeros / total, "layers": layers}


def zero_below(values: Array, amount: float) -> Array:
    """A copy in which the ``amount`` smallest values are zero; of equal ones the first."""
    counter = Counter()
    counter.add(values)
    counter.settle(amount)
    counter.refine(values)
    return counter.threshold().apply(values)


def prune_24(values: Array, axis: int) -> Array:
    """A copy with the two smallest of every four neighbours along ``axis`` (a multiple of four long) zero."""
    moved = np.moveaxis(values, axis, -1)
    groups = np.array(moved, order="C").reshape(-1, 4)
    order = np.argsort(np.abs(groups), axis=1, kind="stable")
    np.put_along_axis(groups, order[:, :2], 0, axis=1)
    pruned: Array = np.ascontiguousarray(np.moveaxis(groups.reshape(moved.shape), -1, axis))
    return pruned


def _bits(values: Array) -> npt.NDArray[np.uint32]:
    """Magnitudes as integers of the same order."""
    magnitude: npt.NDArray[np.uint32] = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) & np.uint32(
        0x7FFFFFFF
    )
    return magnitude


def _blocks(values: Array) -> Iterator[npt.NDArray[np.uint32]]:
    """Magnitudes in pieces: counting makes 64-bit copies of what it counts."""
    flat = np.ascontiguousarray(values).reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield _bits(flat[start : start + _BLOCK])


def sqnr_db(values: Array, approximation: Array) -> float | None:
    """Signal to quantisation noise, 10·log10(Σx² / Σ(x − x̂)²) in dB; None where nothing was lost."""
    noise = float(np.square(values - approximation, dtype=np.float64).sum())
    signal = float(np.square(values, dtype=np.float64).sum())
    return round(float(10 * np.log10(signal / noise)), 2) if noise and signal else None


def worst(found: Mapping[str, float | None]) -> str | None:
    """The name of the smallest SQNR."""
    known = {name: value for name, value in found.items() if value is not None}
    return min(known, key=lambda name: known[name]) if known else None
