"""The choice of a model and hardware: arithmetic that was done by hand, and properties that hold for all results."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import pytest

from edgeprof.results import schema as s
from edgeprof.verdicts.choose import choose
from edgeprof.verdicts.product_power import Draw, draw
from edgeprof.verdicts.requirements import Requirements, from_toml
from tests.profiler.results import samples

#: 20 ms per inference at 5 W busy and 2 W idle: 0.1 J gross, 0.06 J net, at most 50 per second.
GROSS_J, IDLE_W, SECONDS = 0.1, 2.0, 0.02
STUDY = samples.study()
FAST, SLOW = samples.latency(0.02), samples.latency(0.2)
BASE = samples.variant(workloads=[])


def variant(
    name="int8", *, gross=GROSS_J, idle=IDLE_W, seconds=SECONDS, u=0.002, u_idle=0.0002, **changes
) -> s.Variant:
    """Return a measured variant with exact figures: five windows of 2 s."""
    count = round(2 / seconds)
    windows = [s.Window(start_s=3.0 * k, end_s=3.0 * k + count * seconds, inferences=count, order=k) for k in range(5)]
    figure = s.EnergyFigure(value=gross, expanded_uncertainty=u, ci95=(gross - u, gross + u), coverage_factor=2.0)
    net = s.EnergyFigure(value=gross - idle * seconds, expanded_uncertainty=u, ci95=None, budget=s.Budget(idle=u_idle))
    energy = s.Energy(
        provenance=changes.pop("provenance", "measured"),
        rail="VIN",
        covers=changes.pop("covers", "board"),
        gross=figure,
        net=net,
        marginal=s.Marginal(e_net_j=gross - idle * seconds, p_idle_w=idle, max_rate_hz=1 / seconds),
    )
    power = s.Power(mean=gross / seconds, max=None, idle=idle, idle_before=idle, idle_after=idle)
    known = {"throttled": False, "windows": windows, "energy_j_per_inference": energy, "power_w": power}
    return msgspec.structs.replace(BASE, name=name, **{**known, **changes})


def result(*variants, result_id="r", scenario="single-stream", rate_hz=None, **host) -> s.Result:
    made = msgspec.structs.replace(STUDY, protocol=msgspec.structs.replace(STUDY.protocol))
    made.id, made.host = result_id, samples.host(**host)
    made.protocol.scenario, made.protocol.rate_hz = scenario, rate_hz
    made.variants, made.comparisons, made.pareto, made.recommendation = list(variants), [], [], None
    return made


def asked(**changes) -> Requirements:
    return Requirements(**{"rate_hz": 10.0, **changes})


def only(choice):
    (row,) = choice.rows
    return row


def check(row, requirement):
    return next(c for c in row.checks if c.requirement == requirement)


class TestPower:
    def test_awake_all_the_time_it_is_idle_and_the_net_energy_at_the_rate(self):
        """2 W + 0.06 J · 10/s."""
        assert draw(variant(), asked()).watts == pytest.approx(2.6)

    def test_asleep_the_sleep_power_is_drawn_and_the_rest_comes_on_top(self):
        """0.25 · 2.6 W + 0.75 · 0.4 W + 1.9 W."""
        assert draw(variant(), asked(duty=0.25, sleep_w=0.4), 1.9).watts == pytest.approx(0.65 + 0.3 + 1.9)

    def test_without_a_sleep_power_the_device_idles(self):
        """2 W + 0.25 · 0.6 W."""
        assert draw(variant(), asked(duty=0.25)).watts == pytest.approx(2.15)

    def test_the_interval_is_by_hand(self):
        """10/s · 2 mJ + |1 − 0.2| · 2 · 0.2 mJ / 20 ms = 20 mW + 16 mW."""
        low, high = draw(variant(), asked()).ci95
        assert (high - low) / 2 == pytest.approx(0.036)

    def test_at_the_measured_rate_idle_does_not_matter(self):
        assert draw(variant(), asked(rate_hz=50.0)).ci95 == pytest.approx((4.9, 5.1))

    def test_hours_are_those_of_the_battery(self):
        found = Draw(2.0, (1.9, 2.1))
        assert found.hours(48.0) == pytest.approx(24.0)
        assert found.hours_ci95(48.0) == pytest.approx((48 / 2.1, 48 / 1.9))

    @pytest.mark.parametrize("missing", ["energy", "idle"])
    def test_what_is_missing_is_a_reason_and_no_figure(self, missing):
        made = variant()
        if missing == "energy":
            made.energy_j_per_inference = None
        else:
            made.power_w.idle = None
        assert isinstance(draw(made, asked()), str)

    def test_an_unknown_uncertainty_gives_no_interval(self):
        made = variant()
        made.energy_j_per_inference.gross.expanded_uncertainty = None
        assert draw(made, asked()).ci95 is None

    def test_the_interval_of_hours_contains_the_truth_also_under_a_common_gain_and_offset(self):
        """Figures are drawn with errors of the stated size; 95 % of the intervals must contain the true hours."""
        rng = random.Random(16)
        inside, trials = 0, 2000
        for _ in range(trials):
            want = asked(rate_hz=rng.uniform(0.1, 45), duty=rng.uniform(0.05, 1.0))
            if rng.random() < 0.5 and want.duty < 1:
                want = asked(rate_hz=want.rate_hz, duty=want.duty, sleep_w=rng.uniform(0, 1))
            gain, offset = rng.gauss(0, 0.01), rng.gauss(0, 0.02)
            noise, drift = rng.gauss(0, 0.0005), rng.gauss(0, 0.01)
            gross = GROSS_J * (1 + gain) + offset * SECONDS + noise
            idle = IDLE_W * (1 + gain) + offset + drift
            u = 2 * math.hypot(GROSS_J * 0.01, 0.02 * SECONDS, 0.0005)
            made = variant(gross=gross, idle=idle, u=u, u_idle=0.01 * SECONDS)
            made.energy_j_per_inference.gross.budget = s.Budget(
                gain=GROSS_J * 0.01, offset=0.02 * SECONDS, repeatability=0.0005
            )
            true_w = (
                want.duty * want.rate_hz * (GROSS_J - IDLE_W * SECONDS)
                + (1.0 if want.sleep_w is None else want.duty) * IDLE_W
                + (1 - want.duty) * (want.sleep_w or 0.0)
            )
            low, high = draw(made, want).hours_ci95(50.0)
            inside += low <= 50.0 / true_w <= high
        assert inside >= 0.95 * trials


class TestVerdicts:
    def test_a_battery_that_lasts_surely_too_short_or_perhaps(self):
        """2.6 W ± 0.036 W from 50 Wh: 19.23 h, from 18.97 to 19.50."""
        for hours, answer in ((18.9, "yes"), (19.2, "unsure"), (19.6, "no")):
            row = only(choose([result(variant())], asked(battery_wh=50.0, hours=hours)))
            assert row.answer == answer

    def test_a_rate_beyond_the_highest_is_a_no(self):
        assert only(choose([result(variant())], asked(rate_hz=51.0))).answer == "no"

    def test_p99_must_come_from_the_products_rate(self):
        want = asked(latency_p99_s=0.1)
        single = result(variant(latency_s=FAST))
        found = check(only(choose([single], want)), "latency")
        assert found.answer == "unknown"
        assert "--scenario periodic --rate 10 --windows 5 --window 20" in found.remedy
        camera = result(variant(latency_s=FAST), result_id="b", scenario="periodic", rate_hz=10.0)
        row = only(choose([single, camera], want))
        assert row.answer == "yes"
        assert set(row.results) == {"b", single.id}

    def test_a_benchmark_at_the_rate_with_too_few_requests_says_so(self):
        camera = result(variant(latency_s=samples.latency(0.02, samples=75)), scenario="periodic", rate_hz=10.0)
        found = check(only(choose([camera], asked(latency_p99_s=0.1))), "latency")
        assert (found.answer, "too few requests" in found.sentence) == ("unknown", True)

    def test_joules_that_no_benchmark_here_can_measure_send_to_the_doctor(self):
        made = result(variant(provenance="estimated", covers="cpu", power_w=None))
        found = check(only(choose([made], asked(battery_wh=50.0, hours=1.0))), "battery")
        assert (found.answer, "doctor" in found.remedy) == ("unknown", True)

    def test_a_single_stream_that_is_too_slow_says_no(self):
        made = result(variant(latency_s=FAST))
        assert only(choose([made], asked(latency_p99_s=0.015))).answer == "no"

    def test_the_lower_end_of_the_accuracy_counts(self):
        """0.90 ± 0.042 of 200."""
        made = [result(variant(accuracy=samples.accuracy(0.90)))]
        for least, answer in ((0.85, "yes"), (0.88, "unsure"), (0.95, "no")):
            assert only(choose(made, asked(metric="top1", accuracy_min=least))).answer == answer
        assert only(choose(made, asked(metric="f1", accuracy_min=0.5))).answer == "unknown"

    def test_a_rate_that_was_not_held_long_enough_is_unknown_and_one_that_throttled_a_no(self):
        made = variant()
        assert only(choose([result(made)], asked(sustained_s=9.0))).answer == "yes"
        row = only(choose([result(made)], asked(sustained_s=1800.0)))
        assert row.answer == "unknown"
        made.throttled = True
        assert only(choose([result(made)], asked(sustained_s=9.0))).answer == "unknown"
        camera = result(made, scenario="periodic", rate_hz=10.0)
        assert only(choose([camera], asked(sustained_s=9.0))).answer == "no"

    def test_a_module_alone_is_no_yes_before_the_owner_adds_the_rest(self):
        made = [result(variant(covers="module"))]
        want = {"battery_wh": 50.0, "hours": 10.0}
        row = only(choose(made, asked(**want)))
        assert row.answer == "unknown"
        assert "outside_w" in check(row, "battery").remedy
        content = {"product": {"rate": 10, **want}, "devices": {"orin-nano": {"outside_w": 0.5}}}
        assert only(choose(made, from_toml(content, Path("r.toml")))).answer == "yes"

    @pytest.mark.parametrize("provenance", ["simulated", "estimated"])
    def test_what_was_not_measured_stands_apart_and_is_no_yes(self, provenance):
        made = [result(variant()), result(variant(provenance=provenance), hostname="other", result_id="b")]
        found = choose(made, asked(battery_wh=50.0, hours=1.0))
        assert [group.origin for group in found.groups] == ["measured", provenance]
        assert [row.answer for row in found.rows] == ["yes", "unknown"]

    def test_rows_that_cover_different_things_are_grouped(self):
        made = [result(variant()), result(variant(covers="module"), hostname="other", result_id="b")]
        assert [group.covers for group in choose(made, asked()).groups] == ["board", "module"]

    def test_a_variant_that_failed_is_unknown_with_its_reason(self):
        made = variant(status="failed", reasons=[s.Reason("crashed", "the worker died")])
        found = choose([result(made)], asked())
        assert only(found).answer == "unknown"
        assert "the worker died" in only(found).checks[0].sentence
        assert found.exit_code == 3

    def test_the_fewest_watts_come_first(self):
        made = [result(variant("a"), variant("b", gross=0.08), variant("c", gross=0.12))]
        assert [row.variant for row in choose(made, asked()).rows] == ["b", "a", "c"]

    def test_watts_that_cannot_be_told_apart_are_tied(self):
        made = [result(variant("a"), variant("b", gross=0.1005), variant("c", gross=0.12))]
        (group,) = choose(made, asked()).groups
        assert [row.variant for row in group.ties] == ["b"]

    def test_the_nearest_row_and_the_battery_that_would_do(self):
        """24 h · 2.636 W = 63.3 Wh."""
        found = choose([result(variant(), variant("fat", gross=0.2))], asked(battery_wh=50.0, hours=24.0))
        assert found.exit_code == 1
        assert "int8" in found.change
        assert "63.3 Wh" in found.change

    def test_a_power_mode_that_fits_is_named_for_the_one_that_does_not(self):
        made = [result(variant(gross=0.3)), result(variant(), power_mode="7W", fingerprint="sha256:7", result_id="b")]
        found = choose(made, asked(battery_wh=50.0, hours=12.0))
        assert found.exit_code == 0
        assert "in 7W" in found.change


class TestProperties:
    @pytest.fixture
    def many(self):
        """Results with holes of every kind."""
        rng = random.Random(7)
        found = []
        for n in range(60):
            made = variant(
                f"v{n}",
                gross=rng.uniform(0.05, 0.3),
                provenance=rng.choice(["measured", "measured", "counter", "estimated", "simulated"]),
                covers=rng.choice(["board", "board", "board", "module", None]),
                latency_s=rng.choice([None, FAST, FAST, FAST, SLOW]),
                accuracy=rng.choice([None, *[samples.accuracy(0.9)] * 4, samples.accuracy(0.6)]),
                memory_bytes=rng.choice([None, *[s.Memory(peak_rss=30 << 20, loaded_rss=None, gpu_peak=None)] * 4]),
            )
            if rng.random() < 0.1:
                made.energy_j_per_inference = None
            if rng.random() < 0.1:
                made.power_w = None
            open_loop = rng.random() < 0.8
            found.append(
                result(
                    made,
                    result_id=f"r{n}",
                    hostname=f"h{n % 5}",
                    scenario="periodic" if open_loop else "single-stream",
                    rate_hz=10.0 if open_loop else None,
                )
            )
        return found

    WANT = asked(latency_p99_s=0.1, metric="top1", accuracy_min=0.7, memory_bytes=64 << 20, battery_wh=50.0, hours=12.0)

    def test_an_unknown_is_never_a_yes(self, many):
        rows = choose(many, self.WANT).rows
        for row in rows:
            assert row.answer != "yes" or all(c.answer == "yes" for c in row.checks)
        assert {row.answer for row in rows} >= {"yes", "no", "unknown"}

    @pytest.mark.parametrize("hidden", ["latency_s", "accuracy", "memory_bytes", "energy_j_per_inference", "power_w"])
    def test_whatever_is_hidden_no_row_that_needs_it_stays_a_yes(self, many, hidden):
        for made in many:
            setattr(made.variants[0], hidden, None)
        assert choose(many, self.WANT).fitting == []

    def test_another_row_never_changes_a_verdict(self, many):
        alone = {row.results: row.checks for made in many for row in choose([made], self.WANT).rows}
        rng = random.Random(3)
        for _ in range(5):
            rng.shuffle(many)
            together = choose(many[: rng.randint(2, len(many))], self.WANT).rows
            assert all(alone[row.results] == row.checks for row in together)

    @pytest.mark.parametrize("extreme", [0.0, 1e-300, 1e300, 1.7e308])
    def test_figures_beyond_the_world_end_in_a_verdict(self, many, extreme):
        """No figure of an edited result file may crash the command."""
        for made in many:
            if made.variants[0].energy_j_per_inference and made.variants[0].power_w:
                made.variants[0].energy_j_per_inference.gross.expanded_uncertainty = extreme
                made.variants[0].energy_j_per_inference.gross.value = extreme
                made.variants[0].power_w.idle = extreme
        assert all(row.answer in {"yes", "no", "unsure", "unknown"} for row in choose(many, self.WANT).rows)

    def test_every_unknown_says_what_to_do(self, many):
        unknowns = [c for row in choose(many, self.WANT).rows for c in row.checks if c.answer == "unknown"]
        assert unknowns
        assert all(c.remedy for c in unknowns)
