"""Resizing gives the same bytes as Pillow, because published accuracies refer to images that Pillow resized."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.evaluation.resize import resize_bilinear


@pytest.mark.parametrize("shape", [(37, 53), (37, 53, 3), (1, 1, 3), (480, 640, 3), (5, 300)])
@pytest.mark.parametrize("size", [(37, 53), (8, 8), (256, 341), (1, 1), (61, 20)])
def test_every_byte_is_pillows(shape, size):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)
    pillows = image.fromarray(pixels).resize((size[1], size[0]), resample=image.Resampling.BILINEAR)
    assert np.array_equal(resize_bilinear(pixels, size), np.asarray(pillows))


def test_an_even_area_stays_what_it_is():
    assert (resize_bilinear(np.full((9, 7, 3), 200, np.uint8), (4, 30)) == 200).all()
