"""An ONNX file whose weights stay on disk: the graph in memory, each weight read when it is asked for.

A compressor that changes weights one at a time then needs the memory of its largest weight, not of the model. Wire
format: protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto3 (ModelProto.graph = 7,
GraphProto.initializer = 5).
"""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import protobuf
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

_GRAPH, _INITIALIZER = 7, 5
#: What protobuf can hold in one message, and so ONNX in one file.
_LIMIT = 2**31 - 1
#: Constant nodes with more values than this become initializers, as the weights that they are; float ones with two.
_HOIST = 64
_BLOCK = 1 << 20

#: Operators with weights: operator → (position of the weight input, axis of its output channels).
_WEIGHTED = {"Conv": (1, 0), "ConvTranspose": (1, 1), "Gemm": (1, 1), "MatMul": (1, -1)}


def require() -> Any:
    """The ``onnx`` module.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UnavailableError(
            f"compressing ONNX models needs the package onnx ({error})", remedy=install_command("onnx-compress", "onnx")
        ) from None
    return onnx


@dataclass(frozen=True)
class Weight:
    """A weight of a graph and where it is used.

    Attributes:
        name: Of the initializer.
        node: Index in the graph of the first node that uses it.
        op: That node's operator.
        axis: Of its output channels.
        shape: Its own.
        users: How many nodes use it.
    """

    name: str
    node: int
    op: str
    axis: int
    shape: tuple[int, ...]
    users: int


@dataclass
class OnnxFile:
    """Use it as a context manager.

    Attributes:
        path: The file.
        model: The ModelProto without its initializers; change it freely before ``write``.
        order: Names of the initializers, as in the file.
    """

    path: Path
    model: Any = None
    order: list[str] = field(default_factory=list)
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _held: dict[str, Any] = field(default_factory=dict)
    _data: mmap.mmap | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> OnnxFile:  # noqa: PYI034 - Self is not in the typing of 3.10
        onnx = require()
        try:
            file = self._stack.enter_context(self.path.open("rb"))
            self._data = self._stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._index(onnx)
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

    def _index(self, onnx: Any) -> None:
        assert self._data is not None
        self.model = onnx.ModelProto()
        rest, graph = bytearray(), bytearray()
        for outer in _pieces(self._data, 0, len(self._data)):
            if outer.number != _GRAPH or outer.wire != protobuf.LENGTH:
                rest += self._data[outer.start : outer.end]
                continue
            for inner in _pieces(self._data, outer.content, outer.end):
                if inner.number != _INITIALIZER:
                    graph += self._data[inner.start : inner.end]
                    continue
                tensor = onnx.TensorProto.FromString(self._data[inner.content : inner.end])
                self.order.append(tensor.name)
                self._places[tensor.name] = (inner.content, inner.end)
        self.model.ParseFromString(bytes(rest))
        self.model.graph.ParseFromString(bytes(graph))
        if not self.model.graph.node:
            raise ValueError("it has no graph")
        self._hoist(onnx)
        self._settle()
        self._shape()

    def _settle(self) -> None:
        """Initializers are no inputs (files of IR version 3 list them): shapes that change would contradict them."""
        graph = self.model.graph
        kept = [one for one in graph.input if not self.has(one.name)]
        if len(kept) != len(graph.input):
            copies = [type(one).FromString(one.SerializeToString()) for one in kept]
            del graph.input[:]
            graph.input.extend(copies)
        self.model.ir_version = max(self.model.ir_version, 4)

    def _shape(self) -> None:
        """Give weights behind a Reshape of constants (old exporters' dense layers) the shape that they are used in."""
        nodes, outputs = self.model.graph.node, {one.name for one in self.model.graph.output}
        for index in reversed(range(len(nodes))):
            node = nodes[index]
            if node.op_type != "Reshape" or len(node.input) != 2 or node.output[0] in outputs:
                continue
            name, shape = node.input
            if not (self.has(name) and self.has(shape)) or self.proto(name).data_type not in (1, 10):
                continue
            keeps_zero = any(a.name == "allowzero" and a.i for a in node.attribute)
            values, dims = self.array(name), [int(size) for size in self.array(shape)]
            if not keeps_zero:
                dims = [values.shape[at] if size == 0 else size for at, size in enumerate(dims)]
            self.add(tensor(values.reshape(dims), node.output[0]))
            del nodes[index]
            used = {one for other in walk(self.model.graph) for one in other.input}
            for gone in {name, shape} - used:
                self.remove(gone)

    def _hoist(self, onnx: Any) -> None:
        kept = []
        for node in self.model.graph.node:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None and _is_weight(value):
                tensor = onnx.TensorProto()
                tensor.CopyFrom(value)
                tensor.name = node.output[0]
                self.add(tensor)
            else:
                kept.append(node)
        if len(kept) != len(self.model.graph.node):
            copies = [type(node).FromString(node.SerializeToString()) for node in kept]
            del self.model.graph.node[:]
            self.model.graph.node.extend(copies)

    def add(self, tensor: Any) -> None:
        """A further initializer, kept in memory until it is written."""
        if tensor.name not in self._places and tensor.name not in self._held:
            self.order.append(tensor.name)
        self._held[tensor.name] = tensor

    def remove(self, name: str) -> None:
        self.order.remove(name)
        self._held.pop(name, None)
        self._places.pop(name, None)

    def has(self, name: str) -> bool:
        return name in self._held or name in self._places

    def proto(self, name: str) -> Any:
        """The TensorProto of an initializer; that of one stored in another file does not hold its values."""
        if name in self._held:
            return self._held[name]
        assert self._data is not None
        start, end = self._places[name]
        return require().TensorProto.FromString(self._data[start:end])

    def array(self, name: str) -> npt.NDArray[Any]:
        """Its values (read-only)."""
        from onnx import numpy_helper

        values: npt.NDArray[Any] = numpy_helper.to_array(self.proto(name), base_dir=str(self.path.parent))
        return values

    def opset(self) -> int:
        return next((int(one.version) for one in self.model.opset_import if one.domain in ("", "ai.onnx")), 1)

    def weights(self) -> list[Weight]:
        """The float weights of Conv, ConvTranspose, Gemm and MatMul, in the graph's order."""
        found: dict[str, Weight] = {}
        uses: dict[str, int] = {}
        for node in walk(self.model.graph):
            for name in node.input:
                uses[name] = uses.get(name, 0) + 1
        for index, node in enumerate(self.model.graph.node):
            if node.op_type not in _WEIGHTED or len(node.input) < 2:
                continue
            position, axis = _WEIGHTED[node.op_type]
            name = node.input[position]
            if not self.has(name) or name in found:
                continue
            proto = self.proto(name)
            shape = tuple(int(size) for size in proto.dims)
            if proto.data_type not in (1, 10) or len(shape) < 2:
                continue
            if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
                axis = 0
            found[name] = Weight(name, index, node.op_type, axis % len(shape), shape, uses[name])
        return list(found.values())

    def write(self, target: Path, edit: Callable[[str], Iterable[Any]] | None = None) -> None:
        """Write the model.

        Args:
            target: A new file.
            edit: Name of an initializer → the TensorProtos that take its place; it is called once for each, in order.

        Raises:
            InputError: the model would not fit into one ONNX file (2 GiB).
        """
        try:
            with target.open("wb") as file:
                file.write(self.model.__class__.FromString(_without_graph(self.model)).SerializeToString())
                file.write(bytes([_GRAPH << 3 | protobuf.LENGTH]))
                at = file.tell()
                file.write(b"\x00" * 5)
                file.write(self.model.graph.SerializeToString(deterministic=True))
                for name in self.order:
                    for block in self._blocks(name, edit):
                        self._check_length(file.tell() - at - 5 + len(block))
                        file.write(block)
                length = file.tell() - at - 5
                self._check_length(length)
                file.seek(at)
                file.write(_padded_varint(length))
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _check_length(self, length: int) -> None:
        if length > _LIMIT:
            raise InputError(
                f"what becomes of {self.path} has more than the 2 GiB that one ONNX file holds",
                remedy="Use a method that makes the weights smaller, as fp16 or int8-weight.",
            )

    def _blocks(self, name: str, edit: Callable[[str], Iterable[Any]] | None) -> Iterator[bytes]:
        if edit is not None:
            for tensor in edit(name):
                body = tensor.SerializeToString()
                yield bytes([_INITIALIZER << 3 | protobuf.LENGTH]) + _varint(len(body))
                yield body
            return
        if name in self._places and name not in self._held and not self._external(name):
            assert self._data is not None
            start, end = self._places[name]
            yield bytes([_INITIALIZER << 3 | protobuf.LENGTH]) + _varint(end - start)
            for block in range(start, end, _BLOCK):
                yield self._data[block : min(block + _BLOCK, end)]
            return
        yield from self._blocks(name, lambda one: [self.whole(one)])

    def _external(self, name: str) -> bool:
        return bool(self.proto(name).data_location == 1)

    def whole(self, name: str) -> Any:
        """The TensorProto with its values, wherever they are stored."""
        proto = self.proto(name)
        return tensor(self.array(name), name) if proto.data_location == 1 else proto


def tensor(values: npt.NDArray[Any], name: str) -> Any:
    """A TensorProto."""
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def walk(graph: Any) -> Iterator[Any]:
    """All nodes, those of subgraphs (If, Loop, Scan) too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from walk(attribute.g)
            for inner in attribute.graphs:
                yield from walk(inner)


@dataclass(frozen=True)
class _Piece:
    number: int
    wire: int
    start: int
    content: int
    end: int


def _pieces(data: mmap.mmap, start: int, end: int) -> Iterator[_Piece]:
    at = start
    for one in protobuf.fields(data, start, end):
        content = one.start if one.wire != protobuf.VARINT else at
        yield _Piece(one.number, one.wire, at, content, one.end)
        at = one.end


def _without_graph(model: Any) -> bytes:
    copy = type(model)()
    for descriptor, value in model.ListFields():
        if descriptor.name == "graph":
            continue
        # upb has no is_repeated in older versions; a repeated value can be iterated over and is no text.
        if hasattr(value, "extend"):
            getattr(copy, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(copy, descriptor.name).CopyFrom(value)
        else:
            setattr(copy, descriptor.name, value)
    body: bytes = copy.SerializeToString(deterministic=True)
    return body


def _is_weight(value: Any) -> bool:
    return _count(value.dims) > (1 if value.data_type in (1, 10) else _HOIST)


def _count(dims: Iterable[int]) -> int:
    count = 1
    for size in dims:
        count *= int(size)
    return count


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _padded_varint(value: int) -> bytes:
    """Five bytes whatever the value: the length is known only when everything is written. Any parser reads it so."""
    return bytes([value >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)]) + bytes([value >> 28])


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    found: type[Exception] = DecodeError
    return found
