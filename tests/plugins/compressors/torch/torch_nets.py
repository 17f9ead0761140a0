"""A small residual network with what compressors stumble over: batch norms, a shortcut, dropout; made by a factory."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.block = Block(width, 2 * width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, 4)
        self.example_inputs = torch.zeros(1, 1, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.block(torch.relu(self.stem(x)))
        return self.head(self.drop(out.mean(dim=(2, 3))))


def make() -> nn.Module:
    torch.manual_seed(3)
    net = Net()
    with torch.no_grad():  # a batch norm that has seen data
        net.train()(torch.rand(64, 1, 8, 8))
    return net.eval()


def narrow() -> nn.Module:
    torch.manual_seed(4)
    return Net(8)


def half(width: float = 1.0) -> nn.Module:
    torch.manual_seed(5)
    return Net(round(16 * width))


def mute() -> nn.Module:
    """It does not tell what it takes."""
    net = make()
    del net.example_inputs
    return net


def plain() -> nn.Module:
    """Without batch norms."""
    torch.manual_seed(6)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    net.example_inputs = torch.zeros(1, 1, 8, 8)
    return net


def deep() -> nn.Module:
    """More layers."""
    torch.manual_seed(7)
    blocks = [Block(16, 32), *(Block(32, 32) for _ in range(3))]
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(32, 4))
    net.example_inputs = torch.zeros(1, 1, 8, 8)
    return net


def wide() -> nn.Module:
    """A weight that half precision does not hold."""
    net = plain()
    with torch.no_grad():
        net[3].weight[0, 0] = 1e5
    return net


def fails() -> nn.Module:
    return {}["weights"]


def leaves() -> nn.Module:
    sys.exit("no GPU here")


def crashes() -> nn.Module:
    return ctypes.string_at(0)


class Hangs(nn.Module):
    example_inputs = torch.zeros(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while True:
            x = x + 1


def text() -> str:
    return "no module"


class Branches(nn.Module):
    """What torch.export cannot follow: the answer decides the way."""

    example_inputs = torch.zeros(1, 4)

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.dense(x)
        return out * 2 if float(out.sum()) > 0 else out
