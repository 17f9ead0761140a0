"""Which parameters a PyTorch model multiplies with, observed while it runs on its example inputs.

The classes of the layers do not show this: weights are also used by functions (``x @ self.weight``), and a torch.export
program has an LSTM as an operator. The operators that PyTorch dispatches are therefore observed, and their operands
traced to parameters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.coverage import Part, coverage, whole
from edgeprof_plugins.compressors.shared.finite import require_finite
from edgeprof_plugins.compressors.torch.model import WEIGHTED, quiet, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

#: Families of parameters that no layer multiplies with.
_LOOSE = frozenset({"Embedding", "other"})
_ACTIVATIONS = "it multiplies two activations and has no weights"
_OTHER = "biases, norms and other constants"
_TABLES = "a table that is looked up, not multiplied"


@dataclass
class Used:
    """A parameter that the model multiplies with.

    Attributes:
        macs: Multiply-accumulate operations with it, on the example inputs.
        inner: The dimension over which products are summed; None where it cannot be determined.
        op: The operator.
    """

    macs: int = 0
    inner: int | None = None
    op: str = ""


@dataclass
class Inventory:
    """The layers and parameters of a model before a method changes it.

    Attributes:
        used: Parameter → how it is used in products.
        parts: Layers and parameters, for the coverage.
        known: Whether the model was run, so that the arithmetic is known.
    """

    used: dict[str, Used] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    known: bool = True

    @classmethod
    def of(cls, module: Any, examples: tuple[Any, ...] | None) -> Inventory:
        """Run the module on its example inputs; without them, layers are recognised by their classes."""
        inventory = cls(known=examples is not None)
        tensors = _float_tensors(module)
        products: dict[str, int] = {}
        tables: set[str] = set()
        if examples is not None:
            _watch_products(module, examples, tensors, (inventory.used, products, tables))
        owners = _parameter_owners(module)
        for name, value in tensors.items():
            family, layer = owners.get(name, ("other", False))
            if inventory.known:
                layer = name in inventory.used
            used = inventory.used.get(name, Used())
            size = int(value.numel())
            if layer and value.dim() >= 2:
                _require_finite(name, value)
                kind = family if family not in _LOOSE else used.op
                inventory.parts.append(Part(name, kind, size, inventory._macs(used)))
            elif size > 1:
                table = name in tables or family == "Embedding"
                inventory.parts.append(
                    Part(name, "Embedding" if table else "other", size, 0, _TABLES if table else _OTHER)
                )
        for op, macs in products.items():
            inventory.parts.append(Part(f"{op} of activations", f"{op} of activations", 0, macs, _ACTIVATIONS))
        return inventory

    def _macs(self, used: Used) -> int | None:
        return used.macs if self.known else None

    def weights(self, module: Any) -> dict[str, Any]:
        """Return the float weights (not the biases) that the module multiplies with, by name, shared weights once.

        Raises:
            InputError: there are no such weights.
        """
        layers = {part.name for part in self.parts if part.family not in _LOOSE}
        weights = {
            name: value
            for name, value in _float_tensors(module).items()
            if name in layers and value.layout == require().strided and value.numel()
        }
        if not weights:
            raise InputError(
                "this model has no float weights of layers that multiply, which could be changed",
                remedy="Start from the float model: what is already quantised or frozen cannot be changed any more.",
            )
        return weights

    def account(
        self, changed: Iterable[str] | Mapping[str, Fraction], why: Mapping[str, str], otherwise: str
    ) -> dict[str, Any]:
        """Return the coverage of a method that changed these parameters, or these shares of them."""
        shares = changed if isinstance(changed, Mapping) else whole(changed)
        account = coverage(self.parts, shares, why, otherwise)
        if not self.known:
            account["macs"]["reason"] = "the model does not say what its inputs are"
        return account


def _require_finite(name: str, value: Any) -> None:
    torch = require()
    values = value.detach()
    if value.layout != torch.strided:
        values = values.coalesce().values() if value.layout == torch.sparse_coo else values.values()
    require_finite("this model", name, values.to(torch.float32 if value.element_size() < 8 else value.dtype).numpy())


def _float_tensors(module: Any) -> dict[str, Any]:
    """Floating-point parameters and buffers by name, shared ones once."""
    seen: set[int] = set()
    floats = {}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point() and id(value) not in seen:
            seen.add(id(value))
            floats[name] = value
    return floats


def _parameter_owners(module: Any) -> dict[str, tuple[str, bool]]:
    """Parameter → the class of the layer that holds it, and whether layers of that class multiply."""
    owners = {}
    for prefix, layer in module.named_modules():
        kind = getattr(layer, "original_name", type(layer).__name__)
        for key, _ in layer.named_parameters(recurse=False):
            name = f"{prefix}.{key}" if prefix else key
            owners[name] = (
                (kind, True) if kind in WEIGHTED else ("Embedding" if kind == "Embedding" else "other", False)
            )
    return owners


def _watch_products(module: Any, examples: tuple[Any, ...], tensors: Mapping[str, Any], into: Any) -> None:
    """Run the module and record each product of two tensors."""
    torch = require()
    from torch.utils._python_dispatch import TorchDispatchMode

    used, products, tables = into
    places = sorted((value.data_ptr(), value.data_ptr() + value.numel() * value.element_size(), name)
                    for name, value in tensors.items() if value.layout == torch.strided and value.numel())  # fmt: skip

    def owner(value: Any) -> str:
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or not value.numel():
            return ""
        return next((name for start, end, name in places if start <= value.data_ptr() < end), "")

    base: Any = TorchDispatchMode

    class Watch(base):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            result = func(*args, **(kwargs or {}))
            op = str(func).split(".")[1]
            if op == "embedding":
                tables.add(owner(args[0]))
            product = _PRODUCTS.get(op)
            if product is not None:
                first, second, macs = product(args, result)
                name = owner(second) or owner(first)
                if name:
                    layer_use = used.setdefault(name, Used(op=_SPOKEN.get(op, op)))
                    layer_use.macs += macs
                    layer_use.inner = _summed_dimension(
                        op, tensors[name], second if owner(second) else first, bool(owner(second)), args
                    )
                else:
                    products[_SPOKEN.get(op, op)] = products.get(_SPOKEN.get(op, op), 0) + macs
            return result

    with quiet(), torch.no_grad(), _plain_kernels(torch), Watch():
        module(*examples)


@contextlib.contextmanager
def _plain_kernels(torch: Any) -> Iterator[None]:
    """Disable kernels that compute a whole recurrent or attention layer in one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _summed_dimension(op: str, weight: Any, seen: Any, second: bool, args: Any) -> int | None:
    """The dimension of a parameter that a product sums over, from the strides of the operand."""
    if op == "convolution":
        return 0 if args[6] else 1
    if weight.dim() != 2 or seen.dim() < 2:
        return None
    axis = -2 if second else -1
    fitting = [d for d in range(2) if weight.stride(d) == seen.stride(axis) and weight.shape[d] == seen.shape[axis]]
    return fitting[0] if len(fitting) == 1 else None


