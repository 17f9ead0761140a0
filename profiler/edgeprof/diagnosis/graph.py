"""What a model really computes: its layers, their multiply-accumulates and the precision that they run in."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.artifact import Artifact

#: Precisions whose arithmetic is that of integers.
INTEGER = frozenset({"int8", "int8-dynamic", "int16x8"})


@dataclass(frozen=True)
class Layer:
    """A node with weights.

    Attributes:
        name: As in the graph.
        op: Its operator.
        macs: Multiply-accumulates for one sample; None where a size is open.
        precision: Of the arithmetic: ``float32``, ``float16``, ``int8`` (calibrated), ``int8-dynamic`` (ranges taken
            while it runs), ``int16x8``.
        stored: Of the weights in the file.
        channels: Output channels.
        weights: Reads the weights as real numbers, output channels first; None where they are computed.
        depthwise: Each channel by itself.
    """

    name: str
    op: str
    macs: int | None
    precision: str
    stored: str
    channels: int
    weights: Callable[[], npt.NDArray[Any]] | None = None
    depthwise: bool = False


@dataclass(frozen=True)
class Graph:
    """A model as it is executed.

    Attributes:
        layers: Those with weights, in order.
        nodes: How many operators are executed in all.
        conversions: How many of them only turn integers into floats and back.
        batch_norms: Names of batch normalisations that were not fused.
        training: Names of nodes in training mode.
        ranges: Quantised activation → the smallest and the largest real number that it can hold.
        note: What the figures rest on, or why there are none.
        integers: What to do where layers store integers and this runtime does not compute in them.
    """

    layers: Sequence[Layer]
    nodes: int
    conversions: int = 0
    batch_norms: Sequence[str] = ()
    training: Sequence[str] = ()
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""
    integers: str = ""

    @property
    def macs(self) -> int:
        return sum(layer.macs or 0 for layer in self.layers)

    def share(self, precisions: frozenset[str] = INTEGER) -> float:
        """The part of all multiply-accumulates that runs in these precisions; 0 where there are none."""
        return sum(one.macs or 0 for one in self.layers if one.precision in precisions) / (self.macs or 1)


def read_graph(artifact: Artifact) -> Graph | None:
    """The graph of an ONNX or TFLite model or a torch.export program as its runtime executes it; None for another
    format, or without the library that reads it.

    Raises:
        InputError: the file is damaged.
    """
    if artifact.path is None:
        return None
    reader = _READERS.get(artifact.format)
    try:
        return reader(artifact.path) if reader else None
    except ImportError:
        return None
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
        raise InputError(
            f"the graph of {artifact.spec} cannot be read: {reason}", remedy="The file may be damaged: export it again."
        ) from error


def _onnx(path: Path) -> Graph:
    from edgeprof.diagnosis.graph_onnx import read  # noqa: PLC0415 - onnx is optional and slow to import

    return read(path)


def _tflite(path: Path) -> Graph:
    from edgeprof.diagnosis.graph_tflite import read  # noqa: PLC0415 - LiteRT is optional

    return read(path)


def _pt2(path: Path) -> Graph | None:
    from edgeprof.compression.isolation import apart  # noqa: PLC0415
    from edgeprof.diagnosis.graph_torch import read  # noqa: PLC0415 - torch is optional

    # In a process of its own: torch's threads would not follow from this one into those that make variants.
    try:
        return apart(functools.partial(read, path), label=path.name, limit_s=120.0)
    except Exception:  # noqa: BLE001 - of another torch, with operators that are not here: as one that nothing reads
        return None


_READERS: dict[str, Callable[[Path], Graph | None]] = {"onnx": _onnx, "tflite": _tflite, "pt2": _pt2}
