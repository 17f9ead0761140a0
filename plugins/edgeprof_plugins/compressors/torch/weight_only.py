"""int8 weights for dense layers of PyTorch models, by torchao: a float layer that converts its weights when it runs.

It saves memory and no arithmetic, so that it suits layers that are limited by reading their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst
from edgeprof_plugins.compressors.torch.base import EXCLUDE, ModuleCompressor
from edgeprof_plugins.compressors.torch.model import names, quiet, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_plugins.compressors.torch.inventory import Inventory
    from edgeprof_plugins.compressors.torch.model import Net

_SIZE = "its rows are no multiple of the group"
_OTHER = "torchao stores the weights of dense layers as integers, no others"
GROUP = Parameter("group", "int", default=0, minimum=0, maximum=4096, help="weights that share a scale; 0: a row")


class Int8Weight(ModuleCompressor):
    name = "int8-weight"
    changes = ("precision",)
    weight_bits = 8
    version = "1"
    parameters = (GROUP, EXCLUDE)

    def change(self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        torch = require()
        layers = {name: layer for name, layer in net.module.named_modules() if isinstance(layer, torch.nn.Linear)}
        if not layers:
            raise InputError(
                f"int8-weight finds no dense layer in {net.spec}", remedy="Convolutions: int8-static, or export-onnx."
            )
        group = parameters["group"]
        left = dict.fromkeys(names(layers, parameters["exclude"], "dense layer"), EXCLUDED)
        left |= {name: _SIZE for name, layer in layers.items() if group and layer.in_features % group}
        before = {name: layer.weight.detach().clone() for name, layer in layers.items() if name not in left}
        sqnr = _quantise(net.module, before, group)
        why = {f"{name}.weight": reason for name, reason in left.items()}
        facts = {"layers": len(before), "excluded": sorted(left), "sqnr_db": sqnr, "worst": worst(sqnr)}
        return {**facts, "coverage": inventory.account([f"{name}.weight" for name in before], why, _OTHER)}, None


def _quantise(module: Any, weights: Mapping[str, Any], group: int) -> dict[str, float | None]:
    """Quantise the weights of these layers in place; return how close each is to the original, in dB."""
    torchao = require("torchao", "torchao.quantization")
    utils = require("torchao", "torchao.utils")
    granularity = torchao.PerGroup(group) if group else torchao.PerRow()
    with quiet():
        method = torchao.Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)
        torchao.quantize_(module, method, filter_fn=lambda _, name: name in weights)
    layers = dict(module.named_modules())
    sqnr = {
        name: sqnr_db(value.float().numpy(), layers[name].weight.dequantize().detach().float().numpy())
        for name, value in weights.items()
    }
    utils.unwrap_tensor_subclass(module)  # torch.export stores the integers and the scales as tensors of their own
    return sqnr
