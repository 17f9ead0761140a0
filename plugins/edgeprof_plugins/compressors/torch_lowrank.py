"""Low-rank factors of PyTorch layers: W ≈ A·B by singular values, two small layers for a large one.

It pays only where the rank r is below m·n / (m + n); other layers stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors import torch_train
from edgeprof_plugins.compressors.torch_base import ModuleCompressor
from edgeprof_plugins.compressors.torch_model import count, require
from edgeprof_plugins.compressors.torch_prune import to_numpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_plugins.compressors.torch_model import Net

#: Energy kept where neither it nor a rank is given.
_ENERGY = 0.9


class LowRank(ModuleCompressor):
    name = "low-rank"
    version = "1"
    parameters = (
        Parameter("energy", "float", minimum=0.01, maximum=0.9999, help="share of Σσ² that each layer keeps (0.9)"),
        Parameter("rank", "int", minimum=1, maximum=65536, help="the rank of every layer, in place of energy"),
        *torch_train.parameters(0),
    )

    def change(self, net: Net, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        torch = require()
        energy, rank = parameters.get("energy"), parameters.get("rank")
        if energy is not None and rank is not None:
            raise InputError("low-rank takes energy or rank, not both", remedy="--with low-rank:energy=0.9")
        before = count(net.module)
        layers: dict[str, dict[str, Any]] = {}
        kept: dict[str, str] = {}
        for name, layer in list(net.module.named_modules()):
            if not name or not _fits(torch, layer):
                continue
            matrix = to_numpy(layer.weight).reshape(layer.weight.shape[0], -1)
            u, s, v = np.linalg.svd(matrix, full_matrices=False)
            power = np.cumsum(s.astype(np.float64) ** 2)
            total = float(power[-1]) or 1.0
            size = rank or int(np.searchsorted(power, (energy or _ENERGY) * total)) + 1
            size = min(size, len(s))
            limit = matrix.size / sum(matrix.shape)
            if size >= limit:
                kept[name] = f"rank {size} of {len(s)} would not be smaller (limit {limit:.0f})"
                continue
            root = np.sqrt(s[:size])
            net.module.set_submodule(name, _split(torch, layer, u[:, :size] * root, root[:, None] * v[:size]))
            layers[name] = {"rank": size, "of": len(s), "energy": round(float(power[size - 1]) / total, 5)}
        if not layers:
            told = "; ".join(f"{layer}: {why}" for layer, why in list(kept.items())[:3])
            raise InputError(
                f"no layer of {net.spec} gets smaller ({told or 'it has no dense or ungrouped convolution weights'})",
                remedy="Keep less: a smaller energy or rank.",
            )
        return {"layers": layers, "kept": kept, "parameters_before": before}, None


def _fits(torch: Any, layer: Any) -> bool:
    # Exactly these: a subclass may use its weight in a way of its own (as MultiheadAttention does its projection's).
    nn = torch.nn
    return type(layer) in {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d} and getattr(layer, "groups", 1) == 1


def _split(torch: Any, layer: Any, left: Any, right: Any) -> Any:
    """Two layers: the first has the geometry, the second the bias."""
    size = left.shape[1]
    if isinstance(layer, torch.nn.Linear):
        first = torch.nn.Linear(layer.in_features, size, bias=False)
        second = torch.nn.Linear(size, layer.out_features, bias=layer.bias is not None)
    else:
        kind = type(layer)
        first = kind(
            layer.in_channels, size, layer.kernel_size, stride=layer.stride, padding=layer.padding,
            dilation=layer.dilation, padding_mode=layer.padding_mode, bias=False,
        )  # fmt: skip
        second = kind(size, layer.out_channels, 1, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(right).reshape(first.weight.shape))
        second.weight.copy_(torch.from_numpy(left).reshape(second.weight.shape))
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return torch.nn.Sequential(first, second).eval()
