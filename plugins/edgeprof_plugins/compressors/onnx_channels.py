"""Which channel dimensions of an ONNX graph must be cut together, and which cannot be cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof_plugins.compressors.onnx_file import OnnxFile

#: One input, one output, channel by channel (or over space only).
_THROUGH = frozenset({
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip", "Softplus",
    "Softsign", "Gelu", "Mish", "Swish", "Identity", "Dropout", "Cast", "Abs", "Neg", "Exp", "Sqrt", "Erf", "Floor",
    "Ceil", "ThresholdedRelu", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
})  # fmt: skip
_ELEMENTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])


class Use(NamedTuple):
    """One axis of an initializer that runs over a set's channels, each ``repeat`` times in a row."""

    name: str
    axis: int
    repeat: int


class Cut(NamedTuple):
    axis: int
    keep: npt.NDArray[np.intp]
    repeat: int

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        kept = (self.keep[:, None] * self.repeat + np.arange(self.repeat)).reshape(-1)
        cut: npt.NDArray[Any] = np.take(values, kept, axis=self.axis)
        return cut


@dataclass
class Group:
    """Channels that go or stay together.

    Attributes:
        size: How many.
        uses: What must be cut.
        weights: Those that make the channels, with the axis, for their importance.
        makers: Nodes of these.
        depthwise: Nodes whose attribute ``group`` is the number of channels.
        reshapes: Nodes that flatten; their shape must not name the old number.
        reason: Why it cannot be cut; None: it can.
    """

    size: int
    uses: list[Use] = field(default_factory=list)
    weights: list[tuple[str, int]] = field(default_factory=list)
    makers: list[int] = field(default_factory=list)
    depthwise: list[int] = field(default_factory=list)
    reshapes: list[int] = field(default_factory=list)
    reason: str | None = None

    def take(self, other: Group) -> None:
        for name in ("uses", "weights", "makers", "depthwise", "reshapes"):
            getattr(self, name).extend(getattr(other, name))
        self.reason = self.reason or other.reason


