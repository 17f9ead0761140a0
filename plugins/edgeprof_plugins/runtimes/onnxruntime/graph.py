"""The graph that ONNX Runtime executes, as ONNX Runtime itself optimises and writes it.

It is read in the main process of edgeprof and never in the worker, because reading needs onnx as well as onnxruntime.
"""

import os
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import external_data_helper, helper, numpy_helper

from edgeprof.compression.scratch import scratch
from edgeprof.worker.graph import Graph

from .layers import read_layers

Array = Any
Feeds = Mapping[str, Array]
Inputs = Mapping[str, Any]  # name → an array, or a shape

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
#: The most bytes of a protobuf message.
_LARGEST = 2**31 - 1
_TOO_LARGE = "its layers are not examined: the weights exceed 2 GiB, the most that a file without external data holds"


def read(path: str, inputs: Optional[Inputs] = None) -> Graph:
    """Read the executed graph of an ONNX file.

    Args:
        path: The file.
        inputs: As for ``Runtime.inspect_with_inputs``. Without inputs an open batch is 1, and if other sizes are open,
            no arithmetic is counted.
    """
    written = onnx.load(path, load_external_data=False)
    if _weights_size(written.graph) > _LARGEST:
        # The optimised graph could not be written, and a graph that is changed to show its tensors not be run.
        return Graph([], len(list(_all_nodes(written.graph))), note=_TOO_LARGE)
    external_data_helper.load_external_data_for_model(written, os.path.dirname(path))
    training = [
        node.name or node.output[0]
        for node in written.graph.node
        if (node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute))
        or (node.op_type == "BatchNormalization" and len([o for o in node.output if o]) > 1)
    ]
    with scratch("graph") as folder:
        executed = _optimised_model(path, folder)
        model, note = (written, "as written: ONNX Runtime does not load it") if executed is None else (executed, "")
        feeds, unsized = _make_feeds(model.graph, inputs or {})
        layers = read_layers(model, feeds)
    nodes = list(_all_nodes(model.graph))
    if unsized:
        note = note or unsized
    elif layers and all(layer.macs is None for layer in layers):
        note = note or "arithmetic is not counted: the model could not be run on {} inputs".format(
            "these" if inputs else "random"
        )
    return Graph(
        layers=layers,
        nodes=len(nodes),
        conversions=sum(node.op_type in _CONVERSIONS for node in nodes),
        batch_norms=[n.name or n.output[0] for n in nodes if n.op_type == "BatchNormalization"],
        training=training,
        ranges=_quantised_ranges(written),
        note=note,
        tensors=[name for node in written.graph.node for name in node.output if name],
        seen_as=_seen_as(written.graph),
        inputs={tensor.name: tuple(_declared_sizes(tensor)) for tensor in _runtime_inputs(model.graph)},
        assumed=_assumed_batch(model.graph, feeds) if not inputs else "",
        makers={name: node.name for node in written.graph.node if node.name for name in node.output if name},
    )


def _all_nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                for inner_node in _all_nodes(inner):
                    yield inner_node


def _runtime_inputs(graph: Any) -> List[Any]:
    known = {tensor.name for tensor in graph.initializer}
    return [tensor for tensor in graph.input if tensor.name not in known]


def _make_feeds(graph: Any, given: Inputs) -> Tuple[Optional[Dict[str, Array]], str]:
    """Return one set of inputs, or None and the reason: an open size that the user has not given."""
    inputs = _runtime_inputs(graph)
    if set(given) == {""} and len(inputs) == 1:
        given = {inputs[0].name: given[""]}
    feeds, draw = {}, np.random.default_rng(0)  # type: Dict[str, Array], Any
    for tensor in inputs:
        value = given.get(tensor.name)
        kind = tensor.type.tensor_type
        dtype = _DTYPES.get(kind.elem_type, "float32")
        if isinstance(value, np.ndarray):
            feeds[tensor.name] = value.astype(dtype) if value.dtype.kind in "fiub" else value
            continue
        sizes = _declared_sizes(tensor)
        if value is None and any(size is None for size in sizes[1:]):
            shape = " × ".join("?" if size is None else str(size) for size in sizes)
            example = "x".join("SIZE" if size is None else str(size) for size in [sizes[0] or 1, *sizes[1:]])
            return (
                None,
                "arithmetic is not counted: {} is {}; give its sizes with --input {}={}, --input-data or"
                " --dataset".format(tensor.name, shape, tensor.name, example),
            )
        feeds[tensor.name] = _draw_input(draw, [size or 1 for size in sizes] if value is None else list(value), dtype)
    return feeds, ""


