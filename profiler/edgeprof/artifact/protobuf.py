"""Reading protobuf files by their wire format only: their kind, whether they are complete, and the files they name.

Source of the wire format: protobuf.dev/programming-guides/encoding. Field numbers: onnx/onnx.proto3 (ModelProto,
GraphProto, TensorProto), tensorflow/core/framework/{graph,node_def}.proto, tensorflow/core/protobuf/saved_model.proto,
coremltools mlmodel/format/Model.proto.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The most fields of one file that are read: Python takes a microsecond or two for each.
LIMIT_FIELDS = 500_000
#: The longest name of a file with weights (Linux, PATH_MAX).
LIMIT_NAME = 4096

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

#: ModelProto: field number → wire type.
_ONNX = {1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, 7: LENGTH, 8: LENGTH}
_ONNX.update({14: LENGTH, 20: LENGTH, 25: LENGTH, 26: LENGTH})
_ONNX_GRAPH = 7


class Field(NamedTuple):
    """One field: for VARINT ``start`` is its value, otherwise ``start`` and ``end`` are offsets of its content."""

    number: int
    wire: int
    start: int
    end: int


class CutError(Exception):
    """Raised if a field reaches beyond the end of its message; ``number`` is the field's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"field {number} reaches beyond the end")
        self.number = number


class NotProtobufError(Exception):
    """Raised if the bytes are not a protobuf message."""


class TooManyFieldsError(Exception):
    """Raised if the file has more than ``LIMIT_FIELDS`` fields."""


class Allowance:
    """How many more fields of one file may be read."""

    def __init__(self, count: int = LIMIT_FIELDS) -> None:
        self._left = count

    def spend(self) -> None:
        """Count one field.

        Raises:
            TooManyFieldsError: The allowance is used up.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyFieldsError


def fields(data: mmap.mmap | bytes, start: int, end: int, allowance: Allowance | None = None) -> Iterator[Field]:
    """Yield the fields of one message, without descending into them.

    Args:
        data: The file.
        start: Offset of the message's first byte.
        end: Offset after the message's last byte.
        allowance: The allowance of the whole file; by default a new one for this message.

    Raises:
        CutError: The last field is incomplete.
        NotProtobufError: A tag is impossible.
        TooManyFieldsError: The allowance is used up.
    """
    allowance = allowance or Allowance()
    at = start
    while at < end:
        allowance.spend()
        tag, at = _read_varint(data, at, end, 0)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise NotProtobufError
        if wire == VARINT:
            value, at = _read_varint(data, at, end, number)
            yield Field(number, wire, value, at)
            continue
        if wire == LENGTH:
            length, at = _read_varint(data, at, end, number)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise NotProtobufError
        if at + length > end:
            raise CutError(number)
        yield Field(number, wire, at, at + length)
        at += length


def identify(path: Path) -> tuple[str | None, bool]:
    """Return what a file holds (``onnx``, ``savedmodel``, ``graphdef``, ``coreml`` or None), and if it is complete.

    Raises:
        TooManyFieldsError: The file has more than ``LIMIT_FIELDS`` fields.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        seen: dict[int, Field] = {}
        whole = True
        try:
            for field in fields(data, 0, len(data)):
                seen.setdefault(field.number, field)
        except CutError as error:
            whole = False
            seen.setdefault(error.number, Field(error.number, LENGTH, 0, 0))
        except NotProtobufError:
            return None, True
        return _wire_kind(data, seen, whole=whole), whole


def external_files(path: Path) -> list[str]:
    """Return the names of the files with an ONNX model's weights, relative to the model's folder, in order.

    This searches every tensor of the model for ``external_data`` entries named ``location``.

    Raises:
        TooManyFieldsError: The file has more than ``LIMIT_FIELDS`` fields.
    """
    locations: dict[str, None] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"location") < 0:
            return []
        try:
            for location in _location_values(data, "model", Field(0, LENGTH, 0, len(data)), Allowance()):
                locations[location] = None
        except (CutError, NotProtobufError):
            pass  # ``identify`` decides whether the file is complete
    return [name for name in locations if name]


#: Message → its fields that lead to tensors, and the message in each (onnx/onnx.proto3).
_TO_TENSORS = {
    "model": {_ONNX_GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
#: The deepest nesting of messages, as in protobuf's own parsers.
_DEEPEST = 100


def _location_values(
    data: mmap.mmap, message: str, place: Field, allowance: Allowance, depth: int = 0
) -> Iterator[str]:
    """Yield the values of all entries named ``location`` in and below a message."""
    below = _TO_TENSORS[message]
    for field in fields(data, place.start, place.end, allowance):
        if field.wire != LENGTH or field.number not in below:
            continue
        if below[field.number] == "entry":
            # An entry without room for its key is passed over: a file may hold a million of them.
            has_room = field.end - field.start > len(b"location")
            if has_room and (value := _entry_location(data, field, allowance)) is not None:
                yield value
        elif depth < _DEEPEST:
            yield from _location_values(data, below[field.number], field, allowance, depth + 1)


def _entry_location(data: mmap.mmap, entry: Field, allowance: Allowance) -> str | None:
    """Return the value of an entry of external data if its key is ``location``, else None."""
    texts = {
        field.number: data[field.start : min(field.end, field.start + LIMIT_NAME)]
        for field in fields(data, entry.start, entry.end, allowance)
        if field.wire == LENGTH
    }
    return texts.get(2, b"").decode("utf-8", "replace") if texts.get(1) == b"location" else None


def _read_varint(data: mmap.mmap | bytes, at: int, end: int, number: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise NotProtobufError
    raise CutError(number)


def _wire_kind(data: mmap.mmap, seen: dict[int, Field], *, whole: bool) -> str | None:
    version = seen.get(1)
    if version is not None and version.wire == VARINT and version.start < 1000:
        begun = _ONNX_GRAPH in seen or (not whole and len(seen) > 2)
        if begun and all(_ONNX.get(n) == f.wire for n, f in seen.items()):
            return "onnx"
        if any(200 <= n < 4000 for n in seen) and 2 in seen:
            return "coreml"
        if set(seen) == {1, 2} and seen[2].wire == LENGTH:
            return "savedmodel"
    if version is not None and version.wire == LENGTH and set(seen) <= {1, 2, 3, 4} and version.end > version.start:
        try:
            node = {f.number: f for f in fields(data, version.start, version.end)}
        except (CutError, NotProtobufError):
            return None
        if 1 in node and 2 in node and node[2].wire == LENGTH and set(node) <= {1, 2, 3, 4, 5, 6, 7}:
            return "graphdef"
    return None
