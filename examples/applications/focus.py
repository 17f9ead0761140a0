"""Make YOLOX-nano's file one that pnnx converts for ncnn: ``python focus.py yolox_nano.onnx build/yolox_nano.onnx``.

YOLOX begins with four slices of every second pixel, which ncnn does not know. They are replaced by a convolution of
2 × 2 pixels whose weights are 0 and 1, which computes the same.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: Row and column of the pixel that each slice takes of a square of 2 × 2, in YOLOX's order.
OFFSETS = ((0, 0), (1, 0), (0, 1), (1, 1))


def replace_slices(model: onnx.ModelProto) -> None:
    """Replace the slices at the beginning of a model.

    Raises:
        ValueError: the model does not begin with slices that one Concat joins.
    """
    graph = model.graph
    joined = next((node for node in graph.node if node.op_type == "Concat"), None)
    made = {output: node for node in graph.node for output in node.output}
    ends = [made.get(name) for name in joined.input] if joined is not None else []
    if len(ends) != len(OFFSETS) or any(node is None or node.op_type != "Slice" for node in ends):
        raise ValueError("the model does not begin with four slices and a Concat, as YOLOX does")
    weights = np.zeros((3 * len(OFFSETS), 3, 2, 2), np.float32)
    for number, (row, column) in enumerate(OFFSETS):
        for channel in range(3):
            weights[3 * number + channel, channel, row, column] = 1
    graph.initializer.append(numpy_helper.from_array(weights, "focus"))
    convolution = helper.make_node("Conv", [graph.input[0].name, "focus"], joined.output, strides=[2, 2])
    position = list(graph.node).index(joined)
    graph.node.remove(joined)
    graph.node.insert(position, convolution)
    _remove_unused(graph)


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes whose outputs nothing reads, and the constants that are then left."""
    while True:
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for constant in [constant for constant in graph.initializer if constant.name not in used]:
        graph.initializer.remove(constant)


if __name__ == "__main__":
    network = onnx.load(sys.argv[1])
    replace_slices(network)
    onnx.checker.check_model(network)
    onnx.save(network, sys.argv[2])
