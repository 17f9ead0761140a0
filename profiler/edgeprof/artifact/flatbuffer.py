"""Reading a TFLite file as a flatbuffer: whether it is complete, and which custom operators it needs.

Source: google.github.io/flatbuffers (internals); tensorflow/lite/schema/schema.fbs (Model: operator_codes 1, buffers 4;
OperatorCode: deprecated_builtin_code 0, custom_code 1, builtin_code 3; Buffer: data 0, offset 1, size 2).
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The most tables of one vector: a model has at most some thousand operators and a buffer for each tensor.
LIMIT_TABLES = 200_000
#: The most custom operators, and bytes of all their names: many offsets may point to the same long name.
LIMIT_CUSTOM = 1_000
LIMIT_NAMES_BYTES = 64 << 10

_CUSTOM = 32  # BuiltinOperator.CUSTOM
EDGE_TPU_OPERATOR = "edgetpu-custom-op"


def custom_operators(path: Path) -> list[str] | None:
    """Return the distinct names of the custom operators of a TFLite file, in order; None if the file is cut off, is
    damaged, or exceeds a limit of this module.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            model = _read_u32(data, 0)
            _check_buffers(data, model)
            names: dict[str, None] = {}
            left = LIMIT_NAMES_BYTES
            for code in _vector_tables(data, model, 1):
                builtin = max(_read_i8(data, code, 0), _read_i32(data, code, 3))
                if builtin == _CUSTOM:
                    name = _read_string(data, code, 1, left)
                    left -= len(name)
                    names[name] = None
            if len(names) > LIMIT_CUSTOM:
                return None
        except (struct.error, ValueError, IndexError):
            return None
        return list(names)


def _check_buffers(data: mmap.mmap, model: int) -> None:
    for buffer in _vector_tables(data, model, 4):
        at = _field_position(data, buffer, 0)
        if at:
            start = at + _read_u32(data, at)
            if start + 4 + _read_u32(data, start) > len(data):
                raise ValueError("a buffer reaches beyond the end")


def _field_position(data: mmap.mmap, table: int, index: int) -> int:
    """Return the position of a table's field; 0 if the field has its default value."""
    vtable = table - _i32_at(data, table)
    size = int(struct.unpack_from("<H", data, vtable)[0])
    slot = 4 + 2 * index
    offset = int(struct.unpack_from("<H", data, vtable + slot)[0]) if slot + 2 <= size else 0
    return table + offset if offset else 0


def _vector_tables(data: mmap.mmap, table: int, index: int) -> list[int]:
    at = _field_position(data, table, index)
    if not at:
        return []
    vector = at + _read_u32(data, at)
    count = _read_u32(data, vector)
    if vector + 4 + 4 * count > len(data):
        raise ValueError("a vector reaches beyond the end")
    if count > LIMIT_TABLES:
        raise ValueError("a vector has too many tables")
    return [slot + _read_u32(data, slot) for slot in range(vector + 4, vector + 4 + 4 * count, 4)]


def _read_string(data: mmap.mmap, table: int, index: int, limit: int) -> str:
    at = _field_position(data, table, index)
    if not at:
        return ""
    start = at + _read_u32(data, at)
    size = _read_u32(data, start)
    if size > limit:
        raise ValueError("a name is too long")
    return data[start + 4 : start + 4 + size].decode("utf-8", "replace")


def _read_i8(data: mmap.mmap, table: int, index: int) -> int:
    at = _field_position(data, table, index)
    return int(struct.unpack_from("<b", data, at)[0]) if at else 0


def _read_i32(data: mmap.mmap, table: int, index: int) -> int:
    at = _field_position(data, table, index)
    return _i32_at(data, at) if at else 0


def _read_u32(data: mmap.mmap, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _i32_at(data: mmap.mmap, at: int) -> int:
    return int(struct.unpack_from("<i", data, at)[0])
