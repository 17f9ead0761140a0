"""Small TFLite networks, each with a layer of one kind and its weights in one place, and what is in them by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

TYPES = {"float32": 0, "float16": 1, "int32": 2, "float64": 10, "bool": 6}
ROWS, INNER, OUTER, STEPS, HIDDEN = 2, 24, 16, 5, 8


class Graph:
    """One subgraph of a model that is being built."""

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.graph = model, schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = name, [], []
        model.packed.subgraphs.append(self.graph)

    def tensor(self, name: str, shape: Sequence[int], values: Array | None = None, **more: Any) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = TYPES[str(values.dtype) if values is not None else more.get("kind", "float32")]
        made.isVariable = more.get("variable", False)
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.packed.buffers.append(buffer)
            made.buffer = len(self.model.packed.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def weight(self, name: str, values: Array) -> int:
        self.model.weights[name] = values
        return self.tensor(name, values.shape, values)

    def operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.packed.operatorCodes.append(code)
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.packed.operatorCodes) - 1, inputs, outputs
        if options is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            made.builtinOptions = options
        self.graph.operators.append(made)


@dataclass
class Model:
    """A model that is being built, and its hand count.

    Attributes:
        weights: Name → values of the weights that a layer multiplies with, as they lie in the file.
        macs: Multiply-accumulates as declared.
        others: How many further floats there are in constants of more than one.
        family: The operator.
    """

    packed: Any = field(default_factory=schema.ModelT)
    weights: dict[str, Array] = field(default_factory=dict)
    macs: int = 0
    others: int = 0
    family: str = "FULLY_CONNECTED"

    def __post_init__(self) -> None:
        self.packed.version, self.packed.operatorCodes, self.packed.subgraphs = 3, [], []
        self.packed.buffers = [schema.BufferT()]

    def save(self, path: Path) -> Path:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.packed.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def draw(seed: int, *shape: int, kind: str = "float32") -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(kind)


def run(path: Path) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        values = np.random.default_rng(0).standard_normal(detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]) if detail["shape"].size else np.True_)
    interpreter.invoke()
    answer: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer


def dense(seed: int) -> Model:
    model = Model(macs=ROWS * INNER * OUTER, others=OUTER)
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (ROWS, INNER)), graph.tensor("y", (ROWS, OUTER))
    w, b = graph.weight("w", draw(seed, OUTER, INNER)), graph.tensor("b", (OUTER,), draw(seed + 1, OUTER))
    graph.operator("FULLY_CONNECTED", [x, w, b], [y], schema.FullyConnectedOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def half_weights(seed: int) -> Model:
    """As MediaPipe's files: float16 in the file, turned into float32 when the model is loaded."""
    model = Model(macs=ROWS * INNER * OUTER)
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (ROWS, INNER)), graph.tensor("y", (ROWS, OUTER))
    w, wide = graph.weight("w", draw(seed, OUTER, INNER, kind="float16")), graph.tensor("wide", (OUTER, INNER))
    graph.operator("DEQUANTIZE", [w], [wide], schema.DequantizeOptionsT())
    graph.operator("FULLY_CONNECTED", [x, wide, -1], [y], schema.FullyConnectedOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def moved(seed: int) -> Model:
    model = Model(macs=ROWS * INNER * OUTER)
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (ROWS, INNER)), graph.tensor("y", (ROWS, OUTER))
    w, turned = graph.weight("w", draw(seed, INNER, OUTER)), graph.tensor("turned", (OUTER, INNER))
    order = graph.tensor("order", (2,), np.array([1, 0], np.int32))
    graph.operator("TRANSPOSE", [w, order], [turned], schema.TransposeOptionsT())
    graph.operator("FULLY_CONNECTED", [x, turned, -1], [y], schema.FullyConnectedOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def batch_product(seed: int) -> Model:
    model = Model(macs=ROWS * INNER * OUTER, family="BATCH_MATMUL")
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (1, ROWS, INNER)), graph.tensor("y", (1, ROWS, OUTER))
    w = graph.weight("w", draw(seed, 1, INNER, OUTER))
    graph.operator("BATCH_MATMUL", [x, w], [y], schema.BatchMatMulOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def convolution(op: str) -> Callable[[int], Model]:
    def net(seed: int) -> Model:
        model = Model(family=op)
        graph = Graph(model, "main")
        x, y = graph.tensor("x", (1, 6, 6, 8)), graph.tensor("y", (1, 4, 4, 16 if op == "CONV_2D" else 8))
        options = schema.Conv2DOptionsT() if op == "CONV_2D" else schema.DepthwiseConv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
        options.dilationHFactor = options.dilationWFactor = 1
        shape = (16, 3, 3, 8) if op == "CONV_2D" else (1, 3, 3, 8)
        if op != "CONV_2D":
            options.depthMultiplier = 1
        bias = graph.tensor("b", (16 if op == "CONV_2D" else 8,), draw(seed + 1, 16 if op == "CONV_2D" else 8))
        graph.operator(op, [x, graph.weight("w", draw(seed, *shape)), bias], [y], options)
        graph.graph.inputs, graph.graph.outputs = [x], [y]
        model.macs, model.others = 16 * 9 * 8 * (16 if op == "CONV_2D" else 1), 16 if op == "CONV_2D" else 8
        return model

    return net


def turned_convolution(seed: int) -> Model:
    model = Model(macs=16 * 9 * 8 * 6, family="TRANSPOSE_CONV")
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (1, 4, 4, 8)), graph.tensor("y", (1, 6, 6, 6))
    size = graph.tensor("size", (4,), np.array([1, 6, 6, 6], np.int32))
    options = schema.TransposeConvOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
    graph.operator("TRANSPOSE_CONV", [size, graph.weight("w", draw(seed, 6, 3, 3, 8)), x], [y], options)
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def lstm(seed: int) -> Model:
    model = Model(macs=STEPS * 4 * HIDDEN * (INNER + HIDDEN), others=4 * HIDDEN, family="UNIDIRECTIONAL_SEQUENCE_LSTM")
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (1, STEPS, INNER)), graph.tensor("y", (1, STEPS, HIDDEN))
    inputs = [x] + [graph.weight(f"i{k}", draw(seed + k, HIDDEN, INNER)) for k in range(4)]
    inputs += [graph.weight(f"r{k}", draw(seed + 4 + k, HIDDEN, HIDDEN)) for k in range(4)]
    inputs += [-1, -1, -1] + [graph.tensor(f"b{k}", (HIDDEN,), draw(seed + 8 + k, HIDDEN)) for k in range(4)] + [-1, -1]
    inputs += [graph.tensor(name, (1, HIDDEN), variable=True) for name in ("h", "c")] + [-1] * 4
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction, options.timeMajor = schema.ActivationFunctionType.TANH, False
    graph.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], options)
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def rnn(seed: int) -> Model:
    model = Model(macs=STEPS * HIDDEN * (INNER + HIDDEN), others=HIDDEN, family="UNIDIRECTIONAL_SEQUENCE_RNN")
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (1, STEPS, INNER)), graph.tensor("y", (1, STEPS, HIDDEN))
    w, r = graph.weight("w", draw(seed, HIDDEN, INNER)), graph.weight("r", draw(seed + 1, HIDDEN, HIDDEN))
    b = graph.tensor("b", (HIDDEN,), draw(seed + 2, HIDDEN))
    options = schema.SequenceRNNOptionsT()
    options.fusedActivationFunction, options.timeMajor = schema.ActivationFunctionType.TANH, False
    graph.operator(
        "UNIDIRECTIONAL_SEQUENCE_RNN", [x, w, r, b, graph.tensor("h", (1, HIDDEN), variable=True)], [y], options
    )
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def svdf(seed: int) -> Model:
    model = Model(macs=HIDDEN * (INNER + STEPS), family="SVDF")
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (1, INNER)), graph.tensor("y", (1, HIDDEN))
    w, t = graph.weight("w", draw(seed, HIDDEN, INNER)), graph.weight("t", draw(seed + 1, HIDDEN, STEPS))
    options = schema.SVDFOptionsT()
    options.rank = 1
    graph.operator("SVDF", [x, w, t, -1, graph.tensor("s", (1, HIDDEN * STEPS), variable=True)], [y], options)
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model


