"""The number of multiply-accumulate operations of ONNX nodes for one sample, from the known shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof_plugins.compressors.onnx.normal import graphs
from edgeprof_plugins.compressors.onnx.weights import Sources, computed_constants, roles

if TYPE_CHECKING:
    from edgeprof_plugins.compressors.onnx.file import OnnxFile

    Shape = tuple[int | None, ...]

#: Constants of up to this many values are passed to shape inference: they are shapes, axes and scales.
_FEW = 16
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
#: Operators that multiply.
OPERATORS = frozenset({
    "Conv", "FusedConv", "DeformConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Einsum",
    "Attention", *_RECURRENT,
})  # fmt: skip


class Work(NamedTuple):
    """A node that multiplies.

    Attributes:
        graph: Number of its graph in ``normal.graphs``.
        node: Its index in that graph.
        name: Its name, or its first output where it has none.
        op: Its operator.
        weights: The initializers that it multiplies with, read directly or after a computation on constants; empty
            where it multiplies two activations.
        macs: Multiply-accumulate operations for one sample; None where a size is not known.
    """

    graph: int
    node: int
    name: str
    op: str
    weights: tuple[str, ...]
    macs: int | None


def work(model: OnnxFile) -> list[Work]:
    """Return every node that multiplies, including nodes of inner graphs.

    Only one branch of an If runs: the branch with the most MACs counts, and the nodes of the others have 0. The body of
    a loop counts as often as it runs where that is a constant or the length of the scanned input; else it is not known.
    """
    sources = Sources(model)
    return _visit_nodes(model.model.graph, 0, 1, _Sizes(model, infer_shapes(model), sources))


def _visit_nodes(graph: Any, number: int, times: int | None, sizes: _Sizes) -> list[Work]:
    """Visit the nodes of a graph and of the graphs inside it, which have the next numbers."""
    works = []
    following = number + 1
    for index, node in enumerate(graph.node):
        if node.op_type in OPERATORS and node.domain in {"", "ai.onnx", "com.microsoft"}:
            macs = _size_product((times, _node_macs(node, sizes)))
            works.append(Work(number, index, node.name or node.output[0], node.op_type, sizes.weights(node), macs))
        branches = []
        inner = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
        for subgraph in inner:
            repeated = _size_product((times, _body_repetitions(node, sizes)))
            branches.append(_visit_nodes(subgraph, following, repeated, sizes))
            following += sum(1 for _ in graphs(subgraph))
        largest = max(range(len(branches)), key=lambda k: _branch_macs(branches[k]), default=0)
        for k, branch in enumerate(branches):
            works += branch if k == largest or node.op_type != "If" else [work._replace(macs=0) for work in branch]
    return works


def _branch_macs(branch: list[Work]) -> float:
    """The MACs of a branch; infinite where they are not known, because that branch may have the most."""
    total = _sum_known(*(work.macs for work in branch))
    return math.inf if total is None else total


def _body_repetitions(node: Any, sizes: _Sizes) -> int | None:
    """How often a node runs its body; None if only the data decide."""
    if node.op_type == "Loop":
        from edgeprof_plugins.runtimes.onnxruntime.layers import never_ends

        body = next(a.g for a in node.attribute if a.name == "body")
        return sizes.number(node.input[0]) if node.input[0] and never_ends(body) else None
    if node.op_type == "Scan":
        count = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
        axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0])
        first = sizes.of(node.input[len(node.input) - count]) if count else None
        return first[axes[0]] if first else None
    return 1 if node.op_type == "If" else None


class _Sizes:
    """Shapes by name, including initializers that are read through a Transpose."""

    def __init__(self, model: OnnxFile, shapes: dict[str, Shape], sources: Sources) -> None:
        self._model, self._shapes, self._sources = model, shapes, sources
        self._computed = computed_constants(model)

    def weights(self, node: Any) -> tuple[str, ...]:
        """Return the initializers that a node multiplies with."""
        places = [node.input[role.position] for role in roles(node)]
        names = [
            (first,) if (first := self._sources.find(name)[0]) else self._computed.get(name, ()) for name in places
        ]
        return tuple(dict.fromkeys(name for group in names for name in group))

    def number(self, name: str) -> int | None:
        """Return a constant number; None for a computed value."""
        from onnx import numpy_helper

        for node in self._model.model.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                values = [numpy_helper.to_array(a.t).reshape(-1) for a in node.attribute if a.name == "value"]
                return int(values[0][0]) if values else None
        return int(self._model.array(name).reshape(-1)[0]) if self._model.has(name) else None

    def of(self, name: str) -> Shape | None:
        initializer, order = self._sources.find(name)
        if not initializer:
            return self._shapes.get(name)
        dims = tuple(int(size) for size in self._model.header(initializer).dims)
        return dims if order is None else tuple(dims[axis] for axis in order)


def _node_macs(node: Any, sizes: _Sizes) -> int | None:
    inputs = [sizes.of(name) if name else None for name in node.input]
    output = sizes.of(node.output[0]) if node.output and node.output[0] else None
    attributes = {a.name: a for a in node.attribute}
    if node.op_type in _RECURRENT:
        return _recurrent_macs(inputs)
    if node.op_type == "Einsum":
        return _einsum_macs(attributes["equation"].s.decode().replace(" ", ""), inputs)
    first, second = (*inputs, None, None)[:2]
    if not first or not second:
        return None
    if node.op_type == "Attention":
        return _attention_macs(first, second)
    if "Conv" in node.op_type:  # also holds for grouped convolutions: the weights have the channels of one group
        places = first if node.op_type == "ConvTranspose" else output
        return None if places is None else _size_product(places[:1], places[2:], second)
    return _matrix_macs(first, second, output, attributes)


def _matrix_macs(first: Shape, second: Shape, output: Shape | None, attributes: dict[str, Any]) -> int | None:
    rows, summed = _turned(first, attributes, "transA")
    inner, columns = _turned(second, attributes, "transB") if len(second) > 1 else (second[0], 1)
    # One factor can supply a size that is open in the other, such as the input of a layer behind an If.
    product = (rows, inner if summed is None else summed, columns)
    batch = first[:-2] if len(second) <= 2 else None if output is None else output[:-2]
    return None if batch is None else _size_product(batch, product)


def _turned(shape: Shape, attributes: dict[str, Any], name: str) -> tuple[int | None, int | None]:
    """Rows and columns of a factor, after a transpose attribute is applied; a vector is one row."""
    rows, columns = shape[-2:] if len(shape) > 1 else (1, shape[0])
    return (columns, rows) if name in attributes and attributes[name].i else (rows, columns)


def _attention_macs(x: Shape, weights: Shape) -> int | None:
    """The MACs of queries, keys and values, plus two products of activations."""
    hidden = None if weights[1] is None else weights[1] // 3
    return _sum_known(
        _size_product(x, weights[1:]), _size_product((2,), x[:-1], (x[-2] if len(x) > 1 else None, hidden))
    )


def _recurrent_macs(inputs: list[Shape | None]) -> int | None:
    x, w, r = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or r is None:
        return None
    # The first two axes are steps and batch, in either order.
    return _sum_known(_size_product(x[:2], w), _size_product(x[:2], r))


def _einsum_macs(equation: str, inputs: list[Shape | None]) -> int | None:
    terms = equation.partition("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, inputs, strict=False):
        if shape is None or len(term) != len(shape):
            return None
        sizes.update(zip(term, shape, strict=True))
    return _size_product(tuple(sizes.values())) if len(terms) == 2 else None


def _size_product(*shapes: Shape) -> int | None:
    sizes = [size for shape in shapes for size in shape]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _sum_known(*counts: int | None) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)


def _take_batch(graph: Any, batch: int | None) -> None:
    if batch is None:
        return
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 1 and not dims[0].dim_value:
            dims[0].dim_value = batch
    for value in graph.output:  # the declared shapes have an open batch, which contradicts the inferred one
        value.type.tensor_type.ClearField("shape")


def infer_shapes(model: OnnxFile, *, batch: int | None = 1) -> dict[str, Shape]:
    """Return shapes by name, in all graphs, as far as they can be inferred without the values of large weights.

    Args:
        model: The file.
        batch: The size to use for an open first axis of the inputs; None leaves it open.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model.model)
    for graph in graphs(copy.graph):
        del graph.value_info[:]
    _take_batch(copy.graph, batch)
    declared = {value.name for value in copy.graph.input}
    for name in model.order:
        proto = model.header(name)
        if len(proto.dims) <= 1 and math.prod(proto.dims) <= _FEW:  # shapes, axes, scales
            copy.graph.initializer.append(model.dense(name))
        elif name not in declared:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(name, proto.data_type, list(proto.dims)))
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    shapes: dict[str, Shape] = {}
    for graph in graphs(inferred.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            if info.type.tensor_type.HasField("shape"):
                shapes.setdefault(info.name, tuple(
                    int(dim.dim_value) if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim
                ))  # fmt: skip
    return shapes
