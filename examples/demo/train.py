"""Train the demo's model, and make its int8 variant and its test set: python examples/demo/train.py

The data are the 1,797 handwritten digits (8 × 8 pixels, UCI ML repository) that ship inside scikit-learn. A small
convolutional network first enlarges them to 40 × 40, so that one inference is long enough (about a millisecond) to be
worth profiling; it is not meant as a good way to read digits. The files are written to the folder of this script:

    digits.onnx        float32
    digits-int8.onnx   the same, statically quantised by ONNX Runtime, calibrated on training data
    digits-test.npz    the 497 held-out digits: x float32 (497, 1, 8, 8) in 0..1, y int64 (497,)

Needs: pip install torch scikit-learn onnx onnxruntime. Takes two minutes on two cores. It uses one seed and one thread,
so that the same versions on the same kind of processor give the same files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
SEED, EPOCHS, BATCH, TRAIN = 7, 24, 50, 1300


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 16), (16, 32), (32, 32), (32, 64))
        )
        self.head = torch.nn.Linear(64, 10)
        for conv in self.convs:
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            torch.nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.interpolate(x, scale_factor=5, mode="nearest")
        for index, conv in enumerate(self.convs):
            x = torch.relu(conv(x))
            if index >= 2:
                x = torch.nn.functional.max_pool2d(x, 2)
        return self.head(x.mean(dim=(2, 3)))


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels in 0..1, shape (1797, 1, 8, 8), and labels, shuffled so that the digits' writers are mixed."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x = (digits.images[order] / 16.0).astype(np.float32)[:, None]
    return x, digits.target[order].astype(np.int64)


def train(x: np.ndarray, y: np.ndarray) -> Net:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    net = Net()
    steps = EPOCHS * len(x) // BATCH
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    order = np.random.default_rng(SEED)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in order.permutation(len(x)).reshape(-1, BATCH):
            loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total * BATCH / len(x):.4f}", file=sys.stderr)
    return net.eval()


def export(net: Net, path: Path) -> None:
    """Write the ONNX graph by hand: six kinds of node, in an opset that every runtime supports, without an exporter."""
    weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([1, 1, 5, 5], np.float32), "scales"))
    nodes = [
        helper.make_node("Resize", ["image", "", "scales"], ["x"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric")
    ]  # fmt: skip
    last = "x"
    for index in range(len(net.convs)):
        inputs = [last, f"convs.{index}.weight", f"convs.{index}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"conv{index}"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        last = f"relu{index}"
        if index >= 2:
            nodes.append(helper.make_node("MaxPool", [last], [f"pool{index}"], kernel_shape=[2, 2], strides=[2, 2]))
            last = f"pool{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="edgeprof-demo")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class Calibration(CalibrationDataReader):
    def __init__(self, x: np.ndarray) -> None:
        self.batches = iter([{"image": x[start : start + 50]} for start in range(0, len(x), 50)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def main() -> None:
    x, y = data()
    net = train(x[:TRAIN], y[:TRAIN])
    export(net, HERE / "digits.onnx")
    quantize_static(
        HERE / "digits.onnx",
        HERE / "digits-int8.onnx",
        Calibration(x[:400]),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,  # 7-bit weights: x86 without VNNI saturates 8-bit ones
    )
    np.savez_compressed(HERE / "digits-test.npz", x=x[TRAIN:], y=y[TRAIN:])


if __name__ == "__main__":
    main()
