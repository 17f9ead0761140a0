"""Calibrations are stored completely, applied to their own channels, and computed correctly."""

from __future__ import annotations

import json
import math

import pytest

from edgeprof.errors import InputError
from edgeprof.roots import Roots
from edgeprof.sensing.board.topology import Board
from edgeprof.sensing.corrections import (
    Calibrated,
    Calibrations,
    Entry,
    MeasuredFilter,
    Uncalibrated,
    apply_calibrations,
    apply_filters,
    board_name,
)
from edgeprof.sensing.sensor import Calibration, Channel, Filter, Sensor

LINE = Calibration(1.1, 0.5, 0.01, 0.06, -0.0005, 2.0, 12.0, 6, "2026-01-01", "meter", 0.005)
BOARD = Board(id="jetson-orin-nano", name="Orin Nano")


class Rail(Sensor):
    """A sensor with the power and a counter of one rail, whose rows a test provides."""

    name = "chip"

    def __init__(self, rows, wrap: float | None = None) -> None:
        self.rows = iter(rows)
        self._channels = (
            Channel("chip", "IN", "power", resolution=0.04, gain_limit=0.01, offset_limit=0.1, plausible=(-1.0, 20.0)),
            Channel("chip", "IN", "energy", kind="counter", wrap=wrap, plausible=(0.0, 1e6)),
            Channel("chip", "IN", "voltage"),
            Channel("chip", "OTHER", "power"),
        )

    @property
    def channels(self):
        return self._channels

    def read(self, values, times):
        at, watts, joules = next(self.rows)
        values[:] = [watts, joules, 5.0, watts]
        times[:] = [at] * 4


def read(sensor):
    values, times = [0.0] * 4, [0.0] * 4
    sensor.read(values, times)
    return values


def test_power_is_corrected_and_what_is_not_calibrated_is_left_alone() -> None:
    sensor = Calibrated(Rail([(0.0, 4.0, 0.0), (1.0, math.nan, math.nan)]), {"IN": LINE})
    power, energy, voltage, other = sensor.channels
    assert (power.calibration, energy.calibration) == (LINE, LINE)
    assert (voltage.calibration, other.calibration) == (None, None)
    assert (power.gain_limit, power.offset_limit) == (None, None)  # replaced by the line's uncertainty
    assert power.resolution == pytest.approx(0.044)
    assert power.plausible == pytest.approx((-0.6, 22.5))
    assert read(sensor) == pytest.approx([4.9, 0.0, 5.0, 4.0])
    assert math.isnan(read(sensor)[0])


def test_a_counters_differences_are_those_of_the_corrected_power() -> None:
    """4 W of the chip are corrected to 4.9 W; between two ticks the corrected counter stands still, too."""
    rows = [(10.0, 4.0, 100.0), (10.4, 4.0, 100.0), (11.0, 4.0, 104.0), (12.0, 4.0, 108.0), (12.5, 4.0, math.nan)]
    sensor = Calibrated(Rail(rows), {"IN": LINE})
    found = [read(sensor)[1] for _ in rows]
    assert found[0] == found[1]
    assert found[2] - found[0] == pytest.approx(4.9)
    assert found[3] - found[2] == pytest.approx(4.9)
    assert math.isnan(found[4])


def test_a_counter_that_wraps_still_does() -> None:
    rows = [(10.0, 4.0, 996.0), (11.0, 4.0, 0.0), (12.0, 4.0, 4.0)]
    sensor = Calibrated(Rail(rows, wrap=1000.0), {"IN": LINE})
    wrap = sensor.channels[1].wrap
    first, second, third = (read(sensor)[1] for _ in rows)
    assert second - first + wrap == pytest.approx(4.9)
    assert third - second == pytest.approx(4.9)


