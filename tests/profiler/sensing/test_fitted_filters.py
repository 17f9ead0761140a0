"""Time constants that a bench fitted are stored for the next one, but never replace those of ``calibrate --filter``."""

from __future__ import annotations

from dataclasses import replace

from edgeprof.roots import Roots
from edgeprof.sensing.board.topology import Board
from edgeprof.sensing.corrections import Calibrations, MeasuredFilter, apply_filters, board_name, keep_fitted
from edgeprof.sensing.sensor import Channel, Filter

RAIL = Channel("ina3221", "VDD_IN", "power", filter=Filter("exponential", tau_s=0.43, tau_limit=0.47))
BOARD = Board(id="jetson-orin-nano", name="Jetson Orin Nano", model="Jetson Orin Nano")


def kept_after(tmp_path, channel: Channel, fit: MeasuredFilter):
    store = Calibrations(tmp_path)
    names = keep_fitted([channel], {channel.key: fit}, board_name(BOARD, Roots()), store)
    (following,) = apply_filters([RAIL], BOARD, Roots(), store)
    return names, following


def test_the_next_bench_begins_with_what_this_one_fitted(tmp_path):
    fit = MeasuredFilter(0.627, 0.004, 0.43, "2026-11-29T23:00:00+00:00", 2)
    names, following = kept_after(tmp_path, RAIL, fit)
    assert names == ["VDD_IN"]
    assert following.filter.tau_s == 0.627
    assert following.filter.tau_limit < 0.02


def test_a_fit_that_is_not_sure_is_not_kept(tmp_path):
    assert kept_after(tmp_path, RAIL, MeasuredFilter(0.6, 0.05, 0.43, "", 1)) == ([], RAIL)


def test_what_calibrate_measured_stays(tmp_path):
    measured = replace(RAIL, filter=replace(RAIL.filter, tau_limit=0.01))
    assert kept_after(tmp_path, measured, MeasuredFilter(0.6, 0.005, 0.43, "", 2))[0] == []


def test_a_data_directory_that_cannot_be_written_costs_no_bench(tmp_path):
    (tmp_path / "file").write_text("")
    fit = MeasuredFilter(0.627, 0.004, 0.43, "", 2)
    assert keep_fitted([RAIL], {RAIL.key: fit}, "board", Calibrations(tmp_path / "file")) == []
