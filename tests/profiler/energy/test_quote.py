"""Joules per inference of synthetic runs: the interval contains the truth, and uncertain figures are withheld."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from edgeprof.energy.figures import make_figure
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.quote import estimate_joules, measure_spans, nothing_measured
from edgeprof.energy.uncertainty import Component
from edgeprof.sensing.sensor import Channel
from edgeprof.worker.span import WINDOW, Span
from tests.profiler import synthetic


def measured(run, parts=(), **changes):
    return measure_spans(
        [run.series], parts, run.windows, changes.pop("idles", run.idles), covers="module", rail="VDD_IN"
    )


def codes(found):
    return {reason.code for reason in found.reasons}


def test_gross_and_net_of_a_steady_run():
    found = measured(synthetic.run(busy=8, idle=3, window_s=2, inferences=100))
    energy = found.energy
    assert energy.gross.value == pytest.approx(8 * 2 / 100, rel=1e-3)
    assert energy.net.value == pytest.approx(5 * 2 / 100, rel=2e-3)
    assert (energy.provenance, energy.rail, energy.covers) == ("measured", "VDD_IN", "module")
    assert found.power.mean == pytest.approx(8, rel=1e-3)
    assert found.power.idle == pytest.approx(3, rel=1e-3)
    assert found.power.max == pytest.approx(8, abs=0.15)
    assert found.windows == pytest.approx([16.0] * 5, rel=2e-3)
    assert found.reasons == []


def test_the_interval_is_the_value_plus_minus_u_and_holds_the_truth():
    gross = measured(synthetic.run(spread=0.01)).energy.gross
    low, high = gross.ci95
    assert low < 0.16 < high
    assert high - low == pytest.approx(2 * gross.expanded_uncertainty)
    assert len(gross.windows) == 5


def test_the_budget_is_what_the_rules_say():
    """GUM: s/√K minus the sensor's scatter; the gain acts on the energy, the offset on the time of an inference."""
    run = synthetic.run(spread=0.02)
    gross = measured(run).energy.gross
    windows = np.array(gross.windows)
    budget = gross.budget
    assert budget.repeatability == pytest.approx(windows.std(ddof=1) / math.sqrt(5), rel=1e-3)
    assert budget.gain == pytest.approx(gross.value * 0.01 / math.sqrt(3))
    assert budget.offset == pytest.approx(0.02 / math.sqrt(3) * 2 / 100)
    u = math.sqrt(sum(x**2 for x in (
        budget.repeatability, budget.gain, budget.offset, budget.sync, budget.resolution, budget.filter)))  # fmt: skip
    assert gross.expanded_uncertainty == pytest.approx(gross.coverage_factor * u)
    assert gross.degrees_of_freedom >= 4
    assert gross.coverage_factor < 2.777


def test_a_gain_error_is_not_averaged_away_by_windows():
    few = measured(synthetic.run(windows=3)).energy.gross.budget
    many = measured(synthetic.run(windows=20)).energy.gross.budget
    assert many.gain == pytest.approx(few.gain, rel=0.01)
    # The error from the step at a constant level is not smaller either: it is the same in every window.
    assert many.resolution == pytest.approx(few.resolution, rel=0.1)
    assert many.sync <= few.sync


def test_an_offset_cancels_in_the_net_energy_and_the_gain_acts_on_it():
    run = synthetic.run()
    shifted = replace(run.series, values=np.asarray(run.series.values) + 0.5)
    honest = measured(run).energy.net
    offset = measure_spans([shifted], [], run.windows, run.idles, covers=None, rail=None).energy.net
    assert offset.value == pytest.approx(honest.value, rel=1e-6)
    assert honest.budget.offset is None
    assert honest.budget.gain == pytest.approx(honest.value * 0.01 / math.sqrt(3), rel=1e-6)


def test_marginal_law_tells_the_energy_at_any_rate():
    """E(rate) = E_net + P_idle / rate: at the highest rate it is the gross energy again."""
    found = measured(synthetic.run(busy=8, idle=3, window_s=2, inferences=100))
    law = found.energy.marginal
    assert law.max_rate_hz == pytest.approx(50)
    assert law.e_net_j + law.p_idle_w / law.max_rate_hz == pytest.approx(found.energy.gross.value, rel=1e-3)


