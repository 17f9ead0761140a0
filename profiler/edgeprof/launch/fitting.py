"""Find out from an ONNX graph which values suit its inputs: indices into a table, sizes, lengths, choices.

Random numbers do not suit such inputs. The graph is read here, in the parent, by its wire format alone; the worker,
which knows the shapes, draws the values (``worker.inputs.fit_values``).
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.artifact import protobuf
from edgeprof.artifact.protobuf import LENGTH, VARINT, Allowance, Field
from edgeprof.worker.inputs import keep_fit

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


class _Tensor(NamedTuple):
    dims: tuple[int, ...]
    values: tuple[int, ...]  # of a small one of 64 or 32-bit integers


class _Input(NamedTuple):
    kind: int
    dims: tuple[int | None, ...]


class _Node(NamedTuple):
    domain: str
    op: str
    inputs: list[str]
    outputs: list[str]
    axis: int
    constant: _Tensor | None
    graphs: list[Field]  # branches and bodies


class _Function(NamedTuple):
    inputs: list[str]
    outputs: list[str]
    nodes: list[Field]


#: Functions may call functions, and bodies hold bodies: what is deeper shows nothing.
_DEPTH = 16


def fits(path: Path) -> dict[str, Fit]:
    """Input name → the values that suit it; empty if the graph gives no hints or cannot be read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            allowance, place, functions = Allowance(), None, {}
            for field in protobuf.fields(data, 0, len(data), allowance):
                if field.number == 7 and field.wire == LENGTH:
                    place = field
                elif field.number == 25 and field.wire == LENGTH:
                    key, function = _function(data, field, allowance)
                    functions[key] = function
            return {} if place is None else _Model(data, place, functions, allowance).fits()
    except (OSError, ValueError, protobuf.CutError, protobuf.NotProtobufError, protobuf.TooManyFieldsError):
        pass
    return {}


class _Scope:
    """What names mean in a graph; a branch or body sees what is around it.

    Attributes:
        source: Tensor → the model's input whose values it has.
        tensors: Constants by name.
        declared: Tensor → its type and shape, where the file has them.
    """

    def __init__(self, around: _Scope | None = None) -> None:
        self.source: dict[str, str] = {} if around is None else dict(around.source)
        self.tensors: dict[str, _Tensor] = {} if around is None else dict(around.tensors)
        self.declared: dict[str, _Input] = {} if around is None else dict(around.declared)


