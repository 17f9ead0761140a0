"""A simulated sensor that measures 25 of every 100 ms (A100, H100, H200) shows the benefit of stratified starts.

The sensor is not read from a real GPU, but simulated as Yang et al. (SC24, arXiv 2312.02741) describe it. Their load,
50 ms of 200 W and 50 ms of 100 W, is in step with the sensor.
"""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from edgeprof.benchmark.plan import make_plan, start_phase
from edgeprof.energy.integrate import window_energy
from edgeprof.sensing.sensor import Channel, PartTime

LOOK = PartTime(0.025, 0.1)
GPU = Channel("nvml", "gpu0", "energy", kind="counter", update_interval_s=0.1, part_time=LOOK)


def integral(t: float) -> float:
    """Return the joules of the load from 0 to ``t`` (s); it begins with its 200 W."""
    whole, rest = divmod(t, 0.1)
    return whole * 15.0 + 200.0 * min(rest, 0.05) + 100.0 * max(0.0, rest - 0.05)


def counted(start: float, seconds: float, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the counter's readings every 10 ms, around a window of the load; 80 W flow before and after it.

    The sensor's periods begin at ``phase``; each adds the mean power of its first 25 ms multiplied by 100 ms.
    """
    end = start + seconds

    def energy(a: float, b: float) -> float:
        inside = max(0.0, min(b, end) - max(a, start))
        work = integral(min(max(b, start), end) - start) - integral(min(max(a, start), end) - start)
        return work + 80.0 * (b - a - inside)

    ticks = phase + 0.1 * np.arange(math.floor((start - 1) / 0.1), math.ceil((end + 1) / 0.1))
    sums = np.cumsum([energy(tick, tick + 0.025) * 4 for tick in ticks])
    times = np.arange(start - 0.8, end + 0.8, 0.01)
    known = np.searchsorted(ticks + 0.1, times, side="right") - 1
    return times, sums[known]


def mean_power(starts: list[float], seconds: float, phase: float) -> float:
    joules = []
    for start in starts:
        times, values = counted(start, seconds, phase)
        energy = window_energy(times, values, start, start + seconds, GPU)
        assert energy.joules is not None
        joules.append(energy.joules)
    return statistics.fmean(joules) / seconds


def errors(windows: int, *, stratified: bool, seconds: float = 3.2) -> list[float]:
    """Return the relative errors for random phases of the sensor."""
    chance = random.Random(7)
    found = []
    for _ in range(60):
        phase, now, starts = chance.random() * 0.1, 100.0 + chance.random(), []
        for window in range(windows):
            start = start_phase(window, windows, LOOK if stratified else None)
            now += start.delay_s(now) if start else 0.0
            starts.append(now)
            # Windows end with the last inference that began in time: still in step with the sensor.
            now += seconds + 0.1
        found.append(mean_power(starts, seconds, phase) / 150.0 - 1)
    return found


@pytest.mark.slow
def test_a_load_in_step_with_the_sensor_is_off_by_a_quarter_however_often_it_is_repeated() -> None:
    for windows in (4, 12):
        off = errors(windows, stratified=False)
        assert statistics.pstdev(off) > 0.2
        assert max(map(abs, off)) == pytest.approx(0.33, abs=0.02)


@pytest.mark.parametrize("windows", [4, 5, 8])
def test_stratified_starts_bring_it_down_to_a_hundredth(windows: int) -> None:
    off = errors(windows, stratified=True)
    assert max(map(abs, off)) < 0.015
    assert abs(statistics.fmean(off)) < 0.005


def test_the_scatter_of_the_windows_shows_it_and_sync_holds_the_edges() -> None:
    times, values = counted(50.0, 5.0, 0.03)
    part_time = window_energy(times, values, 50.0, 55.0, GPU)
    always = Channel("nvml", "gpu0", "energy", kind="counter", update_interval_s=0.1)
    assert part_time.joules == window_energy(times, values, 50.0, 55.0, always).joules
    power = part_time.joules / 5.0
    assert part_time.u_sync >= power * 0.075 / math.sqrt(6)
    assert part_time.u_sync < 0.02 * part_time.joules


def test_starts_lie_in_as_many_strata_as_there_are_windows() -> None:
    for windows in (1, 3, 8):
        phases = []
        for window in range(windows):
            now = 1234.567 + 0.731 * window
            wait = start_phase(window, windows, LOOK).delay_s(now)
            assert 0 <= wait < 0.1
            phases.append((now + wait) / 0.1 % 1)
        assert phases == pytest.approx([k / windows % 1 for k in range(windows)], abs=1e-6) or windows == 1
    assert start_phase(2, 5, None) is None


def test_a_preset_takes_at_least_the_windows_that_cover_a_period() -> None:
    assert make_plan(preset="quick").windows == 3
    assert make_plan(preset="quick", part_time=LOOK).windows == 4
    assert make_plan(preset="quick", part_time=LOOK, windows=2).windows == 2
    assert make_plan(preset="default", part_time=LOOK).windows == 5