class Channels:
    """The sets of one graph.

    Args:
        model: The file; read, not changed (but for ``flatten``).
    """

    def __init__(self, model: OnnxFile) -> None:
        self.model = model
        self.graph = model.model.graph
        self.shapes = _shapes(model)
        self._sets: list[Group] = []
        self._parent: list[int] = []
        #: tensor → its set and how often each channel is repeated in it (after flattening).
        self._of: dict[str, tuple[int, int]] = {}
        self._uses: dict[str, int] = {}
        for node in self.graph.node:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1
        for index, node in enumerate(self.graph.node):
            self._visit(index, node)
        for output in self.graph.output:
            self._pin(output.name, f"{output.name} is an output of the model")

    def groups(self) -> list[Group]:
        """The sets that can be cut."""
        return [g for i, g in enumerate(self._sets) if self._root(i) == i and g.reason is None and g.weights]

    def pinned(self) -> list[str]:
        """Why the others cannot, one sentence for each."""
        return [g.reason for i, g in enumerate(self._sets) if self._root(i) == i and g.reason is not None]

    def why_not(self) -> str:
        reasons = self.pinned()
        if not reasons:
            return "it has no convolution or dense layer whose weights are in the file"
        return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")

    def label(self, index: int) -> str:
        node = self.graph.node[index]
        return node.name or f"{node.op_type} → {node.output[0]}"

    def flatten(self, index: int) -> None:
        """Let a Reshape flatten whatever number of channels comes: [0, -1]."""
        from edgeprof_plugins.compressors.onnx_file import tensor

        name = f"{self.graph.node[index].output[0]}_edgeprof_shape"
        self.model.add(tensor(np.array([0, -1], np.int64), name))
        self.graph.node[index].input[1] = name

    # --- sets ---------------------------------------------------------------------------------------------------

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def _new(self, name: str, size: int) -> Group:
        self._of[name] = (len(self._sets), 1)
        self._parent.append(len(self._sets))
        self._sets.append(Group(size))
        return self._sets[-1]

    def _group(self, name: str) -> Group | None:
        found = self._of.get(name)
        return None if found is None else self._sets[self._root(found[0])]

    def _join(self, a: str, b: str) -> None:
        one, other = self._root(self._of[a][0]), self._root(self._of[b][0])
        if one != other:
            self._parent[other] = one
            self._sets[one].take(self._sets[other])

    def _pin(self, name: str, reason: str) -> None:
        group = self._group(name)
        if group is not None and group.reason is None:
            group.reason = reason

    # --- operators ----------------------------------------------------------------------------------------------

    def _visit(self, index: int, node: Any) -> None:  # noqa: C901 - one line an operator
        op = node.op_type
        if op == "Conv":
            self._conv(index, node)
        elif op == "ConvTranspose" and _attribute(node, "group", 1) == 1:
            self._layer(index, node, 1, made=1, read=0, bias=2)
        elif op == "Gemm" and _attribute(node, "transA", 0) == 0:
            made = 0 if _attribute(node, "transB", 0) else 1
            self._layer(index, node, 1, made=made, read=1 - made, bias=2)
        elif op == "MatMul" and len(self.shapes.get(node.input[0], ())) == 2 and self._is_weight(node.input[1], 2):
            self._layer(index, node, 1, made=1, read=0, bias=None)
        elif op in {"BatchNormalization", "InstanceNormalization"}:
            self._constants(index, node, dict.fromkeys(range(1, len(node.input)), 0))
        elif op == "PRelu":
            self._prelu(index, node)
        elif op in _THROUGH and len([n for n in node.input if n in self._of]) == 1:
            self._through(node)
        elif op in _ELEMENTWISE and len(node.input) == 2:
            self._elementwise(index, node)
        elif op == "Flatten" and _attribute(node, "axis", 1) == 1:
            self._flattened(index, node)
        elif op == "Reshape" and len(self.shapes.get(node.output[0], ())) == 2:
            self._flattened(index, node, reshape=True)
        elif op in {"ReduceMean", "ReduceMax", "ReduceSum", "Squeeze", "Pad"} and self._over_space_only(node):
            self._through(node)
        elif op != "Shape":  # reading a shape cuts nothing; what it feeds is looked at where it ends
            self._refuse(index, node, f"{self.label(index)} ({op}) cannot be followed")

    def _refuse(self, index: int, node: Any, reason: str) -> None:
        del index
        for name in node.input:
            self._pin(name, reason)

    def _through(self, node: Any) -> None:
        source = next((name for name in node.input if name in self._of), None)
        if source is not None:
            self._of[node.output[0]] = self._of[source]

    def _conv(self, index: int, node: Any) -> None:
        groups = _attribute(node, "group", 1)
        if groups == 1:
            self._layer(index, node, 1, made=0, read=1, bias=2)
            return
        group = self._group(node.input[0])
        shape = self._shape_of(node.input[1])
        if group is not None and self._own(node.input[1]) and shape[:2] == (groups, 1) and group.size == groups:
            group.depthwise.append(index)
            group.weights.append((node.input[1], 0))
            self._constants(index, node, {1: 0, 2: 0})
            return
        self._refuse(index, node, f"{self.label(index)} is a grouped convolution")

    def _layer(self, index: int, node: Any, position: int, *, made: int, read: int, bias: int | None) -> None:
        weight, source = node.input[position], node.input[0]
        if not self._own(weight):
            self._refuse(index, node, f"the weights of {self.label(index)} are shared or computed")
            return
        shape = self._shape_of(weight)
        found = self._of.get(source)
        if found is not None:
            group = self._sets[self._root(found[0])]
            if shape[read] == group.size * found[1]:
                group.uses.append(Use(weight, read, found[1]))
            else:
                group.reason = group.reason or f"{self.label(index)} reads its input in another order"
        produced = self._new(node.output[0], shape[made])
        produced.uses.append(Use(weight, made, 1))
        produced.weights.append((weight, made))
        produced.makers.append(index)
        if bias is not None and len(node.input) > bias and node.input[bias]:
            name = node.input[bias]
            sizes = self._shape_of(name)
            if self._own(name) and sizes and sizes[-1] == shape[made]:
                produced.uses.append(Use(name, len(sizes) - 1, 1))
            elif not self._own(name) or any(size != 1 for size in sizes):
                produced.reason = f"the bias of {self.label(index)} is shared or computed"

    def _constants(self, index: int, node: Any, axes: dict[int, int]) -> None:
        """A node with per-channel constants: they are cut with the channels that pass through."""
        found = self._of.get(node.input[0])
        if found is None:
            return
        group = self._sets[self._root(found[0])]
        for position, axis in axes.items():
            if position < len(node.input) and node.input[position]:
                name = node.input[position]
                if self._own(name) and self._shape_of(name)[axis] == group.size * found[1]:
                    group.uses.append(Use(name, axis, found[1]))
                else:
                    group.reason = group.reason or f"the constants of {self.label(index)} are shared or computed"
        self._of[node.output[0]] = found

    def _prelu(self, index: int, node: Any) -> None:
        shape = self._shape_of(node.input[1])
        if shape and all(size == 1 for size in shape):
            self._through(node)
        else:
            self._elementwise(index, node)

    def _elementwise(self, index: int, node: Any) -> None:
        a, b = node.input[0], node.input[1]
        if a in self._of and b in self._of:
            one, other = self._group(a), self._group(b)
            same_rank = len(self.shapes.get(a, ())) == len(self.shapes.get(b, ())) > 0
            if same_rank and one and other and one.size == other.size and self._of[a][1] == self._of[b][1]:
                self._join(a, b)
                self._of[node.output[0]] = self._of[a]
            else:
                self._refuse(index, node, f"{self.label(index)} ({node.op_type}) mixes channels of different tensors")
            return
        source, other_name = (a, b) if a in self._of else (b, a)
        found = self._of.get(source)
        if found is None:
            return
        rank = len(self.shapes.get(source, ()))
        shape = self._shape_of(other_name) if self.model.has(other_name) else self._scalar(other_name)
        group = self._sets[self._root(found[0])]
        if shape is None or not rank:
            group.reason = group.reason or f"{self.label(index)} ({node.op_type}) adds what cannot be followed"
            return
        axis = len(shape) - (rank - 1)  # of the constant, where the tensor's axis 1 falls
        if axis >= 0 and shape[axis] != 1:
            if shape[axis] == group.size * found[1] and self._own(other_name):
                group.uses.append(Use(other_name, axis, found[1]))
            else:
                group.reason = group.reason or f"the constant of {self.label(index)} is shared or of another shape"
        self._of[node.output[0]] = found

    def _scalar(self, name: str) -> tuple[int, ...] | None:
        shape = self.shapes.get(name)
        return () if shape is not None and all(size == 1 for size in shape) else None

    def _flattened(self, index: int, node: Any, *, reshape: bool = False) -> None:
        found = self._of.get(node.input[0])
        if found is None:
            return
        shape = self.shapes.get(node.input[0], ())
        group = self._sets[self._root(found[0])]
        repeat = found[1]
        for size in shape[2:]:
            if size is None:
                group.reason = group.reason or f"{self.label(index)} flattens a size that is open"
                return
            repeat *= size
        after = self.shapes.get(node.output[0], ())
        if len(shape) < 2 or (len(after) == 2 and after[1] not in (None, group.size * repeat)):
            group.reason = group.reason or f"{self.label(index)} ({node.op_type}) rearranges channels"
            return
        if reshape:
            group.reshapes.append(index)
        self._of[node.output[0]] = (found[0], repeat)

    def _over_space_only(self, node: Any) -> bool:
        axes = _attribute(node, "axes", None)
        if node.op_type == "Pad":
            pads = _attribute(node, "pads", None) or (self._values(node.input[1]) if len(node.input) > 1 else None)
            if not pads:
                return False
            half = len(pads) // 2
            return not any((*pads[:2], *pads[half : half + 2]))
        if axes is None and len(node.input) > 1:
            axes = self._values(node.input[1])
        rank = len(self.shapes.get(node.input[0], ()))
        return bool(axes) and rank > 2 and all((axis % rank) > 1 for axis in axes)

    # --- small things ---------------------------------------------------------------------------------------------

    def _values(self, name: str) -> list[int] | None:
        if self.model.has(name):
            return [int(value) for value in self.model.array(name).reshape(-1)]
        from onnx import numpy_helper

        for node in self.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        return [int(value) for value in numpy_helper.to_array(attribute.t).reshape(-1)]
        return None

    def _own(self, name: str) -> bool:
        return self.model.has(name) and self._uses.get(name, 0) == 1

    def _is_weight(self, name: str, rank: int) -> bool:
        return self.model.has(name) and len(self._shape_of(name)) == rank

    def _shape_of(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self.model.proto(name).dims) if self.model.has(name) else ()


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute.i if attribute.type == 2 else list(attribute.ints)
    return default


def _shapes(model: OnnxFile) -> dict[str, tuple[int | None, ...]]:
    """Shapes by name, as far as they can be inferred without the weights' values."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model.model)
    del copy.graph.value_info[:]
    declared = {one.name for one in copy.graph.input}
    for name in model.order:
        proto = model.proto(name)
        if proto.data_type == 7 and len(proto.dims) <= 1:  # int64: shapes and axes
            copy.graph.initializer.append(model.whole(name))
        elif name not in declared:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(name, proto.data_type, list(proto.dims)))
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    found: dict[str, tuple[int | None, ...]] = {}
    for one in (*inferred.input, *inferred.value_info, *inferred.output):
        if one.type.tensor_type.HasField("shape"):
            found[one.name] = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") else None for dim in one.type.tensor_type.shape.dim
            )
    return found
