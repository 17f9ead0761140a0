"""Zeros in the weights of a layer: anywhere, in whole channels, in 2:4 blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.worker.graph import Graph, Zeros

if TYPE_CHECKING:
    from edgeprof.worker.graph import Layer


def count_zeros(layer: Layer) -> Zeros | None:
    """Count the zeros in a layer's weights; return None if the weights cannot be read."""
    if layer.weights is None:
        return layer.zeros
    values = layer.weights()
    flat = values.reshape(len(values), -1)
    zero = flat == 0
    channels = int(zero.all(axis=1).sum()) * flat.shape[1]
    return Zeros(flat.size, int(zero.sum()), channels, _two_of_four(values))


def with_counted_zeros(graph: Graph) -> Graph:
    """Return ``graph`` with its zeros counted and without its weights, that is, plain values for another process."""
    return graph._replace(layers=[layer._replace(zeros=count_zeros(layer), weights=None) for layer in graph.layers])


def _two_of_four(values: Any) -> int:
    if values.ndim < 2 or values.shape[1] % 4:
        return 0
    groups = np.moveaxis(values, 1, -1).reshape(-1, 4)
    full: int = int(((groups == 0).sum(axis=1) >= 2).sum()) * 4
    return full
