"""The model of ``gpu.py``: a chain of 3×3 convolutions on an image, for PyTorch (``FILE:torch_model``) and as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1, 3, 224, 224)
CHANNELS, LAYERS = 64, 24


def torch_model() -> Any:
    import torch

    torch.manual_seed(0)
    layers: list[Any] = [torch.nn.Conv2d(SHAPE[1], CHANNELS, 3, stride=2, padding=1), torch.nn.ReLU()]
    for _ in range(LAYERS):
        layers += [torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model.example_inputs = (torch.rand(SHAPE),)
    return model


def write_onnx(path: Path) -> Path:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, before = [], [], SHAPE[1]
    for i in range(LAYERS + 1):
        values = rng.normal(0, (9 * before / 2) ** -0.5, (CHANNELS, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        stride = [2, 2] if i == 0 else [1, 1]
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], pads=[1, 1, 1, 1], strides=stride))
        nodes.append(helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"]))
        before = CHANNELS
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{LAYERS + 1}"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [SHAPE[0], CHANNELS, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
