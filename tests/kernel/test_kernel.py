"""edgeprof against the kernel's own ina3221 and ina238 drivers, unmodified, in user-mode Linux.

What the drivers get is registers (i2c-stub), a device tree of the board, and averaging as the datasheet has it; what
edgeprof gets is the sysfs that they make of it. ``make test-kernel`` builds the kernel; without it these are skipped.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from edgeprof.simulation.board_specs import BOARDS
from tests.kernel import lab, trees

# Seconds each on an idle machine, and more patience than that on a busy one.
pytestmark = [pytest.mark.skipif(lab.absent() is not None, reason=lab.absent() or ""), pytest.mark.timeout(300)]

#: board: the rails that add up to its total, what they cover. From NVIDIA's documents, not from edgeprof's table.
TOTALS = {
    "jetson-nano": (["POM_5V_IN"], "module"),  # POM: power on module
    "jetson-tx2": (["VDD_IN"], "module"),
    "jetson-tx2-nx": (["VDD_IN"], "module"),
    "jetson-xavier-nx": (["VDD_IN"], "module"),
    "jetson-agx-xavier": (["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], "module"),
    "jetson-orin-nano": (["VDD_IN"], "module"),
    "jetson-orin-nx": (["VDD_IN"], "module"),
    "jetson-agx-orin": (["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "module"),
    "jetson-thor": (["VIN"], "board"),
    "unknown-carrier": ([], None),
}


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """Not looked at here: the guests of all boards are booted at the first test and run beside those that follow."""


@pytest.fixture(scope="module")
def surveys() -> dict[str, Future[Any]]:
    """Every board booted once, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {board: pool.submit(lab.run, "survey", board, real_time=True) for board in trees.MONITORED}


