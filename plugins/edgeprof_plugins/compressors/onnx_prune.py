"""Zeros in the weights of ONNX models: the smallest magnitudes anywhere, or two of every four in a row.

Zeros shrink the file once it is packed (zip, an update over the air) and nothing else: dense kernels multiply them like
any number. ``edgeprof diagnose`` says so with the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.magnitude import Counter, prune_24, zero_below
from edgeprof_plugins.compressors.onnx_file import OnnxFile, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx_file import Weight


class Prune(Compressor):
    name = "prune"
    version = "1"
    takes = ("onnx",)
    parameters = (
        Parameter("amount", "float", default=0.5, minimum=0.0, maximum=0.99, help="share of the weights set to zero"),
        Parameter(
            "scope", "str", default="layer", choices=("global", "layer"), help="one threshold a layer, or one for all"
        ),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed  # magnitudes are what they are
        amount, scope = parameters["amount"], parameters["scope"]
        with OnnxFile(source) as model:
            weights = {w.name: w for w in _weights(self.name, model)}
            counter = Counter()
            if scope == "global":
                for name in weights:
                    counter.add(model.array(name))
                counter.settle(amount)
                for name in weights:
                    counter.refine(model.array(name))
            threshold = counter.threshold()
            zeros, total, layers = 0, 0, {}

            def edit(name: str) -> Iterable[Any]:
                nonlocal zeros, total
                if name not in weights:
                    return [model.whole(name)]
                values = model.array(name)
                pruned = threshold.apply(values) if scope == "global" else zero_below(values, amount)
                count = int(pruned.size - np.count_nonzero(pruned))
                zeros, total = zeros + count, total + pruned.size
                layers[name] = round(count / pruned.size, 4)
                return [tensor(pruned, name)]

            model.write(target, edit)
        return {"zeros": zeros, "weights": total, "reached": zeros / total, "layers": layers}


class Prune24(Compressor):
    name = "prune-2:4"
    version = "1"
    takes = ("onnx",)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del parameters, data, seed
        with OnnxFile(source) as model:
            all_weights = _weights(self.name, model)
            weights = {w.name: w for w in all_weights if w.shape[input_axis(w)] % 4 == 0}
            skipped = [model.model.graph.node[w.node].name or w.name for w in all_weights if w.name not in weights]
            if not weights:
                raise InputError(
                    f"no weight of {source} has a multiple of 4 input channels ({', '.join(skipped[:3])} …):"
                    " 2:4 sparsity has no place in it"
                )
            done = 0

            def edit(name: str) -> Iterable[Any]:
                nonlocal done
                if name not in weights:
                    return [model.whole(name)]
                values = model.array(name)
                done += values.size
                return [tensor(prune_24(values, input_axis(weights[name])), name)]

            model.write(target, edit)
        return {"weights": done, "reached": 0.5, "layers": len(weights), "skipped": skipped}


def input_axis(weight: Weight) -> int:
    """The axis over which a weight's products are summed: input channels."""
    if weight.op == "Conv":
        return 1
    if weight.op == "ConvTranspose":
        return 0
    return len(weight.shape) - 2 if weight.axis == len(weight.shape) - 1 else 1


def _weights(method: str, model: OnnxFile) -> list[Weight]:
    found = model.weights()
    if not found:
        raise InputError(
            f"{model.path} has no float weights of Conv, Gemm or MatMul that {method} could change",
            remedy="Start from the float model: what is already quantised cannot be changed any more.",
        )
    return found
