"""``exclude=auto`` for TFLite models: each layer is quantised alone, and variants are judged by their outputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.outputs import compare_outputs
from edgeprof_plugins.compressors.shared.exclusion import by_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Batches = Sequence[Mapping[str, npt.NDArray[Any]]]


def layer(name: str) -> str:
    """Return a regular expression for one layer; ai-edge-quantizer names an operator by its outputs, joined by ";"."""
    return f"(?:^|;){re.escape(name)}(?:;|$)"


def answers(path: Path, batches: Batches, count: int) -> list[npt.NDArray[Any]]:
    """Return a model's outputs for the first ``count`` samples, joined along the first axis."""
    from edgeprof_plugins.runtimes.litert import graph

    outputs = list(graph.run(str(path), batches))
    return [
        np.concatenate([np.atleast_1d(batch_outputs[i]) for batch_outputs in outputs])[:count]
        for i in range(len(outputs[0]))
    ]


def compare(plain: Path, quantised: Path, batches: Batches, renamed: Batches | None = None) -> dict[str, Any]:
    """Return how close the outputs of a quantised model are to those of the float model; {} if it does not run.

    Args:
        plain: The float model.
        quantised: The quantised model.
        batches: Inputs by name.
        renamed: The same by the names that they have in the quantised model, where these are others.
    """
    from edgeprof_plugins.runtimes.litert import graph

    try:
        both = list(zip(graph.run(str(plain), batches), graph.run(str(quantised), renamed or batches), strict=True))
    except (RuntimeError, ValueError):
        return {}  # the runtime says why when the variant is loaded, and an option of the runtime may help
    return compare_outputs(pair for outputs in both for pair in zip(*outputs, strict=True))


def alone(plain: Path, only: Callable[[str], Path], batches: Batches) -> dict[str, float]:
    """Return the signal-to-quantisation-noise ratio (SQNR) of each layer when only that layer is quantised.

    Args:
        plain: The float model.
        only: Layer → a file in which only that layer is quantised.
        batches: Inputs by name.

    Returns:
        Layer → SQNR in dB, without layers that cannot be quantised.
    """
    from edgeprof_plugins.runtimes.litert import graph

    inspected = graph.read(str(plain))
    names = [layer.name for layer in inspected.layers] if inspected else []
    truths = list(graph.taps(str(plain), names, batches))
    sqnr = {}
    for name in names:
        signal, noise = np.zeros(1), np.zeros(1)
        for truth, tapped in zip(truths, graph.taps(str(only(name)), [name], batches), strict=True):
            if name in truth and name in tapped:
                exact = truth[name].astype(np.float64)
                over = tuple(range(exact.ndim - 1))
                signal = signal + np.square(exact).sum(axis=over)
                noise = noise + np.square(tapped[name] - exact).sum(axis=over)
        if noise.any():
            sqnr[name] = by_channel(signal, noise)
    return sqnr
