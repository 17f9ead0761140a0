"""The graph of a TFLite file. LiteRT executes it as written, so the types of its tensors tell what runs in integers.

Layout: tensorflow/lite/schema/schema.fbs, read by the classes of ai-edge-litert.
"""

import contextlib
import functools
import re
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprof.worker.graph import Graph, Layer

Array = Any

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 17: "int4"}
_LSTM = (*range(1, 9), 16)
#: Operator → positions of the weights that it multiplies by (tensorflow/lite/kernels: lstm_shared.h,
#: bidirectional_sequence_lstm.cc, basic_rnn.cc, svdf.cc).
_LAYERS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D"), (1,)),
    **dict.fromkeys(("CONV_3D_TRANSPOSE", "BATCH_MATMUL"), (1,)),
    **dict.fromkeys(("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), _LSTM),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 9), 16, *range(18, 26), 33),
    **dict.fromkeys(("RNN", "UNIDIRECTIONAL_SEQUENCE_RNN", "SVDF"), (1, 2)),
    "BIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 5, 6),
}  # type: Dict[str, Tuple[int, ...]]
#: Parts of the names of custom operators (Flex) whose multiplications are not counted here.
_MULTIPLIES = re.compile("MatMul|Conv|Einsum|LSTM|GRU|RNN|Attention")
EDGE_TPU_OPERATOR = "edgetpu-custom-op"
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE", "CAST"}
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def read(path: str, inputs: Optional[Mapping[str, Any]] = None) -> Optional[Graph]:
    """Return the graph of a TFLite file; if it was compiled for an Edge TPU, only the operators on the CPU.

    Args:
        path: The file.
        inputs: As for ``Runtime.inspect_with_inputs``. Without them no arithmetic is counted if sizes other than the
            batch are open.
    """
    data = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(data, 0)
    places = [_Place(data, model, model.Subgraphs(k)) for k in range(model.SubgraphsLength())]
    operators = list(_named_operators(places[0]))
    if any(name == EDGE_TPU_OPERATOR for name, _ in operators):
        return Graph([], len(operators), compiled_for="the Edge TPU", left_behind=_left_behind(operators))
    declared = _declared_shapes(places[0])
    unsized = _open_input(declared) if not inputs else ""
    shapes = _tensor_shapes(path, inputs) if inputs and _open_input(declared) else {}
    layers = [
        layer._replace(macs=None) if unsized else layer for layer in _all_layers(places, 0, 1, shapes, frozenset())
    ]
    names = [name for k in sorted(_reached(places, 0)) for name, _ in _named_operators(places[k])]
    return Graph(
        layers=layers,
        nodes=len(names),
        conversions=sum(name in _CONVERSIONS for name in names),
        ranges=dict(_value_ranges(places[0])),
        note=unsized,
        tensors=[layer.name for layer in _all_layers(places[:1], 0, 1, {}, frozenset())],
        makers={layer.name: re.escape(layer.name.partition(";")[0]) for layer in layers},
        inputs=declared,
        slow={"int16x8": "which LiteRT computes with reference kernels"},
    )


def left_behind(path: str) -> Dict[str, int]:
    """Operator → its number on the CPU, for a model that was compiled for the Edge TPU."""
    data = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(data, 0)
    return _left_behind(list(_named_operators(_Place(data, model, model.Subgraphs(0)))))


def _left_behind(operators: Iterable[Tuple[str, Any]]) -> Dict[str, int]:
    names = [name for name, _ in operators if name != EDGE_TPU_OPERATOR]
    return {name: names.count(name) for name in sorted(set(names))}


def custom_operators(path: str) -> List[str]:
    """The names of the custom operators of a TFLite file, each once."""
    model = schema.Model.GetRootAs(np.fromfile(path, np.uint8), 0)
    codes = [model.OperatorCodes(number) for number in range(model.OperatorCodesLength())]
    return sorted({code.CustomCode().decode("utf-8", "replace") for code in codes if code.CustomCode()})


def operator_names(data: Array, model: Any) -> List[str]:
    """The names of the operators of the main graph of a file that was read, in their order."""
    return [name for name, _ in _named_operators(_Place(data, model, model.Subgraphs(0)))]


def _named_operators(place: "_Place") -> Iterator[Tuple[str, Any]]:
    """Yield the name and the operator of each operator; a custom operator has its own name."""
    for index in range(place.graph.OperatorsLength()):
        operator = place.graph.Operators(index)
        code = place.model.OperatorCodes(operator.OpcodeIndex())
        if code.CustomCode():
            yield code.CustomCode().decode("utf-8", "replace"), operator
        else:
            yield _NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?"), operator


_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}


