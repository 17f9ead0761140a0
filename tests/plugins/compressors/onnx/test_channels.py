"""Structured pruning of ONNX graphs: whatever the graph, taking channels out changes what nobody reads, and no more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeprof_plugins.compressors.onnx.channels import Channels
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from edgeprof_plugins.compressors.onnx.structured import PruneStructured, chosen
from tests.models import onnx_graph
from tests.plugins.compressors import nets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SIDE = 4


class Maker:
    """Builds a graph from a list of words; ``now`` is the tensor that the next one continues, n × c × 4 × 4."""

    def __init__(self, opset: int, *, open_batch: bool) -> None:
        self.draw = np.random.default_rng(5)
        self.opset, self.batch = opset, "n" if open_batch else 2
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.now, self.channels = "x", 3
        self.conv()

    def constant(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(
            self.draw.standard_normal(shape).astype("float32") / math.sqrt(max(1, math.prod(shape[1:])))
        )

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def convolved(self, source: str, inputs: int, outputs: int, kernel: int = 1, group: int = 1) -> str:
        weight = self.weight(outputs, inputs // group, kernel, kernel)
        return str(self.node("Conv", source, weight, self.weight(outputs), pads=[kernel // 2] * 4, group=group))

    def reshaped(self, source: str, *sizes: int) -> str:
        zero = [0] if self.batch == "n" else [self.batch]
        allow = {} if self.batch == "n" else {"allowzero": 1}
        return str(self.node("Reshape", source, self.constant(np.array([*zero, *sizes], np.int64)), **allow))

    def mean(self, source: str, keep: int) -> str:
        if self.opset >= 18:
            return str(self.node("ReduceMean", source, self.constant(np.array([-1, 2], np.int64)), keepdims=keep))
        return str(self.node("ReduceMean", source, axes=[2, 3], keepdims=keep))

    # --- words ----------------------------------------------------------------------------------------------------

    def conv(self, outputs: int = 8) -> None:
        self.now, self.channels = self.convolved(self.now, self.channels, outputs, 3), outputs

    def narrow(self) -> None:
        self.conv(6)

    def norm(self) -> None:
        scale, bias, mean = (self.weight(self.channels) for _ in range(3))
        self.now = self.node(
            "BatchNormalization", self.now, scale, bias, mean, self.constant(np.full(self.channels, 2, "f"))
        )

    def act(self) -> None:
        self.now = self.node("Sigmoid", self.now)  # of nothing it is a half: only what nobody reads may go

    def prelu(self) -> None:
        self.now = self.node("PRelu", self.now, self.weight(self.channels, 1, 1))

    def depthwise(self) -> None:
        self.now = self.convolved(self.now, self.channels, self.channels, 3, self.channels)

    def doubled(self) -> None:
        self.now = self.convolved(self.now, self.channels, 2 * self.channels, 3, self.channels)
        self.channels *= 2

    def grouped(self) -> None:
        self.now = self.convolved(self.now, self.channels, self.channels, 3, 2)

    def residual(self) -> None:
        self.now = self.node("Add", self.convolved(self.now, self.channels, self.channels), self.now)

    def concat(self) -> None:
        self.now = self.node("Concat", self.convolved(self.now, self.channels, 4), self.now, axis=1)
        self.channels += 4

    def with_input(self) -> None:
        self.now = self.node("Concat", self.now, "x", axis=1)
        self.channels += 3

    def padded(self) -> None:
        self.now = self.node("Pad", self.now, self.constant(np.array([0, 1, 0, 0, 0, 1, 0, 0], np.int64)))
        self.channels += 2

    def excite(self) -> None:
        squeezed = self.node("Relu", self.convolved(self.mean(self.now, 1), self.channels, 4))
        self.now = self.node("Mul", self.now, self.node("Sigmoid", self.convolved(squeezed, 4, self.channels)))

    def dense_excite(self) -> None:
        hidden = self.node("Gemm", self.mean(self.now, 0), self.weight(self.channels, 5), self.weight(5))
        gate = self.node("Gemm", hidden, self.weight(self.channels, 5), self.weight(1, self.channels), transB=1)
        self.now = self.node("Mul", self.reshaped(gate, self.channels, 1, 1), self.now)

    def split(self) -> None:
        half = self.channels // 2
        sizes = [half, self.channels - half]
        one, other = self.node("Split", self.now, self.constant(np.array(sizes, np.int64)), axis=1, outputs=2)
        self.now = self.node("Concat", other, self.convolved(one, half, half, 3), axis=1)

    def shuffle(self) -> None:
        apart = self.reshaped(self.now, 2, self.channels // 2, _SIDE, _SIDE)
        turned = self.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
        self.now = self.reshaped(turned, self.channels, _SIDE, -1)

    def last(self) -> None:
        """NHWC and back, with a bias and a dense layer over the last axis."""
        turned = self.node("Transpose", self.now, perm=[0, 2, 3, 1])
        biased = self.node("Add", turned, self.weight(self.channels))
        dense = self.node("MatMul", biased, self.weight(self.channels, 8))
        self.now, self.channels = self.node("Transpose", dense, perm=[0, 3, 1, 2]), 8

    def scaled(self) -> None:
        self.now = self.node("Mul", self.node("MaxPool", self.now, kernel_shape=[1, 1]), self.constant(np.float32(0.5)))

    def doubled_size(self) -> None:
        sizes = self.constant(np.array([1, 1, 2, 2], "f"))
        large = self.node("Resize", self.now, "", sizes, mode="nearest")
        self.now = self.node("AveragePool", large, kernel_shape=[2, 2], strides=[2, 2])

    def transposed(self) -> None:
        self.now = self.node("ConvTranspose", self.now, self.weight(self.channels, 6, 1, 1), self.weight(6))
        self.channels = 6

    def finish(self, head: str, path: Path) -> Path:
        size = self.channels * _SIDE * _SIDE
        if head == "mean":
            flat, size = self.node("Flatten", self.node("GlobalAveragePool", self.now)), self.channels
        elif head == "squeeze":
            axes = self.constant(np.array([2, 3], np.int64))
            flat, size = self.node("Squeeze", self.node("GlobalMaxPool", self.now), axes), self.channels
        elif head == "nhwc":
            flat = self.reshaped(self.node("Transpose", self.now, perm=[0, 2, 3, 1]), size)
        else:
            flat = self.reshaped(self.now, -1) if head == "reshape" else self.node("Flatten", self.now)
        hidden = self.node("Relu", self.node("Gemm", flat, self.weight(size, 10)))
        self.nodes.append(helper.make_node("MatMul", [hidden, self.weight(10, 3)], ["y"], name="head"))
        return onnx_graph(
            path,
            self.nodes,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, 3, _SIDE, _SIDE])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [self.batch, 3])],
            self.weights,
            opset=self.opset,
        )


WORDS: dict[str, Callable[[Maker], None]] = {
    name: getattr(Maker, name)
    for name in (
        "conv", "narrow", "norm", "act", "prelu", "depthwise", "doubled", "grouped", "residual", "concat", "with_input",
        "padded", "excite", "dense_excite", "split", "shuffle", "last", "scaled", "doubled_size", "transposed",
    )
}  # fmt: skip
HEADS = ("mean", "squeeze", "nhwc", "reshape", "flatten")


def without_readers(path: Path, target: Path, amount: float) -> Path:
    """The whole model, in which whatever reads the channels that pruning takes out multiplies them by nothing."""
    model = onnx.load(str(path))
    weights = {one.name: one for one in model.graph.initializer}
    with OnnxFile(path) as file:
        channels = Channels(file)
        keep = chosen(channels, amount, 1)
        for use in channels.uses:
            if use.read:
                shape = [1] * len(weights[use.name].dims)
                shape[use.axis] = -1
                values = numpy_helper.to_array(weights[use.name]) * keep(use.ids).reshape(shape)
                weights[use.name].CopyFrom(numpy_helper.from_array(values.astype("float32"), use.name))
    onnx.save(model, str(target))
    return target


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(sorted(WORDS)), max_size=6),
    head=st.sampled_from(HEADS),
    opset=st.sampled_from([17, 18]),
    open_batch=st.booleans(),
    amount=st.sampled_from([0.3, 0.5]),
)
def test_a_pruned_graph_answers_as_the_whole_one_does_without_the_channels(
    words: list[str], head: str, opset: int, open_batch: bool, amount: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("graph")
    maker = Maker(opset, open_batch=open_batch)
    for word in words:
        if not (word in {"grouped", "shuffle"} and maker.channels % 2):
            WORDS[word](maker)
    path = maker.finish(head, folder / "net.onnx")
    pruned = folder / "pruned.onnx"
    facts = PruneStructured().apply(path, pruned, {"amount": amount, "round_to": 1}, None)
    assert facts["parameters"][1] < facts["parameters"][0]
    onnx.checker.check_model(str(pruned), full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 3, _SIDE, _SIDE)).astype("float32")
    wanted = nets.run(without_readers(path, folder / "whole.onnx", amount), x)
    assert np.allclose(nets.run(pruned, x), wanted, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


def test_every_operator_here_is_followed(tmp_path: Path) -> None:
    """Nothing stays but what the model's outputs and inputs make stay."""
    for name, word in WORDS.items():
        maker = Maker(17, open_batch=True)
        word(maker)
        word(maker)
        with OnnxFile(maker.finish("reshape", tmp_path / f"{name}.onnx")) as model:
            pinned = Channels(model).pinned()
        assert [one for one in pinned if "is an output" not in one and "as given" not in one] == [], name
