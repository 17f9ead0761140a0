"""The inputs that a model gets, and the error if there are none."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.worker.inputs import check_feeds, is_batch, own_feeds, random_feeds, resolve_shapes
from edgeprof.worker.runtime import ANY_DTYPE, ANY_SHAPE, LoadError, LoadOptions, Session, TensorSpec

SILERO = [
    TensorSpec("input", ("batch", "sequence"), "float32", None),
    TensorSpec("state", (2, "batch", 128), "float32", None),
    TensorSpec("sr", (), "int64", None),
]


def spec(shape, dtype="float32", name="x", quantization=None):
    return TensorSpec(name, shape, dtype, quantization)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float32", 0, 1),
        ("float16", 0, 1),
        ("float64", 0, 1),
        ("int8", -128, 127),
        ("uint8", 0, 255),
        ("int16", 0, 255),
        ("int32", 0, 1),
        ("int64", 0, 1),
        ("bool", 0, 1),
    ],
)
def test_random_data_lies_in_the_range_that_its_dtype_is_used_for(dtype, low, high):
    array = random_feeds([spec((64, 64), dtype)], {}, 1, 0)["x"]
    assert array.dtype.name == dtype
    assert low <= array.min() < array.max() <= high
    span = array.max().astype(float) - array.min().astype(float)
    assert span > 0.9 * (high - low)  # and fills it


def test_random_data_repeats_with_its_seed_and_differs_by_seed_and_name():
    specs = [spec((8,), name="a"), spec((8,), name="b")]
    one, same, other = (random_feeds(specs, {}, 1, seed) for seed in (3, 3, 4))
    assert np.array_equal(one["a"], same["a"])
    assert not np.array_equal(one["a"], other["a"])
    assert not np.array_equal(one["a"], one["b"])


@pytest.mark.parametrize(
    ("dim", "position", "batch"),
    [
        ("batch", 1, True),
        ("batch_size", 0, True),
        ("N", 0, True),
        (None, 0, True),
        (-1, 0, True),
        ("unk__7", 0, True),
        ("s17", 0, True),
        (None, 1, False),
        ("sequence", 0, False),
        (4, 0, False),
    ],
)
def test_the_dimension_of_samples_is_known_by_name_or_by_being_first_and_nameless(dim, position, batch):
    assert is_batch(dim, position) is batch


def test_a_name_that_was_given_once_holds_for_every_input():
    assert resolve_shapes(SILERO, {"input": (3, 512)}, 1) == {"input": (3, 512), "state": (2, 3, 128), "sr": ()}


def test_an_open_dimension_names_the_input_and_the_flag():
    with pytest.raises(LoadError, match=r"input \[batch, sequence\] float32") as caught:
        random_feeds(SILERO, {}, 2, 0)
    assert "--input input=2,sequence" in caught.value.remedy
    assert "--input-data" in caught.value.remedy


@pytest.mark.parametrize("given", [(1, 3), (2, 4, 4), (1, 3, 4)])
def test_a_given_shape_must_fit_what_the_model_fixes(given):
    specs = [spec((1, "rows", 4)), spec((1,), name="other")]
    if given == (1, 3, 4):
        assert resolve_shapes(specs, {"x": given}, 1)["x"] == given
        return
    with pytest.raises(LoadError, match="does not fit the model"):
        resolve_shapes(specs, {"x": given}, 1)


def test_a_name_that_is_no_input_gets_the_nearest():
    with pytest.raises(LoadError, match="'inptu', which is no input") as caught:
        resolve_shapes(SILERO, {"inptu": (1, 2)}, 1)
    assert caught.value.remedy.startswith("Did you mean input?")


def test_a_batch_that_the_model_cannot_take_is_refused_not_ignored():
    """Otherwise joules per inference would be divided by inferences that never ran."""
    with pytest.raises(LoadError, match="--batch 8 cannot be used"):
        random_feeds([spec((1, 4))], {}, 8, 0)
    assert random_feeds([spec((8, 4))], {}, 8, 0)["x"].shape == (8, 4)
    assert random_feeds([spec((None, 4))], {}, 8, 0)["x"].shape == (8, 4)


def test_a_dtype_may_be_given_only_where_the_model_leaves_it_open():
    feeds = random_feeds([spec(ANY_SHAPE, ANY_DTYPE)], {"x": (2, 2)}, 1, 0, {"x": "uint8"})
    assert feeds["x"].dtype == np.uint8
    with pytest.raises(LoadError, match="'x' of the model is float32, not uint8"):
        random_feeds([spec((2,))], {}, 1, 0, {"x": "uint8"})


def test_there_is_random_data_of_types_that_numpy_lacks():
    assert random_feeds([spec((2,), "bfloat16")], {}, 1, 0)["x"].dtype == np.float32
    small = random_feeds([spec((100,), "int4")], {}, 1, 0)["x"]
    assert (small.dtype, small.min(), small.max()) == (np.int8, -8, 7)
    with pytest.raises(LoadError, match="no random data of the dtype 'complex7'"):
        random_feeds([spec((2,), "complex7")], {}, 1, 0)


@pytest.mark.parametrize("given", [np.float32([1.5, -2]), np.float64([1.5, -2]), np.float16([1.5, -2])])
def test_floats_of_every_width_are_data_for_a_bfloat16(given):
    checked = check_feeds([spec((2,), "bfloat16")], {"x": given})["x"]
    assert checked.dtype == np.float32
    assert checked.tolist() == [1.5, -2.0]


def test_the_bits_of_a_bfloat16_as_an_npz_holds_them_are_data_for_one():
    bits = (np.float32([1.5, -2]).view(np.uint32) >> 16).astype(np.uint16).view("V2")
    assert check_feeds([spec((2,), "bfloat16")], {"x": bits})["x"].tolist() == [1.5, -2.0]


def test_a_sequence_has_no_random_data_and_an_optional_input_needs_none():
    with pytest.raises(LoadError, match="'x' of the type sequence of float32") as caught:
        random_feeds([spec(ANY_SHAPE, "sequence of float32")], {}, 1, 0)
    assert "x.0, x.1" in caught.value.remedy
    optional = [spec(ANY_SHAPE, "optional of float32")]
    assert random_feeds(optional, {}, 1, 0) == {}
    assert check_feeds(optional, {}) == {}
    given = np.ones((2, 3), "float32")
    assert check_feeds(optional, {"x": given})["x"].tolist() == given.tolist()
    with pytest.raises(LoadError, match="the data is int64") as caught:
        check_feeds(optional, {"x": np.ones(2, "int64")})
    assert "astype('float32')" in caught.value.remedy
    (item,) = check_feeds([spec(ANY_SHAPE, "optional sequence of float32")], {"x": given[None]})["x"]
    assert item.tolist() == given.tolist()


class Examples(Session):
    inputs = (spec(("batch", 2)), spec((2,), "int64", "fixed"))
    examples = {"x": np.array([[1.0, 2.0]], "float32"), "fixed": np.array([5, 6])}  # noqa: RUF012 - the contract's own form

    def run(self, feeds):
        return feeds


def test_a_models_own_examples_are_fed_and_repeated_for_the_batch():
    options = LoadOptions("cpu", None, 1, {}, {})
    assert own_feeds(Examples(), options, 0)["x"].tolist() == [[1, 2]]
    fed = own_feeds(Examples(), options._replace(batch=2), 0)
    assert fed["x"].tolist() == [[1, 2], [1, 2]]
    assert fed["fixed"].tolist() == [5, 6]
    given = own_feeds(Examples(), options._replace(shapes={"x": (3, 2)}), 0)
    assert given["x"].shape == (3, 2)


def test_checked_feeds_come_contiguous_under_the_models_names():
    array = np.zeros((4, 3), "float32").T
    checked = check_feeds([spec((3, None))], {"": array})
    assert checked["x"].flags["C_CONTIGUOUS"]
    assert check_feeds([spec((), "int64")], {"x": np.int64(3)})["x"].shape == ()


@pytest.mark.parametrize(
    ("feeds", "says", "remedy"),
    [
        ({}, r"nothing for the input x", "The model takes: x"),
        ({"y": np.zeros(3)}, "'y', which is no input", "The model takes"),
        ({"x": np.zeros((1, 2, 3))}, "takes int8, the data is float64", r"Quantise it: round\(x / 0.5\)"),
        ({"x": np.zeros((1, 3, 2), "int8")}, r"fed data of shape \[1, 3, 2\]", "transpose"),
        ({"x": np.zeros((2, 3), "int8")}, "fed data of shape", "one dimension apart"),
        ({"x": np.zeros((1, 9, 9), "int8")}, "fed data of shape", "fed as they are"),
    ],
)
def test_data_that_does_not_fit_says_what_and_how_to_mend_it(feeds, says, remedy):
    with pytest.raises(LoadError, match=says) as caught:
        check_feeds([spec((1, 2, 3), "int8", quantization=(0.5, -3))], feeds)
    import re

    assert re.search(remedy, caught.value.remedy)


def test_inputs_that_share_a_dimension_must_agree_in_it():
    with pytest.raises(LoadError, match="'batch' is 2 in the data for 'input' and 3 in that for 'state'"):
        check_feeds(
            SILERO,
            {"input": np.zeros((2, 9), "float32"), "state": np.zeros((2, 3, 128), "float32"), "sr": np.int64(1)},
        )
