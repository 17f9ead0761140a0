"""Removes whole channels from ONNX convolutions and dense layers, which makes dense kernels faster.

Each channel is followed through the graph (``channels``) and removed everywhere at once: the rows of the weights that
produce it, the columns of the weights that read it, every per-channel constant in between, and the sizes in shapes and
splits. Channels that an operator couples (an addition, a grouped convolution) are removed together. Channels that
cannot be followed, and those of the model's outputs, stay; the result gives the reasons.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.channels import Channels
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.shared.channel_parameters import CHANNEL_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx.ids import Ids

    Mask = npt.NDArray[np.bool_]


class PruneStructured(Compressor):
    """Removes the channels with the smallest norms, with all weights that produce and read them."""

    name = "prune-structured"
    changes = ("channels",)
    version = "2"
    takes = ("onnx",)
    parameters = CHANNEL_PARAMETERS

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            channels = Channels(model)
            keep = chosen(channels, parameters["amount"], parameters["round_to"])
            cuts: dict[str, dict[int, Mask]] = {}
            for use in channels.uses:
                mask = keep(use.ids)
                if not mask.all():
                    cuts.setdefault(use.name, {})[use.axis] = mask
            if not cuts:
                raise InputError(
                    f"no channels of {source} can be taken out: {channels.why_not()}",
                    remedy="Use prune (zeros, no speed) or low-rank, or prune the module before exporting it.",
                )
            channels.rewrite(lambda ids: int(keep(ids).sum()))
            widths = {channels.label(node): [ids.size, int(keep(ids).sum())] for node, ids in channels.made.items()}
            sizes = [0, 0]

            def edit(name: str) -> Iterable[Any]:
                if name not in cuts:
                    size = math.prod(model.header(name).dims)
                    sizes[0], sizes[1] = sizes[0] + size, sizes[1] + size
                    return [model.whole(name)]
                values = model.array(name)
                sizes[0] += values.size
                for axis, mask in cuts[name].items():
                    values = np.compress(mask, values, axis)
                sizes[1] += values.size
                # np.array, because ascontiguousarray would turn a scalar into a vector.
                return [model.stored(name, np.array(values, order="C"))]

            del model.model.graph.value_info[:]
            model.write(target, edit)
        return {
            "parameters": sizes,
            "reached": 1 - sizes[1] / sizes[0],
            "channels": {label: width for label, width in widths.items() if width[0] != width[1]},
            "pinned": channels.pinned(),
            "coverage": inventory.by_weights(cuts, channels.reasons(), _NOT_FOLLOWED),
        }


_NOT_FOLLOWED = "its channels are not followed (a recurrent layer, a branch or body, or weights that are computed)"


def chosen(channels: Channels, amount: float, round_to: int) -> Callable[[Ids], Mask]:
    """Choose the channels to keep: in each group produced by the same layers, those with the largest L1 norm.

    Returns:
        A function: channels → a mask that is True for each channel that stays.
    """
    norm: dict[int, float] = {}
    for name, axis, ids in channels.weights:
        values = channels.model.array(name).astype(np.float32, copy=False)
        if not values.size:
            continue
        sums = np.abs(values).sum(axis=tuple(a for a in range(values.ndim) if a != axis))
        for root, value in zip(channels.register.roots(ids).tolist(), sums / (sums.mean() or 1.0), strict=True):
            norm[root] = norm.get(root, 0.0) + float(value)
    gone: list[int] = []
    for group in channels.groups():
        size = len(group.roots)
        count = max(1, round(size * (1 - amount)))
        if size > round_to:
            count = min(size, max(round_to, round(count / round_to) * round_to))
        order = np.argsort([-norm[root] for root in group.roots.tolist()], kind="stable")
        gone += group.roots[order[count:]].tolist()
    return lambda ids: ~np.isin(channels.register.roots(ids), gone)
