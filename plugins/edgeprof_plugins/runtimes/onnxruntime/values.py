"""Conversion of the inputs and outputs of ONNX Runtime: tensors of all types, sequences, maps and optionals."""

import ctypes
import re
from typing import Any

import numpy as np

from edgeprof.worker.dtypes import bits_per_element, carrier_dtype, decode_bytes, encode_values, given_dtype, is_foreign
from edgeprof.worker.runtime import ANY_SHAPE, LoadError, TensorSpec
from edgeprof.worker.tensors import object_array

#: ONNX Runtime's names of element types → numpy names, where they differ.
DTYPES = {"float": "float32", "double": "float64", "string": "object"}
#: TensorProto.DataType of the types that numpy lacks (onnx.proto).
_CODES = {
    "bfloat16": 16,
    "float8e4m3fn": 17,
    "float8e4m3fnuz": 18,
    "float8e5m2": 19,
    "float8e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4e2m1": 23,
    "float8e8m0": 24,
    "uint2": 25,
    "int2": 26,
}


def spec_of(node: Any) -> TensorSpec:
    """Return the spec of an input or output of ONNX Runtime.

    The dtype of a value that is not a tensor begins with sequence, map or optional, such as ``sequence of float32``.
    """
    kind = str(node.type)
    match = re.match(r"tensor\((\w+)\)$", kind)
    if match:
        shape = tuple(dim if isinstance(dim, (int, str)) else None for dim in node.shape or ())
        return TensorSpec(node.name, shape, DTYPES.get(match.group(1), match.group(1)), None)
    inner = re.findall(r"\((\w+)\)", kind)
    element = DTYPES.get(inner[-1], inner[-1]) if inner else "any"
    nested = "sequence " if "seq" in kind else ""
    for word, name in (("optional", "optional " + nested), ("seq", "sequence "), ("map", "map ")):
        if kind.startswith(word):
            return TensorSpec(node.name, ANY_SHAPE, "{}of {}".format(name, element), None)
    return TensorSpec(node.name, ANY_SHAPE, "object", None)


def as_fed(ort: Any, value: Any, spec: TensorSpec, kind: str) -> Any:
    """Convert an array for an input: to a list for a sequence, and to an OrtValue for types that numpy lacks.

    Args:
        ort: The library.
        value: An array.
        spec: The spec of the input.
        kind: ONNX Runtime's name of the type, such as ``seq(tensor(float))``.

    Raises:
        LoadError: this ONNX Runtime cannot take the type from Python.
    """
    if "seq(" in kind:
        return [np.asarray(item) for item in np.asarray(value).tolist()] if value.dtype == object else list(value)
    dtype = given_dtype(spec.dtype)
    if not is_foreign(dtype):
        return value
    make = getattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type", None)
    if make is None or dtype not in _CODES:
        raise LoadError(
            "this ONNX Runtime takes no data from Python for the input {!r}, which is {}".format(spec.name, spec.dtype),
            "pip install -U onnxruntime",
        )
    wide = bits_per_element(dtype) == 16
    raw = np.frombuffer(encode_values(value, dtype), np.uint16 if wide else np.uint8)
    # ONNX Runtime expects one byte per element; where a byte holds two elements, it reads only the first half.
    memory = np.zeros(value.size, raw.dtype)
    memory[: raw.size] = raw
    return make(memory.reshape(value.shape), _CODES[dtype])


def from_bits(value: Any, spec: TensorSpec) -> Any:
    """Return the values of an OrtValue whose type numpy lacks."""
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    size = (count * bits_per_element(spec.dtype) + 7) // 8
    if not size:
        return np.zeros(shape, carrier_dtype(spec.dtype))
    return decode_bytes(ctypes.string_at(value.data_ptr(), size), spec.dtype, shape)


def as_array(value: Any) -> Any:
    """Return an output as an array: a sequence as an object array, a map or an empty optional as one object."""
    if isinstance(value, np.ndarray):
        return value
    return object_array(value if isinstance(value, list) else [value])