def _weights_size(graph: Any) -> int:
    """The bytes of the weights, in the file or outside."""
    return sum(
        int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.initializer
    )


def _declared_sizes(tensor: Any) -> List[Optional[int]]:
    return [int(d.dim_value) if d.dim_value > 0 else None for d in tensor.type.tensor_type.shape.dim]


def _assumed_batch(graph: Any, feeds: Optional[Dict[str, Array]]) -> str:
    """The assumption about a batch that the file leaves open; "" if there is none."""
    if feeds is None:
        return ""
    open_ones = [
        tensor.name
        for tensor in _runtime_inputs(graph)
        if tensor.type.tensor_type.shape.dim and tensor.type.tensor_type.shape.dim[0].dim_value < 1
    ]
    return "a batch of 1 for {}".format(", ".join(open_ones)) if open_ones else ""


def _draw_input(draw: Any, shape: Sequence[int], dtype: str) -> Array:
    if dtype.startswith("float"):
        return draw.standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


def _session_options(level: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    return options


def _optimised_model(path: str, folder: Any) -> Any:
    """The model after ONNX Runtime's fusions, except those for a CPU's memory layout; None if it cannot be loaded."""
    target = folder / "executed.onnx"
    options = _session_options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    options.optimized_model_filepath = str(target)
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(str(target))
    except Exception:
        return None


def taps(source: Any, names: Iterable[str], feeds: Iterable[Feeds]) -> Iterator[Dict[str, Array]]:
    """Yield the values of chosen tensors inside a graph, for each set of inputs.

    A float model is run without optimisation, so that every tensor exists; fusions do not change its values. A
    quantised model is run as ONNX Runtime fuses it, so that its integer kernels run and saturate as in normal use;
    their integers are converted back to real numbers with their scale.

    Args:
        source: Path of the model, or a ModelProto, which is run without optimisation.
        names: Names of the tensors; those that do not exist in the graph are left out.
        feeds: Sets of inputs by name.
    """
    written, executed = onnx.ModelProto(), None
    if isinstance(source, onnx.ModelProto):
        written.CopyFrom(source)
    else:
        written = onnx.load(str(source))
        if _is_quantised(written):
            with scratch("taps") as folder:
                executed = _optimised_model(str(source), folder)
    model = written if executed is None else executed
    names = list(names)
    inside = {name for node in model.graph.node for name in node.output if name}
    sources = {name: name for name in dict.fromkeys(names) if name in inside}
    ends = _dequantised_sources(written.graph)
    sources.update({name: ends[name][0] for name in names if name not in inside and name in ends})
    sources = {name: source for name, source in sources.items() if source in inside}
    wanted = list(dict.fromkeys(sources.values()))
    given = {spec.name for spec in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        _session_options(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL),
        providers=["CPUExecutionProvider"],
    )
    inputs = [spec.name for spec in session.get_inputs()]
    for feed in feeds:
        named = {inputs[0]: feed[""]} if set(feed) == {""} else dict(feed)
        held = dict(zip(wanted, session.run(wanted, named)))
        yield {
            name: held[source] if source == name else (held[source].astype(np.float32) - ends[name][2]) * ends[name][1]
            for name, source in sources.items()
        }


def _is_quantised(model: Any) -> bool:
    """Whether anything in the model is computed or stored in another type than float32."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer) or any(
        node.op_type in _CONVERSIONS - {"Cast"} or "Integer" in node.op_type or node.op_type.startswith("QLinear")
        for node in _all_nodes(model.graph)
    )


def _dequantised_sources(graph: Any) -> Dict[str, Tuple[str, float, int]]:
    """Output of a DequantizeLinear → its input, scale and zero point; only for known scales of whole tensors."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    known = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in values and node.input[1] in values:
            scale = numpy_helper.to_array(values[node.input[1]]).reshape(-1)
            zero = values.get(node.input[2]) if len(node.input) > 2 else None
            if scale.size == 1 and (zero is not None or len(node.input) < 3):
                point = 0 if zero is None else int(numpy_helper.to_array(zero).reshape(-1)[0])
                known[node.output[0]] = (node.input[0], float(scale[0]), point)
    return known


def _seen_as(graph: Any) -> Dict[str, str]:
    """Map each quantised tensor to the tensor that its readers use.

    That is the output of the DequantizeLinear behind it, which has the clipped and rounded values.
    """
    ends = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    pairs = ((n.input[0], ends.get(n.output[0])) for n in graph.node if n.op_type == "QuantizeLinear")
    return {name: end for name, end in pairs if end is not None}


def _quantised_ranges(model: Any) -> Dict[str, Tuple[float, float]]:
    """Activation → the range that its QuantizeLinear can represent."""
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
