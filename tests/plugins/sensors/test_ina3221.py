"""INA3221 under both drivers: right numbers, the rest named with a reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.tree import set_power
from edgeprof.testing.sensors import check_sensor
from edgeprof_plugins.sensors import ina3221

if TYPE_CHECKING:
    from edgeprof.sensing.sensor import Channel, Sensor

MONITORED = [name for name, spec in BOARDS.items() if any(chip.part.startswith("ina3221") for chip in spec.chips)]


def powers(sensors: list[Sensor]) -> dict[str, Channel]:
    return {c.name: c for s in sensors for c in s.channels if c.quantity == "power"}


def refused(sensors: list[Sensor]) -> dict[str, str | None]:
    return {c.name: c.reason for s in sensors for c in s.unavailable}


def watts(sensors: list[Sensor]) -> dict[str, float | None]:
    rows = [s.read_once() for s in sensors if s.channels]
    return {key.removesuffix("/power"): value for row in rows for key, value in row.items() if key.endswith("/power")}


@pytest.mark.parametrize("board", MONITORED)
def test_every_rail_reads_what_the_chip_shows(tree, board: str) -> None:
    layout, roots = tree(board)
    shown = {
        name: set_power(layout, name, 0.5 * (rail.idle_w + rail.busy_w))
        for name, rail in layout.rails.items()
        if rail.kind.startswith("ina3221")
    }
    seen = watts(ina3221.find(roots))
    # JetPack 4's power file is cut to whole mW; the pair of volts and amperes is not.
    assert seen == pytest.approx(shown, abs=1e-3)


@pytest.mark.parametrize("board", ["jetson-nano", "jetson-agx-orin", "jetson-thor"])
def test_conforms_to_the_contract(tree, board: str) -> None:
    _, roots = tree(board)
    for sensor in ina3221.find(roots):
        check_sensor(sensor)


def test_a_negative_reading_keeps_its_sign(tree) -> None:
    layout, roots = tree("jetson-thor")
    assert set_power(layout, "VDD_GPU", -0.4) == pytest.approx(-0.392)  # one step of 20 mA at 19.6 V
    assert watts(ina3221.find(roots))["VDD_GPU"] == pytest.approx(-0.392)


def test_unconnected_channels_are_listed_and_not_read(tree) -> None:
    _, roots = tree("jetson-agx-orin")
    sensors = ina3221.find(roots)
    assert refused(sensors) == {
        "1-0041 channel 1": "disabled by the board",
        "1-0041 channel 3": "disabled by the board",
    }
    assert "VDDQ_VDD2_1V8AO" in powers(sensors)


def test_channels_labelled_nc_are_unconnected_but_a_name_with_nc_in_it_is_a_rail(tree) -> None:
    layout, roots = tree("jetson-agx-orin", nc_label=True)
    (layout.rails["VDD_CPU_CV"].directory / "in2_label").write_text("VDD_SYNC\n")
    sensors = ina3221.find(roots)
    assert "VDD_SYNC" in powers(sensors)
    assert set(refused(sensors)) == {"1-0041 channel 1", "1-0041 channel 3"}


def test_a_rail_switched_off_is_named_and_the_others_read_on(tree) -> None:
    _, roots = tree("jetson-orin-nano", disabled=["VDD_SOC"])
    sensors = ina3221.find(roots)
    assert refused(sensors) == {"VDD_SOC": "disabled by the board"}
    assert set(powers(sensors)) == {"VDD_IN", "VDD_CPU_GPU_CV"}


@pytest.mark.parametrize("board", ["jetson-orin-nano", "jetson-nano"])
def test_a_missing_label_is_filled_in_from_the_board_by_address_and_channel(tree, board: str) -> None:
    total = BOARDS[board].total[0]
    _, roots = tree(board, no_label=[total])
    assert total in powers(ina3221.find(roots))


def test_a_missing_label_on_an_unknown_board_is_named_by_its_place(tree) -> None:
    _, roots = tree("unknown-carrier", no_label=["CORE_5V"])
    assert set(powers(ina3221.find(roots))) == {"MAIN_12V", "4-0040 channel 2", "RADIO_3V3"}


def test_two_chips_are_two_sensors_with_distinct_channels(tree) -> None:
    layout, roots = tree("jetson-orin-nano", second_chip=True)
    assert set(powers(ina3221.find(roots))) >= {"VDD_IN", "AUX_A", "AUX_B"}
    (layout.rails["AUX_A"].directory / "in1_label").write_text("VDD_IN\n")
    sensors = ina3221.find(roots)
    names = [c.name for s in sensors for c in s.channels if c.quantity == "power"]
    assert "VDD_IN" in names
    assert "VDD_IN@9-004f" in names
    assert powers(sensors)["VDD_IN"].location == "i2c 1-0040 channel 1"


def test_sums_and_shunt_voltages_are_no_rails(tree) -> None:
    _, roots = tree("jetson-orin-nano")
    (sensor,) = ina3221.find(roots)
    assert len(sensor.channels) == 9
    assert not any("sum" in c.name for c in sensor.channels)


def test_the_step_follows_from_shunt_and_voltage(tree) -> None:
    _, roots = tree("jetson-agx-orin")
    found = powers(ina3221.find(roots))
    assert found["VDD_GPU_SOC"].resolution == pytest.approx(0.380)  # 20 mA at 19 V
    assert found["VIN_SYS_5V0"].resolution == pytest.approx(0.100)


def test_a_shunt_of_five_microohms_is_mended_where_the_board_is_known(tree) -> None:
    layout, roots = tree("jetson-orin-nano", shunts_uohm={"VDD_IN": 5})
    current = layout.rails["VDD_IN"].current
    assert current is not None
    true_ma = int(current.read_text())
    current.write_text(f"{true_ma * 1000}\n")  # what the driver makes of the wrong shunt
    sensors = ina3221.find(roots)
    assert watts(sensors)["VDD_IN"] == pytest.approx(5.0 * true_ma * 1e-3)
    assert "5 µΩ; corrected to 5000 µΩ" in powers(sensors)["VDD_IN"].note


def test_a_shunt_that_cannot_be_is_refused_where_the_board_is_not_known(tree) -> None:
    _, roots = tree("unknown-carrier", shunts_uohm={"MAIN_12V": 5})
    sensors = ina3221.find(roots)
    assert refused(sensors) == {"MAIN_12V": "the device tree gives the shunt as 5 µΩ, which is impossible"}
    assert "MAIN_12V" not in powers(sensors)


def test_an_absent_shunt_file_leaves_the_power_and_takes_the_step_from_the_board(tree) -> None:
    _, roots = tree("jetson-orin-nano", no_shunt=["VDD_IN"])
    channel = powers(ina3221.find(roots))["VDD_IN"]
    assert channel.resolution == pytest.approx(0.040)
    _, roots = tree("unknown-carrier", no_shunt=["MAIN_12V"])
    assert powers(ina3221.find(roots))["MAIN_12V"].resolution is None


@pytest.mark.parametrize("board", ["jetson-orin-nano", "jetson-nano"])
def test_a_rail_whose_file_fails_is_named_and_the_others_read_on(tree, board: str) -> None:
    total = BOARDS[board].total[0]
    _, roots = tree(board, unreadable=[total])
    sensors = ina3221.find(roots)
    assert total in refused(sensors)
    assert "fails" in str(refused(sensors)[total])
    assert len(powers(sensors)) == 2


def test_a_rail_that_belongs_to_root_says_so(tree, deny) -> None:
    _, roots = tree("jetson-nano")
    deny("_input_0")
    deny("0_input")
    sensors = ina3221.find(roots)
    (channel,) = [c for s in sensors for c in s.unavailable]
    assert channel.name == "POM_5V_IN"
    assert "not readable by this user" in str(channel.reason)
    assert str(channel.remedy).startswith("sudo chmod")
    assert set(powers(sensors)) == {"POM_5V_GPU", "POM_5V_CPU"}


def test_jetpack_4_without_the_pair_file_multiplies_volts_and_amperes(tree) -> None:
    layout, roots = tree("jetson-nano")
    for rail in layout.rails.values():
        assert rail.pair is not None
        rail.pair.unlink()
    assert watts(ina3221.find(roots))["POM_5V_CPU"] == pytest.approx(0.4)


def test_a_rail_that_breaks_while_being_read_is_nan_and_comes_back(tree) -> None:
    layout, roots = tree("jetson-orin-nano")
    (sensor,) = ina3221.find(roots)
    current = layout.rails["VDD_IN"].current
    assert current is not None
    values, times = [0.0] * 9, [0.0] * 9
    sensor.open()
    content = current.read_text()
    current.write_text("")
    sensor.read(values, times)
    assert math.isnan(values[0])
    assert values[3] == pytest.approx(0.7, abs=0.05)
    current.write_text(content)
    sensor.read(values, times)
    assert values[0] == pytest.approx(4.6, abs=0.05)
    sensor.close()
    sensor.close()


def test_each_rail_carries_the_time_of_its_own_reading(tree) -> None:
    _, roots = tree("jetson-orin-nano")
    (sensor,) = ina3221.find(roots)
    values, times = [0.0] * 9, [0.0] * 9
    sensor.open()
    sensor.read(values, times)
    sensor.close()
    assert times[0] == times[1] == times[2] < times[3] < times[6]


@pytest.mark.parametrize(
    ("board", "tau", "slow"),
    [("jetson-orin-nano", 0.43, False), ("jetson-xavier-nx", 0.43, True), ("jetson-nano", 0.4224, False)],
)
def test_the_filter_comes_from_what_the_driver_says(tree, board: str, tau: float, slow: bool) -> None:
    _, roots = tree(board)
    (sensor,) = ina3221.find(roots)
    channel = sensor.channels[0]
    assert channel.filter.kind == "exponential"
    assert channel.filter.tau_s == pytest.approx(tau, rel=1e-3)
    # Linux 5.10 waits for a conversion in every read, for up to 430 ms: such a chip must not delay others.
    assert sensor.slow is slow


def test_a_chip_at_its_reset_default_is_instantaneous(tree) -> None:
    _, roots = tree("jetson-thor")
    channel = ina3221.find(roots)[0].channels[0]
    assert channel.filter.kind == "instantaneous"
    assert channel.update_interval_s == pytest.approx(6.6e-3)


def test_a_triggered_jetpack_4_chip_gives_block_averages(tree) -> None:
    layout, roots = tree("jetson-nano")
    (layout.rails["POM_5V_IN"].directory / "running_mode").write_text("0\n")
    channel = ina3221.find(roots)[0].channels[0]
    assert channel.filter.kind == "block"
    assert channel.filter.length_s == pytest.approx(0.4224)
