"""Five architectures with random weights: latency, size, memory and energy depend on the shapes, not on the values.

    edgeprof bench examples/seed-study/zoo.py:vgg11 examples/seed-study/zoo.py:mobilenet_v2 …

The input is 1 × 3 × SIZE × SIZE (SEED_STUDY_SIZE, default 224); there are 100 classes. The networks are not trained, so
accuracy does not apply.
Sources: Simonyan and Zisserman 2015 (VGG-11), Krizhevsky 2014 (AlexNet, one tower), Sandler et al. 2018 (MobileNetV2),
Tan and Le 2019 (EfficientNet-B0), Zoph et al. 2018 (NASNet-A, its two cells at mobile size, without the auxiliary head
and path dropout, reductions by a strided convolution).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIZE = int(os.environ.get("SEED_STUDY_SIZE", "224"))
CLASSES = 100


def _ready(net: nn.Module) -> nn.Module:
    net.example_inputs = torch.zeros(1, 3, SIZE, SIZE)
    return net.eval()


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, act: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if act else nn.Sequential(*layers)


def _head(features: int, hidden: int) -> list[nn.Module]:
    return [
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, CLASSES),
    ]


def vgg11() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    last = 3
    for size in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if size == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(last, size, 3, padding=1), nn.ReLU()]
            last = size
    return _ready(nn.Sequential(*layers, *_head(512 * (SIZE // 32) ** 2, 4096)))


def alexnet() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    with torch.no_grad():
        features = nn.Sequential(*layers)(torch.zeros(1, 3, SIZE, SIZE)).numel()
    return _ready(nn.Sequential(*layers, *_head(features, 4096)))


class Squeeze(nn.Module):
    """Squeeze and excitation: each channel is multiplied by a weight that depends on the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        glance = functional.relu(self.down(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.up(glance))


class Inverted(nn.Module):
    """Inverted residual: expand, filter each channel, project back; the input is added if the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, *, kernel: int, excite: bool) -> None:
        super().__init__()
        wide = inputs * expand
        layers = [_conv(inputs, wide, 1)] if expand > 1 else []
        layers.append(_conv(wide, wide, kernel, stride, wide))
        if excite:
            layers.append(Squeeze(wide, max(1, inputs // 4)))
        self.layers = nn.Sequential(*layers, _conv(wide, outputs, 1, act=False))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _inverted(plan: tuple[tuple[int, ...], ...], first: int, last: int, *, excite: bool) -> nn.Module:
    layers: list[nn.Module] = [_conv(3, first, 3, 2)]
    inputs = first
    for expand, outputs, count, stride, kernel in plan:
        for index in range(count):
            layers.append(Inverted(inputs, outputs, stride if index == 0 else 1, expand, kernel=kernel, excite=excite))
            inputs = outputs
    tail = [_conv(inputs, last, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(last, CLASSES)]
    return _ready(nn.Sequential(*layers, *tail))


def mobilenet_v2() -> nn.Module:
    torch.manual_seed(0)
    plan = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3),
    )  # fmt: skip
    return _inverted(plan, 32, 1280, excite=False)


def efficientnet_b0() -> nn.Module:
    """EfficientNet-B0 with ReLU6 instead of SiLU, as in EfficientNet-Lite, but with squeeze and excitation."""
    torch.manual_seed(0)
    plan = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    )  # fmt: skip
    return _inverted(plan, 32, 1280, excite=True)


class Separable(nn.Module):
    """ReLU, depthwise convolution and pointwise convolution, twice."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, groups=outputs, bias=False),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Normal(nn.Module):
    """NASNet-A's normal cell: five pairs of branches from the outputs of the last two cells, concatenated."""

    def __init__(self, before: int, inputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.last = nn.Sequential(nn.ReLU(), _conv(before, size, 1, stride, act=False))
        self.this = nn.Sequential(nn.ReLU(), _conv(inputs, size, 1, act=False))
        self.five, self.three = Separable(size, size, 5), Separable(size, size, 3)
        self.other_five, self.other_three, self.own = (Separable(size, size, k) for k in (5, 3, 3))
        self.pool = nn.AvgPool2d(3, 1, 1)

    def forward(self, last: torch.Tensor, this: torch.Tensor) -> torch.Tensor:
        last, this = self.last(last), self.this(this)
        parts = [
            last,
            self.five(this) + self.three(last),
            self.other_five(last) + self.other_three(last),
            self.pool(this) + last,
            self.pool(last) + self.pool(last),
            self.own(this) + this,
        ]
        return torch.cat(parts, dim=1)


class Reduction(nn.Module):
    """NASNet-A's reduction cell: four concatenated parts at half the size."""

    def __init__(self, before: int, inputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.last = nn.Sequential(nn.ReLU(), _conv(before, size, 1, stride, act=False))
        self.this = nn.Sequential(nn.ReLU(), _conv(inputs, size, 1, act=False))
        self.seven, self.other_seven = Separable(size, size, 7, 2), Separable(size, size, 7, 2)
        self.five, self.other_five = Separable(size, size, 5, 2), Separable(size, size, 5, 2)
        self.three = Separable(size, size, 3)
        self.highest, self.mean, self.same = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1)

    def forward(self, last: torch.Tensor, this: torch.Tensor) -> torch.Tensor:
        last, this = self.last(last), self.this(this)
        first = self.five(this) + self.seven(last)
        second = self.highest(this) + self.other_seven(last)
        third = self.mean(this) + self.other_five(last)
        return torch.cat([second, third, self.same(first) + second, self.three(first) + self.highest(this)], dim=1)


class NasNet(nn.Module):
    def __init__(self, size: int = 44, repeats: int = 4) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, 2, act=False)
        self.cells = nn.ModuleList()
        before, inputs, stride = 32, 32, 1
        plan = [(Reduction, size // 4), (Reduction, size // 2)]
        for stage in range(3):
            plan += [(Reduction, size * 2**stage)] if stage else []
            plan += [(Normal, size * 2**stage)] * repeats
        for kind, width in plan:
            self.cells.append(kind(before, inputs, width, stride))
            before, inputs = inputs, width * (6 if kind is Normal else 4)
            stride = 2 if kind is Reduction else 1  # after a reduction, the earlier input is twice as large
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = this = self.stem(x)
        for cell in self.cells:
            last, this = this, cell(last, this)
        return self.head(functional.relu(this).mean(dim=(2, 3)))


def nasnet_mobile() -> nn.Module:
    torch.manual_seed(0)
    return _ready(NasNet())


def main(folder: Path) -> None:
    """Write random samples for calibration and training."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((32, 3, SIZE, SIZE), dtype=np.float32)
    np.savez_compressed(folder / "random.npz", x=x, y=np.arange(len(x)) % CLASSES)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/seed-study"))