def test_a_drifting_idle_is_followed_by_a_line_and_told():
    found = measured(synthetic.run(idle=3.0, idle_after=3.6))
    assert "idle_drift" in codes(found)
    # The windows lie around the middle between both idles, where the line is at 3.3 W.
    assert found.energy.net.value == pytest.approx((8 - 3.3) * 2 / 100, rel=0.01)
    steady = measured(synthetic.run()).energy.net.budget.idle
    assert found.energy.net.budget.idle > 3 * steady
    assert (found.power.idle_before, found.power.idle_after) == pytest.approx((3.0, 3.6), rel=0.01)


def test_no_net_number_whose_uncertainty_is_a_fifth_of_it():
    """For few windows, three standard uncertainties may be as large as the value: 2.9 ± 2.9 mJ is useless."""
    found = measured(synthetic.run(busy=3.3, idle=3.0, spread=0.015))
    assert found.energy.gross.value is not None
    assert found.energy.net.value is None
    (reason,) = [r for r in found.reasons if r.code == "net_uncertain"]
    assert re.search(r"uncertainty of \d+ % of it, mostly \w+: beyond 20 % it is not quoted", reason.message)


def test_no_net_number_when_it_is_lost_in_the_idle():
    found = measured(synthetic.run(busy=3.02, idle=3.0, spread=0.01))
    assert found.energy.net.value is None
    assert found.energy.net.ci95 is None
    assert found.energy.gross.value is not None
    assert "net_uncertain" in codes(found)


def test_no_gross_number_beyond_twenty_percent():
    found = measured(synthetic.run(windows=3, spread=0.5, seed=4))
    assert found.energy.gross.value is None
    assert found.energy.gross.ci95 is None
    reason = next(r for r in found.reasons if r.code == "uncertain")
    assert "repeatability" in reason.message
    assert "--windows" in reason.remedy


def test_without_an_idle_the_net_energy_is_unknown_and_the_rest_stands():
    found = measured(synthetic.run(), idles=[])
    assert found.energy.net.value is None
    assert found.energy.gross.value is not None
    assert found.energy.marginal is None
    assert "no_idle" in codes(found)


def test_a_total_of_several_rails_is_their_sum_and_the_errors_of_one_chip_go_together():
    run = synthetic.run()
    rails = [replace(run.series, channel=replace(synthetic.RAIL, name=name)) for name in ("CPU", "GPU", "SYS")]
    one = measured(run).energy
    three = measure_spans(rails, [], run.windows, run.idles, covers="module", rail="CPU + GPU + SYS").energy
    assert three.gross.value == pytest.approx(3 * one.gross.value)
    assert three.rails == pytest.approx(dict.fromkeys(("CPU", "GPU", "SYS"), one.gross.value))
    # The rails share one converter and its offset: 3 times. Gains come mainly from each rail's own shunt: √3 times.
    assert three.gross.budget.offset == pytest.approx(3 * one.gross.budget.offset)
    assert three.gross.budget.gain == pytest.approx(math.sqrt(3) * one.gross.budget.gain)
    chips = [
        replace(r, channel=replace(r.channel, location=f"i2c 1-004{i} channel 1")) for i, r in enumerate(rails)
    ]  # fmt: skip
    apart = measure_spans(chips, [], run.windows, run.idles, covers="module", rail="sum").energy
    assert apart.gross.budget.offset == pytest.approx(math.sqrt(3) * one.gross.budget.offset)


def test_a_missing_part_makes_the_total_unavailable_and_not_smaller():
    run = synthetic.run()
    dead = replace(
        run.series, channel=replace(synthetic.RAIL, name="GPU"), values=np.full(len(run.series.times), math.nan)
    )
    found = measure_spans([run.series, dead], [], run.windows, run.idles, covers="module", rail="sum")
    assert found.energy.gross.value is None
    assert found.windows == [None] * 5
    assert "no_samples" in codes(found)
    assert found.energy.rails == {}


def test_one_window_lost_leaves_the_others():
    run = synthetic.run()
    values = np.asarray(run.series.values).copy()
    start, end = run.windows[2].start_s, run.windows[2].end_s
    times = np.asarray(run.series.times)
    values[(times > start - 0.1) & (times < end + 0.1)] = math.nan
    found = measure_spans([replace(run.series, values=values)], [], run.windows, run.idles, covers=None, rail="VDD_IN")
    assert [joules is None for joules in found.windows] == [False, False, True, False, False]
    assert found.energy.gross.value == pytest.approx(0.16, rel=1e-3)
    assert "gaps" in codes(found)


def test_parts_are_told_each_on_its_own_and_never_added():
    run = synthetic.run()
    part = replace(run.series, channel=replace(synthetic.RAIL, name="VDD_CPU", role="part", parent="VDD_IN"))
    found = measured(run, [part])
    assert found.energy.gross.value == pytest.approx(0.16, rel=1e-3)
    assert set(found.energy.rails) == {"VDD_IN", "VDD_CPU"}


