"""PyTorch models in half precision: half the file size, and faster only where the device computes in half precision.

Inputs and outputs stay float32; the model converts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.torch.base import ModuleCompressor
from edgeprof_plugins.compressors.torch.model import named, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_plugins.compressors.torch.inventory import Inventory
    from edgeprof_plugins.compressors.torch.model import Net


class Fp16(ModuleCompressor):
    """Converts to IEEE half precision: 11 bits of mantissa, range ±65504; larger weights are clipped."""

    name = "fp16"
    changes = ("precision",)
    weight_bits = 16
    version = "2"
    kind = "float16"
    parameters = (
        Parameter(
            "exclude", "str", default="", help="layers left in float32, separated by spaces or |; name* for several"
        ),
    )

    def change(self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        torch = require()
        kind = getattr(torch, self.kind)
        largest = torch.finfo(kind).max
        layers = {
            name: layer
            for name, layer in net.module.named_modules()
            if any(p.is_floating_point() for p in layer.parameters(recurse=False))
        }
        excluded = named(layers, parameters["exclude"], "layer with weights")
        alone = {id(p) for layer in excluded for p in layer.parameters(recurse=False)}
        # A layer that shares its weights with an excluded one is excluded too.
        excluded = [layer for layer in layers.values() if alone & {id(p) for p in layer.parameters(recurse=False)}]
        untouched = {
            id(value)
            for layer in excluded
            for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        }
        floats, buffers = (
            {name: value for name, value in values if value.dtype == torch.float32 and id(value) not in untouched}
            for values in (net.module.named_parameters(), net.module.named_buffers())
        )
        touched = list(floats)
        if not floats:
            raise InputError(
                f"{net.spec} has no float32 weights that {self.name} could change",
                remedy="Start from the float32 model, and exclude less.",
            )
        clipped = 0
        with torch.no_grad():
            for value in (*floats.values(), *buffers.values()):
                large = torch.isfinite(value) & (value.abs() > largest)  # infinite values of masks stay infinite
                clipped += int(large.sum())
                value.copy_(torch.where(large, value.clamp(-largest, largest), value))
        # The whole module is converted; excluded layers are then restored.
        retained = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in excluded]
        net.module.to(kind)
        if isinstance(net.module, torch.fx.GraphModule):  # torch.export follows the graph and ignores hooks
            _convert_graph(torch, net.module, kind)
        else:
            _convert_module(torch, net.module, kind, torch.float32)
        for layer, state in zip(excluded, retained, strict=True):
            layer.float().load_state_dict(state)
            _convert_module(torch, layer, torch.float32, kind)
        # Products of two activations are also computed in half precision, unless layers are excluded.
        touched += [part.name for part in inventory.parts if part.family.endswith(" of activations") and not excluded]
        touched += [name for name, value in net.module.named_buffers() if value.dtype == kind and name not in touched]
        size = sum(value.numel() for value in floats.values())
        facts = {"weights": size, "clipped": clipped, "excluded_layers": len(excluded)}
        return {**facts, "coverage": inventory.account(touched, {}, "excluded, or not of float32")}, None


class Bf16(Fp16):
    """Converts to bfloat16: the range of float32 with 8 bits of mantissa."""

    name = "bf16"
    changes = ("precision",)
    weight_bits = 16
    kind = "bfloat16"


def _convert_module(torch: Any, module: Any, inside: Any, outside: Any) -> None:
    """Make a module compute in one type and return outputs in another."""

    def into(kind: Any, values: Any) -> Any:
        return torch.utils._pytree.tree_map(  # noqa: SLF001 - see torch_model.outputs
            lambda v: v.to(kind) if isinstance(v, torch.Tensor) and v.is_floating_point() else v, values
        )

    module.register_forward_pre_hook(lambda _, given: into(inside, given))
    module.register_forward_hook(lambda _, __, output: into(outside, output))


def _convert_graph(torch: Any, module: Any, kind: Any) -> None:
    """Do the same as ``_convert_module`` for a graph, with cast nodes after the float inputs and before the outputs."""
    graph, cast = module.graph, torch.ops.aten.to.dtype

    def floating(node: Any) -> bool:
        value = node.meta.get("val")
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    for node in graph.nodes:  # tensors created in the graph (such as the first state of an LSTM) have an explicit dtype
        if node.kwargs.get("dtype") == torch.float32:
            node.update_kwarg("dtype", kind)
    for node in [candidate for candidate in graph.nodes if candidate.op == "placeholder" and floating(candidate)]:
        with graph.inserting_after(node):
            inside = graph.call_function(cast, (node, kind))
        node.replace_all_uses_with(inside, delete_user_cb=lambda user, cast_back=inside: user is not cast_back)
    last = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(last):
        last.args = torch.fx.map_arg(
            last.args, lambda value: graph.call_function(cast, (value, torch.float32)) if floating(value) else value
        )
    module.recompile()
