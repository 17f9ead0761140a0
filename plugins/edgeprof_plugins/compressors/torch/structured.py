"""Removes whole channels from PyTorch models, which makes dense kernels faster (Torch-Pruning's dependency graph)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.channel_parameters import CHANNEL_PARAMETERS
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import ModuleCompressor
from edgeprof_plugins.compressors.torch.model import count, named, outputs, quiet, require, twice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof_plugins.compressors.torch.inventory import Inventory
    from edgeprof_plugins.compressors.torch.model import Net


class PruneStructured(ModuleCompressor):
    """Removes the channels with the smallest norms, with everything that depends on them."""

    name = "prune-structured"
    changes = ("channels",)
    version = "1"
    parameters = (
        *CHANNEL_PARAMETERS,
        Parameter("exclude", "str", default="", help="layers left whole, separated by spaces or |; name* for several"),
        *torch_train.parameters(0),
    )

    def change(self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        before = {name: tuple(value.shape) for name, value in net.module.named_parameters()}
        facts = narrow(net, parameters["amount"], parameters["round_to"], parameters["exclude"])
        after = {name: tuple(value.shape) for name, value in net.module.named_parameters()}
        changed = [name for name, shape in before.items() if after.get(name) != shape]
        return {**facts, "coverage": inventory.account(changed, {}, _KEPT)}, None


_KEPT = "its channels are the model's outputs, excluded, too few to be rounded, or cannot be followed"


def narrow(net: Net, amount: float, round_to: int = 8, exclude: str = "") -> dict[str, Any]:
    """Remove the channels with the smallest L2 norm (summed over all layers that share them) from a net, in place.

    Raises:
        InputError: a layer named in ``exclude`` does not exist, no channel can be removed, or the network cannot be
            followed.
    """
    torch = require()
    pruning = require("torch-pruning", "torch_pruning")
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)  # noqa: SLF001 - the class that all convolutions share
    layers = {name: layer for name, layer in net.module.named_modules() if isinstance(layer, kinds)}
    ignored = [*_output_layers(torch, net, layers), *named(layers, exclude, "convolution or dense layer")]
    before = {name: layer.weight.shape[0] for name, layer in layers.items()}
    parameters, examples = count(net.module), twice(torch, net.examples)
    with torch.no_grad():
        shapes = [value.shape for value in outputs(net.module, net.examples)]
    try:
        for parameter in net.module.parameters():
            parameter.requires_grad_(requires_grad=True)  # the dependencies are read from the autograd graph
        with quiet():
            pruning.pruner.BasePruner(
                net.module,
                _fitting_batch(torch, net, examples),
                importance=pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=amount,
                round_to=round_to if round_to > 1 else None,
                ignored_layers=ignored,
            ).step()
            with torch.no_grad():
                after = [value.shape for value in outputs(net.module, net.examples)]
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the channels of {net.spec} cannot be followed through the network: {first}",
            remedy="Leave the layers before the operation that it names alone: exclude=NAME|NAME*.",
        ) from error
    if after != shapes:
        raise InputError(
            f"taking channels out of {net.spec} changes its outputs"
            f" from {_shapes_text(shapes)} to {_shapes_text(after)}",
            remedy="Name the layers that make its outputs: exclude=NAME.",
        )
    changed = {
        name: [size, int(layers[name].weight.shape[0])]
        for name, size in before.items()
        if layers[name].weight.shape[0] != size
    }
    if not changed:
        raise InputError(
            f"no channels of {net.spec} can be taken out with amount={amount:g} and round_to={round_to}",
            remedy="Take out more, or give a smaller round_to.",
        )
    return {
        "channels": changed,
        "parameters_before": parameters,
        "reached": round(1 - count(net.module) / parameters, 4),
        "torch_pruning": str(pruning.__version__),
    }


def _fitting_batch(torch: Any, net: Net, examples: tuple[Any, ...]) -> tuple[Any, ...]:
    """The given examples, or the net's own where a program has a fixed batch."""
    try:
        with torch.no_grad():
            net.module(*examples)
    except Exception:  # noqa: BLE001 - whatever the error, the program was exported for these inputs
        return net.examples
    return examples


def _output_layers(torch: Any, net: Net, layers: Mapping[str, Any]) -> list[Any]:
    """The layers that produce the outputs: the first ones found going back from the outputs in the autograd graph."""
    owners = {id(layer.weight): layer for layer in layers.values()}
    for parameter in net.module.parameters():
        parameter.requires_grad_(requires_grad=True)
    with torch.enable_grad():
        waiting = [value.grad_fn for value in outputs(net.module, net.examples) if value.grad_fn is not None]
    last_layers, seen = [], set()
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        children = [child for child, _ in step.next_functions if child is not None]
        child_layers = [owners[id(v)] for v in map(_variable_parameter, children) if id(v) in owners]
        if child_layers:
            last_layers += child_layers
        else:
            waiting += children
    return last_layers


def _variable_parameter(step: Any) -> Any:
    """The parameter that a step of the autograd graph reads, directly or transposed (as in dense layers)."""
    if hasattr(step, "variable"):
        return step.variable
    inner = [child for child, _ in step.next_functions if child is not None]
    if type(step).__name__.startswith(("TBackward", "TransposeBackward")) and len(inner) == 1:
        return getattr(inner[0], "variable", None)
    return None


def _shapes_text(shapes: list[Any]) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in shapes)
