"""Which tensors of an ONNX graph are weights, and which of their axes are outputs and inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof_plugins.compressors.onnx.normal import FLOATS, graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof_plugins.compressors.onnx.tensors import Tensors


class Role(NamedTuple):
    """The position of a weight among a node's inputs, and the weight's output-channel and input-channel axes."""

    position: int
    outputs: int
    inputs: int


#: Operator → the roles of its weights. A matrix product may have its weight on either side.
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
#: The standard ONNX operator of this name has no weights; ONNX Runtime's operator has.
_DOMAINS = {"Attention": "com.microsoft"}
#: Attribute that transposes an input → the position of that input.
_TURNED = {"transA": 0, "transB": 1}


@dataclass(frozen=True)
class Weight:
    """A weight of a graph and where it is used.

    Attributes:
        name: The name of the initializer.
        graph: Number of the graph in ``normal.graphs`` that contains the first node that uses the weight.
        node: The index of that node in the graph.
        op: The operator of that node.
        position: The position of the weight among the node's inputs.
        axis: The axis of the output channels.
        inner: The axis of the input channels, over which products are summed.
        shape: The shape of the initializer.
        users: The number of node inputs that read the weight.
        direct: Whether the node reads the weight directly, not through a Transpose or an Identity.
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
    """Return the weights of layers that multiply, in graph order, each once even if several graphs read it.

    Weights without values (a dimension is 0) are left out.

    Args:
        model: The file.
        kinds: TensorProto.DataType values of the weights to return.
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
                if proto.data_type not in kinds or len(shape) < 2 or not math.prod(shape):
                    continue
                axes = [(order or range(len(shape)))[axis] for axis in (role.outputs, role.inputs)]
                weights_by_name[name] = Weight(
                    name, number, index, node.op_type, role.position, axes[0], axes[1], shape, readers[name],
                    direct=order is None,
                )  # fmt: skip
    return list(weights_by_name.values())


def roles(node: Any) -> Iterator[Role]:
    """Yield the roles of the inputs where a node may have weights, after its transpose attributes are applied."""
    if node.domain not in {"", "ai.onnx", "com.microsoft"} or node.domain != _DOMAINS.get(node.op_type, node.domain):
        return
    turned = {_TURNED[a.name] for a in node.attribute if a.name in _TURNED and a.i}
    for role in _einsum_places(node) if node.op_type == "Einsum" else ROLES.get(node.op_type, ()):
        if role.position < len(node.input) and node.input[role.position]:
            flipped = role.position in turned
            yield Role(role.position, role.inputs, role.outputs) if flipped else role


def _einsum_places(node: Any) -> Iterator[Role]:
    """Yield the roles for an Einsum of two operands, which sums over letters in both operands but not in the result."""
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
    """Finds the initializer behind a tensor that is read directly or through Transpose, Identity, Dropout and Cast.

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
        """Return the name of the initializer behind a tensor ("" where it is computed) and the order of its axes.

        The order gives, for each axis of the tensor, the axis of the initializer; it is None where the tensor is the
        initializer itself.
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


def computed_constants(model: Tensors) -> dict[str, tuple[str, ...]]:
    """Return tensor → the initializers that hold its values, for each tensor that depends on constants only.

    Examples are integers with a scale, and a table with indices. Of the constants that an operator joins, the largest
    holds the values; a Concat joins all of them.
    """

    def size(names: tuple[str, ...]) -> int:
        return sum(math.prod(model.header(name).dims) for name in names)

    known: dict[str, tuple[str, ...]] = {name: (name,) for name in model.order}
    for graph in graphs(model.model.graph):  # the nodes of a graph are in the order in which they run
        for node in graph.node:
            given = [known.get(name) for name in node.input if name]
            constants = [names for names in given if names is not None]
            # The graphs inside a node also read tensors that are not among its inputs.
            has_graphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
            if has_graphs or len(constants) < len(given) or not (given or node.op_type == "Constant"):
                continue
            joined = constants if node.op_type == "Concat" else sorted(constants, key=size)[-1:]
            known.update(dict.fromkeys(node.output, tuple(dict.fromkeys(name for names in joined for name in names))))
    return known


def count_readers(model: Tensors) -> dict[str, int]:
    """Return tensor → how many node inputs read it, including nodes in inner graphs."""
    counts: dict[str, int] = {}
    for graph in graphs(model.model.graph):
        for node in graph.node:
            for name in node.input:
                counts[name] = counts.get(name, 0) + 1
    return counts
