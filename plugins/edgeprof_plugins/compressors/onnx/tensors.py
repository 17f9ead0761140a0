"""The interface to an ONNX file that the passes need: the graph, and the initializers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt


class Tensors(Protocol):
    """A model whose initializers are kept separate from its graph, as in ``OnnxFile``.

    Attributes:
        model: The ModelProto without its initializers.
        order: Names of the initializers, in file order.
    """

    model: Any
    order: list[str]

    def has(self, name: str) -> bool:
        """Return whether ``name`` is an initializer."""

    def header(self, name: str) -> Any:
        """Return a TensorProto with the name, type and shape of an initializer, without values."""

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return the values of an initializer as a dense array."""

    def add(self, tensor: Any) -> None:
        """Add an initializer (a TensorProto), or replace one."""

    def add_sparse(self, sparse: Any, name: str) -> None:
        """Add an initializer that is stored as a SparseTensorProto."""

    def remove(self, name: str) -> None:
        """Remove an initializer."""
