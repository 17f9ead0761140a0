"""Which tensors of an ONNX graph are weights, and which axes of theirs are outputs and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof_plugins.compressors.onnx.normal import FLOATS, graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof_plugins.compressors.onnx.tensors import Tensors


class Role(NamedTuple):
    """One of a node's inputs that is a weight, with the axes of its output and of its input channels."""

    position: int
    outputs: int
    inputs: int


#: Operator → its weights. A matrix product may have its weights on either side.
ROLES: dict[str, tuple[Role, ...]] = {
    "Conv": (Role(1, 0, 1),),
    "FusedConv": (Role(1, 0, 1),),
    "DeformConv": (Role(1, 0, 1),),
    "ConvTranspose": (Role(1, 1, 0),),
    "Gemm": (Role(1, 1, 0), Role(0, 0, 1)),
    "FusedGemm": (Role(1, 1, 0), Role(0, 0, 1)),
    "MatMul": (Role(1, -1, -2), Role(0, -2, -1)),
    "FusedMatMul": (Role(1, -1, -2), Role(0, -2, -1)),
    "LSTM": (Role(1, 1, 2), Role(2, 1, 2)),
    "GRU": (Role(1, 1, 2), Role(2, 1, 2)),
    "RNN": (Role(1, 1, 2), Role(2, 1, 2)),
    "Attention": (Role(1, 1, 0),),
}
#: ONNX's own operator of this name has no weights; ONNX Runtime's has.
_DOMAINS = {"Attention": "com.microsoft"}
#: Attribute that turns an input round → its position.
_TURNED = {"transA": 0, "transB": 1}


@dataclass(frozen=True)
class Weight:
    """A weight of a graph and where it is used.

    Attributes:
        name: Of the initializer.
        graph: Number of the graph in ``normal.graphs`` in which the first node is that uses it.
        node: That node's index in it.
        op: That node's operator.
        position: Of the node's input that it is.
        axis: Of its output channels.
        inner: Of its input channels, over which products are summed.
        shape: Its own.
        users: How many nodes use it.
        direct: Whether the node reads it as it is, and not through a Transpose or an Identity.
    """

    name: str
    graph: int
    node: int
    op: str
    position: int
    axis: int
    inner: int
    shape: tuple[int, ...]
    users: int
    direct: bool = True


def weights(model: Tensors, kinds: frozenset[int] = FLOATS) -> list[Weight]:
    """The weights of layers that multiply, in the order of the graph; each once, whatever graph it is read in.

    Args:
        model: The file.
        kinds: TensorProto.DataType of the weights that are wanted.
    """
    readers, sources = count_readers(model), Sources(model)
    weights_by_name: dict[str, Weight] = {}
    for number, graph in enumerate(graphs(model.model.graph)):
        for index, node in enumerate(graph.node):
            for role in roles(node):
                name, order = sources.find(node.input[role.position])
                if not name or name in weights_by_name:
                    continue
                proto = model.header(name)
                shape = tuple(int(size) for size in proto.dims)
                if proto.data_type not in kinds or len(shape) < 2:
                    continue
                axes = [(order or range(len(shape)))[axis] for axis in (role.outputs, role.inputs)]
                weights_by_name[name] = Weight(
                    name, number, index, node.op_type, role.position, axes[0], axes[1], shape, readers[name],
                    direct=order is None,
                )  # fmt: skip
    return list(weights_by_name.values())


def roles(node: Any) -> Iterator[Role]:
    """The places in which a node has weights, as its own attributes turn them."""
    if node.domain not in {"", "ai.onnx", "com.microsoft"} or node.domain != _DOMAINS.get(node.op_type, node.domain):
        return
    turned = {_TURNED[a.name] for a in node.attribute if a.name in _TURNED and a.i}
    for role in _einsum_places(node) if node.op_type == "Einsum" else ROLES.get(node.op_type, ()):
        if role.position < len(node.input) and node.input[role.position]:
            flipped = role.position in turned
            yield Role(role.position, role.inputs, role.outputs) if flipped else role


def _einsum_places(node: Any) -> Iterator[Role]:
    """The places of a product of two operands: summed over what both have and the result has not."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    operands, arrow, result = equation.partition("->")
    terms = operands.split(",")
    if len(terms) != 2 or not arrow or "." in equation:
        return
    for position in (1, 0):
        letters, other = terms[position], terms[1 - position]
        summed = [k for k, letter in enumerate(letters) if letter in other and letter not in result]
        produced = [k for k, letter in enumerate(letters) if letter not in other and letter in result]
        if summed and produced:
            yield Role(position, produced[-1], summed[0])


class Sources:
    """Which initializer a tensor is, read directly or through Transpose, Identity, Dropout and Cast.

    Args:
        model: The file.
    """

    def __init__(self, model: Tensors) -> None:
        self._model = model
        self._makers = {
            node.output[0]: node
            for graph in graphs(model.model.graph)
            for node in graph.node
            if node.op_type in {"Transpose", "Identity", "Dropout", "Cast"} and node.input and node.output
        }

    def find(self, name: str) -> tuple[str, list[int] | None]:
        """The initializer's name ("" for what is computed), and for each axis of the tensor that of the initializer;
        None where the tensor is the initializer itself.
        """
        path = []
        while not self._model.has(name):
            node = self._makers.get(name)
            if node is None:
                return "", None
            path.append(node)
            name = node.input[0]
        if not path:
            return name, None
        order = list(range(len(self._model.header(name).dims)))
        for node in reversed(path):
            if node.op_type == "Transpose":
                perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
                order = order[::-1] if perm is None else [order[axis] for axis in perm]
        return name, order


def count_readers(model: Tensors) -> dict[str, int]:
    """Tensor → how many inputs of nodes it is, those in inner graphs included."""
    counts: dict[str, int] = {}
    for graph in graphs(model.model.graph):
        for node in graph.node:
            for name in node.input:
                counts[name] = counts.get(name, 0) + 1
    return counts
