"""Weight sharing in PyTorch models: each weight of a layer becomes one of n values.

The file compresses well (zip); its size and speed do not change. With ``epochs`` the shared values are trained: after
each step, all weights of a cluster are set to their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.shared.kmeans import codebook, nearest
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import ModuleCompressor
from edgeprof_plugins.compressors.torch.inventory import Inventory
from edgeprof_plugins.compressors.torch.model import require
from edgeprof_plugins.compressors.torch.prune import load_script, save_script, set_values, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net

_N = Parameter("n", "int", default=16, minimum=2, maximum=256, help="distinct values of each layer's weights")


class Cluster(ModuleCompressor):
    """Replaces each layer's weights with the ``n`` values of a codebook, in a module or an exported program."""

    name = "cluster"
    changes = ("values",)
    version = "1"
    parameters = (_N, *torch_train.parameters(0))

    def change(
        self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        torch = require()
        facts, assigned = cluster(net.module, inventory, parameters["n"])
        places = [(value, torch.from_numpy(index), size, zero) for value, index, size, zero in assigned]

        def project() -> None:
            for value, index, size, zero in places:
                total = torch.zeros(size, dtype=torch.float64).index_add_(0, index, value.reshape(-1).double())
                mean = total / torch.bincount(index, minlength=size).clamp(min=1)
                if zero is not None:
                    mean[zero] = 0.0  # pruned weights stay pruned
                value.copy_(mean.to(value.dtype)[index].reshape(value.shape))

        return facts, project


class ClusterScript(Compressor):
    """Replaces each layer's weights with codebook values in TorchScript, whose layers cannot be trained."""

    name = "cluster"
    changes = ("values",)
    version = "1"
    takes = ("torchscript",)
    parameters = (_N,)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        module = load_script(source)
        facts, _ = cluster(module, Inventory.of(module, None), parameters["n"])
        save_script(module, target)
        return facts


def cluster(module: Any, inventory: Inventory, n: int) -> tuple[dict[str, Any], list[tuple[Any, Any, int, int | None]]]:
    """Share weights in place.

    Returns:
        The provenance, and for each weight: the tensor, the cluster index of each value (flat), the number of clusters,
        and the index of the zero cluster (None where there is none).
    """
    sqnr: dict[str, float | None] = {}
    assigned: list[tuple[Any, Any, int, int | None]] = []
    changed = []
    for name, value in inventory.weights(module).items():
        if value.numel() <= n:
            continue
        values = to_numpy(value)
        codes = codebook(values, n)
        index = nearest(values, codes)
        shared = codes[index].astype(values.dtype)
        sqnr[name] = sqnr_db(values, shared)
        changed += [name] if (shared != values).any() else []
        set_values(value, shared)
        zero = np.flatnonzero(codes == 0)
        assigned.append((value, index.reshape(-1).astype(np.int64), len(codes), int(zero[0]) if len(zero) else None))
    if not sqnr:
        raise InputError(f"no layer of this model has more than {n} weights", remedy="Give a smaller n.")
    account = inventory.account(changed, {}, f"it has no more than {n} values")
    return {"layers": len(sqnr), "n": n, "sqnr_db": sqnr, "worst": worst(sqnr), "coverage": account}, assigned
