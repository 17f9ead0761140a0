"""A small convolutional network with what compressors stumble over: batch norms, a residual, a depthwise layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def convnet(path: Path, *, opset: int = 17) -> Path:
    """x [n, 3, 8, 8] → conv16-bn-relu → (+ conv16) → depthwise → conv32-relu → mean → dense 4."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    weights: list[Any] = []

    def weight(name: str, *shape: int) -> str:
        scale = (2 / max(1, int(np.prod(shape[1:])))) ** 0.5 if len(shape) > 1 else 0.1
        weights.append(numpy_helper.from_array((draw.standard_normal(shape) * scale).astype("float32"), name))
        return name

    def norm(name: str, size: int) -> list[str]:
        names = [weight(f"{name}_{part}", size) for part in ("scale", "bias", "mean")]
        weights.append(numpy_helper.from_array(np.full(size, 1.5, "float32"), f"{name}_var"))
        return [*names, f"{name}_var"]

    def conv(name: str, source: str, *inputs: str, kernel: int = 3, group: int = 1) -> Any:
        pad = kernel // 2
        return helper.make_node(
            "Conv", [source, *inputs], [name], name=name, kernel_shape=[kernel] * 2, pads=[pad] * 4, group=group
        )

    nodes = [
        conv("stem", "x", weight("stem_w", 16, 3, 3, 3)),
        helper.make_node("BatchNormalization", ["stem", *norm("bn", 16)], ["normed"], name="bn"),
        helper.make_node("Relu", ["normed"], ["relu"], name="relu"),
        conv("branch", "relu", weight("branch_w", 16, 16, 3, 3), weight("branch_b", 16)),
        helper.make_node("Add", ["relu", "branch"], ["sum"], name="sum"),
        conv("depthwise", "sum", weight("depthwise_w", 16, 1, 3, 3), group=16),
        conv("point", "depthwise", weight("point_w", 32, 16, 1, 1), weight("point_b", 32), kernel=1),
        helper.make_node("Relu", ["point"], ["point_relu"], name="point_relu"),
        helper.make_node("GlobalAveragePool", ["point_relu"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node(
            "Gemm", ["flat", weight("dense_w", 4, 32), weight("dense_b", 4)], ["y"], name="dense", transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save_model(model, str(path))
    return path


def samples(count: int = 24) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, 3, 8, 8)).astype("float32")


def run(path: Path | str, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found
