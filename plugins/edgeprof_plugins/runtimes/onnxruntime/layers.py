"""The multiplying nodes of an executed ONNX graph, with MACs from the tensor shapes when the graph is run.

Branches and bodies are run as separate models, with the values that reach them.
"""

import functools
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from edgeprof.worker.graph import Layer

Array = Any
Shape = Tuple[int, ...]


class _Operator(NamedTuple):
    """An operator that multiplies.

    Attributes:
        macs: Computes the multiply-accumulate operations from the node, its input shapes and its output shape.
        second: Position of the second factor, the weights.
        precision: Precision of the arithmetic; "" means the precision of the first input.
    """

    macs: Callable[[Any, Sequence[Shape], Shape], int]
    second: int = 1
    precision: str = ""


def _size_product(sizes: Iterable[int]) -> int:
    return int(np.prod([int(size) for size in sizes], dtype=np.int64))


def _int_attribute(node: Any, name: str, default: int = 0) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _convolution_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    return _size_product(output) * _size_product(inputs[_OPERATORS[node.op_type].second][1:])


def _transposed_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    del node, output
    return _size_product(inputs[0]) * _size_product(inputs[1][1:])


def _product_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    turned = _int_attribute(node, "transA") and len(inputs[0]) > 1
    return _size_product(output) * inputs[0][-2 if turned else -1]


def _packed_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    del inputs
    return _size_product(output) * _int_attribute(node, "K")


def _recurrent_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The MACs of a recurrent layer: each step of each sample is multiplied by both matrices of each direction."""
    del node, output
    return _size_product(inputs[0][:2]) * (_size_product(inputs[1]) + _size_product(inputs[2]))


def _einsum_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The MACs of an Einsum: the product of the sizes of all letters, once per factor except the first.

    The axes of "..." are counted from the right.
    """
    equation = next(a.s for a in node.attribute if a.name == "equation").decode().replace(" ", "")
    sizes = {}  # type: Dict[Any, int]
    for term, shape in zip(equation.partition("->")[0].split(","), inputs):
        before, _, after = term.partition("...")
        hidden = len(shape) - len(before) - len(after)
        letters = [*before, *range(-hidden, 0), *after]  # type: List[Any]
        for letter, size in zip(letters, shape):
            sizes[letter] = max(sizes.get(letter, 1), size)
    del output
    return _size_product(sizes.values()) * max(1, len(inputs) - 1)


def _projection_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The MACs of the projections of one input to queries, keys and values (com.microsoft.Attention)."""
    del node, output
    return _size_product(inputs[0]) * inputs[1][-1]


def _attention_macs(node: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The MACs of the products of queries with keys, and of the resulting weights with values."""
    del output
    queries, keys, values = inputs[:3]
    if len(queries) == 4:  # batch × heads × steps × size
        return _size_product(queries[:3]) * keys[2] * (queries[3] + values[3])
    if len(keys) != 3:
        raise ValueError("keys of another layout")
    heads = _int_attribute(node, "q_num_heads") or _int_attribute(node, "num_heads", 1)
    theirs = _int_attribute(node, "kv_num_heads") or heads
    steps = queries[0] * queries[1] * keys[1]
    return steps * (queries[2] + values[2] * heads // theirs)


_OPERATORS = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "NhwcConv"), _Operator(_convolution_macs)),
    "QLinearConv": _Operator(_convolution_macs, 3, "int8"),
    "ConvInteger": _Operator(_convolution_macs, 1, "int8-dynamic"),
    "ConvTranspose": _Operator(_transposed_macs),
    "DeformConv": _Operator(_convolution_macs),
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul"), _Operator(_product_macs)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), _Operator(_product_macs, 3, "int8")),
    **dict.fromkeys(
        ("MatMulInteger", "MatMulIntegerToFloat", "MatMulInteger16", "DynamicQuantizeMatMul"),
        _Operator(_product_macs, 1, "int8-dynamic"),
    ),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _Operator(_packed_macs)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Operator(_recurrent_macs)),
    "DynamicQuantizeLSTM": _Operator(_recurrent_macs, 1, "int8-dynamic"),
    "Einsum": _Operator(_einsum_macs),
    **dict.fromkeys(("Attention", "MultiHeadAttention", "GroupQueryAttention"), _Operator(_attention_macs)),
}  # type: Dict[str, _Operator]
#: Operators whose multiplications are not counted here.
_UNCOUNTED = frozenset({
    "QAttention", "DecoderAttention", "LongformerAttention", "PackedAttention", "PackedMultiHeadAttention",
    "SparseAttention", "PagedAttention", "MoE", "QMoE", "AttnLSTM", "DecoderMaskedMultiHeadAttention", "BeamSearch",
    "GreedySearch", "GemmFloat8", "QOrderedMatMul", "QOrderedAttention",
})  # fmt: skip
_STORED = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 10: "float16", 11: "float64",
           16: "bfloat16"}  # fmt: skip
