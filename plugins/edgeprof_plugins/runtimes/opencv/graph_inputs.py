"""Names, shapes and dtypes of an ONNX model's inputs and outputs, which OpenCV does not report. Python 3.6 grammar.

Layout: onnx/onnx.proto, in the wire format of protocol buffers.
"""

import mmap
import os
from typing import Any, Iterator, List, NamedTuple, Set, Tuple

from edgeprof.worker.runtime import LoadError, TensorSpec

#: onnx.TensorProto.DataType → numpy name of the type.
_NAMES = "- float32 uint8 int8 uint16 int16 int32 int64 - bool float16 float64 uint32 uint64"
_DTYPES = {number: name for number, name in enumerate(_NAMES.split()) if name != "-"}
_VARINT, _LENGTH = 0, 2
#: Fields of ModelProto, GraphProto, TensorProto, ValueInfoProto, TypeProto and TensorShapeProto.
_GRAPH, _INITIALIZER, _INPUT, _OUTPUT, _TENSOR_NAME = 7, 5, 11, 12, 8

Signature = NamedTuple("Signature", [("inputs", List[TensorSpec]), ("outputs", List[TensorSpec])])


def read(path: str) -> Signature:
    """Read the inputs and outputs of an ONNX file.

    Raises:
        LoadError: the file is not a whole ONNX model.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, kind, value in _read_fields(data, 0, len(data)):
                if number == _GRAPH and kind == _LENGTH:
                    return _read_graph(data, *value)
    except (ValueError, IndexError, OSError):  # an empty file cannot be mapped
        pass
    raise LoadError("{} is no whole ONNX model".format(os.path.basename(path)), "Download or export it again.")


def _read_graph(data: Any, start: int, end: int) -> Signature:
    inputs: List[TensorSpec] = []
    outputs: List[TensorSpec] = []
    weights: Set[str] = set()
    for number, kind, value in _read_fields(data, start, end):
        if kind != _LENGTH:
            continue
        if number == _INITIALIZER:
            weights.update(
                _read_text(data, *part) for n, k, part in _read_fields(data, *value) if (n, k) == (_TENSOR_NAME, 2)
            )
        elif number == _INPUT:
            inputs.append(_read_tensor_spec(data, *value))
        elif number == _OUTPUT:
            outputs.append(_read_tensor_spec(data, *value))
    return Signature([spec for spec in inputs if spec.name not in weights], outputs)  # old files list weights as inputs


def _read_tensor_spec(data: Any, start: int, end: int) -> TensorSpec:
    name, element = "", 0
    sizes: List[Any] = []
    for number, kind, value in _read_fields(data, start, end):
        if (number, kind) == (1, _LENGTH):
            name = _read_text(data, *value)
        elif (number, kind) == (2, _LENGTH):
            for _, _, tensor in _matching_fields(data, value, 1):
                for field, what, inner in _read_fields(data, *tensor):
                    if (field, what) == (1, _VARINT):
                        element = inner
                    elif (field, what) == (2, _LENGTH):
                        sizes = [_read_size(data, *dim) for _, _, dim in _matching_fields(data, inner, 1)]
    return TensorSpec(name, tuple(sizes), _DTYPES.get(element, "float32"), None)


def _read_size(data: Any, start: int, end: int) -> Any:
    for number, kind, value in _read_fields(data, start, end):
        if (number, kind) == (1, _VARINT):
            return int(value)
        if (number, kind) == (2, _LENGTH):
            return _read_text(data, *value)
    return None


def _matching_fields(data: Any, place: Tuple[int, int], wanted: int) -> Iterator[Tuple[int, int, Any]]:
    return (field for field in _read_fields(data, *place) if field[:2] == (wanted, _LENGTH))


def _read_text(data: Any, start: int, end: int) -> str:
    return bytes(data[start:end]).decode("utf-8", "replace")


def _read_fields(data: Any, at: int, end: int) -> Iterator[Tuple[int, int, Any]]:
    """Yield number, wire type and value of each field; the value is a number, or the start and end of the bytes.

    Raises:
        ValueError: the bytes are not a message, or a field extends beyond the end.
    """
    while at < end:
        key, at = _read_varint(data, at, end)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at, end)
            yield number, kind, value
            continue
        if kind == _LENGTH:
            size, at = _read_varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("no message")
        if at + size > end or number == 0:
            raise ValueError("cut off")
        yield number, kind, (at, at + size)
        at += size


def _read_varint(data: Any, at: int, end: int) -> Tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("no number")
