"""Restores layers in an exported program: torch.export keeps functions and weights, but compressors need modules.

Each call of a convolution, dense layer, batch norm or dropout whose weights belong to the program becomes a layer
(``Conv2d``, ``Linear``, …) again; everything else stays a function call.
"""

from __future__ import annotations

from typing import Any


def lift(torch: Any, program: Any) -> Any:
    """Return the program as an fx GraphModule with layers, in eval mode, with the weights of the program."""
    module = program.module()
    graph = module.graph
    layers: dict[tuple[str, ...], str] = {}
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":  # asserts the shapes that were exported
            graph.erase_node(node)
            continue
        lifted = _layer_of_call(torch, module, node)
        if lifted is None:
            continue
        layer, sources = lifted
        key = (*sources, str(node.target), repr(node.args[3:]))
        if key not in layers:
            layers[key] = _layer_place(module, layer, sources, len(layers))
        with graph.inserting_before(node):
            call = graph.call_module(layers[key], (node.args[0],))
        call.meta = {key: value for key, value in node.meta.items() if key in {"val", "tensor_meta"}}
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        # A later export keeps this metadata, and quantisers use it to find the layer that a function belongs to.
        kind = type(module.get_submodule(node.target)) if node.op == "call_module" else torch.nn.Module
        name = node.target if node.op == "call_module" else ""
        node.meta["nn_module_stack"] = {name: (name, f"{kind.__module__}.{kind.__qualname__}")}
        node.meta.pop("torch_fn", None)
    module.recompile()
    # An exported module forbids eval() and train(); with restored layers both work.
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    torch.nn.Module.train(module, mode=False)
    return module


def _layer_of_call(torch: Any, module: Any, node: Any) -> tuple[Any, tuple[str, ...]] | None:
    """The layer for a call and the names of its weights; None for any other node."""
    if node.op != "call_function" or not hasattr(node.target, "overloadpacket"):
        return None
    name = str(node.target.overloadpacket).partition(".")[2] or str(node.target.overloadpacket)
    makers = {
        "conv1d": _make_conv,
        "conv2d": _make_conv,
        "conv3d": _make_conv,
        "linear": _make_linear,
        "batch_norm": _batch_norm,
        "dropout": _make_dropout,
    }
    maker = makers.get(name)
    return None if maker is None else maker(torch, module, node)


def _argument_of(node: Any, position: int, default: Any = None) -> Any:
    """An argument by position or keyword or, where it was omitted, the default of the schema."""
    if position < len(node.args):
        return node.args[position]
    argument = node.target._schema.arguments[position]  # noqa: SLF001 - only the schema has the default values
    return node.kwargs.get(argument.name, argument.default_value if argument.has_default_value() else default)


def _program_weight(torch: Any, module: Any, node: Any) -> tuple[Any, str] | None:
    """A weight that belongs to the program, with its name; None where it is computed."""
    if node is None or getattr(node, "op", "") != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return (value, str(node.target)) if isinstance(value, torch.Tensor) and value.is_floating_point() else None


def _layer_weights(torch: Any, module: Any, node: Any) -> tuple[Any, Any, tuple[str, ...]] | None:
    """Weight and bias at positions 1 and 2, and their names."""
    weight = _program_weight(torch, module, _argument_of(node, 1))
    given = _argument_of(node, 2)
    bias = _program_weight(torch, module, given)
    if weight is None or (given is not None and bias is None):
        return None
    return weight[0], None if bias is None else bias[0], (weight[1], *([] if bias is None else [bias[1]]))


def _make_conv(torch: Any, module: Any, node: Any) -> tuple[Any, tuple[str, ...]] | None:
    constants = _layer_weights(torch, module, node)
    if constants is None:
        return None
    weight, bias, names = constants
    rank = weight.dim() - 2
    stride, padding, dilation, groups = (_argument_of(node, position) for position in range(3, 7))
    kind = getattr(torch.nn, f"Conv{rank}d")
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_per_dimension(stride, rank),
        padding=padding if isinstance(padding, str) else _per_dimension(padding, rank),
        dilation=_per_dimension(dilation, rank),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return _fill_layer(torch, layer, weight, bias), names


def _make_linear(torch: Any, module: Any, node: Any) -> tuple[Any, tuple[str, ...]] | None:
    constants = _layer_weights(torch, module, node)
    if constants is None:
        return None
    weight, bias, names = constants
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _fill_layer(torch, layer, weight, bias), names


def _batch_norm(torch: Any, module: Any, node: Any) -> tuple[Any, tuple[str, ...]] | None:
    parts = [_program_weight(torch, module, _argument_of(node, position)) for position in range(1, 5)]
    weight, bias, mean, variance = parts
    if mean is None or variance is None or weight is None or bias is None:
        return None
    value = node.args[0].meta.get("val")
    rank = 4 if value is None else value.dim()
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}[rank]
    layer = kind(len(mean[0]), eps=_argument_of(node, 7), momentum=_argument_of(node, 6))
    _fill_layer(torch, layer, weight[0], bias[0])
    layer.running_mean, layer.running_var = mean[0].detach().clone(), variance[0].detach().clone()
    return layer, (weight[1], bias[1])


def _make_dropout(torch: Any, module: Any, node: Any) -> tuple[Any, tuple[str, ...]] | None:
    del module
    return torch.nn.Dropout(_argument_of(node, 1)), (f"dropout_{node.name}",)


def _fill_layer(torch: Any, layer: Any, weight: Any, bias: Any) -> Any:
    layer.weight = torch.nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach().clone())
    return layer


def _per_dimension(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * rank if len(values) == 1 else values


def _layer_place(module: Any, layer: Any, sources: tuple[str, ...], number: int) -> str:
    """Add the layer to the module and return its name: the place of its weight, if that is free for a layer."""
    owner, _, key = sources[0].rpartition(".")
    holder = module.get_submodule(owner) if owner and key == "weight" else None
    free = holder is not None and not list(holder.children()) and set(holder._parameters) <= {"weight", "bias"}  # noqa: SLF001 - includes None for an omitted bias
    name = owner if free else f"layer_{number}"
    if not free:
        module.add_module(name, layer)
        return name
    parent, _, last = owner.rpartition(".")
    module.get_submodule(parent).add_module(last, layer)
    return name
