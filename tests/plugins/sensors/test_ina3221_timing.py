"""Cycle and time constant from ``samples`` and both meanings of ``update_interval``."""

from __future__ import annotations

import pytest

from edgeprof_plugins.sensors.ina3221_timing import CONVERSION_TIMES_S, timing


def test_nvidias_setting_on_an_old_kernel_includes_the_samples() -> None:
    found = timing(512, 430, 3, "5.10.216-tegra")
    assert found.cycle_s == pytest.approx(840e-6)
    assert found.filter.tau_s == pytest.approx(0.430, abs=1e-3)
    assert found.may_block


def test_the_same_setting_on_a_new_kernel_reads_one_millisecond() -> None:
    found = timing(512, 1, 3, "5.15.148-tegra")
    assert found.filter.tau_s == pytest.approx(0.430, abs=1e-3)
    assert not found.may_block
    assert "at most 0.63 s" in found.note  # 204 µs would read 1 ms too


def test_more_than_any_cycle_tells_the_old_meaning_without_the_kernels_version() -> None:
    assert timing(512, 430, 3, None).cycle_s == pytest.approx(840e-6)


@pytest.mark.parametrize("conversion", CONVERSION_TIMES_S)
@pytest.mark.parametrize("enabled", [1, 2, 3])
@pytest.mark.parametrize("samples", [64, 128, 256, 512, 1024])
def test_old_kernels_numbers_give_the_conversion_time_back(conversion: float, enabled: int, samples: int) -> None:
    shown = round(2e3 * enabled * conversion * samples)
    assert timing(samples, shown, enabled, "5.10.0").cycle_s == pytest.approx(2 * enabled * conversion)


@pytest.mark.parametrize("conversion", CONVERSION_TIMES_S)
@pytest.mark.parametrize("enabled", [1, 2, 3])
def test_new_kernels_numbers_give_a_conversion_time_that_is_no_longer_than_the_true_one(
    conversion: float, enabled: int
) -> None:
    found = timing(16, round(2e3 * enabled * conversion), enabled, "6.1.0")
    assert found.cycle_s is not None
    true = 2 * enabled * conversion
    # Whole milliseconds cannot tell more: the true cycle is the one taken, or the note names a range that holds it.
    assert found.cycle_s == pytest.approx(true) or (found.cycle_s < true and "at most" in found.note)


def test_the_reset_default_averages_nothing() -> None:
    found = timing(1, 7, 3, "6.8.12-tegra")
    assert found.cycle_s == pytest.approx(6.6e-3)
    assert found.filter.kind == "instantaneous"


def test_a_driver_that_does_not_tell_is_not_guessed_at() -> None:
    found = timing(None, None, 3, "5.3.0")
    assert found.cycle_s is None
    assert "does not report" in found.note


def test_an_interval_that_fits_nothing_is_not_guessed_at() -> None:
    assert timing(16, 9, 1, "6.1.0").cycle_s is None


def test_the_range_of_tau_that_whole_milliseconds_leave_is_its_limit() -> None:
    """Stock Orin on 5.15: 512 samples, "1" ms on three channels is 140 or 204 µs a conversion, so 0.43 to 0.63 s."""
    new = timing(512, 1, 3, "5.15.148-tegra").filter
    assert new.tau_s == pytest.approx(0.430, abs=0.001)
    assert new.tau_limit == pytest.approx(((204 / 140 - 1) ** 2 + 0.1**2) ** 0.5)
    assert new.tau_s * (1 + new.tau_limit) >= 0.627
    old = timing(512, 430, 3, "5.10.104-tegra").filter
    assert (old.tau_s, old.tau_limit) == (pytest.approx(0.430, abs=0.001), 0.1)  # nothing is open but the part's clock
