"""Small ONNX networks, each with a layer of one kind and its weights in one place, and what is in them by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

ROWS, INNER, OUTER, STEPS, HIDDEN = 3, 64, 48, 5, 16
KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
}


@dataclass
class Net:
    """A network and its hand count.

    Attributes:
        model: The ModelProto.
        feeds: Inputs that ONNX Runtime takes.
        weights: Name → values of the weights that a layer multiplies with, as they lie in the file.
        others: How many further floats there are in constants of more than one.
        macs: Multiply-accumulates for one sample.
    """

    model: Any
    feeds: dict[str, npt.NDArray[Any]]
    weights: dict[str, npt.NDArray[Any]]
    macs: int
    others: int = 0
    family: str = "MatMul"
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, *, external: bool = False) -> Path:
        options = (
            {"save_as_external_data": True, "location": f"{path.stem}.bin", "size_threshold": 0} if external else {}
        )
        onnx.save_model(self.model, str(path), convert_attribute=True, **options) if external else onnx.save_model(
            self.model, str(path)
        )
        return path


def draw(seed: int, *shape: int, kind: str = "float32") -> npt.NDArray[Any]:
    values = np.random.default_rng(seed).standard_normal(shape) / 4
    return values.astype(helper.tensor_dtype_to_np_dtype(KINDS[kind]))


def model(
    nodes: list[Any], inputs: list[Any], weights: dict[str, Any], kind: str = "float32", *, opset: int = 17, **more: Any
) -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        inputs,
        [helper.make_tensor_value_info("y", KINDS[kind], None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
        **more,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def info(name: str, *shape: Any, kind: str = "float32") -> Any:
    return helper.make_tensor_value_info(name, KINDS[kind], shape)


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def dense(seed: int, kind: str = "float32") -> Net:
    w = draw(seed, INNER, OUTER, kind=kind)
    x = draw(seed + 1, ROWS, INNER, kind=kind)
    made = model([node("MatMul", ["x", "w"], ["y"])], [info("x", ROWS, INNER, kind=kind)], {"w": w}, kind)
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)


def moved(op: str) -> Callable[[int], Net]:
    """The weights behind an operator that only moves them."""

    def net(seed: int) -> Net:
        w, x = draw(seed, OUTER, INNER), draw(seed + 1, ROWS, INNER)
        steps = {
            "Transpose": [node("Transpose", ["w"], ["t"], perm=[1, 0])],
            "Identity": [node("Identity", ["w"], ["t"])],
            "both": [node("Identity", ["w"], ["i"]), node("Transpose", ["i"], ["t"])],
            "Reshape": [node("Reshape", ["w", "shape"], ["t"])],
        }[op]
        stored = w if op in {"Transpose", "both"} else w.reshape(INNER, OUTER)
        extra = {"shape": np.array([INNER, OUTER], np.int64)} if op == "Reshape" else {}
        stored = stored.reshape(-1) if op == "Reshape" else stored
        made = model([*steps, node("MatMul", ["x", "t"], ["y"])], [info("x", ROWS, INNER)], {"w": stored, **extra})
        used = w.T if op in {"Transpose", "both"} else w.reshape(INNER, OUTER)
        return Net(made, {"x": x}, {"w": used}, ROWS * INNER * OUTER)

    return net


def tied(seed: int) -> Net:
    """A word table that is looked up and, transposed, the last layer."""
    table = draw(seed, 40, INNER)
    ids = np.arange(ROWS, dtype=np.int64)
    made = model(
        [
            node("Gather", ["table", "ids"], ["h"]),
            node("Transpose", ["table"], ["t"], perm=[1, 0]),
            node("MatMul", ["h", "t"], ["y"]),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [ROWS])],
        {"table": table},
    )
    return Net(made, {"ids": ids}, {"table": table}, ROWS * INNER * 40)


def branches(seed: int) -> Net:
    """The weights in both branches of an If, under the same name, one an initializer and one a Constant node."""
    a, b, x = draw(seed, INNER, OUTER), draw(seed + 1, INNER, OUTER), draw(seed + 2, ROWS, INNER)
    then = helper.make_graph(
        [node("MatMul", ["x", "w"], ["to"])], "then", [], [info("to")], [numpy_helper.from_array(a, "w")]
    )
    constant = node("Constant", [], ["w"], value=numpy_helper.from_array(b, "w"))
    other = helper.make_graph([constant, node("MatMul", ["x", "w"], ["eo"])], "else", [], [info("eo")])
    for graph in (then, other):
        graph.output[0].type.tensor_type.ClearField("shape")
    made = model(
        [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        [info("x", ROWS, INNER)],
        {"zero": np.array(0, np.float32)},
    )
    return Net(made, {"x": x}, {"a": a, "b": b}, ROWS * INNER * OUTER)


def loop(seed: int) -> Net:
    """The weights in the body of a Loop that runs a constant number of times."""
    w, x = draw(seed, INNER, INNER) / 4, draw(seed + 1, ROWS, INNER)
    body = helper.make_graph(
        [node("MatMul", ["h", "w"], ["ho"]), node("Identity", ["going"], ["go"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            info("h", ROWS, INNER),
        ],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []), info("ho", ROWS, INNER)],
        [numpy_helper.from_array(w, "w")],
    )
    made = model(
        [node("Loop", ["count", "start", "x"], ["y"], body=body)],
        [info("x", ROWS, INNER)],
        {"count": np.array(STEPS, np.int64), "start": np.array(True)},
    )
    return Net(made, {"x": x}, {"w": w}, STEPS * ROWS * INNER * INNER)


def constant(seed: int) -> Net:
    w, x = draw(seed, INNER, OUTER), draw(seed + 1, ROWS, INNER)
    made = model(
        [node("Constant", [], ["w"], value=numpy_helper.from_array(w, "w")), node("MatMul", ["x", "w"], ["y"])],
        [info("x", ROWS, INNER)],
        {},
    )
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)


def sparse(seed: int) -> Net:
    w, x = draw(seed, INNER, OUTER), draw(seed + 1, ROWS, INNER)
    w[np.random.default_rng(seed).random(w.shape) < 0.25] = 0
    places = np.flatnonzero(w)
    stored = helper.make_sparse_tensor(
        numpy_helper.from_array(w.reshape(-1)[places], "w"), numpy_helper.from_array(places, "w_places"), list(w.shape)
    )
    made = model([node("MatMul", ["x", "w"], ["y"])], [info("x", ROWS, INNER)], {})
    made.graph.sparse_initializer.append(stored)
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)


def function(seed: int) -> Net:
    """The weights in a function of the model's own."""
    w, x = draw(seed, INNER, OUTER), draw(seed + 1, ROWS, INNER)
    body = [node("Constant", [], ["w"], value=numpy_helper.from_array(w, "w")), node("MatMul", ["a", "w"], ["b"])]
    own = helper.make_function("own", "Dense", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    made = model([helper.make_node("Dense", ["x"], ["y"], name="d", domain="own")], [info("x", ROWS, INNER)], {})
    made.functions.append(own)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)


