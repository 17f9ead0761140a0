"""The layers and parameters of an ONNX model, for the report of what a method changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof_plugins.compressors.onnx.arithmetic import work
from edgeprof_plugins.compressors.onnx.normal import FLOATS, graphs
from edgeprof_plugins.compressors.onnx.prepare import refuse_quantised
from edgeprof_plugins.compressors.onnx.weights import Sources
from edgeprof_plugins.compressors.shared.coverage import Part, coverage, partial, whole
from edgeprof_plugins.compressors.shared.finite import require_finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgeprof_plugins.compressors.onnx.arithmetic import Work
    from edgeprof_plugins.compressors.onnx.file import OnnxFile

_ACTIVATIONS = "it multiplies two activations and has no weights"
#: The reason given for layers whose weights another method stored as integers.
INTEGERS = "its weights are integers already"
_COMPUTED = "its weights are computed from other constants, or are a vector"
_OTHER = "biases, norms and other constants"
#: Families of parameters that no layer multiplies with; their parts are named after their initializers.
_LOOSE = frozenset({"Gather", "other"})
_TABLES = "a table that is looked up, not multiplied"


class Inventory:
    """The layers and parameters of a model before a method changes it.

    Args:
        model: The file; it is read here only.
        source: The user's file, for messages; by default that of ``model``.

    Raises:
        InputError: no method can change the model: it computes in integers, or has weights that are NaN or infinite.

    Attributes:
        work: The nodes that multiply.
        names: (graph, node) → the name of the part.
        parts: The layers and parameters.
    """

    def __init__(self, model: OnnxFile, source: Path | None = None) -> None:
        refuse_quantised(model)
        self.work = work(model)
        self.names: dict[tuple[int, int], str] = {}
        self.parts: list[Part] = []
        self._of: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        changeable = {weight.name for weight in model.weights()}
        taken: set[str] = set()
        tables = _lookup_tables(model)
        for operation in self.work:
            name = _unique_name(operation.name, self.parts)
            self.names[operation.graph, operation.node] = name
            size = sum(_tensor_size(model, weight) for weight in operation.weights if weight not in taken)
            for weight in operation.weights:
                if weight not in taken and model.header(weight).data_type in FLOATS:
                    require_finite(str(source or model.path), weight, model.array(weight))
                self._of.setdefault(weight, []).append(name)
                self._sizes[weight] = _tensor_size(model, weight)
            taken.update(operation.weights)
            self.parts.append(_layer_part(name, operation, size, _fixed_reason(model, operation, changeable)))
        for name in model.order:
            if name not in taken and model.header(name).data_type in FLOATS and _tensor_size(model, name) > 1:
                family, reason = ("Gather", _TABLES) if name in tables else ("other", _OTHER)
                self.parts.append(Part(name, family, _tensor_size(model, name), 0, reason))

    def weights_of(self, part: str) -> list[str]:
        """Return the initializers of a part; a product of two activations has none."""
        names = [name for name, parts in self._of.items() if part in parts]
        return names or (
            [part] if any(part == candidate.name and candidate.family in _LOOSE for candidate in self.parts) else []
        )

    def by_operator(self, why: Mapping[str, str]) -> dict[str, str]:
        """Return part → the reason given for its operator."""
        return {
            self.names[work.graph, work.node]: why[work.op] for work in self.work if work.op in why and work.weights
        }

    def by_weights(
        self, changed: Iterable[str], why: Mapping[str, str] | None = None, otherwise: str = ""
    ) -> dict[str, Any]:
        """Return the coverage of a method that changed these initializers; ``why`` is by initializer or by part."""
        reasons, touched = dict(why or {}), set(changed)
        named = {
            part: reasons[name]
            for name, parts in self._of.items()
            if name in reasons and name not in touched
            for part in parts
        }
        sizes: dict[str, list[tuple[int, bool]]] = {}
        for name, parts in self._of.items():
            for part in parts:
                sizes.setdefault(part, []).append((self._sizes[name], name in touched))
        loose = whole(name for name in touched if name not in self._of)
        return coverage(self.parts, {**loose, **partial(sizes)}, {**reasons, **named}, otherwise)

    def by_nodes(
        self, changed: Iterable[str], why: Mapping[str, str] | None = None, otherwise: str = ""
    ) -> dict[str, Any]:
        """Return the coverage of a method that changed these nodes, given by the names of the parts."""
        return coverage(self.parts, whole(changed), why or {}, otherwise)


def _layer_part(name: str, work: Work, size: int, reason: str) -> Part:
    return Part(name, work.op if work.weights else f"{work.op} of activations", size, work.macs, reason)


def _fixed_reason(model: OnnxFile, work: Work, changeable: set[str]) -> str:
    """Why no method can change the weights of a node; "" where a method can."""
    if not work.weights:
        return _ACTIVATIONS
    if changeable.intersection(work.weights):
        return ""
    if not any(model.header(name).data_type in FLOATS for name in work.weights):
        return INTEGERS
    return _COMPUTED if any(_tensor_size(model, name) for name in work.weights) else "its weights have no values"


def _unique_name(name: str, parts: Iterable[Part]) -> str:
    taken, number, free = {part.name for part in parts}, 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _tensor_size(model: OnnxFile, name: str) -> int:
    return math.prod(int(size) for size in model.header(name).dims)


def _lookup_tables(model: OnnxFile) -> set[str]:
    """Initializers that are lookup tables."""
    sources = Sources(model)
    lookups = {"Gather", "EmbedLayerNormalization", "GatherND", "GatherElements"}
    return {
        sources.find(name)[0]
        for graph in graphs(model.model.graph)
        for node in graph.node
        if node.op_type in lookups
        for name in list(node.input)[: 1 if node.op_type.startswith("Gather") else None]
    } - {""}
