"""What an ONNX graph shows of its inputs' values: indices into a table, sizes, lengths, masks, choices.

Random numbers do not suit such inputs. The graph is read here, in the parent, by its wire format alone; the worker,
which knows the shapes, draws the values (``worker.inputs.fit_values``).
"""

from __future__ import annotations

import mmap
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.artifact import protobuf
from edgeprof.artifact.protobuf import LENGTH, VARINT, Allowance, Field

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A value that suits an input, as JSON: ``["below", n]`` (from 0), ``["below_size", input, axis]``, ``["all", value]``,
#: ``["values", [...]]``, ``["size", input, axis]`` or ``["inferred"]`` (a shape that fits anything).
Fit = list[Any]

#: TensorProto.DataType of integers and truth values, of which the graph may show what they are.
_WHOLE = {2, 3, 4, 5, 6, 7, 9, 12, 13}
_INT64, _INT32 = 7, 6
#: Operators whose output is their first input's values in another form.
_SAME_VALUES = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten"}
#: (operator, number of the input) → the value that all its elements may have.
_ALL = {
    ("Expand", 1): 1,
    ("ConstantOfShape", 0): 1,
    ("Tile", 1): 1,
    ("Resize", 1): 0,
    ("Resize", 2): 1,
    ("Upsample", 1): 1,
    ("Pad", 1): 0,
    ("TopK", 1): 1,
    ("OneHot", 1): 10,
    ("Range", 0): 0,
    ("Range", 1): 10,
    ("Range", 2): 1,
    ("Loop", 0): 1,
    ("Loop", 1): 1,
    ("Slice", 1): 0,
    ("Slice", 2): 2**31 - 1,
    ("Slice", 4): 1,
    ("NonMaxSuppression", 2): 100,
    ("Trilu", 1): 0,
    ("Squeeze", 1): 0,
    ("Unsqueeze", 1): 0,
}
_MASK = re.compile(r"mask", re.IGNORECASE)


class _Tensor(NamedTuple):
    dims: tuple[int, ...]
    values: tuple[int, ...]  # of a small one of 64 or 32-bit integers


class _Input(NamedTuple):
    kind: int
    dims: tuple[int | None, ...]


class _Node(NamedTuple):
    op: str
    inputs: list[str]
    outputs: list[str]
    axis: int
    constant: _Tensor | None


def fits(path: Path) -> dict[str, Fit]:
    """Input name → what suits it; nothing where the graph shows nothing, or cannot be read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            allowance = Allowance()
            for field in protobuf.fields(data, 0, len(data), allowance):
                if field.number == 7 and field.wire == LENGTH:
                    return _Graph(data, field, allowance).fits()
    except (OSError, ValueError, protobuf.CutError, protobuf.NotProtobufError, protobuf.TooManyFieldsError):
        pass
    return {}


class _Graph:
    """What is known of a graph's tensors, and what its nodes show of its inputs."""

    def __init__(self, data: mmap.mmap, place: Field, allowance: Allowance) -> None:
        self._nodes: list[Field] = []
        self._tensors: dict[str, _Tensor] = {}
        self._inputs: dict[str, _Input] = {}
        self._told: dict[str, _Input] = {}  # of what nodes give
        for field in protobuf.fields(data, place.start, place.end, allowance):
            if field.number == 1:
                self._nodes.append(field)
            elif field.number == 5:
                name, tensor = _tensor(data, field, allowance)
                self._tensors[name] = tensor
            elif field.number in {11, 12, 13}:
                name, value = _value(data, field, allowance)
                (self._inputs if field.number == 11 else self._told)[name] = value
        self._inputs = {name: value for name, value in self._inputs.items() if name not in self._tensors}
        self._source = {name: name for name in self._inputs}
        self._data, self._allowance = data, allowance

    def fits(self) -> dict[str, Fit]:
        if not any(value.kind in _WHOLE or len(value.dims) < 2 for value in self._inputs.values()):
            return {}
        fits: dict[str, Fit] = {}
        for field in self._nodes:
            node = _node(self._data, field, self._allowance)
            if node.constant is not None and node.outputs:
                self._tensors[node.outputs[0]] = node.constant
            for number, name in enumerate(node.inputs):
                if name in self._source:
                    _note(fits, self._source[name], self._use(node, number, self._source[name]))
            if node.op in _SAME_VALUES and node.inputs and node.inputs[0] in self._source and node.outputs:
                self._source[node.outputs[0]] = self._source[node.inputs[0]]
        for name in self._inputs:
            if _MASK.search(name):
                fits.setdefault(name, ["all", 1])
        return fits

    def _use(self, node: _Node, number: int, origin: str) -> Fit | None:
        """What a node that reads an input at this place makes of its values."""
        if (node.op, number) in {("Gather", 1), ("GatherElements", 1), ("ScatterElements", 1), ("Scatter", 1)}:
            return self._index(node)
        if node.op in {"LSTM", "GRU", "RNN"} and number == 4:
            return ["size", node.inputs[0], 0] if node.inputs[0] in self._inputs else None
        if (node.op, number) in {("Reshape", 1), ("Resize", 3)}:
            shape = self._told[node.outputs[0]].dims if node.outputs and node.outputs[0] in self._told else ()
            if shape and None not in shape:
                return ["values", list(shape)]
            return ["inferred"] if node.op == "Reshape" else None
        if node.op == "Equal" and self._inputs[origin].kind in _WHOLE and len(node.inputs) == 2:
            values = self._tensors.get(node.inputs[1 - number], _Tensor((), ())).values
            return ["all", values[0]] if len(values) == 1 else None
        value = _ALL.get((node.op, number))
        return None if value is None else ["all", value]

    def _index(self, node: _Node) -> Fit | None:
        """Indices lie below the size that they count along."""
        table = node.inputs[0]
        if table not in self._tensors:
            return ["below_size", table, node.axis] if table in self._inputs else None
        dims = self._tensors[table].dims
        return ["below", dims[node.axis]] if -len(dims) <= node.axis < len(dims) else None