def _declared_shapes(place: "_Place") -> Dict[str, Tuple[Optional[int], ...]]:
    """Input → its shape; None for an open size."""
    shapes = {}
    for position in range(place.graph.InputsLength()):
        tensor = place.graph.Tensors(place.graph.Inputs(position))
        sizes = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else ()
        sizes = sizes if len(sizes) or not tensor.ShapeLength() else tensor.ShapeAsNumpy()
        shapes[(tensor.Name() or b"").decode("utf-8", "replace")] = tuple(int(s) if s >= 0 else None for s in sizes)
    return shapes


def _open_input(declared: Mapping[str, Tuple[Optional[int], ...]]) -> str:
    """A sentence on an input with an open size other than the batch; "" if there is none."""
    for name, sizes in declared.items():
        if None in sizes[1:]:
            shape = " × ".join("?" if size is None else str(size) for size in sizes)
            example = "x".join("SIZE" if size is None else str(size) for size in (sizes[0] or 1, *sizes[1:]))
            return (
                "arithmetic is not counted: {} is {}; give its sizes with --input {}={}, --input-data or"
                " --dataset".format(name, shape, name, example)
            )
    return ""


def _tensor_shapes(path: str, inputs: Mapping[str, Any]) -> Dict[int, Tuple[int, ...]]:
    """The shapes of the main graph's tensors by number, after the inputs have been given their shapes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    sources = interpreter.get_input_details()
    for source in sources:
        value = inputs.get(source["name"], inputs.get("") if len(sources) == 1 else None)
        if value is not None:
            shape = value.shape if isinstance(value, np.ndarray) else value
            interpreter.resize_tensor_input(source["index"], [int(size) for size in shape])
    interpreter.allocate_tensors()
    return {detail["index"]: tuple(int(s) for s in detail["shape"]) for detail in interpreter.get_tensor_details()}


def _all_layers(
    places: List["_Place"],
    number: int,
    times: Optional[int],
    shapes: Mapping[int, Tuple[int, ...]],
    around: FrozenSet[int],
) -> Iterator[Layer]:
    """Yield the layers of a subgraph and of those that it calls; of an If's branches only the costliest counts."""
    place = places[number]
    operators = list(_named_operators(place))
    stored = {o.Outputs(0): o.Inputs(0) for name, o in operators if name == "DEQUANTIZE"}
    for name, operator in operators:
        if name in _LAYERS:
            layer = _read_layer(place, name, operator, stored, shapes)
            yield layer._replace(macs=None if times is None or layer.macs is None else layer.macs * times)
        elif name not in _NAMES.values() and _MULTIPLIES.search(name):
            yield Layer(_operator_name(place, operator), name, None, "float32", "computed", 0)
        inner = [k for k in called_subgraphs(name, operator) if k < len(places) and k not in around and k != number]
        branches = [
            # The number of a loop's runs is known only at run time; other subgraphs have the shapes that the file
            # declares.
            list(_all_layers(places, k, None if name == "WHILE" else times, {}, around | {number}))
            for k in inner
        ]
        largest = max(branches, key=lambda branch: sum(layer.macs or 0 for layer in branch), default=[])
        for branch in branches:
            for layer in branch:
                skipped = name == "IF" and branch is not largest and layer.macs is not None
                yield layer._replace(macs=0) if skipped else layer


def _reached(places: List["_Place"], start: int) -> Set[int]:
    """A subgraph and all that it calls, directly or not; other signatures of a file are not among them."""
    reached = set()  # type: Set[int]
    ahead = [start]
    while ahead:
        number = ahead.pop()
        if number < len(places) and number not in reached:
            reached.add(number)
            for name, operator in _named_operators(places[number]):
                ahead += called_subgraphs(name, operator)
    return reached


