"""Weight sharing: each weight of a layer becomes one of n values.

The weights stay floats, so any runtime runs the model as before and no faster. With few distinct values the file
compresses well (zip), and ``store=codebook`` makes the file itself small: it stores one byte per weight and a table,
which is looked up once when the model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.file import OnnxFile, tensor
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.shared import kmeans
from edgeprof_plugins.compressors.shared.kmeans import codebook, nearest
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset


class Cluster(Compressor):
    """Replaces each layer's weights with ``n`` codebook values (``shared.kmeans``), as floats or indices of a table."""

    name = "cluster"
    changes = ("values",)
    version = "1"
    takes = ("onnx",)
    parameters = (
        kmeans.COUNT,
        Parameter(
            "store",
            "str",
            default="values",
            choices=("values", "codebook"),
            help="floats that pack well, or one byte a weight and a table",
        ),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed  # k-means starts from the distribution of the weights, so nothing is random
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            weights = {w.name: w for w in model.weights() if np.prod(w.shape) > parameters["n"]}
            if not weights:
                raise InputError(
                    f"{source} has no float weights of layers that multiply with more than {parameters['n']} values",
                    remedy="Start from the float model.",
                )
            packed = parameters["store"] == "codebook"
            sqnr: dict[str, float | None] = {}
            changed: list[str] = []

            def edit(name: str) -> Iterable[Any]:
                if name not in weights:
                    return [model.whole(name)]
                values = model.array(name)
                codes = codebook(values, parameters["n"])
                index = nearest(values, codes)
                shared = codes[index].astype(values.dtype)
                sqnr[name] = sqnr_db(values, shared)
                if packed or (shared != values).any():
                    changed.append(name)
                if packed:
                    table = tensor(codes.astype(values.dtype), f"{name}_codes")
                    return [tensor(index.astype(np.uint8), f"{name}_index"), table]
                return [model.stored(name, shared)]

            if packed:
                _look_up(model.model.graph, weights)
            model.write(target, edit)
        few = f"it has no more than {parameters['n']} values"
        account = inventory.by_weights(changed, otherwise=few)
        facts = {"layers": len(weights), "n": parameters["n"], "sqnr_db": sqnr, "worst": worst(sqnr)}
        return {**facts, "coverage": account}


def _look_up(graph: Any, names: Iterable[str]) -> None:
    """Compute ``name`` = codes[index]; runtimes fold it when the model is loaded, because both are constants."""
    import onnx

    nodes = []
    for name in names:
        nodes.append(onnx.helper.make_node("Cast", [f"{name}_index"], [f"{name}_wide"], name=f"{name}_cast", to=6))
        nodes.append(onnx.helper.make_node("Gather", [f"{name}_codes", f"{name}_wide"], [name], name=f"{name}_lookup"))
    prepend(graph, nodes, set(names))


def prepend(graph: Any, new_nodes: list[Any], names: set[str]) -> None:
    """Insert nodes before all others, and remove their outputs from the inputs (old files list initializers there)."""
    copies = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*new_nodes, *copies])
    for position in reversed(range(len(graph.input))):
        if graph.input[position].name in names:
            del graph.input[position]
