"""Findings about the times on a GPU: trtexec's rules, tested with numbers whose result is obvious."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprof.benchmark import gpu_findings as device
from edgeprof.results.schema import Gpu


def times(**parts: float) -> dict[str, np.ndarray]:
    return {part: np.full(10, seconds) for part, seconds in parts.items()}


def codes(gpu: Gpu, *, graph: bool = False) -> list[str]:
    return [reason.code for reason in device.remarks(gpu, graph=graph)]


def test_medians_and_the_share_of_copies():
    gpu = device.summarise([times(h2d=1e-3, compute=6e-3, d2h=1e-3, enqueue=1e-4, wall=9e-3)] * 2)
    assert gpu is not None
    assert gpu.compute_s == pytest.approx(6e-3)
    assert gpu.transfer_ratio == pytest.approx(0.25)
    assert gpu.compute_cov == pytest.approx(0)
    assert gpu.samples == 20
    assert codes(gpu) == []


def test_nothing_timed_is_unknown_and_not_zero():
    assert device.summarise([]) is None
    gpu = device.summarise([times(compute=1e-3, wall=2e-3)])
    assert gpu is not None
    assert gpu.transfer_ratio is None
    assert gpu.h2d_s is None


def test_the_variation_is_that_within_passes_not_between_them():
    """Another variant ran in between: a different clock afterwards is drift, which the windows show."""
    gpu = device.summarise([times(compute=1e-3), times(compute=2e-3)])
    assert gpu is not None
    assert gpu.compute_cov == pytest.approx(0)


def test_launch_bound_above_four_fifths_and_the_remedy_knows_of_a_graph():
    assert codes(Gpu(compute_s=1e-3, enqueue_s=0.79e-3)) == []
    assert codes(Gpu(compute_s=1e-3, enqueue_s=0.81e-3)) == ["launch_bound"]
    (reason,) = device.remarks(Gpu(compute_s=1e-3, enqueue_s=2e-3))
    assert "cuda_graph=1" in (reason.remedy or "")
    (reason,) = device.remarks(Gpu(compute_s=1e-3, enqueue_s=2e-3), graph=True)
    assert "cuda_graph" not in (reason.remedy or "")


def test_transfer_bound_where_one_copy_takes_as_long_as_the_computation():
    assert codes(Gpu(compute_s=1e-3, h2d_s=0.6e-3, d2h_s=0.6e-3)) == []
    assert codes(Gpu(compute_s=1e-3, h2d_s=1e-3)) == ["transfer_bound"]
    assert codes(Gpu(compute_s=1e-6, h2d_s=2e-6)) == []  # below the resolution of events


def test_unsteady_above_one_percent():
    assert codes(Gpu(compute_s=1e-3, compute_cov=0.009)) == []
    assert codes(Gpu(compute_s=1e-3, compute_cov=0.02)) == ["unsteady_clocks"]


def test_reasons_are_told_in_words_and_unknown_bits_and_gaps_are_not():
    masks = np.array([0.0, 0x4, np.nan, 0x40, 0x1])
    assert device.throttle_reasons(masks) == ["the power limit", "heat, by the hardware"]
    assert device.throttle_reasons(np.array([])) == []