def called_subgraphs(name: str, operator: Any) -> List[int]:
    """The subgraphs that an operator runs."""
    kinds = {
        "IF": ("IfOptions", ("ThenSubgraphIndex", "ElseSubgraphIndex")),
        "WHILE": ("WhileOptions", ("CondSubgraphIndex", "BodySubgraphIndex")),
        "CALL": ("CallOptions", ("Subgraph",)),
    }  # type: Dict[str, Tuple[str, Tuple[str, ...]]]
    if name not in kinds or operator.BuiltinOptions() is None:
        return []
    kind, fields = kinds[name]
    options = getattr(schema, kind)()
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return [int(getattr(options, field)()) for field in fields]


def _operator_name(place: "_Place", operator: Any) -> str:
    output = place.graph.Tensors(operator.Outputs(0))
    return (output.Name() or b"").decode("utf-8", "replace")


def content(data: Array, model: Any, buffer: int) -> Optional[Array]:
    """The bytes of a buffer, in the flatbuffer or (``offset``) after it in the file; None if it is empty."""
    stored = model.Buffers(buffer)
    if stored.DataLength():
        return stored.DataAsNumpy()
    # Schemas before 2023 have no buffers after the flatbuffer.
    start, size = (stored.Offset(), stored.Size()) if hasattr(stored, "Offset") else (0, 0)
    return data[start : start + size] if start > 1 and size and start + size <= len(data) else None


class _Place(NamedTuple):
    data: Array
    model: Any
    graph: Any