def test_the_uncertainty_of_a_corrected_power_has_the_covariance_in_it() -> None:
    raw = 7.0
    variance = (raw * LINE.u_gain) ** 2 + LINE.u_offset_w**2 + 2 * raw * LINE.covariance_w
    corrected = LINE.gain * raw + LINE.offset_w
    expected = math.hypot(math.sqrt(variance), 0.005 / math.sqrt(3) * corrected)
    assert LINE.u_at(corrected) == pytest.approx(expected)
    assert LINE.u_level_w < LINE.u_offset_w


def test_what_is_kept_comes_back_and_a_new_finding_leaves_the_other_kind_alone(tmp_path) -> None:
    kept = Calibrations(tmp_path)
    measured = MeasuredFilter(0.45, 0.01, 0.43, "2026-01-02", 8)
    kept.put(Entry("b", "ina3221", "VDD_IN", line=LINE))
    kept.put(Entry("b", "ina3221", "VDD_IN", filter=measured))
    kept.put(Entry("b", "ina3221", "VDD_SOC", line=LINE))
    assert Calibrations(tmp_path).entries() == [
        Entry("b", "ina3221", "VDD_IN", LINE, measured),
        Entry("b", "ina3221", "VDD_SOC", LINE),
    ]
    assert [entry.channel for entry in kept.forget("ina3221/VDD_SOC")] == ["VDD_SOC"]
    assert kept.forget("DD_IN") == []  # a part of a name does not match
    assert [entry.channel for entry in kept.forget("all")] == ["VDD_IN"]
    assert kept.entries() == []


@pytest.mark.parametrize("text", ["", "[]", '{"version": 7, "entries": []}', '{"version": 1, "entries": [{}]}'])
def test_a_file_that_cannot_be_read_is_an_error_with_a_way_out(tmp_path, text: str) -> None:
    kept = Calibrations(tmp_path)
    kept.path.write_text(text)
    with pytest.raises(InputError, match=r"calibrations\.json") as caught:
        kept.entries()
    assert "--forget all" in caught.value.remedy
    kept.forget("all")
    assert kept.entries() == []


def test_a_line_is_for_one_board_and_a_virtual_one_is_another(tmp_path) -> None:
    real = Roots()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "edgeprof-simulation.json").write_text("{}")
    simulated = Roots(sysfs=tmp_path / "tree")
    kept = Calibrations(tmp_path)
    kept.put(Entry(board_name(BOARD, real), "chip", "IN", line=LINE))
    sensor = Rail([])
    assert isinstance(apply_calibrations([sensor], BOARD, real, kept)[0], Calibrated)
    assert apply_calibrations([sensor], BOARD, simulated, kept) == [sensor]
    assert apply_calibrations([sensor], Board(id="unknown", name="x", model="another"), real, kept) == [sensor]
    assert apply_calibrations([sensor], BOARD, real, Uncalibrated(tmp_path)) == [sensor]


def test_a_measured_time_constant_holds_for_the_settings_that_it_was_measured_at(tmp_path) -> None:
    kept = Calibrations(tmp_path)
    kept.put(Entry(BOARD.id, "ina3221", "VDD_IN", filter=MeasuredFilter(0.5, 0.02, 0.43, "2026-01-02", 8)))

    def tau(declared: float) -> tuple[float | None, float | None]:
        channel = Channel("ina3221", "VDD_IN", "power", filter=Filter("exponential", tau_s=declared, tau_limit=0.47))
        (found,) = apply_filters([channel], BOARD, Roots(), kept)
        return found.filter.tau_s, found.filter.tau_limit

    assert tau(0.43) == (0.5, pytest.approx(3**0.5 * 0.02 / 0.5))
    assert tau(0.0134) == (0.0134, 0.47)  # --fast-sensor


def test_the_file_is_readable_json(tmp_path) -> None:
    kept = Calibrations(tmp_path)
    kept.put(Entry("b", "s", "c", line=LINE))
    (entry,) = json.loads(kept.path.read_text())["entries"]
    assert entry["line"]["against"] == "meter"
