"""Random ONNX networks of several layers, built a second time with other weights to say what a variant must answer.

A plan says which layers a network has, where their weights lie in the file and how the file is written. ``build`` makes
the same model from the same plan each time; weights that are given by name take the place of the random ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

ROWS = 4
KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
#: Layers of flat features, and the widths that they give.
FLAT = (
    "matmul",
    "gemm",
    "gemm turned",
    "gemm of turned input",
    "einsum",
    "stack",
    "left",
    "tied",
    "lstm",
    "gru",
    "rnn",
)
IMAGES = ("conv", "conv 1×1", "grouped", "depthwise", "transposed", "grouped transposed")
PLACES = ("initializer", "input", "constant", "identity", "transpose", "sparse", "branch", "loop", "function")
OPSETS = (7, 11, 13, 17, 21)
#: The operator set with which each came.
_SINCE = {"einsum": 12, "function": 13, "sparse": 11, "branch": 11, "loop": 11}


@dataclass(frozen=True)
class Step:
    """A layer of a plan: its kind, where its weights lie, and its width."""

    kind: str
    place: str
    width: int


@dataclass(frozen=True)
class Plan:
    """A network: layers, how the file is written, and what its weights are drawn from.

    Attributes:
        spatial: How many axes images have besides batch and channels; 0 for flat features.
        hostile: Whether names have slashes and letters beyond ASCII, and nodes have none.
    """

    steps: tuple[Step, ...]
    kind: str = "float32"
    opset: int = 17
    spatial: int = 0
    seed: int = 0
    hostile: bool = False


@dataclass
class Layer:
    """One weight of a network, as its layer multiplies with it.

    Attributes:
        op: The operator.
        values: The weight in the arrangement of that operator.
        outputs: Axis of the output channels.
        inner: Axis that products are summed over.
        macs: Multiply-accumulates for one sample, of all layers that read it.
        place: Where it lies in the file.
        kind: As the plan calls it.
        group: Of a convolution.
    """

    op: str
    values: Array
    outputs: int
    inner: int
    macs: int
    place: str
    kind: str
    group: int = 1


@dataclass
class Net:
    """A network and its hand count: the weights by name, and how many other real numbers its constants have."""

    model: Any
    feeds: dict[str, Array]
    layers: dict[str, Layer]
    others: int = 0

    def save(self, path: Path, *, external: bool = False) -> Path:
        """Write it; with ``external`` all weights lie in a file of a folder beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if external:
            (path.parent / "weights").mkdir(exist_ok=True)
            onnx.save_model(
                self.model, str(path), save_as_external_data=True, location=f"weights/{path.stem}.bin",
                size_threshold=1024, convert_attribute=True,
            )  # fmt: skip
        else:
            onnx.save_model(self.model, str(path))
        return path

    @property
    def size(self) -> int:
        """How many real numbers the model's constants have."""
        return self.others + sum(layer.values.size for layer in self.layers.values())

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers.values())


def plans(
    *, flat: tuple[str, ...] = FLAT, images: tuple[str, ...] = IMAGES, kinds: tuple[str, ...] = ("float32",),
    places: tuple[str, ...] = PLACES, spatial: tuple[int, ...] = (0, 0, 0, 1, 2, 3),
) -> st.SearchStrategy[Plan]:  # fmt: skip
    """Plans of one to three layers."""

    @st.composite
    def draw_plan(draw: st.DrawFn) -> Plan:
        kind = draw(st.sampled_from(kinds))
        opset = draw(st.sampled_from(OPSETS))
        axes = draw(st.sampled_from(spatial)) if kind == "float32" else 0
        options = [name for name in (images if axes else flat) if _SINCE.get(name, 0) <= opset]
        if kind != "float32":  # ONNX Runtime has no recurrent kernels of other types
            options = [name for name in options if name not in {"lstm", "gru", "rnn"}]
        allowed = [name for name in places if _SINCE.get(name, 0) <= opset]
        steps = draw(
            st.lists(
                st.builds(Step, st.sampled_from(options), st.sampled_from(allowed), st.sampled_from([10, 12, 18])),
                min_size=1,
                max_size=3,
            )
        )
        return Plan(tuple(steps), kind, opset, axes, draw(st.integers(0, 99)), draw(st.booleans()))

    return draw_plan()


