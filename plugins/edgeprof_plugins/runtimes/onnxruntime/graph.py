"""The graph that ONNX Runtime executes: optimised by ONNX Runtime itself, then read back.

Read in edgeprof's own process, never in the worker: it needs onnx beside onnxruntime.
"""

import functools
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from edgeprof.compression.scratch import scratch
from edgeprof.worker.graph import Graph, Layer

Array = Any
Feeds = Mapping[str, Array]

#: Operator → (position of the weights, precision of its arithmetic; None: that of the weights).
_LAYERS = {
    "Conv": (1, None),
    "FusedConv": (1, None),
    "NhwcFusedConv": (1, None),
    "ConvTranspose": (1, None),
    "MatMul": (1, None),
    "FusedMatMul": (1, None),
    "Gemm": (1, None),
    "FusedGemm": (1, None),
    "QLinearConv": (3, "int8"),
    "QLinearMatMul": (3, "int8"),
    "QGemm": (3, "int8"),
    "ConvInteger": (1, "int8-dynamic"),
    "MatMulInteger": (1, "int8-dynamic"),
    "MatMulIntegerToFloat": (1, "int8-dynamic"),
    "DynamicQuantizeMatMul": (1, "int8-dynamic"),
    "MatMulNBits": (1, "float32"),
}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
_LIMITS = {
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.UINT16: (0, 65535),
}
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}


def read(path: str) -> Graph:
    """The executed graph of an ONNX file."""
    written = onnx.load(path)
    training = [
        node.name or node.output[0]
        for node in written.graph.node
        if (node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute))
        or (node.op_type == "BatchNormalization" and len([o for o in node.output if o]) > 1)
    ]
    with scratch("graph") as folder:
        executed = _optimised(path, folder)
        model, note = (written, "as written: ONNX Runtime does not load it") if executed is None else (executed, "")
        sizes = _sizes(model)
    if not sizes:
        note = note or "sizes are open: the model could not be run on random inputs"
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    # Weights that a node turns into floats while the model runs are those of the file all the same.
    for node in graph.node:
        if node.op_type in _CONVERSIONS and node.input[0] in values:
            values.setdefault(node.output[0], values[node.input[0]])
    layers = [_layer(node, values, sizes) for node in graph.node]
    return Graph(
        layers=[layer for layer in layers if layer is not None],
        nodes=len(graph.node),
        conversions=sum(node.op_type in _CONVERSIONS for node in graph.node),
        batch_norms=[n.name or n.output[0] for n in graph.node if n.op_type == "BatchNormalization"],
        training=training,
        ranges=_ranges(written),
        note=note,
        tensors=[name for node in written.graph.node for name in node.output if name],
        seen_as=_seen_as(written.graph),
    )


def _options(level: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    return options


def _optimised(path: str, folder: Any) -> Any:
    """The model after ONNX Runtime's own fusions (without those for one CPU's memory layout); None where it fails."""
    target = folder / "executed.onnx"
    options = _options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    options.optimized_model_filepath = str(target)
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(str(target))
    except Exception:
        return None


def _sizes(model: Any) -> Dict[str, Tuple[int, ...]]:
    """Shapes of what the layers give, by running the graph once on random inputs with a batch of one."""
    wanted = [node.output[0] for node in model.graph.node if node.op_type in _LAYERS]
    inputs = [spec for spec in model.graph.input if spec.name not in {t.name for t in model.graph.initializer}]
    try:
        arrays = next(iter(taps(model, wanted, [random_feeds(inputs)])))
    except Exception:
        return {}
    return {name: array.shape for name, array in arrays.items()}


def random_feeds(inputs: Iterable[Any]) -> Dict[str, Array]:
    """Random inputs for a graph's inputs; what is open becomes 1."""
    draw = np.random.default_rng(0)
    feeds = {}  # type: Dict[str, Array]
    for spec in inputs:
        kind = spec.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else 1 for d in kind.shape.dim]
        dtype = _DTYPES.get(kind.elem_type, "float32")
        if dtype.startswith("float"):
            feeds[spec.name] = draw.standard_normal(shape).astype(dtype)
        else:
            feeds[spec.name] = np.ones(shape, dtype)
    return feeds


