"""YOLOv8n and YOLOv8s with random weights, as ONNX files: ``python yolov8.py models/``.

Time, memory and joules of a network do not depend on the values of its weights, so these files show what YOLOv8 costs
on a device. They find nothing: for real detections, use the weights that you trained (README.md).

The architecture is written from its description in J. Terven, D.-M. Córdova-Esparza and J.-A. Romero-González, "A
Comprehensive Review of YOLO Architectures in Computer Vision", Machine Learning and Knowledge Extraction 5(4), 2023
(doi:10.3390/make5040083); no code, configuration or weights of Ultralytics were used. A test compares the number of
parameters with the published 3.2 and 11.2 million. The files can be used under the licence of this repository.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

CLASSES = 80
SIZE = 640
STRIDES = (8, 16, 32)
#: Each distance from a cell's centre to an edge of its box is a distribution over so many lengths.
BINS = 16
#: The score of each class in a network that is not trained: Lin et al., "Focal Loss for Dense Object Detection", 4.1.
PRIOR = 0.01


class Convolution(nn.Sequential):
    """A convolution without bias, batch normalisation, and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        # Keeps the variance from layer to layer: activations that vanish would be denormal, and slow.
        nn.init.kaiming_normal_(convolution.weight)
        super().__init__(convolution, nn.BatchNorm2d(outputs, eps=1e-3), nn.SiLU(inplace=True))


class Bottleneck(nn.Module):
    """Two convolutions, added to their input if ``is_residual``."""

    def __init__(self, channels: int, is_residual: bool) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(Convolution(channels, channels), Convolution(channels, channels))
        self.is_residual = is_residual

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        outputs = self.convolutions(values)
        return values + outputs if self.is_residual else outputs


class C2f(nn.Module):
    """Cross-stage partial block: one half of the channels passes ``depth`` bottlenecks, and all results are joined."""

    def __init__(self, inputs: int, outputs: int, depth: int, is_residual: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.split = Convolution(inputs, 2 * half, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(half, is_residual) for _ in range(depth))
        self.join = Convolution((2 + depth) * half, outputs, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        parts = list(self.split(values).chunk(2, 1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return self.join(torch.cat(parts, 1))


class Pooling(nn.Module):
    """Spatial pyramid pooling: the values, and their maxima over 5, 9 and 13 pixels, by three poolings in a row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = Convolution(channels, channels // 2, 1)
        self.join = Convolution(2 * channels, channels, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        parts = [self.reduce(values)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.join(torch.cat(parts, 1))


class Head(nn.Module):
    """Boxes and class scores from the three grids, by separate branches; without anchors and without objectness."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        box = max(16, channels[0] // 4, 4 * BINS)
        score = max(channels[0], min(CLASSES, 100))
        self.boxes = nn.ModuleList(self._branch(inputs, box, 4 * BINS) for inputs in channels)
        self.scores = nn.ModuleList(self._branch(inputs, score, CLASSES) for inputs in channels)
        for branch in self.scores:
            nn.init.normal_(branch[-1].weight, std=0.01)
            nn.init.constant_(branch[-1].bias, -math.log((1 - PRIOR) / PRIOR))

    @staticmethod
    def _branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(Convolution(inputs, hidden), Convolution(hidden, hidden), nn.Conv2d(hidden, outputs, 1))

    def forward(self, grids: list[torch.Tensor]) -> torch.Tensor:
        """Return 1 × (4 + classes) × cells: centre, width and height in pixels, and the probability of each class."""
        centres, strides = _cells([grid.shape[2:] for grid in grids], grids[0])
        distances = torch.cat([branch(grid).flatten(2) for branch, grid in zip(self.boxes, grids, strict=True)], 2)
        scores = torch.cat([branch(grid).flatten(2) for branch, grid in zip(self.scores, grids, strict=True)], 2)
        lengths = torch.arange(BINS, dtype=distances.dtype, device=distances.device).view(1, 1, BINS, 1)
        distances = (distances.unflatten(1, (4, BINS)).softmax(2) * lengths).sum(2)
        before, after = distances.chunk(2, 1)  # left and top, right and bottom
        boxes = torch.cat([centres + (after - before) / 2, before + after], 1) * strides
        return torch.cat([boxes, scores.sigmoid()], 1)


def _cells(sizes: list[torch.Size], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centre of each cell, 1 × 2 × cells (in cells), and its stride, 1 × cells (pixels)."""
    centres, strides = [], []
    for (height, width), stride in zip(sizes, STRIDES, strict=True):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack([columns.flatten(), rows.flatten()]) + 0.5)
        strides.append(torch.full((1, height * width), float(stride)))
    return torch.cat(centres, 1)[None].to(like), torch.cat(strides, 1).to(like)


class YoloV8(nn.Module):
    """The network.

    Args:
        width: The share of the largest network's channels.
        depth: The share of the largest network's bottlenecks.
    """

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (int(width * channels) for channels in (64, 128, 256, 512, 1024))
        few, many = max(1, round(3 * depth)), max(1, round(6 * depth))
        self.stem = nn.Sequential(
            Convolution(3, c1, stride=2), Convolution(c1, c2, stride=2), C2f(c2, c2, few, is_residual=True)
        )
        self.fine = nn.Sequential(Convolution(c2, c3, stride=2), C2f(c3, c3, many, is_residual=True))
        self.middle = nn.Sequential(Convolution(c3, c4, stride=2), C2f(c4, c4, many, is_residual=True))
        self.coarse = nn.Sequential(Convolution(c4, c5, stride=2), C2f(c5, c5, few, is_residual=True), Pooling(c5))
        self.middle_down, self.fine_down = C2f(c5 + c4, c4, few), C2f(c4 + c3, c3, few)
        self.fine_half, self.middle_half = Convolution(c3, c3, stride=2), Convolution(c4, c4, stride=2)
        self.middle_up, self.coarse_up = C2f(c3 + c4, c4, few), C2f(c4 + c5, c5, few)
        self.head = Head((c3, c4, c5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine = self.fine(self.stem(images))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.middle_down(torch.cat([_double(coarse), middle], 1))
        fine = self.fine_down(torch.cat([_double(middle), fine], 1))
        middle = self.middle_up(torch.cat([self.fine_half(fine), middle], 1))
        coarse = self.coarse_up(torch.cat([self.middle_half(middle), coarse], 1))
        return self.head([fine, middle, coarse])


def _double(values: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(values, scale_factor=2.0, mode="nearest")


def _with_example(network: nn.Module) -> nn.Module:
    network.example_inputs = (torch.zeros(1, 3, SIZE, SIZE),)  # what edgeprof compress traces it with
    return network.eval()


def yolov8n() -> nn.Module:
    torch.manual_seed(0)
    return _with_example(YoloV8(width=0.25, depth=1 / 3))


def yolov8s() -> nn.Module:
    torch.manual_seed(0)
    return _with_example(YoloV8(width=0.5, depth=1 / 3))


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write a network with ``example_inputs`` as an ONNX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(network, network.example_inputs, input_names=["images"], dynamo=True, verbose=False)
    program.save(path, external_data=False)
    print(path, f"{sum(weights.numel() for weights in network.parameters()) / 1e6:.1f} million parameters")


if __name__ == "__main__":
    for make in (yolov8n, yolov8s):
        export_onnx(make(), Path(sys.argv[1]) / f"{make.__name__}.onnx")