def branches(seed: int) -> Model:
    """Weights in both branches of an IF: each branch is a subgraph of its own."""
    model = Model(macs=ROWS * INNER * OUTER)
    graph = Graph(model, "main")
    x, y = graph.tensor("x", (ROWS, INNER)), graph.tensor("y", (ROWS, OUTER))
    condition = graph.tensor("condition", (), kind="bool")
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    graph.operator("IF", [condition, x], [y], options)
    graph.graph.inputs, graph.graph.outputs = [condition, x], [y]
    for k in (1, 2):
        branch = Graph(model, f"branch{k}")
        inner, outer = branch.tensor(f"x{k}", (ROWS, INNER)), branch.tensor(f"y{k}", (ROWS, OUTER))
        w = branch.weight(f"w{k}", draw(seed + k, OUTER, INNER))
        branch.operator("FULLY_CONNECTED", [inner, w, -1], [outer], schema.FullyConnectedOptionsT())
        branch.graph.inputs, branch.graph.outputs = [inner], [outer]
    return model


#: What it is → a network made from a seed.
NETS: dict[str, Callable[[int], Model]] = {
    "a dense layer": dense,
    "weights of float16": half_weights,
    "weights behind a TRANSPOSE": moved,
    "a product with constant weights": batch_product,
    "a convolution": convolution("CONV_2D"),
    "a depthwise convolution": convolution("DEPTHWISE_CONV_2D"),
    "a transposed convolution": turned_convolution,
    "an LSTM": lstm,
    "an RNN": rnn,
    "an SVDF": svdf,
    "weights in branches": branches,
}
