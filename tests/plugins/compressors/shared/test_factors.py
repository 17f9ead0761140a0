"""Factors by the Gram matrix against numpy's own singular values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof_plugins.compressors.shared.factors import factors

SIDES = st.integers(1, 24)


@given(rows=SIDES, columns=SIDES, seed=st.integers(0, 99), energy=st.floats(0.01, 0.9999))
def test_the_smallest_rank_that_keeps_the_energy_and_its_best_approximation(rows, columns, seed, energy):
    matrix = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    left, right, share = factors(matrix, {"energy": energy})
    rank = left.shape[1]
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    power = np.cumsum(s**2) / np.sum(s**2)
    assert share == pytest.approx(power[rank - 1])
    assert share >= energy - 1e-9
    assert rank == 1 or power[rank - 2] < energy + 1e-9
    assert left.dtype == right.dtype == np.float32
    assert left @ right == pytest.approx((u[:, :rank] * s[:rank]) @ v[:rank], abs=1e-5 * s[0] + 1e-4 * (1 - share))
    assert np.linalg.norm(left, axis=0) == pytest.approx(np.linalg.norm(right, axis=1), rel=1e-3)


@pytest.mark.parametrize("turned", [False, True])
def test_more_rank_than_there_is_stays_exact_and_finite(turned):
    draw = np.random.default_rng(0)
    matrix = (draw.standard_normal((50, 3)) @ draw.standard_normal((3, 2500))).astype(np.float32)
    matrix = matrix.T if turned else matrix
    left, right, share = factors(matrix, {"rank": 20})
    assert left.shape[1] == 20
    assert share == pytest.approx(1)
    assert left @ right == pytest.approx(matrix, abs=1e-4)


def test_a_layer_of_zeros_stays_one():
    left, right, _ = factors(np.zeros((4, 6), np.float32), {})
    assert not (left @ right).any()
