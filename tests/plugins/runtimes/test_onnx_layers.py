"""What an executed ONNX graph multiplies, against counts by hand: recurrent operators, inner graphs, activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.diagnosis.graph import inspect_with, read_graph
from edgeprof.plugins import PluginHost

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.worker.graph import Graph

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
H = 24


def weights(*shape: int) -> Any:
    return (np.random.default_rng(len(shape)).standard_normal(shape) / 8).astype("float32")


def value(name: str, kind: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split(maxsplit=1)[0]}", **attributes
    )


def save(path: Path, nodes: list[Any], shape: list[Any], held: dict[str, Any]) -> Path:
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "net", [value("x", FLOAT, shape)], [value("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(path))
    return path


def recurrent(op: str, gates: int, directions: int = 1) -> tuple[Any, ...]:
    turned = {"direction": "bidirectional"} if directions == 2 else {}
    held = {"W": weights(directions, gates * H, 8), "R": weights(directions, gates * H, H)}
    return [node(op, "x W R", "y", hidden_size=H, **turned)], [10, 1, 8], held, 10 * directions * gates * H * (8 + H)


def body(inner: list[Any], inputs: list[Any], outputs: list[Any], held: dict[str, Any]) -> Any:
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    return helper.make_graph(inner, "body", inputs, outputs, tensors)


def branches() -> tuple[Any, ...]:
    small = body([node("MatMul", "x s", "small")], [], [value("small")], {"s": weights(16, 8)})
    large = body(
        [node("MatMul", "x a", "h"), node("MatMul", "h b", "large")], [], [value("large")],
        {"a": weights(16, 32), "b": weights(32, 8)},
    )  # fmt: skip
    chosen = node("If", "c", "y", then_branch=small, else_branch=large)
    nodes = [node("ReduceSum", "x", "t", keepdims=0), node("Greater", "t z", "c"), chosen]
    return nodes, [1, 16], {"z": np.array(1e9, "float32")}, 16 * 32 + 32 * 8


def loop() -> tuple[Any, ...]:
    inner = body(
        [node("MatMul", "h w", "m"), node("Tanh", "m", "out"), node("Identity", "go", "on")],
        [value("i", INT64, []), value("go", BOOL, []), value("h", FLOAT, [1, 16])],
        [value("on", BOOL, []), value("out", FLOAT, [1, 16])], {},
    )  # fmt: skip
    held = {"n": np.array(7, "int64"), "true": np.array(True), "w": weights(16, 16)}
    return [node("Loop", "n true x", "y", body=inner)], [1, 16], held, 7 * 16 * 16


def scan() -> tuple[Any, ...]:
    inner = body(
        [node("MatMul", "h w", "m"), node("Add", "m step", "out")],
        [value("h", FLOAT, [1, 16]), value("step", FLOAT, [1, 16])], [value("out", FLOAT, [1, 16])], {},
    )  # fmt: skip
    held = {"start": np.zeros((1, 16), "float32"), "w": weights(16, 16)}
    return [node("Scan", "start x", "y", body=inner, num_scan_inputs=1)], [9, 1, 16], held, 9 * 16 * 16


def attention() -> tuple[Any, ...]:
    nodes = [
        node("MatMul", "x q", "a"), node("MatMul", "x k", "b"), node("Transpose", "b", "bt", perm=[0, 2, 1]),
        node("MatMul", "a bt", "s"), node("Softmax", "s", "p", axis=-1), node("MatMul", "p x", "y"),
    ]  # fmt: skip
    held = {"q": weights(8, 8), "k": weights(8, 8)}
    return nodes, [1, 32, 8], held, 2 * 32 * 8 * 8 + 2 * 32 * 32 * 8


def einsum(equation: str, count: int) -> tuple[Any, ...]:
    return [node("Einsum", "x w", "y", equation=equation)], [1, 6, 8], {"w": weights(8, 5)}, count


def convolution(op: str, group: int, count: int) -> tuple[Any, ...]:
    shape = (4, 12 // group, 3, 3) if op == "ConvTranspose" else (12, 4 // group, 3, 3)
    return [node(op, "x w", "y", group=group, strides=[2, 2])], [1, 4, 9, 9], {"w": weights(*shape)}, count


CASES = {
    "LSTM": lambda: recurrent("LSTM", 4),
    "GRU": lambda: recurrent("GRU", 3),
    "RNN": lambda: recurrent("RNN", 1),
    "LSTM of two directions": lambda: recurrent("LSTM", 4, 2),
    "the larger branch of an If": branches,
    "Loop": loop,
    "Scan": scan,
    "products of two activations": attention,
    "Einsum": lambda: einsum("bij,jk->bik", 6 * 8 * 5),
    "Einsum with an ellipsis": lambda: einsum("...j,jk->...k", 6 * 8 * 5),
    "Conv": lambda: convolution("Conv", 1, 12 * 16 * 4 * 9),
    "grouped Conv": lambda: convolution("Conv", 4, 12 * 16 * 9),
    "ConvTranspose": lambda: convolution("ConvTranspose", 1, 4 * 81 * 12 * 9),
    "grouped ConvTranspose": lambda: convolution("ConvTranspose", 2, 4 * 81 * 6 * 9),
}


@pytest.mark.parametrize("case", CASES)
def test_multiply_accumulates_are_those_counted_by_hand(tmp_path: Path, case: str) -> None:
    nodes, shape, held, macs = CASES[case]()
    graph = read_graph(recognise(str(save(tmp_path / "net.onnx", nodes, shape, held))))
    assert graph is not None
    assert not graph.unsized
    assert graph.macs == macs


def dynamic(path: Path) -> Graph:
    host = PluginHost.from_environment()
    made, _ = make_variant(
        recognise(str(path)), parse_chain("int8-dynamic"), host.of("compressors"), path.parent, None, least_share=0.0
    )
    graph = read_graph(made, host)
    assert graph is not None
    return graph


@pytest.mark.parametrize("case", ["GRU", "products of two activations", "Loop", "Einsum"])
def test_the_integer_share_is_weighted_by_arithmetic(tmp_path: Path, case: str) -> None:
    """A head of one matrix product behind each network is what int8-dynamic takes, with the products of weights."""
    nodes, shape, held, macs = CASES[case]()
    flat = [node("Flatten", "y_in", "f", axis=0), node("MatMul", "f head", "y")]
    for one in nodes:
        one.output[:] = ["y_in" if name == "y" else name for name in one.output]
    width = {"GRU": 10 * H, "products of two activations": 32 * 8, "Loop": 16, "Einsum": 30}[case]
    path = save(tmp_path / "net.onnx", [*nodes, *flat], shape, {**held, "head": weights(width, 4)})
    graph = dynamic(path)
    taken = {"products of two activations": 2 * 32 * 8 * 8, "Loop": macs}  # the quantiser goes into bodies
    integers = taken.get(case, 0) + width * 4
    assert graph.macs == macs + width * 4
    assert graph.share() == pytest.approx(integers / graph.macs)


def test_open_sizes_are_not_taken_for_one(tmp_path: Path) -> None:
    """A convolution of an image of 1 × 1 pixels would be a small part; of the true size it is nearly all."""
    nodes = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "f"),
             node("MatMul", "f k", "y")]  # fmt: skip
    held = {"w": weights(8, 3, 1, 1), "k": weights(8, 100)}
    path = save(tmp_path / "net.onnx", nodes, ["n", 3, "h", "w"], held)
    host = PluginHost.from_environment()
    graph = inspect_with(recognise(str(path)), host)[1]
    assert graph is not None
    assert len(graph.unsized) == 2
    assert "--input x=1x3xSIZExSIZE" in graph.note
    for inputs in ({"x": (1, 3, 20, 20)}, {"": np.zeros((1, 3, 20, 20), "float32")}):
        sized = inspect_with(recognise(str(path)), host, inputs)[1]
        assert sized is not None
        assert (sized.macs, sized.note) == (8 * 3 * 400 + 800, "")


def test_an_open_batch_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [node("MatMul", "x w", "y")], ["n", 8], {"w": weights(8, 4)})
    graph = read_graph(recognise(str(path)))
    assert graph is not None
    assert (graph.macs, graph.assumed) == (32, "a batch of 1 for x")


def test_how_often_a_loop_runs_is_not_guessed(tmp_path: Path) -> None:
    """Its body decides when to end."""
    inner = body(
        [node("MatMul", "h w", "out"), node("ReduceSum", "out", "sum", keepdims=0), node("Less", "sum limit", "on")],
        [value("i", INT64, []), value("go", BOOL, []), value("h", FLOAT, [1, 16])],
        [value("on", BOOL, []), value("out", FLOAT, [1, 16])], {},
    )  # fmt: skip
    held = {"n": np.array(7, "int64"), "true": np.array(True), "w": weights(16, 16), "limit": np.array(0, "float32")}
    path = save(tmp_path / "net.onnx", [node("Loop", "n true x", "y", body=inner)], [1, 16], held)
    graph = read_graph(recognise(str(path)))
    assert graph is not None
    assert [layer.op for layer in graph.unsized] == ["MatMul"]
