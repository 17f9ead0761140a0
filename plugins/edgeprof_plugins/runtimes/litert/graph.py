"""The graph of a TFLite file. LiteRT executes it as it is written: the types of its tensors say what runs in integers.

Layout: tensorflow/lite/schema/schema.fbs, read by the classes that ai-edge-litert brings.
"""

import contextlib
import functools
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprof.worker.graph import Graph, Layer

Array = Any

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 17: "int4"}
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL")
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE", "CAST"}
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def read(path: str) -> Optional[Graph]:
    """Return the graph of a TFLite file; None if the file was compiled for an Edge TPU, which hides the graph."""
    data = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    operators = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if code.CustomCode() == b"edgetpu-custom-op":
            return None
        operators.append((names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?"), operator))
    stored = {o.Outputs(0): o.Inputs(0) for name, o in operators if name == "DEQUANTIZE"}
    layers = [_layer(_Place(data, model, graph), name, o, stored) for name, o in operators if name in _LAYERS]
    return Graph(
        layers=layers,
        nodes=len(operators),
        conversions=sum(name in _CONVERSIONS for name, _ in operators),
        ranges=dict(_ranges(_Place(data, model, graph))),
        tensors=[layer.name for layer in layers],
        slow={"int16x8": "which LiteRT computes with reference kernels"},
    )


def content(data: Array, model: Any, buffer: int) -> Optional[Array]:
    """A buffer's bytes, in the flatbuffer or (``offset``) behind it in the file; None for none."""
    stored = model.Buffers(buffer)
    if stored.DataLength():
        return stored.DataAsNumpy()
    # Schemas before 2023 have no buffers behind the flatbuffer.
    start, size = (stored.Offset(), stored.Size()) if hasattr(stored, "Offset") else (0, 0)
    return data[start : start + size] if start > 1 and size and start + size <= len(data) else None


class _Place(NamedTuple):
    data: Array
    model: Any
    graph: Any


def _layer(place: _Place, name: str, operator: Any, stored: Mapping[int, int]) -> Layer:
    graph = place.graph
    position = 2 if name == "TRANSPOSE_CONV" else 0
    activation = graph.Tensors(operator.Inputs(position))
    index = operator.Inputs(1)
    weight = graph.Tensors(stored.get(index, index))
    output = graph.Tensors(operator.Outputs(0))
    shape = tuple(int(s) for s in weight.ShapeAsNumpy()) if weight.ShapeLength() else ()
    raw = content(place.data, place.model, weight.Buffer())
    out = int(np.prod([max(1, int(s)) for s in output.ShapeAsNumpy()])) if output.ShapeLength() else 1
    depthwise = name == "DEPTHWISE_CONV_2D"
    axis = len(shape) - 1 if depthwise else 0
    channels = shape[axis] if shape else 0
    inputs = int(np.prod(shape)) // max(1, channels)
    kinds = _DTYPES.get(activation.Type(), "?"), _DTYPES.get(weight.Type(), "?")
    return Layer(
        name=(output.Name() or b"").decode("utf-8", "replace"),
        op=name,
        macs=out * inputs,
        precision=_precision(*kinds, converted=index in stored),
        stored=kinds[1],
        channels=channels,
        weights=functools.partial(_weights, raw, weight, axis) if raw is not None and kinds[1] in _READABLE else None,
        depthwise=depthwise,
    )


_READABLE = {"float32", "float16", "int8", "uint8"}


def _precision(activation: str, weight: str, *, converted: bool) -> str:
    if activation == "int16":
        return "int16x8"
    if activation in {"int8", "uint8"}:
        return "int8"
    if weight in {"int8", "int4"} and not converted:
        return "int8-dynamic"
    return "float16" if activation == "float16" else "float32"


def _weights(raw: Array, tensor: Any, axis: int) -> Array:
    values = raw.view(_DTYPES[tensor.Type()])
    return np.moveaxis(values.reshape([int(s) for s in tensor.ShapeAsNumpy()]), axis, 0)


def _ranges(place: _Place) -> Iterator[Tuple[str, Tuple[float, float]]]:
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
    """What chosen tensors hold, as real numbers, for each set of inputs; the model's own scale quantises float ones."""
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
        for source in sources:
            array = feed.get(source["name"], feed.get(""))
            interpreter.set_tensor(source["index"], _quantised(np.asarray(array), source))
        interpreter.invoke()
        tensors = {}
        for name in wanted:
            with contextlib.suppress(ValueError):  # a tensor that the memory planner left out
                tensors[name] = _real(interpreter.get_tensor(details[name]["index"]), details[name])
        yield tensors


def run(path: str, feeds: Iterable[Mapping[str, Array]], *, threads: int = 1) -> Iterator[List[Array]]:
    """A model's outputs as real numbers, for each set of inputs, by the kernels that LiteRT takes by itself."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    for feed in feeds:
        for source in interpreter.get_input_details():
            interpreter.set_tensor(
                source["index"], _quantised(np.asarray(feed.get(source["name"], feed.get(""))), source)
            )
        interpreter.invoke()
        yield [_real(interpreter.get_tensor(sink["index"]), sink).copy() for sink in interpreter.get_output_details()]


def _quantised(array: Array, detail: Any) -> Array:
    kind = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if array.dtype == kind or not scale:
        return array.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.rint(array / scale + zero), limits.min, limits.max).astype(kind)


def _real(array: Array, detail: Any) -> Array:
    scale, zero = detail["quantization"]
    if array.dtype.kind in "iu" and scale:
        return (array.astype(np.float32) - zero) * scale
    return array