def _matrix_product(first: Any, second: Any, result: Any) -> tuple[Any, Any, int]:
    return first, second, int(result.numel() * first.shape[-1])


def _convolution_operands(args: Any, result: Any) -> tuple[Any, Any, int]:
    data, weight, transposed = args[0], args[1], args[6]
    size = math.prod(weight.shape[1:])
    return data, weight, int((data if transposed else result).numel() * size)


def _attention_operands(args: Any, result: Any) -> tuple[Any, Any, int]:
    query, key = args[0], args[1]
    del result
    return None, None, int(2 * query.numel() * key.shape[-2])


#: Operator → a function that gives its two factors and its multiply-accumulate operations.
_PRODUCTS: dict[str, Any] = {
    "mm": lambda args, result: _matrix_product(args[0], args[1], result),
    "bmm": lambda args, result: _matrix_product(args[0], args[1], result),
    "mv": lambda args, result: _matrix_product(args[0], args[1], result),
    "dot": lambda args, result: _matrix_product(args[0], args[1], result),
    "addmm": lambda args, result: _matrix_product(args[1], args[2], result),
    "baddbmm": lambda args, result: _matrix_product(args[1], args[2], result),
    "addmv": lambda args, result: _matrix_product(args[1], args[2], result),
    "convolution": _convolution_operands,
    "_scaled_dot_product_flash_attention_for_cpu": _attention_operands,
}
_SPOKEN = {
    "mm": "matmul", "bmm": "matmul", "addmm": "matmul", "baddbmm": "matmul", "mv": "matmul", "addmv": "matmul",
    "dot": "matmul", "_scaled_dot_product_flash_attention_for_cpu": "attention",
}  # fmt: skip
