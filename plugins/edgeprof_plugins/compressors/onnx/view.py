"""Read and change the shapes, attributes and constants of ONNX nodes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof_plugins.compressors.onnx.arithmetic import infer_shapes
from edgeprof_plugins.compressors.onnx.file import tensor, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgeprof_plugins.compressors.onnx.file import OnnxFile

    Shape = tuple[int | None, ...]


class CannotFollowError(Exception):
    """Raised where the effect of an operator on channels is not known; the message is the reason."""


class View:
    """A view of a graph for analysis.

    Args:
        model: The file.

    Attributes:
        readers: Tensor → how many node inputs read it, including subgraphs.
    """

    def __init__(self, model: OnnxFile) -> None:
        self.model = model
        self.graph = model.model.graph
        self._shapes = infer_shapes(model, batch=None)
        self.readers: dict[str, int] = {}
        for node in walk(self.graph):
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1

    def dims(self, name: str) -> Shape | None:
        """Return the shape of a tensor as far as it is known; None where nothing is known about it."""
        if self.model.has(name):
            return tuple(int(size) for size in self.model.header(name).dims)
        return self._shapes.get(name)

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """Return the values of an initializer or of a Constant node; None for a tensor that is computed."""
        if self.model.has(name):
            return self.model.array(name)
        from onnx import numpy_helper

        for node in self.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        values: npt.NDArray[Any] = numpy_helper.to_array(attribute.t)
                        return values
        return None

    def integers(self, node: Any, position: int, name: str) -> list[int] | None:
        """Return constant integers that are an attribute in older operator sets and an input in newer ones.

        Raises:
            CannotFollowError: the integers are computed.
        """
        numbers: list[int] | None = attribute(node, name, None)
        if numbers is None and len(node.input) > position and node.input[position]:
            values = self.constant(node.input[position])
            if values is None:
                raise CannotFollowError(f"its {name} are computed")
            numbers = [int(value) for value in values.reshape(-1)]
        return numbers

    def set_input(self, node: Any, position: int, values: Sequence[int]) -> None:
        """Replace an input of a node with new constant integers that no other node reads."""
        name = f"{node.output[0]}_edgeprof_{position}"
        self.model.add(tensor(np.array(values, np.int64), name))
        while len(node.input) <= position:
            node.input.append("")
        before, node.input[position] = node.input[position], name
        if self.model.has(before) and self.readers.get(before) == 1:
            self.model.remove(before)


def inside(node: Any) -> list[str]:
    """Return the names of the tensors that a node's subgraphs read."""
    graphs = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    return [name for graph in graphs for node in walk(graph) for name in node.input]


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return an attribute of a node, an int or a list of ints; ``default`` where the node has none of that name."""
    for candidate in node.attribute:
        if candidate.name == name:
            return candidate.i if candidate.type == 2 else list(candidate.ints)
    return default


def text(node: Any, name: str, default: str) -> str:
    """Return a text attribute of a node; ``default`` where the node has none of that name."""
    return next((a.s.decode() for a in node.attribute if a.name == name), default)


def set_attribute(node: Any, name: str, value: Any) -> None:
    """Set an attribute of a node, replacing any existing value."""
    import onnx

    unset_attribute(node, name)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def unset_attribute(node: Any, name: str) -> None:
    """Remove an attribute from a node, if it has it."""
    for position in reversed(range(len(node.attribute))):
        if node.attribute[position].name == name:
            del node.attribute[position]


def known(shape: Sequence[int | None]) -> list[int]:
    """Return the sizes of a shape that are known."""
    return [size for size in shape if size is not None]


def product(shape: Sequence[int | None]) -> int | None:
    """Return the number of values of a shape; None where a size is open."""
    return None if None in shape else math.prod(known(shape))