def left_factor(seed: int) -> Net:
    w, x = draw(seed, OUTER, INNER), draw(seed + 1, INNER, ROWS)
    made = model([node("MatMul", ["w", "x"], ["y"])], [info("x", INNER, ROWS)], {"w": w})
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)


def recurrent(op: str, gates: int) -> Callable[[int], Net]:
    def net(seed: int) -> Net:
        w, r = draw(seed, 1, gates * HIDDEN, INNER), draw(seed + 1, 1, gates * HIDDEN, HIDDEN)
        b, x = draw(seed + 2, 1, 2 * gates * HIDDEN), draw(seed + 3, STEPS, 1, INNER)
        made = model(
            [node(op, ["x", "w", "r", "b"], ["y"], hidden_size=HIDDEN)],
            [info("x", STEPS, 1, INNER)],
            {"w": w, "r": r, "b": b},
        )
        return Net(made, {"x": x}, {"w": w, "r": r}, STEPS * gates * HIDDEN * (INNER + HIDDEN), b.size, op)

    return net


def convolution(seed: int) -> Net:
    w, b, x = draw(seed, 24, 16, 3, 3), draw(seed + 1, 24), draw(seed + 2, 1, 16, 8, 8)
    made = model(
        [node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3])], [info("x", 1, 16, 8, 8)], {"w": w, "b": b}
    )
    return Net(made, {"x": x}, {"w": w}, 24 * 36 * 16 * 9, b.size, "Conv")


def turned_convolution(seed: int) -> Net:
    w, x = draw(seed, 16, 24, 3, 3), draw(seed + 1, 1, 16, 8, 8)
    made = model([node("ConvTranspose", ["x", "w"], ["y"], kernel_shape=[3, 3])], [info("x", 1, 16, 8, 8)], {"w": w})
    return Net(made, {"x": x}, {"w": w}, 64 * 16 * 24 * 9, 0, "ConvTranspose")


def gemm(seed: int) -> Net:
    w, b, x = draw(seed, OUTER, INNER), draw(seed + 1, OUTER), draw(seed + 2, ROWS, INNER)
    made = model([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], [info("x", ROWS, INNER)], {"w": w, "b": b})
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER, b.size, "Gemm")


def einsum(seed: int) -> Net:
    w, x = draw(seed, INNER, OUTER), draw(seed + 1, ROWS, INNER)
    made = model([node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")], [info("x", ROWS, INNER)], {"w": w})
    return Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER, 0, "Einsum")


#: What it is → a network made from a seed.
NETS: dict[str, Callable[[int], Net]] = {
    "a dense layer": dense,
    "a dense layer of float64": lambda seed: dense(seed, "float64"),
    "a dense layer of float16": lambda seed: dense(seed, "float16"),
    "a dense layer with a bias": gemm,
    "weights behind a Transpose": moved("Transpose"),
    "weights behind an Identity": moved("Identity"),
    "weights behind both": moved("both"),
    "weights behind a Reshape": moved("Reshape"),
    "weights that are a word table too": tied,
    "weights in branches": branches,
    "weights in the body of a loop": loop,
    "weights in a Constant node": constant,
    "sparse weights": sparse,
    "weights in a function": function,
    "weights as the first factor": left_factor,
    "a convolution": convolution,
    "a transposed convolution": turned_convolution,
    "an Einsum": einsum,
    "an LSTM": recurrent("LSTM", 4),
    "a GRU": recurrent("GRU", 3),
    "an RNN": recurrent("RNN", 1),
}
