"""PyTorch networks of one kind each, with what they multiply counted by hand in ``macs`` and ``layers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, INNER, OUTER, STEPS, HIDDEN = 3, 24, 16, 5, 8


class Wrapped(nn.Module):
    """A layer whose first output is the answer."""

    def __init__(self, layer: nn.Module, example: torch.Tensor, macs: int, layers: list[str]) -> None:
        super().__init__()
        self.layer, self.example_inputs, self.macs, self.layers = layer, example, macs, layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = self.layer(x)
        return answer[0] if isinstance(answer, tuple) else answer


class Functional(nn.Module):
    """Weights that no layer class owns."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.rows = nn.Parameter(torch.randn(INNER, OUTER)), nn.Parameter(torch.randn(4, OUTER))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x @ self.matrix, self.rows)


class Attention(nn.Module):
    """Three projections, and two products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(INNER, OUTER, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        return torch.softmax(scores, -1) @ self.v(x)


def _dense(kind: torch.dtype) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Linear(INNER, OUTER).to(kind)
        return Wrapped(layer, torch.randn(ROWS, INNER).to(kind), ROWS * INNER * OUTER, ["layer.weight"])

    return make


def _recurrent(kind: type[nn.Module], gates: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = kind(INNER, HIDDEN, batch_first=True)
        macs = ROWS * STEPS * gates * HIDDEN * (INNER + HIDDEN)
        return Wrapped(layer, torch.randn(ROWS, STEPS, INNER), macs, ["layer.weight_ih_l0", "layer.weight_hh_l0"])

    return make


def _convolution() -> nn.Module:
    return Wrapped(nn.Conv2d(8, 12, 3), torch.randn(1, 8, 6, 6), 16 * 12 * 8 * 9, ["layer.weight"])


def _grouped() -> nn.Module:
    return Wrapped(nn.Conv2d(8, 12, 3, groups=4), torch.randn(1, 8, 6, 6), 16 * 12 * 2 * 9, ["layer.weight"])


def _turned() -> nn.Module:
    return Wrapped(nn.ConvTranspose2d(8, 12, 3), torch.randn(1, 8, 4, 4), 16 * 8 * 12 * 9, ["layer.weight"])


def _functional() -> nn.Module:
    macs = ROWS * INNER * OUTER + ROWS * OUTER * 4
    return Wrapped(Functional(), torch.randn(ROWS, INNER), macs, ["layer.matrix", "layer.rows"])


def _attention() -> nn.Module:
    macs = ROWS * STEPS * INNER * OUTER * 3 + 2 * ROWS * STEPS * STEPS * OUTER
    return Wrapped(Attention(), torch.randn(ROWS, STEPS, INNER), macs, [f"layer.{name}.weight" for name in "qkv"])


NETS: dict[str, Callable[[], nn.Module]] = {
    "dense": _dense(torch.float32),
    "dense64": _dense(torch.float64),
    "dense16": _dense(torch.bfloat16),
    "convolution": _convolution,
    "grouped": _grouped,
    "turned": _turned,
    "lstm": _recurrent(nn.LSTM, 4),
    "gru": _recurrent(nn.GRU, 3),
    "rnn": _recurrent(nn.RNN, 1),
    "functional": _functional,
    "attention": _attention,
}


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """The factories by name, as ``places.py:lstm``."""
    if name not in NETS:
        raise AttributeError(name)

    def make() -> nn.Module:
        torch.manual_seed(7)
        return NETS[name]().eval()

    return make