def _read_layer(
    place: _Place,
    name: str,
    operator: Any,
    stored: Mapping[int, int],
    shapes: Mapping[int, Tuple[int, ...]],
) -> Layer:
    graph = place.graph
    given = [operator.Inputs(k) for k in range(operator.InputsLength())]
    position = 2 if name in {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"} else 0
    index = given[1]
    weight = graph.Tensors(stored.get(index, index))
    raw = content(place.data, place.model, weight.Buffer())
    shape = _tensor_shape(graph, index, shapes)
    x, output = _tensor_shape(graph, given[position], shapes), _tensor_shape(graph, operator.Outputs(0), shapes)
    kinds = _DTYPES.get(graph.Tensors(given[position]).Type(), "?"), _DTYPES.get(weight.Type(), "?")
    axis = {"DEPTHWISE_CONV_2D": len(shape) - 1, "CONV_3D": 4, "CONV_3D_TRANSPOSE": 3}.get(name, 0)
    layered = len(_LAYERS[name]) == 1 and name != "BATCH_MATMUL"
    sizes = [_tensor_shape(graph, given[k], shapes) for k in _LAYERS[name] if k < len(given) and given[k] >= 0]
    readable = layered and raw is not None and kinds[1] in _READABLE
    return Layer(
        name=_operator_name(place, operator),
        op=name,
        macs=_layer_macs(name, x, output, sizes, turned=name == "BATCH_MATMUL" and _is_turned(operator)),
        precision=_layer_precision(*kinds, converted=index in stored),
        stored=kinds[1] if raw is not None else "computed",
        channels=shape[axis] if layered and len(shape) > axis else 0,
        weights=functools.partial(_weight_array, raw, weight, axis) if readable else None,
        depthwise=name == "DEPTHWISE_CONV_2D",
    )


def _tensor_shape(graph: Any, index: int, shapes: Mapping[int, Tuple[int, ...]]) -> Tuple[int, ...]:
    if index in shapes:
        return shapes[index]
    tensor = graph.Tensors(index)
    return tuple(max(1, int(size)) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()


def _layer_macs(
    name: str, x: Tuple[int, ...], output: Tuple[int, ...], sizes: List[Tuple[int, ...]], *, turned: bool
) -> Optional[int]:
    """The number of multiply-accumulates, from the shapes of the input, the output and the weights."""
    weight = sizes[0]
    if not (x and output and weight):
        return None
    if name == "BATCH_MATMUL":
        return _size_product(output) * x[-2 if turned else -1]
    if name in {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"}:
        return _size_product(x) * _size_product(weight) // weight[-1]
    if len(_LAYERS[name]) > 1:  # each step of each sample is multiplied by every matrix
        return _size_product(x[:-1]) * sum(_size_product(size) for size in sizes)
    channels = weight[-1] if name in {"DEPTHWISE_CONV_2D", "CONV_3D"} else weight[0]
    return _size_product(output) * (_size_product(weight) // channels)


def _size_product(sizes: Iterable[int]) -> int:
    return int(np.prod([int(size) for size in sizes], dtype=np.int64))


def _is_turned(operator: Any) -> bool:
    table, options = operator.BuiltinOptions(), schema.BatchMatMulOptions()
    if table is None:
        return False
    options.Init(table.Bytes, table.Pos)
    return bool(options.AdjX())


_READABLE = {"float32", "float16", "int8", "uint8"}


def _layer_precision(activation: str, weight: str, *, converted: bool) -> str:
    if activation == "int16":
        return "int16x8"
    if activation in {"int8", "uint8"}:
        return "int8"
    if weight in {"int8", "int4"} and not converted:
        return "int8-dynamic"
    return "float16" if activation == "float16" else "float32"


def _weight_array(raw: Array, tensor: Any, axis: int) -> Array:
    values = raw.view(_DTYPES[tensor.Type()])
    return np.moveaxis(values.reshape([int(s) for s in tensor.ShapeAsNumpy()]), axis, 0)


def _value_ranges(place: _Place) -> Iterator[Tuple[str, Tuple[float, float]]]:
    for index in range(place.graph.TensorsLength()):
        tensor = place.graph.Tensors(index)
        kind = _DTYPES.get(tensor.Type(), "?")
        quantization = tensor.Quantization()
        if kind not in _LIMITS or quantization is None or quantization.ScaleLength() != 1:
            continue
        if content(place.data, place.model, tensor.Buffer()) is not None:
            continue
        low, high = _LIMITS[kind]
        scale, zero = (
            float(quantization.Scale(0)),
            int(quantization.ZeroPoint(0)) if quantization.ZeroPointLength() else 0,
        )
        yield (tensor.Name() or b"").decode("utf-8", "replace"), ((low - zero) * scale, (high - zero) * scale)


def taps(path: str, names: Iterable[str], feeds: Iterable[Mapping[str, Array]]) -> Iterator[Dict[str, Array]]:
    """Yield the values of chosen tensors, as real numbers, for each set of inputs; float inputs are quantised."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    sources = interpreter.get_input_details()
    wanted = [name for name in names if name in details]
    for feed in feeds:
        _set_inputs(interpreter, sources, feed)
        interpreter.invoke()
        tensors = {}
        for name in wanted:
            with contextlib.suppress(ValueError):  # the memory planner left this tensor out
                tensors[name] = _dequantise_array(interpreter.get_tensor(details[name]["index"]), details[name])
        yield tensors


def run(path: str, feeds: Iterable[Mapping[str, Array]], *, threads: int = 1) -> Iterator[List[Array]]:
    """Yield a model's outputs as real numbers for each set of inputs, with LiteRT's default kernels."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    for feed in feeds:
        _set_inputs(interpreter, interpreter.get_input_details(), feed)
        interpreter.invoke()
        yield [
            _dequantise_array(interpreter.get_tensor(sink["index"]), sink).copy()
            for sink in interpreter.get_output_details()
        ]


def _set_inputs(interpreter: Any, sources: Iterable[Any], feed: Mapping[str, Array]) -> None:
    """Give a fresh interpreter one set of inputs: what it keeps from call to call is forgotten, open sizes follow."""
    arrays = [_quantise_array(np.asarray(feed.get(source["name"], feed.get(""))), source) for source in sources]
    shapes = [list(interpreter.get_tensor(source["index"]).shape) for source in sources]
    if [list(array.shape) for array in arrays] != shapes:
        for source, array in zip(sources, arrays):
            interpreter.resize_tensor_input(source["index"], list(array.shape), strict=True)
        interpreter.allocate_tensors()
    interpreter.reset_all_variables()
    for source, array in zip(sources, arrays):
        interpreter.set_tensor(source["index"], array)


def _quantise_array(array: Array, detail: Any) -> Array:
    kind = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if array.dtype == kind or not scale:
        return array.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.rint(array / scale + zero), limits.min, limits.max).astype(kind)


def _dequantise_array(array: Array, detail: Any) -> Array:
    scale, zero = detail["quantization"]
    if array.dtype.kind in "iu" and scale:
        return (array.astype(np.float32) - zero) * scale
    return array
