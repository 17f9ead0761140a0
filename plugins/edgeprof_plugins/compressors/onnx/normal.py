"""The normal form in which compressors receive an ONNX graph: every weight is an initializer of the main graph.

Exporters also put weights into Constant nodes, into the branches of an If and the body of a Loop, into local functions
of the model, and behind a Transpose, an Identity or a Reshape. The changes made here do not change the results.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from edgeprof_plugins.compressors.onnx.tensors import Tensors

#: The TensorProto.DataType values of real numbers: FLOAT, FLOAT16, DOUBLE, BFLOAT16.
FLOATS = frozenset({1, 10, 11, 16})
#: Constants of other types are also weights if they have more values than this.
_FEW = 64


def normalise(model: Tensors) -> None:
    """Bring a model that was just read into the normal form."""
    if model.model.functions:
        _inline_functions(model)
    _separate_names(model)
    for graph in graphs(model.model.graph):
        _lift_weights(model, graph, inner=graph is not model.model.graph)
    _settle_inputs(model)
    _fold_rearrangements(model)


def graphs(graph: Any) -> Iterator[Any]:
    """Iterate over a graph and the graphs inside its nodes (branches and bodies), outer graphs first."""
    yield graph
    for node in graph.node:
        for inner in _inner_graphs(node):
            yield from graphs(inner)


def _separate_names(model: Tensors) -> None:
    """Give each tensor of the inner graphs a unique name, because two branches may use the same name."""
    taken = {*model.order, *_all_names(model.model.graph)}
    for node in model.model.graph.node:
        for graph in _inner_graphs(node):
            _rename_definitions(graph, {}, taken)


def _rename_definitions(graph: Any, outer: dict[str, str], taken: set[str]) -> None:
    """Rename the tensors of a graph; ``outer`` maps tensors that enclosing graphs define to their new names."""
    names = dict(outer)
    for name in filter(None, _all_names(graph)):
        new, number = name, 0
        while new in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new)
        names[name] = new
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names[sparse.values.name]
    del graph.value_info[:]
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
        for inner in _inner_graphs(node):
            _rename_definitions(inner, names, taken)


def _inner_graphs(node: Any) -> list[Any]:
    """The branches or the body of a node."""
    return [graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)]


def _inline_functions(model: Tensors) -> None:
    """Replace calls of the model's local functions with their nodes."""
    from onnx import inliner

    model.model = inliner.inline_local_functions(model.model)


def _lift_weights(model: Tensors, graph: Any, *, inner: bool) -> None:
    """Move the weights of a graph to the main graph: its Constant nodes and, for an inner graph, its initializers."""
    outputs = {value.name for value in graph.output}
    constants = {}
    for index, node in enumerate(graph.node):
        content = _constant_tensor(node)
        if content is not None and not (inner and node.output[0] in outputs) and _is_weight(content):
            constants[index] = type(node).FromString(node.SerializeToString())
    for index in sorted(constants, reverse=True):
        del graph.node[index]
    for node in constants.values():
        _adopt_initializer(model, graph, _constant_tensor(node), node.output[0], inner=inner)
    if inner:
        for field in ("initializer", "sparse_initializer"):
            _lift_initializers(model, graph, field, outputs)


def _lift_initializers(model: Tensors, graph: Any, field: str, outputs: set[str]) -> None:
    protos = [type(proto).FromString(proto.SerializeToString()) for proto in getattr(graph, field)]
    del getattr(graph, field)[:]
    for proto in protos:
        name = proto.name if field == "initializer" else proto.values.name
        if name in outputs or not _is_weight(proto):
            getattr(graph, field).append(proto)
        else:
            _adopt_initializer(model, graph, proto, name, inner=True)


def _constant_tensor(node: Any) -> Any:
    """Return the tensor of a Constant node, sparse or dense; None for other nodes, single numbers and strings."""
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name == "sparse_value":
            return attribute.sparse_tensor
    return None


def _is_weight(content: Any) -> bool:
    kind = content.values.data_type if hasattr(content, "values") else content.data_type
    return math.prod(int(size) for size in content.dims) > (1 if kind in FLOATS else _FEW)


def _adopt_initializer(model: Tensors, graph: Any, content: Any, name: str, *, inner: bool) -> None:
    """Add an initializer under a unique name, and make the graph read it under that name."""
    free = _free_name(model, name) if inner else name
    if hasattr(content, "values"):
        model.add_sparse(content, free)
    else:
        copy = type(content).FromString(content.SerializeToString())
        copy.name = free
        model.add(copy)
    if free != name:
        for subgraph in graphs(graph):
            _rename_tensor(subgraph, name, free)


