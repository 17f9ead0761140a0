"""Follow samples through a variant and its baseline: where signal is lost, and how values use their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.diagnosis.running import spread_samples

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.diagnosis.checks import Evidence
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import Runtime

    Array = npt.NDArray[Any]

#: Samples that are followed.
_FOLLOWED = 8


def follow(e: Evidence, runtime: Runtime, variant: Artifact, baseline: Artifact, data: Dataset) -> None:
    """Set the signal-to-noise ratio of every tensor that both graphs have, and how its values use its range."""
    if e.graph is None or e.baseline is None:
        return
    samples = [_filled(sample, e.baseline) for sample in spread_samples(data, _FOLLOWED)]
    # A tensor that the variant quantises is read in the form that the next layers read.
    baseline_names = {e.graph.seen_as.get(name, name): name for name in e.baseline.tensors}
    pairs = zip(
        runtime.taps(str(baseline.path), e.baseline.tensors, samples),
        (
            {baseline_names[name]: array for name, array in seen.items()}
            for seen in runtime.taps(str(variant.path), list(baseline_names), samples)
        ),
        strict=True,
    )
    tally: dict[str, _Tally] = {}
    for before, after in pairs:
        for name, truth in before.items():
            held = after.get(name)
            if (
                not (isinstance(truth, np.ndarray) and isinstance(held, np.ndarray))
                or truth.dtype.kind != "f"
                or not truth.size
                or truth.shape != held.shape
            ):
                continue
            tally.setdefault(name, _Tally()).add(truth, held, e.graph.ranges.get(name))
    e.sqnr_db = {
        name: layer_tally.sqnr() for name, layer_tally in tally.items() if layer_tally.noise and layer_tally.signal
    }
    ranged = {name: layer_tally for name, layer_tally in tally.items() if name in e.graph.ranges}
    e.clipped = {
        name: layer_tally.outside / layer_tally.count for name, layer_tally in ranged.items() if layer_tally.count
    }
    e.dead = {name: layer_tally.dead(e.graph.ranges[name]) for name, layer_tally in ranged.items() if layer_tally.count}


def _filled(sample: dict[str, Array], graph: Graph) -> dict[str, Array]:
    """Repeat a sample to fill a model's fixed batch."""
    batches = {shape[0] for shape in graph.inputs.values() if shape and shape[0] is not None}
    size = batches.pop() if len(batches) == 1 else 1
    return {name: np.repeat(array, size, axis=0) if len(array) == 1 else array for name, array in sample.items()}


@dataclass
class _Tally:
    """One tensor over several samples."""

    signal: float = 0.0
    noise: float = 0.0
    count: int = 0
    outside: int = 0
    low: float = 0.0
    high: float = 0.0

    def add(self, truth: Array, held: Array, limits: tuple[float, float] | None) -> None:
        truth = truth.astype(np.float64)
        self.signal += float(np.square(truth).sum())
        self.noise += float(np.square(truth - held).sum())
        self.count += truth.size
        self.low, self.high = min(self.low, float(truth.min())), max(self.high, float(truth.max()))
        if limits is not None:
            step = (limits[1] - limits[0]) / 255  # a value within one step outside the range is not lost
            self.outside += int(((truth < limits[0] - step) | (truth > limits[1] + step)).sum())

    def sqnr(self) -> float:
        return float(10 * np.log10(self.signal / self.noise))

    def dead(self, limits: tuple[float, float]) -> float:
        """Return the share of the range that no value reached."""
        width = limits[1] - limits[0]
        used = min(self.high, limits[1]) - max(self.low, limits[0])
        return max(0.0, 1 - used / width) if width > 0 else 0.0