def test_a_rail_with_power_and_counter_is_told_once():
    run = synthetic.run()
    twice = replace(synthetic.counter(run).channel, sensor="ina3221", name="VDD_IN")
    found = measured(run, [replace(synthetic.counter(run), channel=twice)])
    assert set(found.energy.rails) == {"VDD_IN"}


def test_a_counter_says_so_and_its_offset_is_a_power():
    run = synthetic.run()
    series = synthetic.counter(run, gain_limit=0.05, offset_limit=1.0, resolution=15e-6)
    found = measure_spans([series], [], run.windows, run.idles, covers="package", rail="package-0")
    assert found.energy.provenance == "counter"
    assert found.energy.gross.value == pytest.approx(0.16, rel=2e-3)
    assert found.energy.gross.budget.offset == pytest.approx(1.0 / math.sqrt(3) * 2 / 100)
    assert found.energy.net.budget.offset is None
    assert found.power.max is None


def test_the_worst_provenance_of_the_parts_is_that_of_the_sum():
    run = synthetic.run()
    simulated = replace(run.series, channel=replace(synthetic.RAIL, name="GPU", provenance="simulated"))
    found = measure_spans([run.series, simulated], [], run.windows, run.idles, covers=None, rail="sum")
    assert found.energy.provenance == "simulated"


def test_a_filtered_rail_has_the_filter_in_its_budget():
    run = synthetic.run(channel=synthetic.exponential(0.43))
    assert measured(run).energy.gross.budget.filter > 0
    assert measured(synthetic.run()).energy.gross.budget.filter == 0


def test_an_unstated_gain_is_left_out_and_told():
    run = synthetic.run(channel=Channel("hwmon", "VDD_IN", "power"))
    found = measured(run)
    assert found.energy.gross.budget.gain is None
    assert "gain_unknown" in codes(found)


def test_a_single_window_has_an_interval_of_the_sensor_alone_and_says_so():
    found = measured(synthetic.run(windows=1))
    assert found.energy.gross.budget.repeatability is None
    assert 0.95 * math.sqrt(3) <= found.energy.gross.coverage_factor <= 1.96
    assert "one_window" in codes(found)


def test_the_median_of_the_windows_where_the_protocol_wants_it():
    run = synthetic.run(spread=0.05)
    found = measure_spans([run.series], [], run.windows, run.idles, covers=None, rail=None, statistic="median")
    gross = found.energy.gross
    assert gross.value == sorted(gross.windows)[2] == gross.median
    plain = measured(run).energy.gross
    assert gross.budget.repeatability == pytest.approx(plain.budget.repeatability * math.sqrt(math.pi / 2), rel=1e-3)


@pytest.mark.parametrize("windows", [[], [Span(WINDOW, 4.0, 6.0, 0)]])
def test_no_window_or_no_inference_is_no_figure(windows):
    run = synthetic.run()
    found = measure_spans([run.series], [], windows, run.idles, covers=None, rail="VDD_IN")
    assert found.energy.gross.value is None
    assert codes(found) == {"no_inferences"}


def test_no_sensor_is_said_and_not_zero():
    for found in (
        measure_spans([], [], [Span(WINDOW, 0, 1)], [], covers=None, rail=None),
        nothing_measured("nothing measures here"),
    ):
        assert found.energy.provenance == "none"
        assert found.energy.gross.value is None
        assert codes(found) == {"no_sensor"}


@pytest.mark.slow
def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100():
    """Windows that differ by 2 %, a gain and an offset drawn within their limits: benchmarks/coverage.py has more."""
    rng = np.random.default_rng(17)
    hits = 0
    runs = 200
    for seed in range(runs):
        run = synthetic.run(windows=5, window_s=0.5, idle_s=1.0, spread=0.02, seed=seed)
        gain, offset = 1 + rng.uniform(-0.01, 0.01), rng.uniform(-0.02, 0.02)
        series = replace(run.series, values=np.asarray(run.series.values) * gain + offset)
        low, high = measure_spans([series], [], run.windows, run.idles, covers=None, rail=None).energy.gross.ci95
        hits += low <= 8 * 0.5 / 100 <= high
    assert hits / runs >= 0.90