#: The most tensors of a graph that are read in one run.
_READ_AT_ONCE = 64


def read_layers(model: Any, feeds: Optional[Mapping[str, Array]]) -> List[Layer]:
    """Read the multiplying nodes, in order.

    Args:
        model: A ModelProto.
        feeds: One set of inputs; None where sizes are open, so that nothing is counted.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return list(_Reader(model).layers(model.graph, feeds, weights, 1))


class _Reader:
    """Runs a model and the graphs inside it.

    Args:
        model: The ModelProto, for its opsets, functions and version.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def layers(
        self, graph: Any, feeds: Optional[Mapping[str, Array]], weights: Mapping[str, Any], times: Optional[int]
    ) -> Iterator[Layer]:
        """Yield the layers of one graph.

        Args:
            graph: The GraphProto.
            feeds: Its inputs, and the values that it takes from enclosing graphs; None where they are not known.
            weights: Initializers by name, from this graph and enclosing graphs.
            times: Number of its runs for one sample; None where it is not known.
        """
        weights = {**weights, **{tensor.name: tensor for tensor in graph.initializer}, **_constant_tensors(graph)}
        for node in graph.node:  # weights that a node converts to floats are still weights of the file
            if node.op_type in {"DequantizeLinear", "Cast", "Identity"} and node.input[0] in weights:
                weights.setdefault(node.output[0], weights[node.input[0]])
        held = self._known_values(graph, feeds, weights)
        for node in graph.node:
            inner = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
            if inner:
                for layer in self._inner_layers(node, inner, held, weights, times):
                    yield layer
            elif node.op_type in _OPERATORS or node.op_type in _UNCOUNTED:
                for layer in _read_node(node, held, weights, times):
                    yield layer

    def _known_values(
        self, graph: Any, feeds: Optional[Mapping[str, Array]], weights: Mapping[str, Any]
    ) -> Optional[Dict[str, Array]]:
        """The values of the tensors that determine sizes, from one run of the graph; None if it does not run."""
        if feeds is None:
            return None
        wanted = _tensors_to_read(graph)
        produced = {name for node in graph.node for name in node.output if name}
        try:
            computed = self._run_graph(graph, feeds, weights, [name for name in wanted if name in produced])
        except Exception:  # ONNX Runtime raises many types of errors for a graph that it cannot run
            return None
        return {**feeds, **computed}

    def _run_graph(
        self, graph: Any, feeds: Mapping[str, Array], weights: Mapping[str, Any], wanted: Sequence[str]
    ) -> Dict[str, Array]:
        """Run a graph as a separate model, with the values of enclosing graphs as further inputs."""
        if not wanted:
            return {}
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        copy.graph.CopyFrom(graph)
        known = {tensor.name for tensor in (*copy.graph.input, *copy.graph.initializer)}
        for name in sorted(_free_names(graph) - known):
            if _is_own(name, weights):
                copy.graph.initializer.append(weights[name])
            elif name in feeds:
                copy.graph.input.append(_value_info(name, feeds[name]))
        for tensor in copy.graph.input:  # a body may not declare the shapes of its inputs
            if tensor.name in feeds:
                tensor.CopyFrom(_value_info(tensor.name, feeds[tensor.name]))
        outputs = [tensor.name for tensor in copy.graph.output]
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds_by_name = {tensor.name: feeds[tensor.name] for tensor in session.get_inputs()}
        arrays = {}  # type: Dict[str, Array]
        for start in range(0, len(wanted), _READ_AT_ONCE):
            part = wanted[start : start + _READ_AT_ONCE]
            arrays.update(zip(part, session.run(list(part), feeds_by_name)))
        return arrays

    def _inner_layers(
        self,
        node: Any,
        inner: Sequence[Any],
        held: Optional[Mapping[str, Array]],
        weights: Mapping[str, Any],
        times: Optional[int],
    ) -> Iterator[Layer]:
        """Yield the layers in a node's branches or body; only the branch of an If with the most MACs counts."""
        repeated = _body_repetitions(node, held, weights)
        total = None if times is None or repeated is None else times * repeated
        branches = [list(self.layers(g, _inner_feeds(node, g, held, weights), weights, total)) for g in inner]
        largest = max(branches, key=lambda layers: sum(layer.macs or 0 for layer in layers))
        for layers in branches:
            for layer in layers:
                skipped = node.op_type == "If" and layers is not largest and layer.macs is not None
                yield layer._replace(macs=0) if skipped else layer


