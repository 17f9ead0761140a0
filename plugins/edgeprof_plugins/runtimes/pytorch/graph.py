"""The graph of a torch.export program (``.pt2``), as PyTorch runs it eagerly: one operator after the other.

Quantised programs (PT2E) dequantise before each layer, so that eager layers compute in floats, whatever is stored; a
compiler (``compile=1``) or ONNX Runtime, after ``export-onnx``, fuses the pairs into integer layers.
"""

import functools
from typing import Any, Dict, Iterator, Optional, Sequence

import numpy as np

from edgeprof.compression.target import native_architecture
from edgeprof.worker.embedded_code import load_program
from edgeprof.worker.graph import Graph, Layer

Array = Any

#: Operator → where its output channels are in the weight.
_LAYERS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear"), 0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm"), -1),
}
_CONVERSIONS = ("quantize_", "dequantize_", "choose_qparams")
#: What is in the graph and computes nothing.
_NOTHING = ("getitem", "_assert", "sym_")
#: Operator → the position of its flag for training.
_TRAINS = {"batch_norm": 5, "native_batch_norm": 5, "_native_batch_norm_legit": 5, "dropout": 2, "feature_dropout": 2}
_INTEGERS = (
    "PyTorch, run eagerly, turns them into floats first: export it (+export-onnx), or bench it with --option compile=1."
)


def read(path: str) -> Graph:
    """The graph of a program; it can be pickled, with its weights.

    Raises:
        ImportError: torch is not installed.
        LoadError: the file would run its author's code.
    """
    import torch
    import torch.ao.quantization.fx._decomposed

    program = load_program(torch, path)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    known = {
        **program.graph_signature.inputs_to_parameters,
        **program.graph_signature.inputs_to_buffers,
        **program.graph_signature.inputs_to_lifted_tensor_constants,
    }
    held = {**program.state_dict, **program.constants}
    constants = {given: held[name].detach() for given, name in known.items() if name in held}
    operators = [(_operator(node), node) for node in nodes]
    layers = [layer for name, node in operators if name in _LAYERS for layer in _layer(name, node, constants)]
    return Graph(
        layers=layers,
        nodes=sum(not name.startswith(_NOTHING) for name, _ in operators),
        conversions=sum(name.startswith(_CONVERSIONS) for name, _ in operators),
        batch_norms=[node.name for name, node in operators if "batch_norm" in name],
        training=[node.name for name, node in operators if name in _TRAINS and _flag(node, _TRAINS[name])],
        integers=_INTEGERS,
        engine=native_architecture(),
    )


def _operator(node: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``."""
    name = str(getattr(node.target, "__name__", node.target))
    return name.partition(".")[0]


def _flag(node: Any, position: int) -> bool:
    return len(node.args) > position and node.args[position] is True


def _layer(name: str, node: Any, constants: Dict[str, Any]) -> Iterator[Layer]:
    """The layer, if one of its arguments is a weight."""
    position = 2 if name == "addmm" else 1
    source = node.args[position]  # type: Any
    zero = None  # type: Any
    if _operator(source).startswith("dequantize_"):
        zero = source.args[2] if len(source.args) > 2 else None
        source = source.args[0]
    weight = constants.get(source.name)
    if weight is None or weight.dim() < 2:
        return
    axis, shape = _LAYERS[name], tuple(int(size) for size in weight.shape)
    groups = _groups(name, node)
    points = constants.get(zero.name) if hasattr(zero, "name") else zero
    values = weight.cpu().float().numpy() if weight.is_floating_point() else weight.cpu().numpy()
    activation = node.args[position - 1].meta.get("val")
    yield Layer(
        name=node.name,
        op=name,
        macs=_macs(name, shape, activation, node.meta.get("val")),
        precision=str(activation.dtype).removeprefix("torch.") if activation is not None else "float32",
        stored=str(weight.dtype).removeprefix("torch."),
        channels=shape[axis] * (groups if axis == 1 else 1),
        weights=functools.partial(_weights, values, None if points is None else np.asarray(points), axis),
        depthwise=groups > 1 and groups == shape[0],
    )


def _groups(name: str, node: Any) -> int:
    """An argument of convolutions, at the place that each of their three signatures has for it."""
    if not name.startswith("conv"):
        return 1
    place = {"convolution": 8}.get(name, 7 if "transpose" in name else 6)
    return int(node.args[place]) if len(node.args) > place else int(node.kwargs.get("groups", 1))


def _macs(name: str, weight: Sequence[int], activation: Any, output: Any) -> Optional[int]:
    """Of one sample, which the first dimension counts; None where a size is open."""
    turned = "transpose" in name
    features = activation if turned else output
    if features is None:
        return None
    sizes = list(features.shape[1:] if features.dim() > 1 else features.shape)
    if not all(isinstance(size, int) for size in sizes):
        return None
    inner = weight[-2] if _LAYERS[name] == -1 else int(np.prod(weight[1:]))
    return int(np.prod([int(size) for size in sizes])) * inner


def _weights(values: Array, points: Optional[Array], axis: int) -> Array:
    turned = np.moveaxis(values, axis, 0)
    if values.dtype.kind == "f" or points is None:
        return turned
    zeros = points.reshape(-1, *[1] * (turned.ndim - 1)) if points.size in {1, len(turned)} else 0
    return turned.astype(np.int32) - zeros