def test_an_estimate_is_cpu_time_times_watts_and_says_how_little_that_is_worth():
    windows = [Span(WINDOW, start, start + 2.0, 10) for start in (0.0, 3.0, 6.0)]
    found = estimate_joules(windows, [1.0, 1.1, 0.9], 4.0, reason="no sensor")
    energy = found.energy
    assert energy.provenance == "estimated"
    assert energy.gross.value == pytest.approx(0.4)
    low, high = energy.gross.ci95
    assert low <= 0.2
    assert high >= 0.6
    assert energy.gross.budget.model == pytest.approx(0.4 * 0.5 / 1.96)
    assert energy.net.value is None
    assert found.windows == pytest.approx([4.0, 4.4, 3.6])
    assert found.power.mean == pytest.approx(2.0)
    assert "no sensor" in found.reasons[0].message


@pytest.mark.parametrize("cpu_s", [None, 0.0, 0.0005])
def test_work_that_another_process_does_has_no_estimate_and_the_reason_says_so(cpu_s):
    """A model behind a server uses no CPU time of its client, so that an estimate of 0 ± 0 J would be wrong."""
    found = estimate_joules([Span(WINDOW, 0.0, 1.0, 5)], [cpu_s], 4.0)
    assert found.energy.gross.value is None
    assert found.energy.provenance == "none"
    assert codes(found) == {"no_cpu_time"}
    assert "cannot be estimated" in found.reasons[0].message
    assert "×" not in found.reasons[0].message
    # At a fixed rate most of a window is a pause: only the working time counts.
    at_a_rate = estimate_joules([Span(WINDOW, 0.0, 1.0, 5)], [cpu_s], 4.0, working_s=0.005)
    assert (at_a_rate.energy.gross.value is not None) == bool(cpu_s)


def test_an_estimate_needs_a_wattage():
    with pytest.raises(ValueError, match="make no estimate"):
        estimate_joules([Span(WINDOW, 0.0, 1.0, 5)], [1.0], 0.0)


def test_series_may_be_plain_lists():
    series = ChannelSeries(synthetic.RAIL, [0.0, 1.0, 2.0, 3.0, 4.0], [5.0] * 5)
    found = measure_spans([series], [], [Span(WINDOW, 0.5, 3.5, 3)], [], covers=None, rail=None)
    assert found.energy.gross.value == pytest.approx(5.0)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("beyond", [1.0, 2.0, 4.0])
def test_the_interval_of_few_windows_holds_whatever_they_scatter_beyond_the_sensor(count, beyond):
    """At least 92 of 100 intervals; the rest of a scatter after a subtraction is known no better than the scatter."""
    rng = np.random.default_rng(count)
    held = 0
    for values in 1000 + math.hypot(1, beyond) * rng.normal(size=(600, count)):
        known = [Component("sync", 1 / math.sqrt(count), random=True)]
        low, high = make_figure(values.tolist(), known).figure.ci95
        held += low <= 1000 <= high
    assert held / 600 > 0.90


def test_windows_that_follow_one_another_are_remarked():
    run = synthetic.run(windows=10)
    rising = replace(run.series, values=np.asarray(run.series.values) * (1 + 0.01 * np.asarray(run.series.times)))
    found = measure_spans([rising], [], run.windows, run.idles, covers=None, rail=None)
    assert found.energy.gross.autocorrelation > 0.6
    assert "correlated_windows" in codes(found)
    steady = measure_spans([run.series], [], run.windows[:4], run.idles, covers=None, rail=None)
    assert steady.energy.gross.autocorrelation is None
    assert "correlated_windows" not in codes(steady)


def test_the_highest_reading_says_over_what_it_is_an_average():
    run = synthetic.run(channel=synthetic.exponential(0.43))
    assert measure_spans([run.series], [], run.windows, [], covers=None, rail=None).power.max_over_s == 0.43
    run = synthetic.run()
    assert measure_spans([run.series], [], run.windows, [], covers=None, rail=None).power.max_over_s is None


def test_a_part_that_is_a_model_is_named_and_leaves_the_sum_what_it_is():
    run = synthetic.run()
    package = synthetic.counter(run, gain_limit=0.05)
    memory = synthetic.counter(run, gain_limit=0.3, offset_limit=2.0)
    memory = replace(memory, channel=replace(memory.channel, name="dram-0", provenance="estimated"))
    found = measure_spans([package, memory], [], run.windows, run.idles, covers=None, rail=None)
    assert found.energy.provenance == "counter"
    assert [reason.message for reason in found.reasons if reason.code == "estimated_part"] == [
        "dram-0 is an estimate within the total: how far off is in the uncertainty"
    ]
    alone = measure_spans([memory], [], run.windows, run.idles, covers=None, rail=None)
    assert alone.energy.provenance == "estimated"
    assert "estimated_part" not in codes(alone)
