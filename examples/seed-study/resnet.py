"""A ResNet for 8 × 8 digits, small enough to be trained in a few minutes on two cores.

    python examples/seed-study/resnet.py build/seed-study      # trains; writes resnet.pth, train.npz and test.npz
    edgeprof bench examples/seed-study/resnet.py:trained --runtime pytorch --dataset build/seed-study/test.npz

The data are the 1,797 handwritten digits that ship inside scikit-learn; the network takes their pixels as they are
stored, 0 to 16, enlarged to 32 × 32 inside. SEED_STUDY names the folder of the weights (default: build/seed-study).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("SEED_STUDY", HERE.parents[1] / "build/seed-study"))
SEED, EPOCHS, BATCH, TRAIN = 7, 12, 50, 1300


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        a, b, c = (max(8, round(size * width)) for size in (16, 32, 64))
        self.stem = nn.Conv2d(1, a, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(a)
        self.blocks = nn.Sequential(Block(a, a, 1), Block(a, b, 2), Block(b, b, 1), Block(b, c, 2))
        self.head = nn.Linear(c, 10)
        self.example_inputs = torch.zeros(1, 1, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(x, scale_factor=4.0, mode="nearest")
        out = self.blocks(functional.relu(self.bn(self.stem(x))))
        return self.head(out.mean(dim=(2, 3)))


def trained() -> nn.Module:
    net = ResNet()
    net.load_state_dict(torch.load(FOLDER / "resnet.pth", weights_only=True))
    return net.eval()


def main(folder: Path) -> None:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - trained() needs torch alone
    except ImportError as error:
        sys.exit(f"the digits are scikit-learn's, which cannot be imported ({error}): pip install scikit-learn")

    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x, y = digits.images[order].astype(np.float32)[:, None], digits.target[order].astype(np.int64)
    np.savez_compressed(folder / "train.npz", x=x[:TRAIN], y=y[:TRAIN])
    np.savez_compressed(folder / "test.npz", x=x[TRAIN:], y=y[TRAIN:])
    torch.manual_seed(SEED)
    net = ResNet().train()
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * TRAIN // BATCH)
    draw = np.random.default_rng(SEED)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in draw.permutation(TRAIN).reshape(-1, BATCH):
            loss = functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total * BATCH / TRAIN:.4f}", file=sys.stderr, flush=True)
    with torch.no_grad():
        right = (net.eval()(torch.from_numpy(x[TRAIN:])).argmax(1).numpy() == y[TRAIN:]).mean()
    print(f"{right:.2%} of {len(y) - TRAIN} held-out digits", file=sys.stderr)
    torch.save(net.state_dict(), folder / "resnet.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
