"""ResNet-20 for CIFAR-10 with option-A shortcuts (He et al. 2015, §4.2), into which published weights can be loaded.

    edgeprof bench examples/real-models/resnet20.py:pretrained --runtime pytorch --input x=1x3x32x32

RESNET20_WEIGHTS names the file: resnet20-12fca82f.th of akamaster/pytorch_resnet_cifar10 (BSD-2-Clause).
"""

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

_WEIGHTS = Path(__file__).resolve().parents[3] / "shared/data/cifar10-resnet-pytorch/resnet20-12fca82f.th"


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = (outputs - inputs) // 2
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.pad:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(out + x)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(2)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def pretrained() -> nn.Module:
    saved = torch.load(os.environ.get("RESNET20_WEIGHTS", _WEIGHTS), map_location="cpu", weights_only=True)
    model = ResNet20()
    model.load_state_dict({name.removeprefix("module."): value for name, value in saved["state_dict"].items()})
    return model.eval()