def _rename_tensor(graph: Any, name: str, new: str) -> None:
    for node in graph.node:
        for index, input_name in enumerate(node.input):
            if input_name == name:
                node.input[index] = new


def _free_name(model: Tensors, name: str) -> str:
    """Return a name that no graph of the model uses yet, because several branches may use one name for a weight."""
    taken = {*model.order, *(taken_name for graph in graphs(model.model.graph) for taken_name in _all_names(graph))}
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _all_names(graph: Any) -> list[str]:
    names = [value.name for value in (*graph.input, *graph.initializer)]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    return names + [output for node in graph.node for output in node.output]


def _settle_inputs(model: Tensors) -> None:
    """Remove initializers from the inputs (IR version 3 lists them there): changed shapes would contradict them."""
    graph = model.model.graph
    inputs = [value for value in graph.input if not model.has(value.name)]
    if len(inputs) != len(graph.input):
        copies = [type(value).FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(copies)
    model.model.ir_version = max(model.model.ir_version, 4)


def _fold_rearrangements(model: Tensors) -> None:
    """Apply operators that only rearrange a weight to the weight itself, so that it has the shape in which it is used.

    A weight with other readers keeps its operator, because it would be stored twice otherwise (for example a word
    table that is transposed for the last layer).
    """
    from onnx import numpy_helper

    outputs = {value.name for value in model.model.graph.output}
    readers = _readers_by_tensor(model)
    for graph in graphs(model.model.graph):
        fixed = outputs.union(value.name for value in graph.output)
        gone = []
        for index, node in enumerate(graph.node):
            values = (
                None
                if node.output[0] in fixed or not _is_foldable(model, node, readers)
                else _moved_constant(model, node)
            )
            if values is not None:
                model.add(numpy_helper.from_array(values, node.output[0]))
                gone.append(index)
        for index in reversed(gone):
            del graph.node[index]
    used = set(_readers_by_tensor(model)) | outputs
    for name in [
        constant_name for constant_name in model.order if constant_name not in used and constant_name in readers
    ]:
        model.remove(name)


def _is_foldable(model: Tensors, node: Any, readers: dict[str, list[str]]) -> bool:
    if not node.input or not model.has(node.input[0]):
        return False
    proto = model.header(node.input[0])
    return proto.data_type in FLOATS and (len(readers[node.input[0]]) == 1 or math.prod(proto.dims) <= _FEW)


def _moved_constant(model: Tensors, node: Any) -> npt.NDArray[Any] | None:
    """Return the output of a node that only rearranges constants; None for any other node or a computed input."""
    constant = all(model.has(name) for name in node.input if name)
    if node.domain not in {"", "ai.onnx"} or node.op_type not in _MOVES or not constant:
        return None
    moved: npt.NDArray[Any] = _MOVES[node.op_type](model, node, model.array(node.input[0]))
    return moved


def _transposed_constant(model: Tensors, node: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    del model
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
    return np.array(values.transpose(order), order="C")  # ascontiguousarray would turn a scalar into a vector


def _reshaped_constant(model: Tensors, node: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    sizes = _read_integers(model, node, "shape") or []
    if not any(a.name == "allowzero" and a.i for a in node.attribute):
        sizes = [values.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    return values.reshape(sizes)


def _squeezed_constant(model: Tensors, node: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    axes = _read_integers(model, node, "axes")
    return values.squeeze(None if axes is None else tuple(axes))


def _read_integers(model: Tensors, node: Any, name: str) -> list[int] | None:
    """Return a parameter that is an attribute in older operator sets and an input in newer ones."""
    for attribute in node.attribute:
        if attribute.name == name:
            return [int(value) for value in attribute.ints]
    if len(node.input) > 1 and node.input[1]:
        return [int(value) for value in model.array(node.input[1]).reshape(-1)]
    return None


def _readers_by_tensor(model: Tensors) -> dict[str, list[str]]:
    """Tensor → the operators that read it."""
    readers: dict[str, list[str]] = {}
    for graph in graphs(model.model.graph):
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
    return readers


_MOVES: dict[str, Callable[[Tensors, Any, npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "Identity": lambda _, __, values: values,
    "Transpose": _transposed_constant,
    "Reshape": _reshaped_constant,
    "Squeeze": _squeezed_constant,
    "Unsqueeze": lambda model, node, values: np.expand_dims(values, tuple(_read_integers(model, node, "axes") or ())),
}
