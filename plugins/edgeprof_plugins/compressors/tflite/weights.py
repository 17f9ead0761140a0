"""Pruning and weight sharing in place for TFLite files, float or already quantised to int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared import kmeans, magnitude
from edgeprof_plugins.compressors.shared.kmeans import codebook, nearest
from edgeprof_plugins.compressors.shared.magnitude import Pruning, sqnr_db, worst
from edgeprof_plugins.compressors.tflite.file import TfliteFile, TfliteWeight, copy
from edgeprof_plugins.compressors.tflite.layers import Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset

_KNOWN = {"float32", "float16", "float64", "int8"}
_UNKNOWN = "its weights are sparse, or of a type that is not changed in place"


class Prune(Compressor):
    """Sets the share ``amount`` of the weights, those with the smallest magnitudes, to zero, also in int8 files."""

    name = "prune"
    changes = ("sparsity",)
    version = "1"
    takes = ("tflite",)
    parameters = magnitude.PARAMETERS

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        with copy(source, target) as model:
            inventory = Inventory(model)
            weights = _constant_weights(self.name, model, source, target)
            names: set[str] = set()
            pruning = Pruning.of(parameters, lambda: (_real_magnitudes(model, weight) for weight in weights))
            changed = []
            for weight in weights:
                key = f"{weight.name or weight.op} in buffer {weight.buffer}" if weight.name in names else weight.name
                names.add(weight.name)
                # Symmetric int8 weights have their zero point at 0.
                model.values(weight)[pruning.prune(key, _real_magnitudes(model, weight)) == 0] = 0
                changed += [weight.buffer] if pruning.changed[key] else []
        left = {weight.buffer: "it has as many zeros already" for weight in weights}
        return {**pruning.facts(), "coverage": inventory.by_buffers(changed, left, _UNKNOWN)}


class Cluster(Compressor):
    """Replaces each layer's weights with the ``n`` values of a codebook (``shared.kmeans``)."""

    name = "cluster"
    changes = ("values",)
    version = "1"
    takes = ("tflite",)
    parameters = (kmeans.COUNT,)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        sqnr: dict[str, float | None] = {}
        with copy(source, target) as model:
            inventory = Inventory(model)
            usable = _constant_weights(self.name, model, source, target)
            weights = [w for w in usable if np.prod(w.shape) > parameters["n"]]
            changed = []
            for weight in weights:
                values = model.values(weight)
                codes = codebook(values, parameters["n"])
                if weight.dtype == "int8":
                    codes = np.unique(np.rint(codes)).astype(np.float32)
                shared = codes[nearest(values, codes)].astype(values.dtype)
                sqnr[weight.name] = sqnr_db(values.astype(np.float32), shared.astype(np.float32))
                changed += [weight.buffer] if (shared != values).any() else []
                values[...] = shared
        facts = {"layers": len(weights), "n": parameters["n"], "sqnr_db": sqnr, "worst": worst(sqnr)}
        few = {weight.buffer: f"it has no more than {parameters['n']} values" for weight in usable}
        return {**facts, "coverage": inventory.by_buffers(changed, few, _UNKNOWN)}


def _constant_weights(method: str, model: TfliteFile, source: Path, target: Path) -> list[TfliteWeight]:
    weights = model.weights()
    usable = [w for w in weights if w.dtype in _KNOWN and not w.sparse]
    if usable:
        return usable
    target.unlink(missing_ok=True)
    types = ", ".join(sorted({w.dtype for w in weights})) or "none"
    raise InputError(
        f"{method} finds no weights that it could change in {source} (weights: {types}; it changes float32, float16"
        " and int8)",
        remedy="Start from the float model.",
    )


def _real_magnitudes(model: TfliteFile, weight: TfliteWeight) -> npt.NDArray[Any]:
    """The real values of the weights: an int8 weight is multiplied with the scale of its channel."""
    kind = np.float64 if weight.dtype == "float64" else np.float32
    values: npt.NDArray[Any] = model.values(weight).astype(kind)
    if not weight.scales or weight.dtype != "int8":
        return values
    shape = [1] * values.ndim
    if len(weight.scales) > 1:
        shape[weight.axis] = -1
    scaled: npt.NDArray[Any] = values * np.asarray(weight.scales, np.float32).reshape(shape)
    return scaled
