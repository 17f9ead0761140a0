"""InceptionResNetV1 with random weights, an embedding of faces: ``python inception_resnet.py models/`` writes ONNX.

The architecture is that of C. Szegedy, S. Ioffe, V. Vanhoucke and A. Alemi, "Inception-v4, Inception-ResNet and the
Impact of Residual Connections on Learning" (2016), figures 10 to 14, with an embedding of 512 numbers of length 1 as in
implementations of FaceNet, whose last block has no ReLU, in place of the classes. Time, memory and joules are those of
a trained network; the embeddings mean nothing. For your own weights, export your network with the same input (1 × 3 ×
160 × 160), and set ``EMBEDDER`` to its file (faces.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from yolov8 import export_onnx

SIZE = 160
EMBEDDING = 512


class Convolution(nn.Sequential):
    """A convolution without bias, batch normalisation, and ReLU; the size is kept unless ``is_valid``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, is_valid: bool = False
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if is_valid else (sides[0] // 2, sides[1] // 2)
        convolution = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        super().__init__(convolution, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU(inplace=True))


def make_chain(inputs: int, *layers: tuple) -> nn.Sequential:
    """Return convolutions in a row; each layer is (outputs, kernel[, stride, is_valid])."""
    sequence = nn.Sequential()
    for outputs, *rest in layers:
        sequence.append(Convolution(inputs, outputs, *rest))
        inputs = outputs
    return sequence


class Residual(nn.Module):
    """Branches whose joined outputs are scaled and added to their input.

    Args:
        channels: Of the input and the output.
        branches: The layers of each branch.
        scale: The factor of the joined outputs.
        is_linear: Whether no ReLU follows.
    """

    def __init__(self, channels: int, branches: list[list[tuple]], scale: float, is_linear: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make_chain(channels, *layers) for layers in branches)
        self.join = nn.Conv2d(sum(layers[-1][0] for layers in branches), channels, 1)
        self.scale, self.is_linear = scale, is_linear

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        joined = self.join(torch.cat([branch(values) for branch in self.branches], 1))
        values = values + self.scale * joined
        return values if self.is_linear else functional.relu(values)


class Reduction(nn.Module):
    """Branches that halve height and width, beside a pooling; all are joined."""

    def __init__(self, channels: int, branches: list[list[tuple]]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make_chain(channels, *layers) for layers in branches)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        pooled = functional.max_pool2d(values, 3, 2)
        return torch.cat([*(branch(values) for branch in self.branches), pooled], 1)


class InceptionResNetV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block35 = [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)]]
        block17 = [[(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))]]
        block8 = [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]]
        halve = (3, 2, True)
        self.layers = nn.Sequential(
            make_chain(3, (32, *halve), (32, 3, 1, True), (64, 3)),
            nn.MaxPool2d(3, 2),
            make_chain(64, (80, 1), (192, 3, 1, True), (256, *halve)),
            *(Residual(256, block35, 0.17) for _ in range(5)),
            Reduction(256, [[(384, *halve)], [(192, 1), (192, 3), (256, *halve)]]),
            *(Residual(896, block17, 0.10) for _ in range(10)),
            Reduction(896, [[(256, 1), (384, *halve)], [(256, 1), (256, *halve)], [(256, 1), (256, 3), (256, *halve)]]),
            *(Residual(1792, block8, 0.20) for _ in range(5)),
            Residual(1792, block8, 1.0, is_linear=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(1792, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING, eps=1e-3),
        )

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.layers(faces))


def inception_resnet_v1() -> nn.Module:
    torch.manual_seed(0)
    network = InceptionResNetV1().eval()
    network.example_inputs = (torch.zeros(1, 3, SIZE, SIZE),)
    return network


if __name__ == "__main__":
    export_onnx(inception_resnet_v1(), Path(sys.argv[1]) / "inception_resnet_v1.onnx")
