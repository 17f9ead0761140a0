"""The graph of a torch.export program (``.pt2``), as PyTorch runs it eagerly, one operator after the other.

Quantised programs (PT2E) dequantise before each layer, so layers that run eagerly compute in float, whatever the stored
type. A compiler (``compile=1``), or ONNX Runtime after ``export-onnx``, fuses the pairs into integer layers.
"""

import functools
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgeprof.compression.target import native_architecture
from edgeprof.worker.embedded_code import load_program
from edgeprof.worker.graph import Graph, Layer

Array = Any
Shape = Tuple[Optional[int], ...]

#: Operator → the axis of the output channels in the weight.
_LAYERS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear"), 0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), -1),
}
#: Operators that multiply two activations, or in several steps.
_COMPOSED = ("lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention", "einsum")
_CONVERSIONS = ("quantize_", "dequantize_", "choose_qparams")
#: Prefixes of operators that compute nothing.
_NOTHING = ("getitem", "_assert", "sym_")
#: Operator → the position of its argument for training mode.
_TRAINS = {"batch_norm": 5, "native_batch_norm": 5, "_native_batch_norm_legit": 5, "dropout": 2, "feature_dropout": 2}
_INTEGERS = (
    "PyTorch, run eagerly, turns them into floats first: export it (+export-onnx), or bench it with --option compile=1."
)


