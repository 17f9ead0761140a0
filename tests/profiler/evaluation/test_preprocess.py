"""Preprocessing does what is declared, in the declared order, and its hash depends on the declaration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof.evaluation.preprocess import from_options, quantised


def one(options, sample):
    """Apply all steps to a sample."""
    steps = from_options(options)
    return steps.batch(steps.sample(np.asarray(sample), "it")[None], "it")[0]


GRID = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_nothing_declared_changes_nothing():
    assert one({}, GRID).dtype == np.uint8
    assert np.array_equal(one({}, GRID), GRID)


def test_numbers_are_scaled_then_centred_then_divided():
    found = one({"scale": "1/255", "mean": "0.5,0.25,0", "std": "0.5,1,2"}, GRID)
    expected = (GRID / 255 - [0.5, 0.25, 0]) / [0.5, 1, 2]
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_layout_moves_channels_first_and_gives_grey_images_one():
    assert np.array_equal(one({"layout": "NCHW"}, GRID), GRID.transpose(2, 0, 1))
    assert one({"layout": "nchw"}, GRID[..., 0]).shape == (1, 4, 6)
    assert one({"layout": "NHWC"}, GRID[..., 0]).shape == (4, 6, 1)


def test_shape_is_given_first_so_that_raw_bytes_can_be_images():
    assert np.array_equal(one({"shape": "4x6x3", "channels": "bgr"}, GRID.ravel()), GRID[..., ::-1])


def test_crops_keep_the_centre():
    assert np.array_equal(one({"crop": "2"}, GRID), GRID[1:3, 2:4])
    assert np.array_equal(one({"crop_fraction": "0.5"}, GRID), GRID[1:3, 1:4])


def test_resizing_is_height_by_width():
    assert one({"resize": "8x3"}, GRID).shape == (8, 3, 3)
    assert one({"resize": "5"}, GRID).shape == (5, 5, 3)
    assert one({"resize_short": "8"}, GRID).shape == (8, 12, 3)
    assert np.all(one({"resize": "7"}, np.full((4, 6, 3), 9, np.uint8)) == 9)


def test_grey_is_what_pillow_calls_grey():
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(one({"channels": "grey"}, pixels), np.asarray(image.fromarray(pixels).convert("L")))


def test_a_type_that_holds_the_values_is_rounded_to_and_one_that_does_not_is_refused():
    assert one({"scale": "0.5", "dtype": "uint8"}, GRID).max() == round(GRID.max() / 2)
    with pytest.raises(InputError, match="int8 cannot hold"):
        one({"dtype": "int8"}, np.array([200], np.uint8))


def test_quantisation_rounds_shifts_and_clips():
    found = quantised(np.array([-1000.0, 0.0, 0.26, 1000.0]), 0.1, 5, "int8")
    assert found.tolist() == [-128, 5, 8, 127]
    assert found.dtype == np.int8


def test_the_hash_is_that_of_what_is_declared_however_it_is_written():
    a = from_options({"scale": "1/255", "layout": "nchw", "resize": "8"})
    b = from_options({"resize": "8x8", "layout": "NCHW", "scale": str(1 / 255)})
    assert a.digest == b.digest
    assert a.digest.startswith("sha256:")
    assert a.digest != from_options({"scale": "1/256", "layout": "NCHW", "resize": "8"}).digest
    assert from_options({}).digest == from_options({}).digest


@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        ({"layuot": "NCHW"}, "layuot", "layout"),
        ({"scale": "a lot"}, "scale=a lot", "1/255"),
        ({"scale": "1/0"}, "scale=1/0", "fraction"),
        ({"std": "1,0,1"}, "std=1,0,1", "none of them 0"),
        ({"resize": "1x2x3"}, "resize=1x2x3", "HxW"),
        ({"crop": "0"}, "crop=0", "HxW"),
        ({"crop_fraction": "1.5"}, "crop_fraction", "at most 1"),
        ({"dtype": "float99"}, "float99", "float32"),
        ({"quantise": "output"}, "quantise=output", "input"),
        ({"dtype": "int8", "quantise": "input"}, "exclude", "one of them"),
        ({"resize": "8", "resize_short": "8"}, "exclude", "one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(options, words, remedy):
    with pytest.raises(InputError) as caught:
        from_options(options)
    assert words in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "sample", "words"),
    [
        ({"shape": "2x2"}, np.zeros(5), "5 values"),
        ({"mean": "1,2"}, np.zeros((4, 4, 3)), "2 values"),
        ({"layout": "NCHW"}, np.zeros(5), "NCHW needs height"),
        ({"resize": "8"}, np.zeros((4, 4)), "images of uint8"),
        ({"crop": "9"}, GRID, "too small"),
        ({"channels": "bgr"}, GRID[..., :2], "three channels"),
    ],
)
def test_what_does_not_fit_the_sample_is_said_with_its_shape(options, sample, words):
    with pytest.raises(InputError) as caught:
        one(options, sample)
    assert words in caught.value.message + (caught.value.remedy or "")


@given(
    height=st.integers(40, 90),
    width=st.integers(40, 90),
    options=st.sampled_from(
        [
            {},
            {"resize": "64x48"},
            {"crop_fraction": "0.8", "resize": "50x70"},
            {"resize_short": "64", "crop": "60x60"},
            {"letterbox": "64x96"},
            {"letterbox": "61x61"},
            {"crop": "31x32"},
        ]
    ),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_boxes_go_where_the_pixels_go(height, width, options, seed):
    draw = np.random.default_rng(seed)
    left, top = int(draw.integers(0, width - 25)), int(draw.integers(0, height - 25))
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + 24, left : left + 24] = 255
    preprocess = from_options(options)
    seen = preprocess.sample(image, "a box")[..., 0]
    (moved,), size = preprocess.boxes(np.array([[left, top, left + 24, top + 24]]), (height, width))
    assert size == seen.shape
    rows, columns = (np.flatnonzero((seen > 127).any(axis=axis)) for axis in (1, 0))
    if len(rows) > 2 and len(columns) > 2:  # unless the box was cropped away
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved == pytest.approx(found, abs=1.01)


def test_a_letterbox_keeps_the_aspect_in_the_middle_of_grey():
    image = np.full((20, 40, 3), 255, np.uint8)
    seen = from_options({"letterbox": "64"}).sample(image, "wide")
    assert seen.shape == (64, 64, 3)
    assert (seen[:16] == 114).all()
    assert (seen[16:48] == 255).all()
    assert (seen[48:] == 114).all()
    with pytest.raises(InputError, match="exclude one another"):
        from_options({"letterbox": "64", "resize": "64"})
