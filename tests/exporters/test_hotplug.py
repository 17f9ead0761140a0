"""Sensors that go, come back and come anew, as a tree shows it."""

from __future__ import annotations

import shutil

import pytest

from edgeprof.roots import Roots
from edgeprof_exporters.hotplug import look


def test_a_look_differs_when_a_chip_comes_goes_or_is_bound_anew_and_not_when_values_change(tmp_path) -> None:
    chip = tmp_path / "class/hwmon/hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221")
    (chip / "in1_input").write_text("5000")
    roots = Roots(sysfs=tmp_path, dev=tmp_path / "dev")
    before = look(roots)
    (chip / "in1_input").write_text("4000")
    assert look(roots) == before
    (chip / "in2_input").write_text("1")
    grown = look(roots)
    assert grown != before
    (tmp_path / "class/hwmon/hwmon1").mkdir()
    assert look(roots) != grown
    shutil.rmtree(chip)
    gone = look(roots)
    chip.mkdir()
    assert look(roots) != gone
    (tmp_path / "dev").mkdir()
    before = look(roots)
    (tmp_path / "dev/ttyACM0").touch()
    assert look(roots) != before
    (tmp_path / "dev/pts").touch()
    assert look(roots) == look(roots)


def test_a_sensor_that_was_unplugged_is_read_again_soon_after_it_is_back(board, start, tmp_path) -> None:
    daemon = start(board.directory).ready()
    (chip,) = [path.parent for path in board.directory.rglob("name") if path.read_text().strip() == "ina3221"]
    away = tmp_path / "away"
    shutil.copytree(chip, away, symlinks=True)
    place = chip.resolve()
    joules = daemon.value("edgeprof_device_energy_joules_total")
    place.rename(tmp_path / "unplugged")
    daemon.until(lambda: daemon.value("edgeprof_sampler_up", sensor="ina3221") == 0)
    away.rename(place)
    daemon.until(lambda: daemon.value("edgeprof_sampler_up", sensor="ina3221") == 1, 20)
    assert daemon.logged("sensors found anew")
    daemon.until(lambda: "edgeprof_device_energy_joules_total{" in daemon.get()[1].decode())
    assert daemon.value("edgeprof_device_energy_joules_total") >= joules


def test_a_new_chip_is_sampled_without_a_reload(board, start) -> None:
    daemon = start(board.directory).ready()
    chip = board.directory / "class/hwmon/hwmon90"
    chip.mkdir()
    (chip / "name").write_text("ina226\n")
    (chip / "power1_input").write_text("3000000\n")
    (chip / "in1_input").write_text("5000\n")
    (chip / "curr1_input").write_text("600\n")
    daemon.until(lambda: b'source="hwmon"' in daemon.get()[1], 40)
    assert daemon.logged("sensors found anew")


def test_a_battery_appears_when_it_begins_to_discharge_and_goes_without_an_alarm(start, tmp_path) -> None:
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    texts = {"type": "Battery", "present": "1", "status": "Charging", "voltage_now": 11660000, "current_now": 720000}
    for name, text in texts.items():
        (battery / name).write_text(f"{text}\n")
    (tmp_path / "sys/proc").mkdir()
    daemon = start(tmp_path / "sys").wait()
    assert b'rail="BAT0"' not in daemon.get()[1]
    (battery / "status").write_text("Discharging\n")
    daemon.until(lambda: b'rail="BAT0"' in daemon.get()[1], 40)
    assert daemon.value("edgeprof_rail_power_watts", rail="BAT0") == pytest.approx(8.3952)
    (battery / "status").write_text("Charging\n")
    daemon.until(lambda: b'rail="BAT0"' not in daemon.get()[1], 40)
    daemon.until(lambda: b'edgeprof_sampler_up{sensor="power_supply"}' not in daemon.get()[1], 40)