def _constant_tensors(graph: Any) -> Dict[str, Any]:
    """The tensors of Constant nodes, by name."""
    tensors = {}
    for node in graph.node:
        for a in node.attribute if node.op_type == "Constant" else ():
            if a.name == "value":
                tensors[node.output[0]] = onnx.TensorProto()
                tensors[node.output[0]].CopyFrom(a.t)
                tensors[node.output[0]].name = node.output[0]
    return tensors


def _free_names(graph: Any) -> Set[str]:
    """The names that a graph takes from enclosing graphs."""
    defined = {tensor.name for tensor in (*graph.input, *graph.initializer)}
    defined |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in node.input if name}
    for node in graph.node:
        for a in node.attribute:
            for inner in [a.g] if a.HasField("g") else a.graphs:
                used |= _free_names(inner)
    used |= {tensor.name for tensor in graph.output}
    return used - defined


def _tensors_to_read(graph: Any) -> List[str]:
    """The tensors that determine how much is multiplied, or that reach branches and bodies."""
    names = []  # type: List[str]
    for node in graph.node:
        inner = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
        if node.op_type in _OPERATORS or inner:
            names += [*node.input, *([] if inner else node.output[:1])]
        for body in inner:
            names += sorted(_free_names(body))
    return [name for name in dict.fromkeys(names) if name]


def _value_info(name: str, array: Array) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
    return onnx.helper.make_tensor_value_info(name, kind, None)


def _known_value(name: str, held: Mapping[str, Array], weights: Mapping[str, Any]) -> Optional[Array]:
    if name in held:
        return np.asarray(held[name])
    return numpy_helper.to_array(weights[name]) if _is_own(name, weights) else None


def _is_own(name: str, weights: Mapping[str, Any]) -> bool:
    """Whether a tensor is itself an initializer, not the output of a node that converts one."""
    return name in weights and weights[name].name == name


def _body_repetitions(node: Any, held: Optional[Mapping[str, Array]], weights: Mapping[str, Any]) -> Optional[int]:
    """The number of times that a node runs its body; None if it is known only at run time."""
    if node.op_type == "If":
        return 1
    if held is None:
        return None
    if node.op_type == "Loop":
        # A body may end a loop early, unless its condition is always true.
        count = _known_value(node.input[0], held, weights) if node.input[0] else None
        body = next(a.g for a in node.attribute if a.name == "body")
        return int(np.asarray(count).reshape(-1)[0]) if count is not None and never_ends(body) else None
    if node.op_type == "Scan":
        scanned = _int_attribute(node, "num_scan_inputs")
        axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0])
        first = _known_value(node.input[len(node.input) - scanned], held, weights)
        return None if first is None else int(np.asarray(first).shape[axes[0]])
    return 1 if node.op_type == "SequenceMap" else None


def never_ends(body: Any) -> bool:
    """Whether a loop's condition is always true: it is passed on unchanged, or a constant."""
    name = body.output[0].name
    makers = {out: node for node in body.node for out in node.output}
    while name in makers and makers[name].op_type in {"Identity", "Cast"}:
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    values = {**{t.name: t for t in body.initializer}, **_constant_tensors(body)}
    return name in values and bool(numpy_helper.to_array(values[name]).all())


def _inner_feeds(
    node: Any, graph: Any, held: Optional[Mapping[str, Array]], weights: Mapping[str, Any]
) -> Optional[Dict[str, Array]]:
    """The inputs of the first run of a branch or body; None if they are not known."""
    if held is None:
        return None
    names = [tensor.name for tensor in graph.input]
    given = [_known_value(name, held, weights) if name else None for name in node.input]
    if node.op_type == "Loop":
        given = [np.array(0, np.int64), np.array(True), *given[2:]]
    elif node.op_type == "Scan":
        scanned = _int_attribute(node, "num_scan_inputs")
        axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0] * scanned)
        start = len(given) - scanned
        given = [
            value if k < start or value is None else value.take(0, axis=axes[k - start])
            for k, value in enumerate(given)
        ]
    elif node.op_type != "If":
        return None
    feeds = {name: value for name, value in zip(names, given) if value is not None}
    for name in _free_names(graph):
        value = _known_value(name, held, weights)
        if value is not None and not _is_own(name, weights):
            feeds[name] = value
    return feeds


