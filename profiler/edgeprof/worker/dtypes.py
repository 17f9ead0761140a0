"""Element types that numpy lacks: which numpy type carries each of them, and how their bits are read and written.

Python 3.6 grammar, like all of the worker.

A bfloat16 is carried as float32 and an int4 as int8, both exactly, so that neither side of the wire needs an extension
of numpy.
"""

import re
from typing import Any, Optional

import numpy as np

#: Floats of 8 bits and fewer: bits of the exponent, its bias, bits of the fraction, and what the largest codes mean:
#: "ieee" (infinities and NaN), "fn" (finite, the code of all ones is NaN), "fnuz" (finite, no −0: its code is NaN),
#: "finite" (numbers only), "scale" (powers of two). Micikevicius et al. 2022; OCP Microscaling
#: Formats 1.0; the ONNX specification.
_SMALL_FLOATS = {
    "float8e4m3fn": (4, 7, 3, "fn"),
    "float8e4m3fnuz": (4, 8, 3, "fnuz"),
    "float8e5m2": (5, 15, 2, "ieee"),
    "float8e5m2fnuz": (5, 16, 2, "fnuz"),
    "float4e2m1": (2, 1, 1, "finite"),
    "float8e8m0": (8, 127, 0, "scale"),  # no sign and no fraction: a power of two
}
_SMALL_INTEGERS = re.compile(r"(u?)int([24])$")


def given_dtype(dtype: str) -> str:
    """Return the dtype of the data for an input: those for ``optional of float32`` are float32."""
    return re.sub("^optional (of )?", "", dtype)


def carrier_dtype(dtype: str) -> Optional[str]:
    """Return the numpy type that carries tensors of this type: the type itself if numpy has it; None if none can."""
    if dtype == "bfloat16" or _onnx_name(dtype) in _SMALL_FLOATS:
        return "float32"
    match = _SMALL_INTEGERS.match(dtype)
    if match:
        return match.group(1) + "int8"
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return None


def is_foreign(dtype: str) -> bool:
    """Whether numpy lacks the type and another one carries it."""
    return carrier_dtype(dtype) not in (None, dtype)


def bits_per_element(dtype: str) -> int:
    """How many bits one element of a foreign type has (see ``is_foreign``)."""
    if dtype == "bfloat16":
        return 16
    match = _SMALL_INTEGERS.match(dtype)
    if match:
        return int(match.group(2))
    return 4 if _onnx_name(dtype).startswith("float4") else 8


def integer_limits(dtype: str) -> Any:
    """The least and the greatest value of a small integer type."""
    match = _SMALL_INTEGERS.match(dtype)
    assert match is not None
    bits = int(match.group(2))
    return (0, 2**bits - 1) if match.group(1) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def decode_bytes(raw: bytes, dtype: str, shape: Any) -> Any:
    """Decode the bytes of a tensor of a foreign type into an array of its carrier type.

    Args:
        raw: The bytes, little endian. Types below 8 bits have two or four elements in each byte, the first of them in
            the lowest bits.
        dtype: The foreign type, such as ``bfloat16`` or ``int4``.
        shape: The shape of the tensor.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == "bfloat16":
        # A bfloat16 is the upper half of a float32 (the same sign and exponent, 7 bits of fraction).
        wide = np.frombuffer(raw, "<u2", count).astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(shape)
    bits = bits_per_element(dtype)
    codes = np.frombuffer(raw, np.uint8)
    if bits < 8:
        parts = [(codes >> np.uint8(start)) & np.uint8(2**bits - 1) for start in range(0, 8, bits)]
        codes = np.stack(parts, axis=-1).reshape(-1)
    codes = codes[:count]
    if _SMALL_INTEGERS.match(dtype):
        low = integer_limits(dtype)[0]
        values = codes.astype(np.int16)
        values[values > integer_limits(dtype)[1]] += 2 * low  # two's complement
        return values.astype(np.dtype(carrier_dtype(dtype))).reshape(shape)
    return _code_values(dtype)[codes].reshape(shape)


def encode_values(values: Any, dtype: str) -> bytes:
    """The inverse of ``decode_bytes``; a value that the type does not have becomes the nearest one that it has."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if dtype == "bfloat16":
        wide = flat.astype(np.float32).view(np.uint32)
        # Adding half a unit of the last kept place, less one if that place is even, rounds half to even (IEEE 754).
        rounded = (wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        nan = (wide >> np.uint32(16)) | np.uint32(0x40)  # a quiet NaN stays one although its lower bits are cut off
        return bytes(np.where(np.isnan(flat.astype(np.float32)), nan, rounded).astype("<u2").tobytes())
    bits = bits_per_element(dtype)
    if _SMALL_INTEGERS.match(dtype):
        codes = (flat.astype(np.int64) & (2**bits - 1)).astype(np.uint8)
    else:
        codes = _nearest_codes(flat.astype(np.float64), dtype)
    if bits < 8:
        each = 8 // bits
        codes = np.concatenate([codes, np.zeros(-len(codes) % each, np.uint8)]).reshape(-1, each)
        packed = np.zeros(len(codes), np.uint8)
        for number in range(each):
            packed |= codes[:, number] << np.uint8(bits * number)
        codes = packed
    return bytes(codes.tobytes())


def _nearest_codes(values: Any, dtype: str) -> Any:
    """The codes of the nearest values; NaN and values beyond the range get the codes that the type has for them."""
    table = _code_values(dtype).astype(np.float64)
    known = np.flatnonzero(~np.isnan(table))
    order = known[np.argsort(table[known], kind="stable")]
    above = np.clip(np.searchsorted(table[order], values), 1, len(order) - 1)
    with np.errstate(invalid="ignore"):
        lower = values - table[order[above - 1]] <= table[order[above]] - values
    codes = np.where(lower, order[above - 1], order[above])
    negative_zero = len(table) // 2 if table[len(table) // 2] == 0 else 0
    codes = np.where(values == 0, np.where(np.signbit(values), negative_zero, 0), codes)
    for special in np.flatnonzero(~np.isfinite(table)):
        same = np.isnan(values) if np.isnan(table[special]) else values == table[special]
        codes = np.where(same, special, codes)
    return codes.astype(np.uint8)


def _code_values(dtype: str) -> Any:
    """The value of each code of a small float type, as float32, in the order of the codes."""
    exponent_bits, bias, fraction_bits, kind = _SMALL_FLOATS[_onnx_name(dtype)]
    if kind == "scale":
        return np.append(2.0 ** (np.arange(255) - bias), np.nan).astype(np.float32)
    codes = np.arange(2 ** (1 + exponent_bits + fraction_bits))
    sign = np.where(codes >> (exponent_bits + fraction_bits), -1.0, 1.0)
    exponent = (codes >> fraction_bits) & (2**exponent_bits - 1)
    fraction = (codes & (2**fraction_bits - 1)) / 2.0**fraction_bits
    values = sign * np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    top = exponent == 2**exponent_bits - 1
    if kind == "ieee":
        values[top] = np.where(fraction[top] == 0, sign[top] * np.inf, np.nan)
    elif kind == "fn":
        values[top & (fraction == 1 - 0.5**fraction_bits)] = np.nan
    elif kind == "fnuz":
        values[len(codes) // 2] = np.nan
    return values.astype(np.float32)


def _onnx_name(dtype: str) -> str:
    """The name that ONNX gives to a type: PyTorch writes ``float8_e5m2`` where ONNX writes ``float8e5m2``."""
    return re.sub(r"^(float[48])_", r"\1", dtype)