class _Model:
    """The known tensors of a graph, and the hints that its nodes, branches and functions give about its inputs."""

    def __init__(
        self, data: mmap.mmap, place: Field, functions: dict[tuple[str, str], _Function], allowance: Allowance
    ) -> None:
        self._data, self._allowance, self._functions = data, allowance, functions
        self._scope = _Scope()
        self._nodes, inputs = self._enter(place, self._scope)
        self._inputs = {
            name: self._scope.declared[name] for name in inputs if name not in self._scope.tensors
        }  # old files list weights among the inputs
        self._scope.source = {name: name for name in self._inputs}
        self._fits: dict[str, Fit] = {}

    def fits(self) -> dict[str, Fit]:
        if not any(value.kind in _WHOLE or len(value.dims) < 2 for value in self._inputs.values()):
            return {}
        self._read(self._nodes, self._scope, 0)
        return self._fits

    def _enter(self, place: Field, scope: _Scope) -> tuple[list[Field], list[str]]:
        """Put what a graph declares into its scope; returns its nodes and the names of its inputs."""
        nodes, inputs = [], []
        for field in protobuf.fields(self._data, place.start, place.end, self._allowance):
            if field.number == 1:
                nodes.append(field)
            elif field.number == 5:
                name, tensor = _tensor(self._data, field, self._allowance)
                scope.tensors[name] = tensor
                scope.source.pop(name, None)
            elif field.number in {11, 12, 13}:
                name, value = _value(self._data, field, self._allowance)
                scope.declared[name] = value
                if field.number == 11:
                    inputs.append(name)
                    scope.source.pop(name, None)
        return nodes, inputs

    def _read(self, nodes: list[Field], scope: _Scope, depth: int) -> None:
        for field in nodes:
            node = _node(self._data, field, self._allowance)
            for name in node.outputs:
                scope.source.pop(name, None)
            if node.constant is not None and node.outputs:
                scope.tensors[node.outputs[0]] = node.constant
            for number, name in enumerate(node.inputs):
                if name in scope.source and node.domain in {"", "ai.onnx"}:
                    keep_fit(self._fits, scope.source[name], self._use(node, number, scope))
            if node.op in _SAME_VALUES and node.inputs and node.inputs[0] in scope.source and node.outputs:
                scope.source[node.outputs[0]] = scope.source[node.inputs[0]]
            if depth < _DEPTH:
                self._read_within(node, scope, depth + 1)

    def _read_within(self, node: _Node, scope: _Scope, depth: int) -> None:
        """The branches or the body of a node, or the function that it calls."""
        for place in node.graphs:
            inner = _Scope(scope)
            nodes, formal = self._enter(place, inner)
            # A Loop's body is given the number of the turn first and then what the node is given; a Scan's elements
            # are slices of what the node is given, which hold the same values.
            actual = ["", *node.inputs[1:]] if node.op == "Loop" else node.inputs
            _pass_on(scope, inner, actual, formal)
            self._read(nodes, inner, depth)
        function = self._functions.get((node.domain, node.op))
        if function is not None:
            inner = _Scope()  # a function sees its arguments alone
            _pass_on(scope, inner, node.inputs, function.inputs)
            self._read(function.nodes, inner, depth)
            _pass_on(inner, scope, function.outputs, node.outputs)

    def _use(self, node: _Node, number: int, scope: _Scope) -> Fit | None:
        """The hint that a node gives about an input which it reads at this position."""
        if (node.op, number) in {("Gather", 1), ("GatherElements", 1), ("ScatterElements", 1), ("Scatter", 1)}:
            return self._index(node, scope)
        if node.op in {"LSTM", "GRU", "RNN"} and number == 4:
            origin = scope.source.get(node.inputs[0], "")
            same = origin in self._inputs and self._inputs[origin] == scope.declared.get(node.inputs[0])
            return ["size", origin, 0] if same else None
        if (node.op, number) in {("Reshape", 1), ("Resize", 3)}:
            shape = scope.declared[node.outputs[0]].dims if node.outputs and node.outputs[0] in scope.declared else ()
            if shape and None not in shape:
                return ["values", list(shape)]
            return ["inferred"] if node.op == "Reshape" else None
        if node.op == "Equal" and self._inputs[scope.source[node.inputs[number]]].kind in _WHOLE:
            values = scope.tensors.get(node.inputs[1 - number], _Tensor((), ())).values if len(node.inputs) == 2 else ()
            return ["all", values[0]] if len(values) == 1 else None
        value = _ALL.get((node.op, number))
        return None if value is None else ["all", value]

    def _index(self, node: _Node, scope: _Scope) -> Fit | None:
        """The hint for indices, which must be below the size of their axis."""
        table = node.inputs[0]
        if table not in scope.tensors:
            return ["below_size", table, node.axis] if scope.source.get(table) == table else None
        dims = scope.tensors[table].dims
        return ["below", dims[node.axis]] if -len(dims) <= node.axis < len(dims) else None


def _pass_on(given: _Scope, taken: _Scope, actual: list[str], formal: list[str]) -> None:
    """Let names of one scope mean in another what is passed for them."""
    for name, here in zip(actual, formal, strict=False):
        if name in given.source:
            taken.source[here] = given.source[name]
        if name in given.tensors:
            taken.tensors[here] = given.tensors[name]
        if name in given.declared:
            taken.declared.setdefault(here, given.declared[name])


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
    domain, op, inputs, outputs, axis, constant, graphs = "", "", [], [], 0, None, []
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == 1:
            inputs.append(_text(data, field))
        elif field.number == 2:
            outputs.append(_text(data, field))
        elif field.number == 4:
            op = _text(data, field)
        elif field.number == 7:
            domain = _text(data, field)
        elif field.number == 5:
            parts = {part.number: part for part in protobuf.fields(data, field.start, field.end, allowance)}
            name = _text(data, parts[1]) if 1 in parts else ""
            if name == "axis" and 3 in parts:
                axis = parts[3].start - 2**64 if parts[3].start >= 2**63 else parts[3].start
            elif name == "value" and 5 in parts:
                constant = _tensor(data, parts[5], allowance)[1]
            elif 6 in parts:
                graphs.append(parts[6])
    return _Node(domain, op, inputs, outputs, axis, constant if op == "Constant" else None, graphs)


def _function(data: mmap.mmap, place: Field, allowance: Allowance) -> tuple[tuple[str, str], _Function]:
    """A FunctionProto: what calls it (domain and name), and what it is."""
    name, domain, inputs, outputs, nodes = "", "", [], [], []
    for field in protobuf.fields(data, place.start, place.end, allowance):
        if field.number == 1:
            name = _text(data, field)
        elif field.number == 4:
            inputs.append(_text(data, field))
        elif field.number == 5:
            outputs.append(_text(data, field))
        elif field.number == 7:
            nodes.append(field)
        elif field.number == 10:
            domain = _text(data, field)
    return (domain, name), _Function(inputs, outputs, nodes)


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