def _read_node(
    node: Any, held: Optional[Mapping[str, Array]], weights: Mapping[str, Any], times: Optional[int]
) -> Iterator[Layer]:
    """Yield the layers of one node; an attention with its own projections has two."""
    name = node.name or node.output[0]
    if node.op_type in _UNCOUNTED:
        yield Layer(name, node.op_type, None, "float32", "computed", 0)
        return
    operator = _OPERATORS[node.op_type]
    microsoft = node.op_type == "Attention" and node.domain == "com.microsoft"
    shapes, output = _node_shapes(node, held, weights)
    proto = weights.get(node.input[operator.second]) if len(node.input) > operator.second else None
    macs = _counted_macs(node, _projection_macs if microsoft else operator.macs, shapes, output, times)
    precision = operator.precision or _float_of(node, held, weights)
    if proto is None:
        yield Layer(name, node.op_type, macs, precision, "computed", 0)
        return
    stored = _STORED.get(proto.data_type, "?")
    if node.op_type in {"MatMulNBits", "MatMulBnb4"}:
        bits = _int_attribute(node, "bits", 4)
        yield Layer(name, node.op_type, macs, precision, "int{}".format(bits), _int_attribute(node, "N"))
        return
    if operator.macs is _recurrent_macs:
        other = weights.get(node.input[2])
        plain = other is not None and node.op_type != "DynamicQuantizeLSTM"
        read = functools.partial(_gate_matrix, proto, other) if plain else None
        yield Layer(name, node.op_type, macs, precision, stored, 0, weights=read)
        return
    if operator.macs is _einsum_macs:
        yield Layer(name, node.op_type, macs, precision, stored, 0)
        return
    axis = _channel_axis(node, len(proto.dims))
    yield Layer(
        name=name,
        op=node.op_type,
        macs=macs,
        precision=precision,
        stored=stored,
        channels=int(proto.dims[axis]) if proto.dims else 0,
        weights=functools.partial(_weight_array, proto, axis) if len(proto.dims) > 1 else None,
        depthwise=_int_attribute(node, "group", 1) > 1,
    )
    if microsoft and shapes:
        x, size = shapes[0], shapes[1][-1] // 3
        count = None if times is None else 2 * times * x[0] * x[1] * x[1] * size
        yield Layer(name + " (attention)", node.op_type, count, precision, "computed", 0)


def _node_shapes(
    node: Any, held: Optional[Mapping[str, Array]], weights: Mapping[str, Any]
) -> Tuple[Optional[List[Shape]], Shape]:
    """The shapes of a node's inputs (None if they are unknown) and of its output."""
    if held is None or node.output[0] not in held:
        return None, ()
    input_shapes = []  # type: List[Shape]
    for name in node.input:
        if name in held:
            input_shapes.append(tuple(np.shape(held[name])))
        elif name in weights:
            input_shapes.append(tuple(int(size) for size in weights[name].dims))
        else:
            input_shapes.append(())
    return input_shapes, tuple(np.shape(held[node.output[0]]))


def _counted_macs(
    node: Any,
    count: Callable[[Any, Sequence[Shape], Shape], int],
    shapes: Optional[List[Shape]],
    output: Shape,
    times: Optional[int],
) -> Optional[int]:
    if shapes is None or times is None:
        return None
    try:
        return count(node, shapes, output) * times
    except (IndexError, ValueError):  # the inputs have a layout that is not counted here
        return None


def _float_of(node: Any, held: Optional[Mapping[str, Array]], weights: Mapping[str, Any]) -> str:
    """The type of the values that a node multiplies."""
    if held is not None and node.input[0] in held:
        return str(np.asarray(held[node.input[0]]).dtype)
    kinds = [_STORED.get(weights[name].data_type, "?") for name in node.input if name in weights]
    return next((kind for kind in kinds if kind in {"float16", "float64"}), "float32")


def _channel_axis(node: Any, rank: int) -> int:
    """The axis of the output channels in the weights."""
    if "Conv" in node.op_type:
        return 1 if node.op_type == "ConvTranspose" else 0
    return 0 if "Gemm" in node.op_type and _int_attribute(node, "transB") else rank - 1


def _weight_array(proto: Any, axis: int) -> Array:
    return np.moveaxis(numpy_helper.to_array(proto), axis, 0)


def _gate_matrix(first: Any, second: Any) -> Array:
    """Both matrices of a recurrent layer, with a row for each gate of each unit."""
    parts = [numpy_helper.to_array(proto) for proto in (first, second)]
    return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts], axis=1)
