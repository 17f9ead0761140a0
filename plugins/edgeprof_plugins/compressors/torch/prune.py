"""Zeros in the weights of PyTorch models: the smallest magnitudes anywhere, or two of every four in a row.

Zeros shrink the compressed file but make nothing faster, because dense kernels multiply them like any other number.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof.worker import embedded_code
from edgeprof_plugins.compressors.shared.magnitude import Pruning, prune_24
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import ModuleCompressor, keep_zeros
from edgeprof_plugins.compressors.torch.inventory import Inventory
from edgeprof_plugins.compressors.torch.model import quiet, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net

_AMOUNT = (
    Parameter("amount", "float", default=0.5, minimum=0.0, maximum=0.99, help="share of the weights set to zero"),
    Parameter(
        "scope", "str", default="global", choices=("global", "layer"), help="one threshold for all, or one a layer"
    ),
)


class Prune(ModuleCompressor):
    """Sets the share ``amount`` of the weights, those with the smallest magnitudes, to zero, also during training."""

    name = "prune"
    changes = ("sparsity",)
    version = "1"
    parameters = (*_AMOUNT, *torch_train.parameters(0))

    def change(
        self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        return prune(net.module, inventory, parameters), keep_zeros(net, inventory)


class Prune24(ModuleCompressor):
    """Sets the two smaller magnitudes of every four neighbouring input weights to zero."""

    name = "prune-2:4"
    changes = ("sparsity",)
    version = "1"
    parameters = torch_train.parameters(0)

    def change(
        self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        del parameters
        done, skipped, changed, why = [], [], [], {}
        for name, value in inventory.weights(net.module).items():
            inner = inventory.used[name].inner
            if inner is None or value.shape[inner] % 4:
                skipped.append(name)
                count = "" if inner is None else f"{value.shape[inner]} "
                why[name] = f"its {count}input channels are no multiple of 4"
                continue
            before = to_numpy(value)
            pruned = prune_24(before, inner)
            set_values(value, pruned)
            done.append(name)
            changed += [name] if (pruned != before).any() else []
        if not done:
            raise InputError(
                f"no weight of {net.spec} has a multiple of 4 input channels ({', '.join(skipped[:3])} …):"
                " 2:4 sparsity has no place in it",
                remedy="Use prune, which takes any shape.",
            )
        account = inventory.account(changed, why, _ENOUGH)
        facts = {"layers": len(done), "reached": 0.5, "skipped": skipped, "coverage": account}
        return facts, keep_zeros(net, inventory)


class PruneScript(Compressor):
    """Prunes TorchScript, whose weights can be changed but whose layers cannot be trained."""

    name = "prune"
    changes = ("sparsity",)
    version = "1"
    takes = ("torchscript",)
    parameters = _AMOUNT

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        module = load_script(source)
        facts = prune(module, Inventory.of(module, None), parameters)
        save_script(module, target)
        return facts


_ENOUGH = "it has as many zeros already"


def prune(module: Any, inventory: Inventory, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Set the smallest weights to zero in place; ties go to the first values."""
    weights = inventory.weights(module)
    pruning = Pruning.of(parameters, lambda: map(to_numpy, weights.values()))
    for name, value in weights.items():
        set_values(value, pruning.prune(name, to_numpy(value)))
    changed = [name for name, touched in pruning.changed.items() if touched]
    return {**pruning.facts(), "coverage": inventory.account(changed, {}, _ENOUGH)}


def to_numpy(value: Any) -> Any:
    """Return a copy of a tensor's values in a numpy type that holds each value exactly."""
    torch = require()
    return value.detach().to(torch.float64 if value.dtype == torch.float64 else torch.float32).numpy().copy()


def set_values(value: Any, array: Any) -> None:
    """Copy the values of an array into a tensor, which keeps its type and device."""
    torch = require()
    with torch.no_grad():
        value.copy_(torch.from_numpy(array))


def load_script(source: Path) -> Any:
    """Load a TorchScript module in eval mode on the CPU.

    Raises:
        InputError: this PyTorch cannot load the file.
    """
    torch = require()
    refusal = embedded_code.code_refusal(str(source))
    if refusal is not None:
        raise InputError(refusal.message, remedy=refusal.remedy)
    try:
        with quiet():
            return torch.jit.load(str(source), map_location="cpu").eval()
    except Exception as error:  # noqa: BLE001 - a damaged file can raise the errors of several readers
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"PyTorch does not load {source}: {first}", remedy="Export it again.") from None


def save_script(module: Any, target: Path) -> None:
    """Write a TorchScript module; the same module gives the same bytes, whatever the name of the file."""
    torch = require()
    written, repacked = io.BytesIO(), io.BytesIO()
    with quiet():
        torch.jit.save(module, written)
    # The debug records are left out: they hold paths of this machine and numbers that differ from run to run.
    reader = torch._C.PyTorchFileReader(io.BytesIO(written.getvalue()))  # noqa: SLF001 - the library's own archives
    writer = torch._C.PyTorchFileWriter(repacked)  # noqa: SLF001
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in {"version", "byteorder", ".data/serialization_id"}:
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    target.write_bytes(repacked.getvalue())
