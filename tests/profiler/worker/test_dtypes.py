"""Types that numpy lacks are compared with ml_dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.worker import dtypes

ml_dtypes = pytest.importorskip("ml_dtypes")

FLOATS = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8e5m2": ml_dtypes.float8_e5m2,
    "float8e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8e8m0": ml_dtypes.float8_e8m0fnu,
}


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_has_its_value_and_every_value_its_code(name):
    kind = np.dtype(FLOATS[name])
    codes = np.arange(2 ** (8 * kind.itemsize), dtype=np.uint16 if kind.itemsize == 2 else np.uint8)
    wanted = codes.view(kind).astype(np.float32)
    found = dtypes.decode_bytes(codes.tobytes(), name, codes.shape)
    np.testing.assert_array_equal(found, wanted)
    back = np.frombuffer(dtypes.encode_values(found, name), codes.dtype)
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(back[known], codes[known])
    assert np.isnan(dtypes.decode_bytes(back.tobytes(), name, codes.shape)[~known]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FLOATS if name != "float8e8m0"])
@given(st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=50))
def test_a_float_becomes_the_nearest_one(name, values):
    given = np.float32(values)
    found = dtypes.decode_bytes(dtypes.encode_values(given, name), name, given.shape)
    wanted = given.astype(FLOATS[name]).astype(np.float32)
    np.testing.assert_allclose(np.abs(found - given), np.abs(wanted - given), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("int4", -8, 7), ("uint4", 0, 15), ("int2", -2, 1), ("uint2", 0, 3)]
)
def test_integers_of_several_in_a_byte_survive(name, least, most):
    values = np.arange(least, most + 1).repeat(3)[:-1].reshape(1, -1)
    raw = dtypes.encode_values(values, name)
    assert len(raw) == -(-values.size * dtypes.bits_per_element(name) // 8)
    np.testing.assert_array_equal(dtypes.decode_bytes(raw, name, values.shape), values)


def test_what_numpy_has_carries_itself():
    assert [
        dtypes.carrier_dtype(name) for name in ("float32", "bool", "object", "float8_e4m3fn", "sequence of int64")
    ] == [
        "float32",
        "bool",
        "object",
        "float32",
        None,
    ]
