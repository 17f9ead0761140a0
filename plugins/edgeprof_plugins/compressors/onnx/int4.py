"""Dense layers of ONNX models with 4-bit weights in blocks (ONNX Runtime's MatMulNBits).

This needs a third of the memory traffic where a layer is limited by reading its weights, as in the decoding of language
models. There is no such kernel for convolutions; they stay unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command
from edgeprof_plugins.compressors.onnx.file import OnnxFile, tensor
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.onnx.normal import graphs
from edgeprof_plugins.compressors.onnx.prepare import check_nodes, quantization, quiet
from edgeprof_plugins.compressors.onnx.view import attribute
from edgeprof_plugins.compressors.onnx.weights import weights as weights_of
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx.weights import Weight

    Place = tuple[int, int]  # number of the graph, index of the node

_DOMAIN = "com.microsoft"
#: ``accuracy_level`` of the operator: the type in which it computes.
_LEVELS = {"float32": 1, "int8": 4}


class Int4Weight(Compressor):
    """Makes the weights of dense layers 4-bit integers with a scale and a zero point for each block of inputs."""

    name = "int4-weight"
    changes = ("precision",)
    weight_bits = 4
    version = "1"
    takes = ("onnx",)
    parameters = (
        Parameter("block", "int", default=32, minimum=16, maximum=256, help="weights that share a scale: 16, 32 … 256"),
        Parameter(
            "compute", "str", default="float32", choices=("float32", "int8"), help="what ONNX Runtime multiplies in"
        ),
        Parameter("exclude", "str", default="", help="nodes left as they are, separated by spaces or |"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        block = parameters["block"]
        if block & (block - 1):
            raise InputError(f"int4-weight: block={block} is no power of two", remedy="Use 16, 32, 64, 128 or 256.")
        pack = _make_packer(block)
        excluded = set(check_nodes(source, parameters["exclude"]))
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            dense, left = _dense_nodes(model, excluded)
            if not dense:
                raise InputError(
                    f"int4-weight finds no dense layer with constant float32 weights in {source}"
                    f" ({left} other layers have weights)",
                    remedy="Convolutions: int8-static is small and fast, int8-weight small.",
                )
            transposed = _replace_nodes(model, dense, block, _LEVELS[parameters["compute"]])
            sqnr: dict[str, float | None] = {}

            def edit(name: str) -> Iterable[Any]:
                if name not in transposed:
                    return [model.whole(name)]
                values = model.array(name)
                packed = pack(values.T if transposed[name] else values)
                sqnr[name] = sqnr_db(values.T if not transposed[name] else values, _unpack_weights(packed, values.size))
                return [tensor(part_values, f"{name}_{part}") for part_values, part in zip(packed, _PARTS, strict=True)]

            model.write(target, edit)
        account = inventory.by_weights(transposed, dict.fromkeys(excluded, EXCLUDED), _NOT_DENSE)
        facts = {"layers": len(dense), "left": left, "sqnr_db": sqnr, "worst": worst(sqnr)}
        return {**facts, "excluded": sorted(excluded), "coverage": account}


_NOT_DENSE = "MatMulNBits takes the place of MatMul and Gemm with one matrix of float32 weights on the right, no others"
_PARTS = ("int4", "scales", "zero_points")
#: The most bytes of weights that are packed at a time.
_AT_ONCE = 1 << 28


def _make_packer(block: int) -> Any:
    """Return a function that packs K × N float32 weights as MatMulNBits reads them.

    The result is the nibbles [N, blocks, block / 2], the scales and the zero points [N, blocks].
    """
    quantization()
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError as error:
        raise UnavailableError(
            f"int4-weight needs a newer onnxruntime ({error})", remedy=install_command("onnx-compress", "onnxruntime")
        ) from None
    import onnx

    def pack(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        # Columns are quantised one by one, so a part of them at a time gives the same; a model holds less than 2 GiB.
        count = max(1, _AT_ONCE // (values.shape[0] * values.itemsize))
        parts = [pack_columns(values[:, first : first + count]) for first in range(0, values.shape[1], count)]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def pack_columns(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        rows, columns = values.shape
        helper = onnx.helper
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
            "one",
            [helper.make_tensor_value_info("x", 1, [1, rows])],
            [helper.make_tensor_value_info("y", 1, [1, columns])],
            [tensor(np.ascontiguousarray(values), "w")],
        )
        with quiet():
            tool = MatMulNBitsQuantizer(helper.make_model(graph), bits=4, block_size=block)
            tool.process()
        arrays = {
            tensor_proto.name: onnx.numpy_helper.to_array(tensor_proto)
            for tensor_proto in tool.model.model.graph.initializer
        }
        (node,) = tool.model.model.graph.node
        return tuple(arrays[name] for name in node.input[1:4])

    return pack


def _unpack_weights(parts: tuple[npt.NDArray[Any], ...], size: int) -> npt.NDArray[Any]:
    """Return the weights, N × K, that MatMulNBits computes with: (nibble − zero point) · scale, low nibbles first."""
    packed, scales, zeros = parts
    count = packed.shape[0]

    def nibbles(values: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        return np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], -1).astype(np.float32)

    scales = scales.reshape(count, packed.shape[1])
    points = nibbles(zeros.reshape(count, -1))[:, : packed.shape[1]]
    values: npt.NDArray[Any] = (nibbles(packed) - points[..., None]) * scales[..., None]
    return values.reshape(count, -1)[:, : size // count]


def _dense_nodes(model: OnnxFile, excluded: set[str]) -> tuple[dict[Place, bool], int]:
    """Return nodes that can be replaced → whether their weight is stored N × K; and the number of other weights."""
    weights = {w.name: w for w in weights_of(model)}
    fitting: dict[Place, bool] = {}
    users: dict[str, list[Place]] = {}
    for number, graph in enumerate(graphs(model.model.graph)):
        for index, node in enumerate(graph.node):
            weight = weights.get(node.input[1]) if node.op_type in {"MatMul", "Gemm"} else None
            if (
                weight is not None
                and _plain_weight(node)
                and _float32_matrix(model, weight)
                and node.name not in excluded
            ):
                fitting[number, index] = weight.op == "Gemm" and weight.axis == 0
                users.setdefault(weight.name, []).append((number, index))
    replaced = set()
    for name, places in users.items():
        if weights[name].users != len(places) or len({fitting[place] for place in places}) > 1:
            for place in places:
                del fitting[place]
        else:
            replaced.add(name)
    return fitting, len(weights) - len(replaced)


def _plain_weight(node: Any) -> bool:
    scaled = any(a.name in {"alpha", "beta"} and a.f != 1 for a in node.attribute)
    return attribute(node, "transA", 0) == 0 and not scaled


def _float32_matrix(model: OnnxFile, weight: Weight) -> bool:
    right = weight.position == 1 and weight.direct and len(weight.shape) == 2
    return right and model.header(weight.name).data_type == 1


def _replace_nodes(model: OnnxFile, dense: Mapping[Place, bool], block: int, level: int) -> dict[str, bool]:
    """Insert MatMulNBits (and an Add for the bias of a Gemm); return weight name → whether it is N × K."""
    import onnx

    names: dict[str, bool] = {}
    # Inner graphs first: replacing the nodes of a graph copies the graphs inside them.
    for number, graph in reversed(list(enumerate(graphs(model.model.graph)))):
        dense_here = {index: flipped for (owner, index), flipped in dense.items() if owner == number}
        del graph.value_info[:]
        if dense_here:
            _replace_in(model, graph, dense_here, names, (block, level))
    if not any(opset.domain == _DOMAIN for opset in model.model.opset_import):
        model.model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return names


def _replace_in(
    model: OnnxFile, graph: Any, dense: Mapping[int, bool], names: dict[str, bool], settings: tuple[int, int]
) -> None:
    import onnx

    nodes = []
    block, level = settings
    for index, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if index not in dense:
            nodes.append(copy)
            continue
        weight, flipped = node.input[1], dense[index]
        names[weight] = flipped
        first, second = (int(size) for size in model.header(weight).dims)
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        product = f"{node.output[0]}_product" if bias else node.output[0]
        replacement = onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], *(f"{weight}_{part}" for part in _PARTS)],
            [product],
            name=node.name,
            domain=_DOMAIN,
            K=second if flipped else first,
            N=first if flipped else second,
            bits=4,
            block_size=block,
            accuracy_level=level,
        )
        nodes.append(replacement)
        if bias:
            nodes.append(onnx.helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.output[0]}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
