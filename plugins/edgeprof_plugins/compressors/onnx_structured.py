"""Whole channels out of ONNX convolutions and dense layers: what dense kernels really get faster by.

Every tensor's channel dimension belongs to a set; operators that couple channels (an addition, a depthwise convolution)
join sets, and a set is pruned together: the rows of the weights that make it, the columns of those that read it, and
every per-channel constant in between. Whatever cannot be followed (a Concat, a Transpose, an output of the model) pins
its set, and is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx_channels import Channels, Cut, Group
from edgeprof_plugins.compressors.onnx_file import OnnxFile, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset


class PruneStructured(Compressor):
    name = "prune-structured"
    version = "1"
    takes = ("onnx",)
    parameters = (
        Parameter("amount", "float", default=0.3, minimum=0.0, maximum=0.95, help="share of the channels taken out"),
        Parameter(
            "round_to",
            "int",
            default=8,
            minimum=1,
            maximum=64,
            help="channels kept are a multiple of this, if possible",
        ),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        with OnnxFile(source) as model:
            channels = Channels(model)
            cuts: dict[str, list[Cut]] = {}
            layers: dict[str, list[int]] = {}
            for group in channels.groups():
                keep = _keep(model, group, parameters["amount"], parameters["round_to"])
                if len(keep) == group.size:
                    continue
                for use in group.uses:
                    cuts.setdefault(use.name, []).append(Cut(use.axis, keep, use.repeat))
                for node in group.depthwise:
                    _set_group(model.model.graph.node[node], len(keep))
                for node in group.reshapes:
                    channels.flatten(node)
                for node in group.makers:
                    layers[channels.label(node)] = [group.size, len(keep)]
            if not cuts:
                raise InputError(
                    f"no channels of {source} can be taken out: {channels.why_not()}",
                    remedy="Use prune (zeros, no speed) or low-rank, or prune the module before exporting it.",
                )
            sizes = [0, 0]

            def edit(name: str) -> Iterable[Any]:
                values = model.array(name)
                sizes[0] += values.size
                for cut in cuts.get(name, ()):
                    values = cut.apply(values)
                sizes[1] += values.size
                return [tensor(np.ascontiguousarray(values), name)]

            del model.model.graph.value_info[:]
            model.write(target, edit)
            pinned = channels.pinned()
        return {"parameters": sizes, "reached": 1 - sizes[1] / sizes[0], "channels": layers, "pinned": pinned}


def _keep(model: OnnxFile, group: Group, amount: float, round_to: int) -> npt.NDArray[np.intp]:
    """The channels that stay, in their order: those with the largest L1 norm, each layer weighing the same."""
    norm = np.zeros(group.size)
    for name, axis in group.weights:
        values = np.abs(np.moveaxis(model.array(name).astype(np.float32), axis, 0).reshape(group.size, -1)).sum(axis=1)
        norm += values / (values.mean() or 1.0)
    count = max(1, round(group.size * (1 - amount)))
    if group.size > round_to:
        count = min(group.size, max(round_to, round(count / round_to) * round_to))
    return np.sort(np.argsort(-norm, kind="stable")[:count])


def _set_group(node: Any, count: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = count