def powers(survey: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {channel["name"]: channel for channel in survey["channels"] if channel["quantity"] == "power"}


@pytest.mark.parametrize("board", trees.MONITORED)
def test_each_board_has_its_total_its_parts_and_its_watts(surveys: dict[str, Future[Any]], board: str) -> None:
    """Labels from the device tree, shunts and averaging from the driver, and no rail counted twice."""
    survey = surveys[board].result()
    found = powers(survey)
    totals, covers = TOTALS[board]
    assert survey["failures"] == []
    assert sorted(survey["headline"]["channels"]) == sorted(totals)
    if covers is not None:
        assert survey["headline"]["covers"] == covers
    else:
        assert survey["headline"]["reason"]
    for chip in BOARDS[board].chips:
        for number, rail in enumerate(chip.rails, 1):
            if rail is None:
                refused = [c for n, c in found.items() if n.endswith(f"{chip.address:04x} channel {number}")]
                assert [c["available"] for c in refused] == [False]
                assert refused[0]["reason"] == "disabled by the board"
                continue
            channel = found[rail.label]
            step = 2e-3 if chip.part == "ina238" else 40e-6 / rail.shunt_ohm * rail.volts
            assert channel["available"]
            assert channel["provenance"] == "measured"
            assert channel["value"] == pytest.approx(rail.idle_w, abs=step / 2 + 0.005 * rail.volts)
            if rail.inside is not None:
                assert rail.label not in survey["headline"]["channels"]


@pytest.mark.parametrize("board", [name for name in trees.MONITORED if name != "unknown-carrier"])
def test_the_time_constant_is_the_one_that_the_configuration_register_holds(
    surveys: dict[str, Future[Any]], board: str
) -> None:
    """edgeprof derives it from samples and a rounded update_interval; here the register can be read."""
    survey = surveys[board].result()
    found = powers(survey)
    for chip in BOARDS[board].chips:
        if chip.part == "ina238":
            assert found["VIN"]["kind"] == "block"
            continue
        samples, conversion = survey["configurations"][str(chip.address)]
        cycle = 2 * conversion * sum(rail is not None for rail in chip.rails)
        if chip.samples == 512:
            assert (samples, conversion) == (
                512,
                pytest.approx(chip.conversion_s),
            )  # nvpower.sh's writes, by the driver
        for rail in chip.rails:
            if rail is not None:
                assert found[rail.label]["cycle_s"] == pytest.approx(cycle)
                expected = samples * cycle if samples > 1 else None
                assert found[rail.label]["tau_s"] == (None if expected is None else pytest.approx(expected))


def test_bursts_behind_the_stock_filter_are_measured_right_from_20_ms_to_30_s() -> None:
    """tau 0.43 s. Within 0.5 % and what the sensor's own step allows; a plain trapezoid loses up to 70 %."""
    answer = lab.run(
        "bursts",
        "jetson-orin-nano",
        rail="VDD_IN",
        lengths=[[0.02, 4], [0.05, 3], [0.1, 3], [0.5, 1], [2, 1], [30, 1]],
        idle_w=4.0,
        burst_w=14.0,
        rate_hz=200.0,
    )
    assert answer["tau_s"] == pytest.approx(0.43, abs=0.001)
    assert answer["missed"] <= 0.01 * answer["samples"]
    assert answer["samples"] == pytest.approx(200 * answer["seconds"], rel=0.01)
    by_length: dict[float, list[float]] = {}
    for burst in answer["bursts"]:
        # The step in the two readings at the ends, weighted by tau, over the part of the window between them.
        step = answer["tau_s"] * answer["resolution"] / math.sqrt(6)
        inside = burst["length_s"] - 1.5 / 200
        allowed = 3 * step * burst["length_s"] / inside + 0.005 * burst["true_j"]
        assert burst["joules"] == pytest.approx(burst["true_j"], abs=allowed), burst
        assert burst["u_filter"] > 0
        by_length.setdefault(round(burst["length_s"], 3), []).append(burst["joules"] / burst["true_j"])
    assert by_length[30] == [pytest.approx(1, abs=0.001)]
    assert by_length[2] == [pytest.approx(1, abs=0.003)]
    shortest = min(answer["bursts"], key=lambda burst: burst["length_s"])
    assert shortest["plain_j"] < 0.35 * shortest["true_j"]


def test_joules_of_all_rails_of_a_board_without_a_total_agree_with_the_truth() -> None:
    """AGX Orin: two chips, other time constants, each rail its own waveform, steps of 380 mW."""
    answer = lab.run(
        "steady_window",
        "jetson-agx-orin",
        waveforms={
            "VDD_GPU_SOC": "square:5W,25W,300ms",
            "VDD_CPU_CV": "sine:2W,10W,1s",
            "VIN_SYS_5V0": "constant:5W",
            "VDDQ_VDD2_1V8AO": "ramp:1W,2W,700ms",
        },
        settle_s=3.0,
        window_s=6.3,
    )
    total = {"joules": 0.0, "true_j": 0.0}
    for name, rail in answer["rails"].items():
        step = 0.38 if name.startswith(("VDD_GPU", "VDD_CPU")) else 0.1
        assert rail["joules"] == pytest.approx(rail["true_j"], rel=0.002, abs=3 * 0.43 * step / math.sqrt(6)), name
        if name in answer["headline"]:
            total = {key: total[key] + rail[key] for key in total}
    assert total["true_j"] == pytest.approx((15 + 6 + 5) * 6.3, rel=0.02)
    assert total["joules"] == pytest.approx(total["true_j"], rel=0.003)


def test_the_ina238s_block_average_agrees_with_the_truth() -> None:
    """Ten whole periods, cut where the power is flat: 50 ms are lost or won where it jumps."""
    answer = lab.run(
        "steady_window", "jetson-thor", waveforms={"VIN": "square:30W,80W,500ms"}, settle_s=0.625, window_s=5.0
    )
    assert answer["rails"]["VIN"]["joules"] == pytest.approx(275.0, rel=0.003)


def test_a_rail_that_is_switched_off_and_one_without_label_leave_the_others_alone() -> None:
    changes = trees.Changes(disabled=("VDD_SOC",), unlabelled=("VDD_CPU_GPU_CV",))
    survey = lab.run("survey", "jetson-orin-nano", changes, real_time=True, off=["VDD_SOC"])
    found = powers(survey)
    assert survey["headline"]["channels"] == ["VDD_IN"]
    assert found["VDD_CPU_GPU_CV"]["available"]  # by its place on the board
    (refused,) = [channel for channel in found.values() if not channel["available"]]
    assert refused["reason"] == "disabled by the board"
    assert survey["errnos"] == {"0040 channel 1": None, "0040 channel 2": None, "0040 channel 3": "ENODATA"}


def test_a_missing_part_makes_a_sum_unavailable_and_not_smaller() -> None:
    changes = trees.Changes(disabled=("VDD_CPU_CV",))
    survey = lab.run("survey", "jetson-agx-orin", changes, real_time=True, off=["VDD_CPU_CV"])
    assert survey["headline"]["channels"] == []
    assert "VDD_CPU_CV" in survey["headline"]["reason"]


def test_negative_watts_keep_their_sign_and_too_many_are_clipped_by_the_part() -> None:
    """A step below zero is −20 mA; 81.9 A is the end of the range at 2 mΩ."""
    survey = lab.run("survey", "jetson-agx-orin", real_time=True, watts={"VDD_GPU_SOC": -0.38, "VIN_SYS_5V0": 1000.0})
    found = {(c["name"], c["quantity"]): c["value"] for c in survey["channels"]}
    assert found["VDD_GPU_SOC", "current"] == pytest.approx(-0.02)
    assert found["VDD_GPU_SOC", "power"] == pytest.approx(-0.38)
    assert found["VIN_SYS_5V0", "current"] == pytest.approx(81.9)


def test_a_shunt_of_5_micro_ohms_is_recognised_as_a_slip_for_5_milli_ohms() -> None:
    """Mainline's device tree of the TX2 NX says 5 µΩ: the driver's current is a thousand times too high."""
    changes = trees.Changes(shunts_uohm={"VDD_IN": 5, "VDD_CPU_GPU": 5, "VDD_SOC": 5})
    survey = lab.run("survey", "jetson-tx2-nx", changes, real_time=True)
    assert powers(survey)["VDD_IN"]["value"] == pytest.approx(2.2, abs=0.025)


def test_a_chip_that_goes_away_under_open_files_is_a_gap_and_comes_back() -> None:
    answer = lab.run("removal", "jetson-orin-nano")
    assert answer["errno"] == "ENODEV"
    assert len(answer["before"]) > 80
    assert set(answer["before"]) == {8.0}
    assert not any(answer["during"])  # nothing is invented
    assert len(answer["after"]) > 50
    assert set(answer["after"]) == {8.0}
    assert answer["max_gap_s"] >= 1.9


def test_a_conversion_that_never_ends_is_a_reason_and_not_a_crash() -> None:
    answer = lab.run("single_shot", "jetson-orin-nano", trees.Changes(single_shot=True))
    assert answer["errno"] == "ETIMEDOUT"
    assert 0.005 < answer["took_s"] < 1
    assert {available for _, quantity, available, _ in answer["silent"] if quantity == "power"} == {False}
    assert all("timed out" in reason for *_, reason in answer["silent"])
    assert {available for _, quantity, available, _ in answer["ready"] if quantity == "power"} == {True}


def test_a_whole_bench_gives_the_true_joules_per_inference() -> None:
    """`edgeprof bench` of a callable that sleeps 10 ms, on rails that average 9 W: 9 W times its latency."""
    answer = lab.run(
        "bench",
        "jetson-orin-nano",
        waveforms={"VDD_IN": "square:6W,12W,40ms", "VDD_SOC": "constant:1W"},
        callable_file=f"{lab.HERE / 'nap.py'}:nap",
        arguments=["--windows", "3", "--window", "1", "--warmup", "0.2", "--idle", "0.5", "--sensor", "ina3221"],
    )
    assert answer["code"] == 0
    (variant,) = answer["result"]["variants"]
    energy, seconds = variant["energy_j_per_inference"], variant["latency_s"]["mean"]
    assert seconds == pytest.approx(0.010, rel=0.02)
    assert energy["provenance"] == "measured"
    assert (energy["rail"], energy["covers"]) == ("VDD_IN", "module")
    assert energy["gross"]["value"] == pytest.approx(9 * seconds, rel=0.005)
    low, high = energy["gross"]["ci95"]
    assert low < 9 * seconds < high
    assert energy["rails"]["VDD_SOC"] == pytest.approx(seconds, rel=0.005)
    assert energy["net"]["value"] is None  # the load draws nothing: there is no net energy to speak of


SHORT = ["--windows", "2", "--window", "0.5", "--warmup", "0.1", "--idle", "0.2", "--sensor", "ina3221"]


@pytest.mark.parametrize("board", ["jetson-nano", "jetson-agx-orin", "jetson-thor"])
def test_a_short_bench_quotes_the_boards_total(board: str) -> None:
    """Each rail of the total at a power of its own, those inside others too: the joules are the total's alone.

    One rail, a sum over two chips and an INA238; what the total of every other board is, its survey says.
    """
    rails, covers = TOTALS[board]
    watts = {
        rail.label: round((10.0 if rail.label in rails else 1.0) + 0.5 * number, 1)  # a whole draws more than its parts
        for number, rail in enumerate(r for chip in BOARDS[board].chips for r in chip.rails if r is not None)
    }
    answer = lab.run(
        "bench",
        board,
        waveforms={name: f"constant:{power}W" for name, power in watts.items()},
        callable_file=f"{lab.HERE / 'nap.py'}:nap",
        arguments=[*SHORT, "--sensor", "hwmon"],
    )
    assert answer["code"] == 0
    (variant,) = answer["result"]["variants"]
    energy, seconds = variant["energy_j_per_inference"], variant["latency_s"]["mean"]
    assert (sorted(energy["rail"].split(" + ")), energy["covers"]) == (sorted(rails), covers)
    # Steps of up to 380 mW, which the budget holds.
    steps = {s["channel"]: s["resolution"] or 0.05 for s in answer["result"]["sensors"] if s["quantity"] == "power"}
    allowed = sum(steps[name] / 2 + 0.01 * watts[name] for name in rails)
    if energy["gross"]["value"] is None:
        assert {reason["code"] for reason in variant["reasons"]} >= {"uncertain"}
    assert variant["power_w"]["mean"] == pytest.approx(sum(watts[name] for name in rails), abs=allowed)
    for name, joules in energy["rails"].items():
        assert joules == pytest.approx(watts[name] * seconds, abs=(steps[name] / 2 + 0.01 * watts[name]) * seconds)


def test_a_fast_sensor_is_the_real_drivers_for_one_run_and_then_as_it_was() -> None:
    answer = lab.run(
        "bench",
        "jetson-orin-nano",
        waveforms={"VDD_IN": "constant:9W"},
        callable_file=f"{lab.HERE / 'nap.py'}:nap",
        arguments=[*SHORT, "--fast-sensor"],
    )
    assert answer["code"] == 0
    result = answer["result"]
    (use,) = [s for s in result["sensors"] if (s["channel"], s["quantity"]) == ("VDD_IN", "power")]
    assert use["filter"]["tau_s"] == pytest.approx(16 * 6 * 140e-6, rel=0.01)
    assert "16 samples instead of 512" in " ".join(reason["message"] for reason in result["reasons"])
    assert answer["samples"] == {"40": 512}
    assert answer["registers"] == {"40": 512}


def test_a_second_chip_of_the_same_address_on_another_bus_leaves_the_total_what_it_is() -> None:
    answer = lab.run("two_buses", "jetson-orin-nano", second_bus=[0x40])
    assert answer["headline"] == [["VDD_IN", "i2c 0-0040"]]
    assert answer["watts"]["VDD_IN/power"] == pytest.approx(9.0, abs=0.05)
    foreign = [name for name in answer["watts"] if "1-0040" in name]
    assert len(foreign) == 3


SHARES = {"VDD_IN": 1.0, "VDD_CPU_GPU_CV": 0.5, "VDD_SOC": 0.2}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        (None, set()),
        (trees.Changes(shunts_uohm={"VDD_IN": 10_000}), {("parts", "VDD_IN")}),
    ],
    ids=["healthy", "shunt taken for twice its value"],
)
def test_a_proof_passes_a_healthy_board_and_finds_a_wrong_shunt(
    changes: trees.Changes | None, failed: set[tuple[str, str]]
) -> None:
    answer = lab.run("proof", "jetson-orin-nano", changes, shares=SHARES, idle_w=4.0, load_w=10.0)
    found = {(check["name"], check["subject"]) for check in answer["checks"] if check["verdict"] == "failed"}
    assert found == failed
    (tau,) = [c for c in answer["checks"] if c["name"] == "filter" and c["subject"] == "VDD_IN"]
    assert tau["low"] < 0.43008 < tau["high"]