def _note(fits: dict[str, Fit], name: str, fit: Fit | None) -> None:
    """Keep what was found first; of two limits of indices the lower."""
    known = fits.get(name)
    lower = fit is not None and known is not None and known[0] == fit[0] == "below" and fit[1] < known[1]
    if fit is not None and (known is None or lower):
        fits[name] = fit


def _value(data: mmap.mmap, place: Field, allowance: Allowance) -> tuple[str, _Input]:
    """A ValueInfoProto: its name, element type and shape."""
    name, kind, dims = "", 0, []
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == 1:
            name = _text(data, field)
        elif field.number == 2:
            for tensor in _within(data, field, 1, allowance):
                for part in protobuf.fields(data, tensor.start, tensor.end, allowance):
                    if part.number == 1 and part.wire == VARINT:
                        kind = part.start
                    elif part.number == 2:
                        dims = [_size(data, dim, allowance) for dim in _within(data, part, 1, allowance)]
    return name, _Input(kind, tuple(dims))


def _size(data: mmap.mmap, dim: Field, allowance: Allowance) -> int | None:
    for field in protobuf.fields(data, dim.start, dim.end, allowance):
        if field.number == 1 and field.wire == VARINT:
            return field.start
    return None


def _tensor(data: mmap.mmap, place: Field, allowance: Allowance) -> tuple[str, _Tensor]:
    """A TensorProto: its name, shape and, of a small one of integers, values."""
    name, kind, dims, values, raw = "", 0, [], [], b""
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == 1:
            dims += _numbers(data, field)
        elif field.number == 2 and field.wire == VARINT:
            kind = field.start
        elif field.number in {5, 7} and (field.wire == VARINT or field.end - field.start <= 80):
            values += _numbers(data, field)
        elif field.number == 8:
            name = _text(data, field)
        elif field.number == 9 and field.end - field.start <= 64:
            raw = data[field.start : field.end]
    if raw and kind in {_INT64, _INT32}:
        code = "q" if kind == _INT64 else "i"
        values = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
    return name, _Tensor(tuple(dims), tuple(values) if kind in {_INT64, _INT32} else ())


def _node(data: mmap.mmap, place: Field, allowance: Allowance) -> _Node:
    op, inputs, outputs, axis, constant = "", [], [], 0, None
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == 1:
            inputs.append(_text(data, field))
        elif field.number == 2:
            outputs.append(_text(data, field))
        elif field.number == 4:
            op = _text(data, field)
        elif field.number == 5:
            parts = {part.number: part for part in protobuf.fields(data, field.start, field.end, allowance)}
            name = _text(data, parts[1]) if 1 in parts else ""
            if name == "axis" and 3 in parts:
                axis = parts[3].start - 2**64 if parts[3].start >= 2**63 else parts[3].start
            elif name == "value" and 5 in parts:
                constant = _tensor(data, parts[5], allowance)[1]
    return _Node(op, inputs, outputs, axis, constant if op == "Constant" else None)


def _within(data: mmap.mmap, place: Field, number: int, allowance: Allowance) -> Iterator[Field]:
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == number and field.wire == LENGTH:
            yield field


def _numbers(data: mmap.mmap, field: Field) -> list[int]:
    """A repeated integer field, one of its values or packed."""
    if field.wire == VARINT:
        return [_signed(field.start)]
    numbers, value, shift = [], 0, 0
    for byte in data[field.start : field.end]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(_signed(value))
            value = shift = 0
    return numbers


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(data: mmap.mmap, field: Field) -> str:
    return data[field.start : min(field.end, field.start + 1000)].decode("utf-8", "replace")