def taps(model: Any, names: Iterable[str], feeds: Iterable[Feeds]) -> Iterator[Dict[str, Array]]:
    """What chosen tensors inside a graph hold, for each set of inputs.

    Args:
        model: The ModelProto, or its path.
        names: Tensors; those that no node gives are left out.
        feeds: Inputs by name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model if isinstance(model, onnx.ModelProto) else onnx.load(str(model)))
    given = {spec.name for spec in copy.graph.output}
    inside = {name for node in copy.graph.node for name in node.output}
    wanted = [name for name in dict.fromkeys(names) if name in inside]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given)
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(),
        _options(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL),
        providers=["CPUExecutionProvider"],
    )
    inputs = [spec.name for spec in session.get_inputs()]
    for feed in feeds:
        named = {inputs[0]: feed[""]} if set(feed) == {""} else dict(feed)
        yield dict(zip(wanted, session.run(wanted, named)))


def _seen_as(graph: Any) -> Dict[str, str]:
    """Map each tensor to the tensor that its readers use.

    If the tensor is quantised, that is the output of the DequantizeLinear behind it: the values clipped and rounded.
    """
    ends = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    pairs = ((n.input[0], ends.get(n.output[0])) for n in graph.node if n.op_type == "QuantizeLinear")
    return {name: end for name, end in pairs if end is not None}


def _layer(node: Any, values: Mapping[str, Any], sizes: Mapping[str, Tuple[int, ...]]) -> Optional[Layer]:
    if node.op_type not in _LAYERS:
        return None
    position, precision = _LAYERS[node.op_type]
    proto = values.get(node.input[position]) if len(node.input) > position else None
    name = node.name or node.output[0]
    output = sizes.get(node.output[0])
    if node.op_type == "MatMulNBits":
        size = {a.name: a.i for a in node.attribute}
        macs = None if output is None else int(np.prod(output)) * size["K"]
        return Layer(name, node.op_type, macs, "float32", f"int{size.get('bits', 4)}", size["N"])
    if proto is None:
        return Layer(name, node.op_type, None, precision or "float32", "computed", 0)
    shape = tuple(proto.dims)
    stored = _DTYPES.get(proto.data_type, "?")
    convolution = "Conv" in node.op_type
    flipped = node.op_type in {"Gemm", "FusedGemm", "QGemm"} and any(a.name == "transB" and a.i for a in node.attribute)
    axis = (1 if node.op_type == "ConvTranspose" else 0) if convolution else (0 if flipped else len(shape) - 1)
    inputs = int(np.prod(shape)) // max(1, shape[axis]) if convolution else shape[1 if flipped else -2]
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    return Layer(
        name=name,
        op=node.op_type,
        macs=None if output is None else int(np.prod(output)) * inputs,
        precision=precision or ("float16" if stored == "float16" else "float32"),
        stored=stored,
        channels=int(shape[axis]),
        weights=functools.partial(_weights, proto, axis),
        depthwise=group > 1,
    )


def _weights(proto: Any, axis: int) -> Array:
    return np.moveaxis(numpy_helper.to_array(proto), axis, 0)


def _ranges(model: Any) -> Dict[str, Tuple[float, float]]:
    """Activation → what its QuantizeLinear can hold."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    ranges = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in values or len(node.input) < 3:
            continue
        scale, zero = values.get(node.input[1]), values.get(node.input[2])
        if scale is None or zero is None or zero.data_type not in _LIMITS or int(np.prod(scale.dims)) > 1:
            continue
        low, high = _LIMITS[zero.data_type]
        s, z = float(numpy_helper.to_array(scale).reshape(-1)[0]), int(numpy_helper.to_array(zero).reshape(-1)[0])
        ranges[node.input[0]] = ((low - z) * s, (high - z) * s)
    return ranges
