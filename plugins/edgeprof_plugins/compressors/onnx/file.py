"""An ONNX file whose weights stay on disk: the graph is in memory, and each weight is read on request.

A compressor that changes one weight at a time therefore needs memory for the largest weight only, not for the whole
model. Wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto3 (ModelProto.graph = 7,
GraphProto.initializer = 5).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.artifact import protobuf
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command
from edgeprof_plugins.compressors.onnx.normal import graphs, normalise
from edgeprof_plugins.compressors.onnx.weights import weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof_plugins.compressors.onnx.weights import Weight

_GRAPH, _INITIALIZER, _SPARSE = 7, 5, 15
#: The largest protobuf message in bytes, and therefore the largest ONNX file.
_LIMIT = 2**31 - 1
#: Bytes reserved in the first file for the headers of tensors whose values go into the second file.
_RESERVE = 1 << 24
#: Tensors smaller than this, in bytes, stay in the first file.
_SMALL = 1024
_BLOCK = 1 << 20


def require() -> Any:
    """Return the ``onnx`` module.

    Raises:
        UnavailableError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UnavailableError(
            f"compressing ONNX models needs the package onnx ({error})", remedy=install_command("onnx-compress", "onnx")
        ) from None
    return onnx


@dataclass
class OnnxFile:
    """An open ONNX file. Use it as a context manager.

    Attributes:
        path: The file.
        model: The ModelProto without its initializers; it may be changed freely before ``write``.
        order: Names of the initializers in file order, followed by weights moved from elsewhere (see ``normal``).
    """

    path: Path
    model: Any = None
    order: list[str] = field(default_factory=list)
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _held: dict[str, Any] = field(default_factory=dict)
    _sparse: dict[str, Any] = field(default_factory=dict)
    _headers: dict[str, Any] = field(default_factory=dict)
    _data: mmap.mmap | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> OnnxFile:  # noqa: PYI034 - Python 3.10's typing has no Self
        onnx = require()
        try:
            file = self._stack.enter_context(self.path.open("rb"))
            self._data = self._stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._index_initializers(onnx)
        except (ValueError, protobuf.CutError, protobuf.NotProtobufError, _decode_error()) as error:
            self._stack.close()
            raise InputError(
                f"{self.path} is not a whole ONNX model: {error}", remedy="Download or export it again."
            ) from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _index_initializers(self, onnx: Any) -> None:
        assert self._data is not None
        self.model = onnx.ModelProto()
        rest, graph = bytearray(), bytearray()
        for outer in _message_pieces(self._data, 0, len(self._data)):
            if outer.number != _GRAPH or outer.wire != protobuf.LENGTH:
                rest += self._data[outer.start : outer.end]
                continue
            for inner in _message_pieces(self._data, outer.content, outer.end):
                if inner.number != _INITIALIZER:
                    graph += self._data[inner.start : inner.end]
                    continue
                tensor = onnx.TensorProto.FromString(self._data[inner.content : inner.end])
                self.order.append(tensor.name)
                self._places[tensor.name] = (inner.content, inner.end)
                self._headers[tensor.name] = _tensor_header(tensor)
        self.model.ParseFromString(bytes(rest))
        self.model.graph.ParseFromString(bytes(graph))
        if not self.model.graph.node:
            raise ValueError("it has no graph")
        for sparse in self.model.graph.sparse_initializer:
            self.add_sparse(sparse, sparse.values.name)
        del self.model.graph.sparse_initializer[:]
        normalise(self)

    def add(self, tensor: Any) -> None:
        """Add an initializer, or replace one; it stays in memory until the file is written."""
        self._sparse.pop(tensor.name, None)
        if not self.has(tensor.name):
            self.order.append(tensor.name)
        self._held[tensor.name] = tensor
        self._headers[tensor.name] = _tensor_header(tensor)

    def add_sparse(self, sparse: Any, name: str) -> None:
        """Add an initializer that stores only the nonzero values and their positions."""
        copy = type(sparse).FromString(sparse.SerializeToString())
        copy.values.name = name
        if not self.has(name):
            self.order.append(name)
        self._sparse[name] = copy

    def remove(self, name: str) -> None:
        """Remove an initializer."""
        self.order.remove(name)
        self._held.pop(name, None)
        self._places.pop(name, None)
        self._sparse.pop(name, None)
        self._headers.pop(name, None)

    def has(self, name: str) -> bool:
        """Return whether ``name`` is an initializer."""
        return name in self._held or name in self._places or name in self._sparse

    def is_sparse(self, name: str) -> bool:
        """Return whether an initializer is stored as its nonzero values and their positions."""
        return name in self._sparse

    def proto(self, name: str) -> Any:
        """Return the TensorProto of an initializer, without values where they are sparse or in another file."""
        if name in self._sparse:
            sparse = self._sparse[name]
            return require().TensorProto(name=name, data_type=sparse.values.data_type, dims=sparse.dims)
        if name in self._held:
            return self._held[name]
        assert self._data is not None
        start, end = self._places[name]
        return require().TensorProto.FromString(self._data[start:end])

    def header(self, name: str) -> Any:
        """Return a TensorProto with the name, type and shape of an initializer; no values are read."""
        return self.proto(name) if name in self._sparse else self._headers[name]

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return the values of an initializer as a dense, read-only array."""
        folder = str(self.path.parent)
        if name in self._sparse:
            return dense(self._sparse[name], folder)
        return values_of(self.proto(name), folder)

    def stored(self, name: str, values: npt.NDArray[Any]) -> Any:
        """Return a proto with new values for an initializer, sparse where the initializer was sparse."""
        return sparse_tensor(values, name) if name in self._sparse else tensor(values, name)

    def opset(self) -> int:
        """Return the version of the standard ONNX operator set that the model uses; 1 where it names none."""
        return next((int(opset.version) for opset in self.model.opset_import if opset.domain in ("", "ai.onnx")), 1)

    def weights(self) -> list[Weight]:
        """Return the float weights of layers that multiply, in graph order."""
        return weights(self)

    def node(self, weight: Weight) -> Any:
        """Return the first node that uses a weight."""
        return list(graphs(self.model.graph))[weight.graph].node[weight.node]

    def write(self, target: Path, edit: Callable[[str], Iterable[Any]] | None = None) -> None:
        """Write the model; values beyond the limit of one ONNX file (2 GiB) go into a second file, TARGET.data.

        Args:
            target: A new file.
            edit: Name of an initializer → the TensorProtos (or SparseTensorProtos) that replace it; called once for
                each initializer, in order.
        """
        beside = second_file(target)
        try:
            with target.open("wb") as file, contextlib.ExitStack() as stack:
                file.write(self.model.__class__.FromString(_without_graph(self.model)).SerializeToString())
                file.write(bytes([_GRAPH << 3 | protobuf.LENGTH]))
                at = file.tell()
                file.write(b"\x00" * 5)
                file.write(self.model.graph.SerializeToString(deterministic=True))
                overflow: Any = None
                for name in self.order:
                    for proto in self._written_tensors(name, edit):
                        room = _LIMIT - _RESERVE - (file.tell() - at)
                        if overflow is None and self._size(name, proto) > room:
                            overflow = stack.enter_context(beside.open("wb"))
                        for block in (
                            self._blocks(name, proto)
                            if overflow is None
                            else [_external_field(self.proto(name) if proto is None else proto, overflow, beside.name)]
                        ):
                            file.write(block)
                length = file.tell() - at - 5
                file.seek(at)
                file.write(_padded_varint(length))
        except BaseException:
            target.unlink(missing_ok=True)
            beside.unlink(missing_ok=True)
            raise

    def _written_tensors(self, name: str, edit: Callable[[str], Iterable[Any]] | None) -> Iterable[Any]:
        """Return the protos that replace an initializer; None for one whose field is copied from the source."""
        if edit is not None:
            return edit(name)
        if name in self._places and name not in self._held and not self._is_external(name):
            return [None]
        return [self.whole(name)]

    def _size(self, name: str, proto: Any) -> int:
        """Return the size of a field in bytes; protobuf itself cannot tell that of a tensor beyond its limit."""
        if proto is None:
            start, end = self._places[name]
            return end - start + 10
        if not _is_sparse(proto) and len(proto.raw_data) > _LIMIT - _RESERVE:
            return len(proto.raw_data)
        return int(proto.ByteSize()) + 10

    def _blocks(self, name: str, proto: Any) -> Iterable[bytes]:
        """Return the field of a tensor in the first file."""
        if proto is not None:
            return [_field(proto)]
        data, (start, end) = self._data, self._places[name]
        assert data is not None
        head = bytes([_INITIALIZER << 3 | protobuf.LENGTH]) + _encode_varint(end - start)
        return itertools.chain([head], (data[at : min(at + _BLOCK, end)] for at in range(start, end, _BLOCK)))

    def _is_external(self, name: str) -> bool:
        return name not in self._sparse and bool(self.header(name).data_location == 1)

    def whole(self, name: str) -> Any:
        """Return the TensorProto (SparseTensorProto for sparse values) with its values, wherever they are stored."""
        if name in self._sparse:
            return self._sparse[name]
        return self.dense(name) if self._is_external(name) else self.proto(name)

    def dense(self, name: str) -> Any:
        """Return the TensorProto with all values, including zeros."""
        proto = self.proto(name)
        return tensor(self.array(name), name) if name in self._sparse or proto.data_location == 1 else proto


def second_file(path: Path) -> Path:
    """Return the file into which ``OnnxFile.write`` puts what does not fit into the first."""
    return path.with_name(path.name + ".data")


def _tensor_header(proto: Any) -> Any:
    header = type(proto)(name=proto.name, data_type=proto.data_type, dims=proto.dims)
    if proto.data_location:
        header.data_location = proto.data_location
    return header


def tensor(values: npt.NDArray[Any], name: str) -> Any:
    """Return a TensorProto with this name and these values."""
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def values_of(proto: Any, folder: str) -> npt.NDArray[Any]:
    """Return the values of a TensorProto (read-only), from the model or from another file in ``folder``."""
    from onnx import numpy_helper

    values: npt.NDArray[Any] = numpy_helper.to_array(proto, base_dir=folder)
    return values


def dense(sparse: Any, folder: str = "") -> npt.NDArray[Any]:
    """Return the values of a SparseTensorProto as a dense array; its indices have shape (n,) or (n, rank)."""
    values, indices = values_of(sparse.values, folder), values_of(sparse.indices, folder)
    shape = tuple(int(size) for size in sparse.dims)
    whole = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        whole.reshape(-1)[indices] = values
    else:
        whole[tuple(indices.T)] = values
    return whole


def sparse_tensor(values: npt.NDArray[Any], name: str) -> Any:
    """Return a SparseTensorProto whose indices refer to the flattened tensor."""
    import onnx

    flat = values.reshape(-1)
    indices = np.flatnonzero(flat)
    return onnx.helper.make_sparse_tensor(
        tensor(flat[indices], name), tensor(indices.astype(np.int64), f"{name}_indices"), list(values.shape)
    )


def _is_sparse(proto: Any) -> bool:
    return type(proto).__name__ == "SparseTensorProto"


def _field(proto: Any) -> bytes:
    """Return an initializer as a field of a GraphProto."""
    body: bytes = proto.SerializeToString()
    number = _SPARSE if _is_sparse(proto) else _INITIALIZER
    return bytes([number << 3 | protobuf.LENGTH]) + _encode_varint(len(body)) + body


def _external_field(proto: Any, file: Any, name: str) -> bytes:
    """Return the field of a tensor after writing its values to another file; a small one keeps them."""
    import onnx

    if _is_sparse(proto):
        return _field(proto)
    raw = proto.raw_data or tensor(values_of(proto, ""), proto.name).raw_data
    if len(raw) < _SMALL:
        return _field(proto)
    start = file.tell()
    file.write(raw)
    stub = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
    stub.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(start)), ("length", str(len(raw)))):
        entry = stub.external_data.add()
        entry.key, entry.value = key, value
    return _field(stub)


def walk(graph: Any) -> Iterator[Any]:
    """Iterate over all nodes, including those of inner graphs (If, Loop, Scan)."""
    for subgraph in graphs(graph):
        yield from subgraph.node


@dataclass(frozen=True)
class _Piece:
    number: int
    wire: int
    start: int
    content: int
    end: int


def _message_pieces(data: mmap.mmap, start: int, end: int) -> Iterator[_Piece]:
    at = start
    for entry in protobuf.fields(data, start, end):
        content = entry.start if entry.wire != protobuf.VARINT else at
        yield _Piece(entry.number, entry.wire, at, content, entry.end)
        at = entry.end


def _without_graph(model: Any) -> bytes:
    copy = type(model)()
    for descriptor, value in model.ListFields():
        if descriptor.name == "graph":
            continue
        # Older versions of upb have no is_repeated; a repeated value is recognised by its extend method.
        if hasattr(value, "extend"):
            getattr(copy, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(copy, descriptor.name).CopyFrom(value)
        else:
            setattr(copy, descriptor.name, value)
    body: bytes = copy.SerializeToString(deterministic=True)
    return body


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _padded_varint(value: int) -> bytes:
    """Encode a varint in five bytes, whatever its value, because the length is known only after everything is written.

    Every protobuf parser accepts the padding.
    """
    return bytes([value >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)]) + bytes([value >> 28])


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    error_type: type[Exception] = DecodeError
    return error_type
