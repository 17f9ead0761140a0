"""``edgeprof sensors``: the whole output for named boards, and the document for programs.

The golden files are the output itself; ``EDGEPROF_UPDATE_GOLDEN=1`` rewrites them, so that the diff can be reviewed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeprof.cli.main import run
from edgeprof.roots import SIMULATION_MARKER
from edgeprof.simulation.layouts import build

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(autouse=True)
def quiet_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("EDGEPROF_PLUGINS", raising=False)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["sensors", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "board", "oddities"),
    [
        ("jetson-orin-nano", "jetson-orin-nano", {}),
        ("jetson-agx-orin", "jetson-agx-orin", {}),
        ("jetson-nano", "jetson-nano", {}),
        ("raspberry-pi-4", "raspberry-pi-4", {}),
        ("raspberry-pi-5", "raspberry-pi-5", {}),
        ("x86-rapl", "x86-rapl", {}),
        ("unknown-carrier", "unknown-carrier", {"disabled": ["RADIO_3V3"]}),
        ("generic-unknown", "generic-unknown", {}),
        ("lost-rail", "jetson-agx-orin", {"unreadable": ["VDD_CPU_CV"]}),
    ],
)
def test_what_a_person_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, board: str, oddities: dict
) -> None:
    build(board, tmp_path / "sys", **oddities)
    assert run(["sensors", "--sysfs-root", str(tmp_path / "sys")]) == 0
    seen = capsys.readouterr().out.replace(str(tmp_path), "TREE")
    golden = GOLDEN / f"sensors-{name}.txt"
    if os.environ.get("EDGEPROF_UPDATE_GOLDEN"):
        golden.write_text(seen, encoding="utf-8")
    assert seen == golden.read_text(encoding="utf-8")


def test_the_document_has_the_contracts_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("jetson-agx-orin", tmp_path / "sys")
    found = document(capsys, "--sysfs-root", str(tmp_path / "sys"))
    assert found["schema"] == "edgeprof.sensors/1"
    assert found["board"] == "NVIDIA Jetson AGX Orin"
    assert found["headline"]["channels"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert found["headline"]["covers"] == "module"
    by_name = {c["channel"]: c for c in found["channels"] if c["quantity"] == "power"}
    assert found["headline"]["power_w"] == pytest.approx(
        sum(by_name[name]["value"] for name in found["headline"]["channels"])
    )
    rail = by_name["VDDQ_VDD2_1V8AO"]
    assert (rail["role"], rail["parent"], rail["unit"], rail["available"]) == ("part", "VIN_SYS_5V0", "W", True)
    assert rail["filter"]["kind"] == "exponential"
    lost = by_name["1-0041 channel 1"]
    assert (lost["available"], lost["value"], lost["reason"]) == (False, None, "disabled by the board")


def test_where_nothing_measures_the_power_is_null_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("raspberry-pi-4", tmp_path / "sys")
    headline = document(capsys, "--sysfs-root", str(tmp_path / "sys"))["headline"]
    assert (headline["channels"], headline["power_w"]) == ([], None)
    assert headline["reason"] == "Raspberry Pi boards before the 5 have no power monitor"


def test_the_machine_itself_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys)
    assert found["board"]
    assert {"system"} <= {channel["sensor"] for channel in found["channels"]}
    assert found["headline"]["power_w"] is not None or found["headline"]["reason"]


def test_sensor_and_rail_restrict_and_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("jetson-orin-nano", tmp_path / "sys")
    arguments = ["--sysfs-root", str(tmp_path / "sys"), "--sensor", "ina3221", "--rail", "VDD_SOC"]
    found = document(capsys, *arguments)
    assert {channel["sensor"] for channel in found["channels"]} == {"ina3221"}
    assert found["headline"]["channels"] == ["VDD_SOC"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rail", "VDD_IM"], "Did you mean VDD_IN?"),
        (["--sensor", "ina3222"], "Did you mean ina3221?"),
    ],
)
def test_a_wrong_name_is_one_sentence_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    build("jetson-orin-nano", tmp_path / "sys")
    assert run(["sensors", "--sysfs-root", str(tmp_path / "sys"), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_strict_fails_where_nothing_measures_and_still_shows_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("raspberry-pi-4", tmp_path / "sys")
    assert run(["sensors", "--strict", "--sysfs-root", str(tmp_path / "sys")]) == 1
    captured = capsys.readouterr()
    assert "cpu-thermal" in captured.out
    assert "no total" in captured.err


def test_verbose_shows_voltages_currents_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("jetson-orin-nano", tmp_path / "sys")
    assert run(["sensors", "-v", "--sysfs-root", str(tmp_path / "sys")]) == 0
    out = capsys.readouterr().out
    assert "5.00 V" in out
    assert "i2c 1-0040 channel 1" in out


def test_a_virtual_board_is_called_simulated_in_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = build("jetson-orin-nano", tmp_path / "sys")
    (layout.directory / SIMULATION_MARKER).write_text("{}")
    assert run(["sensors", "--sysfs-root", str(layout.directory)]) == 0
    out = capsys.readouterr().out
    assert "simulated: values of a virtual board, not a measurement" in out
    assert "measured" not in out


def test_a_malformed_board_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config/boards.d").mkdir(parents=True)
    (tmp_path / "config/boards.d/mine.toml").write_text("[mine]\nmatsch = ['x']\n")
    build("generic-unknown", tmp_path / "sys")
    assert run(["sensors", "--sysfs-root", str(tmp_path / "sys")]) == 2
    err = capsys.readouterr().err
    assert "mine.toml, line 2, [mine]: unknown key 'matsch'" in err
    assert "Allowed keys: name, match" in err