def every_node(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of those inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g)


def build(plan: Plan, replaced: Mapping[str, Array] | None = None) -> Net:
    """The network of a plan; ``replaced`` are weights that it has in place of its own."""
    return _Builder(plan, replaced or {}).finish()


@dataclass
class _Builder:
    plan: Plan
    replaced: Mapping[str, Array]
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    sparse: list[Any] = field(default_factory=list)
    functions: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    layers: dict[str, Layer] = field(default_factory=dict)
    others: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.plan.seed)
        self.type = KINDS[self.plan.kind]
        self.now, self.width = "x", 16
        self.shape = [1, 16, *[6] * self.plan.spatial] if self.plan.spatial else [ROWS, 16]
        self.inputs.append(helper.make_tensor_value_info("x", self.type, self.shape))
        self.feeds = {"x": self.draw(*self.shape, fan=1)}

    def draw(self, *shape: int, fan: int | None = None) -> Array:
        scale = math.sqrt(fan if fan is not None else max(1, math.prod(shape[1:])))
        return (self.random.standard_normal(shape) / scale).astype(self.plan.kind)

    def name(self, text: str) -> str:
        return f"/net/λ {text}:0" if self.plan.hostile else text

    def node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
        name = "" if self.plan.hostile else f"{op}_{outputs[0]}"
        return helper.make_node(op, inputs, outputs, name=name, **attributes)

    def integers(self, values: list[int], name: str) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def reshape(self, shape: list[int]) -> None:
        output = self.name(f"r{len(self.nodes)}")
        self.nodes.append(self.node("Reshape", [self.now, self.integers(shape, f"{output} shape")], [output]))
        self.now, self.shape = output, shape

    def transpose(self) -> None:
        output = self.name(f"t{len(self.nodes)}")
        self.nodes.append(self.node("Transpose", [self.now], [output], perm=[1, 0]))
        self.now, self.shape = output, self.shape[::-1]

    # --- weights and where they lie -----------------------------------------------------------------------------------

    def bias(self, *shape: int) -> str:
        name = self.name(f"b{len(self.initializers)}")
        self.initializers.append(numpy_helper.from_array(self.draw(*shape, fan=4), name))
        self.others += math.prod(shape) if math.prod(shape) > 1 else 0
        return name

    def layer(self, step: Step, op: str, values: Array, outputs: int, inner: int, macs: int, group: int = 1) -> Array:
        """Note a weight; returns the values that the model gets."""
        name = f"w{len(self.layers)}"
        self.layers[name] = Layer(op, values, outputs, inner, macs, step.place, step.kind, group)
        return np.asarray(self.replaced.get(name, values), values.dtype)

    def emit(self, step: Step, op: str, inputs: list[Any], shape: list[int], **attributes: Any) -> None:
        """A node, of whose inputs the arrays are weights that lie where the step says; the result has this shape."""
        place, output = step.place, self.name(f"y{len(self.nodes)}")
        # The other branch gives its input back: where that has other sizes, those behind it would be open.
        place = "initializer" if place == "branch" and step.kind in {"left", "gemm of turned input"} else place
        weights = {self.name(f"w{len(self.nodes)}_{k}"): v for k, v in enumerate(inputs) if not isinstance(v, str)}
        names = iter(weights)
        given = [value if isinstance(value, str) else next(names) for value in inputs]
        protos = [numpy_helper.from_array(values, name) for name, values in weights.items()]
        if place in {"branch", "loop", "function"} and any(self.now == v for v in given):
            self._inside(place, op, given, weights, protos, output, attributes)
        else:
            given = [self._stored(place, name, weights[name]) if name in weights else name for name in given]
            self.nodes.append(self.node(op, given, [output], **attributes))
        self.now, self.shape = output, shape

    def _stored(self, place: str, name: str, values: Array) -> str:
        """Put a weight into the model; returns the tensor that has its values."""
        if place == "constant":
            self.nodes.append(self.node("Constant", [], [name], value=numpy_helper.from_array(values, name)))
            return name
        if place == "sparse":
            flat = values.reshape(-1)
            at = np.flatnonzero(flat)
            stored = numpy_helper.from_array(flat[at], name), numpy_helper.from_array(at, f"{name} at")
            self.sparse.append(helper.make_sparse_tensor(*stored, list(values.shape)))
            return name
        if place == "input":
            self.inputs.append(helper.make_tensor_value_info(name, self.type, values.shape))
        if place == "transpose":
            order = list(range(values.ndim))[::-1]
            self.initializers.append(numpy_helper.from_array(np.array(values.transpose(order), order="C"), name))
            self.nodes.append(self.node("Transpose", [name], [f"{name} turned"], perm=order))
            return f"{name} turned"
        self.initializers.append(numpy_helper.from_array(values, name))
        if place == "identity":
            self.nodes.append(self.node("Identity", [name], [f"{name} same"]))
            return f"{name} same"
        return name

    def _inside(
        self, place: str, op: str, given: list[str], weights: dict[str, Array], protos: list[Any], output: str,
        attributes: dict[str, Any],
    ) -> None:  # fmt: skip
        """The node within a branch, the body of a loop that runs once, or a function of the model's own."""
        inner = self.node(op, given, ["result"], **attributes)
        result = helper.make_tensor_value_info("result", self.type, None)
        if place == "function":
            constants = [self.node("Constant", [], [proto.name], value=proto) for proto in protos]
            read = list(dict.fromkeys(name for name in given if name and name not in weights))
            opset = [helper.make_opsetid("", self.plan.opset)]
            name = f"Layer{len(self.functions)}"
            self.functions.append(helper.make_function("own", name, read, ["result"], [*constants, inner], opset))
            self.nodes.append(helper.make_node(name, read, [output], name="", domain="own"))
        elif place == "branch":
            # The other branch multiplies nothing.
            then = helper.make_graph([inner], "then", [], [result], protos)
            other = helper.make_graph([self.node("Identity", [self.now], ["other"])], "else", [], [])
            other.output.append(helper.make_tensor_value_info("other", self.type, None))
            condition = f"{output} condition"
            self.initializers.append(numpy_helper.from_array(np.array([True]), f"{condition} first"))
            self.nodes.append(self.node("Identity", [f"{condition} first"], [condition]))
            self.nodes.append(self.node("If", [condition], [output], then_branch=then, else_branch=other))
        else:
            count, going = f"{output} count", f"{output} going"
            self.initializers.append(numpy_helper.from_array(np.array(1, np.int64), count))
            self.initializers.append(numpy_helper.from_array(np.array(True), going))
            body = helper.make_graph(
                [inner, helper.make_node("Identity", ["go in"], ["go out"], name="")],
                "body",
                [
                    helper.make_tensor_value_info("i", TensorProto.INT64, []),
                    helper.make_tensor_value_info("go in", TensorProto.BOOL, []),
                ],
                [helper.make_tensor_value_info("go out", TensorProto.BOOL, []), result],
                protos,
            )
            every = f"{output} every"
            self.nodes.append(self.node("Loop", [count, going], [every], body=body))
            self.initializers.append(numpy_helper.from_array(np.array(0, np.int64), f"{output} first"))
            self.nodes.append(self.node("Gather", [every, f"{output} first"], [output], axis=0))

    # --- layers -------------------------------------------------------------------------------------------------------

    def flat(self, step: Step) -> None:
        rows, width, out = self.shape[0], self.shape[1], step.width
        macs = rows * width * out
        if step.kind in {"lstm", "gru", "rnn"}:
            self.recurrent(step, step.kind.upper())
        elif step.kind.startswith("gemm"):
            turned = step.kind == "gemm turned"
            values = self.draw(out, width) if turned else self.draw(width, out)
            values = self.layer(step, "Gemm", values, 0 if turned else 1, 1 if turned else 0, macs)
            if step.kind == "gemm of turned input":
                self.transpose()
            bias = self.bias(*[(out,), (1, out), (1,), (1, 1)][self.plan.seed % 4])
            scaled = {"alpha": 0.5, "beta": 2.0} if self.plan.seed % 3 == 0 else {}
            turns = {"transB": int(turned), "transA": int(step.kind == "gemm of turned input")}
            self.emit(step, "Gemm", [self.now, values, bias], [rows, out], **turns, **scaled)
        elif step.kind == "einsum":
            values = self.layer(step, "Einsum", self.draw(width, out), 1, 0, macs)
            self.emit(step, "Einsum", [self.now, values], [rows, out], equation="ij,jk->ik")
        elif step.kind == "stack":
            values = self.layer(step, "MatMul", self.draw(2, width, out), 2, 1, 2 * macs)
            self.emit(step, "MatMul", [self.now, values], [2, rows, out])
            self.reshape([2 * rows, out])
        elif step.kind == "left":
            values = self.layer(step, "MatMul", self.draw(out, width), 0, 1, macs)
            self.transpose()
            self.emit(step, "MatMul", [values, self.now], [out, rows])
            self.transpose()
        elif step.kind == "tied":
            values = self.layer(step, "MatMul", self.draw(width, out), 1, 0, 2 * macs)
            name = self.name(f"tied{len(self.nodes)}")
            self.initializers.append(numpy_helper.from_array(values, name))
            self.nodes.append(self.node("Transpose", [name], [f"{name} back"], perm=[1, 0]))
            self.emit(step, "MatMul", [self.now, name], [rows, out])
            self.emit(step, "MatMul", [self.now, f"{name} back"], [rows, width])
        else:
            values = self.layer(step, "MatMul", self.draw(width, out), 1, 0, macs)
            self.emit(step, "MatMul", [self.now, values], [rows, out])

    def recurrent(self, step: Step, op: str) -> None:
        gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], step.width
        rows, width = self.shape
        directions = 1 + self.plan.seed % 2
        peepholes = op == "LSTM" and self.plan.seed % 3 == 0
        w = self.draw(directions, gates * hidden, width, fan=width)
        r = self.draw(directions, gates * hidden, hidden, fan=hidden)
        macs = rows * directions * gates * hidden
        w = self.layer(step, op, w, 1, 2, macs * width)
        r = self.layer(step, op, r, 1, 2, macs * hidden)
        self.reshape([rows, 1, width])
        inputs = [self.now, w, r, self.bias(directions, 2 * gates * hidden)]
        inputs += ["", "", "", self.bias(directions, 3 * hidden)] if peepholes else []
        kind = {"direction": "bidirectional"} if directions == 2 else {}
        self.emit(step, op, inputs, [rows, directions, 1, hidden], hidden_size=hidden, **kind)
        self.reshape([rows, directions * hidden])

    def image(self, step: Step) -> None:
        channels, axes = self.shape[1], self.plan.spatial
        kernel = 1 if step.kind == "conv 1×1" else 3
        size = self.shape[2]
        group = channels if step.kind == "depthwise" else 2 if "grouped" in step.kind and channels % 2 == 0 else 1
        out = channels if step.kind == "depthwise" else step.width
        pads = [kernel // 2] * 2 * axes
        if "transposed" in step.kind:
            shape = (channels, out // group, *[kernel] * axes)
            macs = size**axes * channels * math.prod(shape[1:])
            values = self.layer(
                step, "ConvTranspose", self.draw(*shape, fan=channels * kernel**axes), 1, 0, macs, group
            )
            op = "ConvTranspose"
        else:
            shape = (out, channels // group, *[kernel] * axes)
            macs = size**axes * math.prod(shape)
            values = self.layer(step, "Conv", self.draw(*shape), 0, 1, macs, group)
            op = "Conv"
        inputs = [self.now, values, *([self.bias(out)] if self.plan.seed % 2 else [])]
        self.emit(step, op, inputs, [1, out, *[size] * axes], group=group, pads=pads, kernel_shape=[kernel] * axes)

    def finish(self) -> Net:
        for step in self.plan.steps:
            self.image(step) if self.plan.spatial else self.flat(step)
        self.nodes.append(self.node("Identity", [self.now], ["y"]))
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info("y", self.type, self.shape)],
            self.initializers,
            sparse_initializer=self.sparse,
        )
        imports = [helper.make_opsetid("", self.plan.opset)]
        imports += [helper.make_opsetid("own", 1)] if self.functions else []
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=8 if self.plan.opset < 21 else 10, functions=self.functions
        )
        return Net(model, self.feeds, self.layers, self.others)
