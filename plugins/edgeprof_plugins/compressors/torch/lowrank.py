"""Low-rank factors of PyTorch layers: two small layers replace a large one.

This saves weights only where the rank r is below m·n / (m + n); other layers stay unchanged.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.factors import PARAMETERS, check, factors
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import ModuleCompressor
from edgeprof_plugins.compressors.torch.model import count, require
from edgeprof_plugins.compressors.torch.prune import to_numpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_plugins.compressors.torch.inventory import Inventory
    from edgeprof_plugins.compressors.torch.model import Net


class LowRank(ModuleCompressor):
    """Replaces a layer with two smaller ones whose product is nearest to its weights (``shared.factors``)."""

    name = "low-rank"
    changes = ("rank",)
    version = "2"
    parameters = (*PARAMETERS, *torch_train.parameters(0))

    def change(self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        torch = require()
        check(parameters)
        before = count(net.module)
        layers: dict[str, dict[str, Any]] = {}
        unchanged: dict[str, str] = {}
        users = Counter(id(value) for _, value in net.module.named_parameters(remove_duplicate=False))
        for name, layer in list(net.module.named_modules()):
            if not name or not _is_factorable(torch, layer):
                continue
            if users[id(layer.weight)] > 1:
                unchanged[name] = "several layers use its weights"
                continue
            if not layer.weight.numel():
                unchanged[name] = "its weights have no values"
                continue
            matrix = to_numpy(layer.weight).reshape(layer.weight.shape[0], -1)
            left, right, share = factors(matrix, parameters)
            size = left.shape[1]
            limit = matrix.size / sum(matrix.shape)
            if size >= limit:
                unchanged[name] = f"rank {size} of {min(matrix.shape)} would not be smaller (limit {limit:.0f})"
                continue
            net.module.set_submodule(name, _split_layer(torch, layer, left, right))
            layers[name] = {"rank": size, "of": min(matrix.shape), "energy": round(share, 5)}
        if not layers:
            why_not = "; ".join(f"{layer}: {why}" for layer, why in list(unchanged.items())[:3])
            raise InputError(
                f"no layer of {net.spec} gets smaller"
                f" ({why_not or 'it has no dense or ungrouped convolution weights'})",
                remedy="Keep less: a smaller energy or rank.",
            )
        why = {f"{name}.weight": reason for name, reason in unchanged.items()}
        account = inventory.account([f"{name}.weight" for name in layers], why, _NOT_SPLIT)
        return {"layers": layers, "kept": unchanged, "parameters_before": before, "coverage": account}, None


_NOT_SPLIT = "low-rank splits dense layers and convolutions that are not grouped"


def _is_factorable(torch: Any, layer: Any) -> bool:
    # Exactly these types: a subclass may use its weight differently (as MultiheadAttention uses its projection's).
    nn = torch.nn
    return type(layer) in {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d} and getattr(layer, "groups", 1) == 1


def _split_layer(torch: Any, layer: Any, left: Any, right: Any) -> Any:
    """Return two layers: the first has the geometry, the second the bias."""
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
    first, second = first.to(layer.weight.dtype), second.to(layer.weight.dtype)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(right).reshape(first.weight.shape))
        second.weight.copy_(torch.from_numpy(left).reshape(second.weight.shape))
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return torch.nn.Sequential(first, second).eval()
