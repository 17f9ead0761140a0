"""Low-rank factors of ONNX layers: two small layers replace a large one.

This saves weights only where the rank r is below m·n / (m + n); other layers stay unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.file import OnnxFile, tensor
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.onnx.normal import graphs
from edgeprof_plugins.compressors.shared.factors import PARAMETERS, check, factors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx.weights import Weight

    Matrix = npt.NDArray[Any]

#: The first operator set whose Gemm needs no bias.
_GEMM_WITHOUT_BIAS = 11


class LowRank(Compressor):
    """Replaces a layer with two smaller ones whose product is nearest to its weights (``shared.factors``)."""

    name = "low-rank"
    changes = ("rank",)
    version = "3"
    takes = ("onnx",)
    parameters = PARAMETERS

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        check(parameters)
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            why = {w.name: _why_not(model, w) for w in model.weights()}
            weights = {w.name: w for w in model.weights() if not why[w.name]}
            layers: dict[str, dict[str, Any]] = {}
            unchanged: dict[str, str] = {}
            plans: dict[tuple[int, int], tuple[str, str]] = {}
            changed: list[str] = []

            def edit(name: str) -> Iterable[Any]:
                weight = weights.get(name)
                if weight is None:
                    return [model.whole(name)]
                node, values = model.node(weight), model.array(name)
                matrix = _weight_matrix(weight, values if values.dtype.itemsize > 4 else values.astype(np.float32))
                left, right, share = factors(matrix, parameters)
                size, limit = left.shape[1], matrix.size / sum(matrix.shape)
                label = node.name or name
                if size >= limit:
                    unchanged[label] = why[name] = (
                        f"rank {size} of {min(matrix.shape)} would not be smaller (limit {limit:.0f})"
                    )
                    return [model.whole(name)]
                layers[label] = {"rank": size, "of": min(matrix.shape), "energy": round(share, 5)}
                changed.append(name)
                plans[weight.graph, weight.node] = (f"{name}_first", f"{name}_second")
                first, second = _stored_factors(weight, values, left, right)
                return [tensor(first, f"{name}_first"), tensor(second, f"{name}_second")]

            # Weights are factored first, in file order, because only then is it known which layers are split.
            factored = {name: list(edit(name)) for name in list(weights)}
            if not layers:
                why_not = "; ".join(f"{layer}: {why}" for layer, why in list(unchanged.items())[:3])
                raise InputError(
                    f"no layer of {source} gets smaller"
                    f" ({why_not or 'it has no dense or ungrouped convolution weights'})",
                    remedy="Keep less: a smaller energy or rank.",
                )
            # Inner graphs first: replacing the nodes of a graph copies the graphs inside them.
            for number, graph in reversed(list(enumerate(graphs(model.model.graph)))):
                _split_nodes(model, graph, {node: names for (owner, node), names in plans.items() if owner == number})
                del graph.value_info[:]
            model.write(target, lambda name: factored.pop(name, None) or [model.whole(name)])
        return {"layers": layers, "kept": unchanged, "coverage": inventory.by_weights(changed, why)}


def _why_not(model: OnnxFile, weight: Weight) -> str:
    """Why a layer cannot be split in two; "" where it can."""
    if weight.op not in {"Conv", "Gemm", "MatMul"}:
        return f"low-rank splits no {weight.op}"
    if weight.users != 1:
        return "several nodes use its weights"
    if weight.position != 1 or not weight.direct:
        return "its weights are the first factor, or are turned before they are used"
    if weight.op == "Conv":
        grouped = any(a.name == "group" and a.i != 1 for a in model.node(weight).attribute)
        return "a grouped convolution" if grouped else ""
    return "" if len(weight.shape) == 2 else "it multiplies with more than one matrix"


def _weight_matrix(weight: Weight, values: Matrix) -> Matrix:
    """The weights as a matrix of outputs × inputs."""
    return values.reshape(weight.shape[0], -1) if weight.axis == 0 else values.T


def _stored_factors(weight: Weight, values: Matrix, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """The two weights in the layout that their operators expect: the one applied first, then the second."""
    rank = left.shape[1]
    if weight.op == "Conv":
        first = right.reshape(rank, *values.shape[1:])
        second = left.reshape(values.shape[0], rank, *([1] * (values.ndim - 2)))
    elif weight.axis == 0:  # Gemm with transB
        first, second = right, left
    else:
        first, second = right.T, left.T
    return np.array(first, values.dtype, order="C"), np.array(second, values.dtype, order="C")


def _split_nodes(model: OnnxFile, graph: Any, plans: Mapping[int, tuple[str, str]]) -> None:
    """Replace each planned node with two nodes."""
    import onnx

    if not plans:
        return
    nodes: list[Any] = []
    for index, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if index not in plans:
            nodes.append(copy)
            continue
        first_weight, second_weight = plans[index]
        middle = f"{node.output[0]}_low_rank"
        first, second = copy, onnx.NodeProto()
        second.CopyFrom(node)
        # Node names are optional but unique; an output always has a name.
        name = node.name or node.output[0]
        first.name, second.name = f"{name}_first", f"{name}_second"
        del first.input[:], first.output[:]
        first.input.extend([node.input[0], first_weight])
        if node.op_type == "Gemm" and model.opset() < _GEMM_WITHOUT_BIAS:
            first.input.append(_zero_bias(model, node.input[1], f"{first_weight}_bias"))
        first.output.append(middle)
        second.input[0], second.input[1] = middle, second_weight
        _split_attributes(node, first, second)
        nodes += [first, second]
    del graph.node[:]
    graph.node.extend(nodes)


def _zero_bias(model: OnnxFile, weight: str, name: str) -> str:
    """Add a zero bias of the weight's type, and return its name."""
    model.add(tensor(np.zeros(1, model.array(weight).dtype), name))
    return name


def _split_attributes(node: Any, first: Any, second: Any) -> None:
    """Give the geometry attributes to the first node, and bias and scale attributes to the second."""
    if node.op_type == "Conv":
        del second.attribute[:]
        rank = next((len(a.ints) for a in node.attribute if a.name == "kernel_shape"), None)
        if rank is not None:
            import onnx

            second.attribute.append(onnx.helper.make_attribute("kernel_shape", [1] * rank))
    elif node.op_type == "Gemm":
        transposes = [a for a in first.attribute if a.name in {"transA", "transB"}]
        copies = [type(a).FromString(a.SerializeToString()) for a in transposes]
        del first.attribute[:]
        first.attribute.extend(copies)
        for attribute in second.attribute:
            if attribute.name == "transA":
                attribute.i = 0