def read(path: str, inputs: Optional[Mapping[str, Any]] = None) -> Graph:
    """Read the graph of a program; the result can be pickled, with its weights.

    Args:
        path: The file.
        inputs: As for ``Runtime.inspect_with_inputs``.

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
    operators = [(_operator_name(node), node) for node in nodes]
    sizes = _Sizes(program, inputs or {})
    layers = [
        layer
        for name, node in operators
        if name in _LAYERS or name in _COMPOSED
        for layer in (
            _read_layers(name, node, constants, sizes) if name in _LAYERS else _composed_layers(name, node, sizes)
        )
    ]
    unsized = any(layer.macs is None for layer in layers) and not inputs
    return Graph(
        layers=layers,
        nodes=sum(not name.startswith(_NOTHING) for name, _ in operators),
        conversions=sum(name.startswith(_CONVERSIONS) for name, _ in operators),
        batch_norms=[node.name for name, node in operators if "batch_norm" in name],
        training=[node.name for name, node in operators if name in _TRAINS and _flag_argument(node, _TRAINS[name])],
        note="arithmetic is not counted in whole: sizes are open; give them with --input, --input-data or --dataset"
        if unsized
        else "",
        inputs=sizes.declared,
        integers=_INTEGERS,
        engine=native_architecture(),
    )


def _operator_name(node: Any) -> str:
    """The name of an operator: ``conv2d`` for ``aten.conv2d.default``."""
    name = str(getattr(node.target, "__name__", node.target))
    return name.partition(".")[0]


def _flag_argument(node: Any, position: int) -> bool:
    return len(node.args) > position and node.args[position] is True


def _read_layers(name: str, node: Any, constants: Dict[str, Any], sizes: "_Sizes") -> Iterator[Layer]:
    """Yield the layer of a node; a product of two activations has no weights."""
    position = 2 if name in {"addmm", "baddbmm"} else 1
    source = node.args[position]  # type: Any
    zero = None  # type: Any
    if _operator_name(source).startswith("dequantize_"):
        zero = source.args[2] if len(source.args) > 2 else None
        source = source.args[0]
    weight = constants.get(source.name)
    first = node.args[position - 1].meta.get("val")
    if weight is None:
        second = source.meta.get("val")
        macs = None if second is None else sizes.macs(name, second.shape, first, node.meta.get("val"))
        yield Layer(node.name, name, macs, _dtype_name(first), "computed", 0)
        return
    if weight.dim() < 2:
        return
    axis, shape = _LAYERS[name], tuple(int(size) for size in weight.shape)
    groups = _group_count(name, node)
    points = constants.get(zero.name) if hasattr(zero, "name") else zero
    values = weight.cpu().float().numpy() if weight.is_floating_point() else weight.cpu().numpy()
    yield Layer(
        name=node.name,
        op=name,
        macs=sizes.macs(name, shape, first, node.meta.get("val")),
        precision=_dtype_name(first),
        stored=str(weight.dtype).removeprefix("torch."),
        channels=shape[axis] * (groups if axis == 1 else 1),
        weights=functools.partial(_channel_weights, values, None if points is None else np.asarray(points), axis),
        depthwise=groups > 1 and groups == shape[0],
    )


def _group_count(name: str, node: Any) -> int:
    """The number of groups of a convolution; its position differs between the three signatures of convolutions."""
    if not name.startswith("conv"):
        return 1
    place = {"convolution": 8}.get(name, 7 if "transpose" in name else 6)
    return int(node.args[place]) if len(node.args) > place else int(node.kwargs.get("groups", 1))


def _dtype_name(value: Any) -> str:
    return "float32" if value is None else str(value.dtype).removeprefix("torch.")


class _Sizes:
    """Sizes for one sample: open sizes have the given values, and an open batch is 1.

    Attributes:
        declared: Input → its shape, with None for an open size.
    """

    def __init__(self, program: Any, inputs: Mapping[str, Any]) -> None:
        self.declared = {}  # type: Dict[str, Shape]
        self._known = {}  # type: Dict[Any, int]
        self._batch = 1
        names = set(program.graph_signature.user_inputs)
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        for position, node in enumerate(placeholders):
            shape = getattr(node.meta.get("val"), "shape", ())
            given = inputs.get(node.name, inputs.get("") if len(placeholders) == 1 else None)
            given_shape = tuple(getattr(given, "shape", given) or ())
            self.declared[node.name] = tuple(size if isinstance(size, int) else None for size in shape)
            for axis, size in enumerate(shape):
                if isinstance(size, int):
                    self._batch = size if axis == 0 and position == 0 and size > 0 else self._batch
                elif axis == 0 or axis < len(given_shape):
                    self._known.setdefault(size.node.expr, 1 if axis == 0 else int(given_shape[axis]))

    def of(self, shape: Any) -> Optional[List[int]]:
        """Return a shape as numbers; None where a size is open."""
        sizes = []
        for size in shape:
            value = size if isinstance(size, int) else size.node.expr.subs(self._known)
            if not isinstance(value, int) and not value.is_Integer:
                return None
            sizes.append(int(value))
        return sizes

    def macs(self, name: str, weight: Sequence[Any], first: Any, output: Any) -> Optional[int]:
        """Return the multiply-accumulate operations of a layer for one sample; None where a size is open."""
        sized = first if "transpose" in name else output
        shape = None if sized is None else self.of(sized.shape)
        known = self.of(weight)
        if shape is None or not known:
            return None
        inner = known[-2 if len(known) > 1 else -1] if _LAYERS[name] == -1 else int(np.prod(known[1:]))
        return self.sample(int(np.prod(shape)) * inner)

    def sample(self, count: int) -> int:
        """Return the share of one sample in a count for the whole batch."""
        return count // self._batch


def _composed_layers(name: str, node: Any, sizes: _Sizes) -> Iterator[Layer]:
    """Yield the layer of a recurrent network, an attention, or an Einstein summation."""
    first = node.args[0] if name != "einsum" else None
    values = [
        getattr(argument, "meta", {}).get("val") for argument in node.args[: 3 if name.startswith("scaled") else 1]
    ]
    shapes = [None if value is None else sizes.of(value.shape) for value in values]
    macs = None  # type: Optional[int]
    known = [shape for shape in shapes if shape]
    if name.startswith("scaled") and len(known) == 3:
        queries, keys, held = known
        macs = int(np.prod(queries[:-1])) * keys[-2] * (queries[-1] + held[-1])
    elif first is not None and known and isinstance(node.args[2], (list, tuple)):
        weights = [weight.meta["val"].shape for weight in node.args[2] if len(weight.meta["val"].shape) == 2]
        macs = int(np.prod(known[0][:-1])) * sum(int(np.prod(shape)) for shape in weights)
    elif name == "einsum":
        macs = _einsum_macs(node, sizes)
    yield Layer(
        node.name, name, None if macs is None else sizes.sample(macs),
        _dtype_name(values[0] if first is not None else None),
        "computed", 0,
    )  # fmt: skip


def _einsum_macs(node: Any, sizes: _Sizes) -> Optional[int]:
    terms = str(node.args[0]).replace(" ", "").partition("->")[0].split(",")
    letters = {}  # type: Dict[str, int]
    for term, factor in zip(terms, node.args[1]):
        shape = sizes.of(factor.meta["val"].shape)
        if shape is None or len(shape) != len(term):
            return None
        letters.update(zip(term, shape))
    return int(np.prod(list(letters.values()))) * max(1, len(terms) - 1)


def _channel_weights(values: Array, points: Optional[Array], axis: int) -> Array:
    turned = np.moveaxis(values, axis, 0)
    if values.dtype.kind == "f" or points is None:
        return turned
    zeros = points.reshape(-1, *[1] * (turned.ndim - 1)) if points.size in {1, len(turned)} else 0
    return turned.astype(np.int32) - zeros
