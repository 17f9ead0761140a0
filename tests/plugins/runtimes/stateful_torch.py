"""A torch module that keeps state in every way that a module can."""

import torch


class Counter(torch.nn.Module):
    """y = x + what earlier calls have left: in a buffer in place, in attributes, and in a list."""

    example_inputs = (torch.ones(1, 2),)
    kept: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 2))
        self.last = torch.zeros(1, 2)
        self.calls = 0
        self.kept = torch.jit.annotate(list[torch.Tensor], [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        self.last = self.last + 10 * x
        self.calls += 1
        self.kept.append(x)
        return x + self.total + self.last + self.calls + len(self.kept)


class Buffered(torch.nn.Module):
    """y = x + the sum of all that came, in a buffer: what torch.export can write."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return x + self.total


class Worn(torch.nn.Module):
    """A module that changes its weights as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.add_(1.0)
        return x * self.weight


class Overwriting(torch.nn.Module):
    """y = 2x, computed in the input itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)
