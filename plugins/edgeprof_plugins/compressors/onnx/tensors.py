"""What the passes over an ONNX file need of it: the graph, and the initializers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt


class Tensors(Protocol):
    """A model whose initializers are kept apart from its graph, as ``OnnxFile`` keeps them.

    Attributes:
        model: The ModelProto without its initializers.
        order: Names of the initializers, in the order of the file.
    """

    model: Any
    order: list[str]

    def has(self, name: str) -> bool:
        """Whether that is an initializer."""

    def header(self, name: str) -> Any:
        """A TensorProto with the name, the type and the shape of an initializer, and no values."""

    def array(self, name: str) -> npt.NDArray[Any]:
        """An initializer's values, sparse ones with their zeros."""

    def add(self, tensor: Any) -> None:
        """Add an initializer (a TensorProto), or replace one."""

    def add_sparse(self, sparse: Any, name: str) -> None:
        """Add an initializer that is stored as a SparseTensorProto."""

    def remove(self, name: str) -> None:
        """Remove an initializer."""
