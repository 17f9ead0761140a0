"""Zeros in the weights of ONNX models: the smallest magnitudes anywhere, or two of every four in a row.

Zeros only shrink the compressed file (zip, an over-the-air update): dense kernels multiply them like any other number.
``edgeprof diagnose`` reports this with numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.shared.magnitude import PARAMETERS, Pruning, prune_24

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx.weights import Weight


class Prune(Compressor):
    """Sets the share ``amount`` of the weights, those with the smallest magnitudes, to zero (``shared.magnitude``)."""

    name = "prune"
    changes = ("sparsity",)
    version = "1"
    takes = ("onnx",)
    parameters = PARAMETERS

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed  # the result depends on the weights only
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            weights = {w.name for w in _prunable_weights(self.name, model)}
            # File order, because the weights are written in that order.
            order = [name for name in model.order if name in weights]
            pruning = Pruning.of(parameters, lambda: map(model.array, order))

            def edit(name: str) -> Iterable[Any]:
                if name not in weights:
                    return [model.whole(name)]
                return [model.stored(name, pruning.prune(name, model.array(name)))]

            model.write(target, edit)
        changed = [name for name, touched in pruning.changed.items() if touched]
        account = inventory.by_weights(changed, dict.fromkeys(pruning.changed, _ENOUGH))
        return {**pruning.facts(), "coverage": account}


class Prune24(Compressor):
    """Sets the two smaller magnitudes of every four neighbouring input weights to zero."""

    name = "prune-2:4"
    changes = ("sparsity",)
    version = "2"
    takes = ("onnx",)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del parameters, data, seed
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            all_weights = _prunable_weights(self.name, model)
            weights = {w.name: w for w in all_weights if w.shape[w.inner] % 4 == 0}
            skipped = [model.node(w).name or w.name for w in all_weights if w.name not in weights]
            if not weights:
                raise InputError(
                    f"no weight of {source} has a multiple of 4 input channels ({', '.join(skipped[:3])} …):"
                    " 2:4 sparsity has no place in it",
                    remedy="Use prune, which takes any shape.",
                )
            done = 0
            why = {w.name: f"{w.shape[w.inner]} input channels are no multiple of 4" for w in all_weights}
            changed: list[str] = []

            def edit(name: str) -> Iterable[Any]:
                nonlocal done
                if name not in weights:
                    return [model.whole(name)]
                values = model.array(name)
                pruned = prune_24(values, weights[name].inner)
                done += values.size
                why[name] = _ENOUGH
                if np.count_nonzero(pruned) < np.count_nonzero(values):
                    changed.append(name)
                return [model.stored(name, pruned)]

            model.write(target, edit)
        facts = {"weights": done, "reached": 0.5, "layers": len(weights), "skipped": skipped}
        return {**facts, "coverage": inventory.by_weights(changed, why)}


_ENOUGH = "it has as many zeros already"


def _prunable_weights(method: str, model: OnnxFile) -> list[Weight]:
    weights = model.weights()
    if not weights:
        raise InputError(
            f"{model.path} has no float weights of layers that multiply, which {method} could change",
            remedy="Start from the float model: what is already quantised cannot be changed any more.",
        )
    return weights
