"""Zeros and shared weights in TFLite files, float or already quantised to int8: changed in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.kmeans import codebook, nearest
from edgeprof_plugins.compressors.magnitude import Counter, sqnr_db, worst, zero_below
from edgeprof_plugins.compressors.tflite_file import TfliteFile, TfliteWeight, copy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset

_KNOWN = {"float32", "float16", "int8"}


class Prune(Compressor):
    name = "prune"
    version = "1"
    takes = ("tflite",)
    parameters = (
        Parameter("amount", "float", default=0.5, minimum=0.0, maximum=0.99, help="share of the weights set to zero"),
        Parameter(
            "scope", "str", default="layer", choices=("global", "layer"), help="one threshold a layer, or one for all"
        ),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        amount = parameters["amount"]
        zeros, total, layers = 0, 0, {}
        with copy(source, target) as model:
            weights = _weights(self.name, model, source, target)
            counter = Counter()
            if parameters["scope"] == "global":
                for weight in weights:
                    counter.add(_real(model, weight))
                counter.settle(amount)
                for weight in weights:
                    counter.refine(_real(model, weight))
            threshold = counter.threshold()
            for weight in weights:
                real = _real(model, weight)
                kept = threshold.apply(real) if parameters["scope"] == "global" else zero_below(real, amount)
                values = model.values(weight)
                values[kept == 0] = 0  # int8 weights are symmetric: their zero point is 0
                count = int(values.size - np.count_nonzero(values))
                zeros, total = zeros + count, total + values.size
                layers[weight.name] = round(count / values.size, 4)
        return {"zeros": zeros, "weights": total, "reached": zeros / total, "layers": layers}


class Cluster(Compressor):
    name = "cluster"
    version = "1"
    takes = ("tflite",)
    parameters = (
        Parameter("n", "int", default=16, minimum=2, maximum=256, help="distinct values of each layer's weights"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        sqnr: dict[str, float | None] = {}
        with copy(source, target) as model:
            weights = [w for w in _weights(self.name, model, source, target) if np.prod(w.shape) > parameters["n"]]
            for weight in weights:
                values = model.values(weight)
                codes = codebook(values, parameters["n"])
                if weight.dtype == "int8":
                    codes = np.unique(np.rint(codes)).astype(np.float32)
                shared = codes[nearest(values, codes)].astype(values.dtype)
                sqnr[weight.name] = sqnr_db(values.astype(np.float32), shared.astype(np.float32))
                values[...] = shared
        return {"layers": len(weights), "n": parameters["n"], "sqnr_db": sqnr, "worst": worst(sqnr)}


def _weights(method: str, model: TfliteFile, source: Path, target: Path) -> list[TfliteWeight]:
    found = model.weights()
    usable = [w for w in found if w.dtype in _KNOWN]
    if usable:
        return usable
    target.unlink(missing_ok=True)
    types = ", ".join(sorted({w.dtype for w in found})) or "none"
    raise InputError(
        f"{method} finds no weights that it could change in {source} (weights: {types}; it changes float32, float16"
        " and int8)",
        remedy="Start from the float model.",
    )


def _real(model: TfliteFile, weight: TfliteWeight) -> npt.NDArray[Any]:
    """The weights' true magnitudes: an int8 weight times the scale of its channel."""
    values: npt.NDArray[Any] = model.values(weight).astype(np.float32)
    if not weight.scales or weight.dtype != "int8":
        return values
    shape = [1] * values.ndim
    if len(weight.scales) > 1:
        shape[weight.axis] = -1
    scaled: npt.NDArray[Any] = values * np.asarray(weight.scales, np.float32).reshape(shape)
    return scaled
