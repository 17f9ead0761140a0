"""Messages arrive through the socket unchanged."""

from __future__ import annotations

import math
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgeprof.worker import tensors, wire


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_messages_and_blobs_arrive_in_order(pair):
    left, right = map(wire.Connection, pair)
    left.send({"do": "one"}, [b"line\nbreaks", b""])
    left.send({"do": "two", "text": "ü\n"})
    assert right.receive() == ({"do": "one"}, [b"line\nbreaks", b""])
    assert right.receive() == ({"do": "two", "text": "ü\n"}, [])


def test_a_blob_larger_than_the_sockets_buffer_passes(pair):
    left, right = map(wire.Connection, pair)
    blob = bytes(range(256)) * 40_000
    sender = threading.Thread(target=left.send, args=({"do": "infer"}, [blob]))
    sender.start()
    assert right.receive()[1] == [blob]
    sender.join()


def test_a_closed_connection_is_the_end_of_file_even_within_a_message(pair):
    left, right = pair
    left.sendall(b'{"do": "lo')
    left.close()
    with pytest.raises(EOFError):
        wire.Connection(right).receive()


def test_a_wait_asks_its_check_and_ends_when_that_raises(pair):
    pair[0].settimeout(0.01)
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        wire.Connection(pair[0]).receive(check)
    asked.clear()
    with pytest.raises(TimeoutError, match="enough"):  # nobody reads, so that sending blocks too
        wire.Connection(pair[0]).send({}, [bytes(10_000_000)], check)


def test_what_is_no_message_is_refused():
    with pytest.raises(ValueError, match="object"):
        wire.decode(b"[1, 2]")


@settings(deadline=None, max_examples=40)
@given(
    npst.arrays(
        dtype=st.one_of(
            npst.boolean_dtypes(), npst.integer_dtypes(), npst.unsigned_integer_dtypes(), npst.floating_dtypes()
        ),
        shape=npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_arrays_of_numbers_survive(array):
    back = tensors.load(*tensors.dump({"x": array}))["x"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.flags.writeable


def test_a_transposed_array_arrives_in_its_own_order():
    array = np.arange(6).reshape(2, 3).T
    np.testing.assert_array_equal(tensors.load(*tensors.dump({"x": array}))["x"], array)


def test_strings_survive_and_bytes_become_strings():
    back = tensors.load(*tensors.dump({"x": np.array([["a", b"\xc3\xbc"]], dtype=object)}))["x"]
    assert back.tolist() == [["a", "ü"]]


def test_maps_sequences_and_nothing_survive_as_they_are():
    """Such values come from scikit-learn's ZipMap and from ONNX's sequences and optionals."""
    maps = [{0: 0.25, 1: 0.75}, {"cat": 1.0, "dog": None}]
    arrays = [np.arange(3, dtype=np.float16), np.ones((2, 2), np.uint8)]
    given = {
        "maps": tensors.object_array(maps),
        "arrays": tensors.object_array(arrays),
        "none": tensors.object_array([None]),
    }
    back = tensors.load(*tensors.dump(given))
    assert back["maps"].tolist() == maps
    for there, here in zip(back["arrays"], arrays, strict=True):
        np.testing.assert_array_equal(there, here)
        assert there.dtype == here.dtype
    assert back["none"].tolist() == [None]
    assert tensors.load(*tensors.dump({"list": maps}))["list"].tolist() == maps
    same_shape = tensors.load(*tensors.dump({"list": [np.ones(2), np.ones(2)]}))["list"]
    assert same_shape.shape == (2,)  # a sequence, not stacked


def test_names_that_are_missing_or_double_are_told_apart_by_their_place():
    assert tensors.unique_names(["a", "", "a", "b"], "output") == ["a", "output_1", "a_2", "b"]
    assert tensors.unique_names(["a", "a", "a_1"], "output") == ["a", "a_1_1", "a_1"]
    assert tensors.unique_names(["", "output_0"], "output") == ["output_0_0", "output_0"]


def test_what_is_neither_numbers_nor_strings_is_named():
    with pytest.raises(TypeError, match="'x' holds an item of type set"):
        tensors.dump({"x": np.array([set()], dtype=object)})
    with pytest.raises(TypeError, match="'t' is datetime64"):
        tensors.dump({"t": np.array(["2026-01-01"], dtype="datetime64[D]")})


def test_values_that_are_not_finite_are_counted_by_output():
    arrays = {"a": np.array([1.0, math.nan]), "b": np.array([1, 2]), "c": np.array([-math.inf, math.inf])}
    assert tensors.not_finite(arrays) == [
        ("nan_output", "output 'a' holds 1 NaN of 2 values"),
        ("infinite_output", "output 'c' holds 2 infinite of 2 values"),
    ]
