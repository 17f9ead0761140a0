"""Microcontrollers in the inventory: at a port of this machine, and at a port of a board."""

from __future__ import annotations

import json

import pytest

from edgeprof.errors import InputError
from edgeprof.fleet import inventory, protocol, task
from edgeprof.fleet.store import fleet_store
from edgeprof.simulation.microcontroller.faults import Faults
from edgeprof.simulation.microcontroller.live import LiveMicrocontroller
from tests.profiler.cli.in_process import verb

SHORT = ("--windows", "2", "--window", "0.2", "--warmup", "0.1", "--idle", "0")


@pytest.fixture
def fleet(desk, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEPROF_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_PLUGINS", "mcu,meter,npz,topk")
    return verb(capfd, "fleet")


def playing(folder, *faults: str) -> LiveMicrocontroller:
    return LiveMicrocontroller(folder, latency_s=0.004, watts=(0.02, 0.12), faults=Faults.parse(faults))


@pytest.mark.timeout(300)
def test_its_firmware_is_measured_here_and_behind_a_board_and_what_is_something_else_fails_alone(
    fleet, boards, tmp_path
) -> None:
    door = boards.folder / "nano-1/door.sh"
    changed = door.read_text().replace("onnxruntime,", "mcu,onnxruntime,")
    with playing(tmp_path / "a") as here, playing(tmp_path / "b") as there, playing(tmp_path / "c", "login") as other:
        path = tmp_path / "inventory.toml"
        path.write_text(
            f'[[devices]]\nname = "here"\nmcu = "{here.port}"\nmeter = "meter:{here.meter}"\n'
            '[[devices]]\nname = "there"\nssh = "nano-1"\nmcu = "node"\n'
            f'[[devices]]\nname = "other"\nmcu = "{other.port}"\n'
            '[[devices]]\nname = "nano-1"\n'
        )
        (boards.folder / "nano-1/door.toml").write_text(f'microcontrollers = {{ node = "{there.port}" }}\n')
        whole, _ = door.read_text(), door.write_text(changed)
        try:
            done = fleet("bench", "mcu", *SHORT, "--inventory", path, "--json", code=3)
        finally:
            door.write_text(whole)
            (boards.folder / "nano-1/door.toml").write_text("")
        again = fleet("bench", "mcu", *SHORT, "--inventory", path, "--on", "here", "--json")
        alone = fleet("bench", "mcu", *SHORT, "--inventory", path, "--on", "other", code=2)
    answer = json.loads(done.stdout)
    rows = {row["device"]: row for row in answer["devices"]}
    assert [rows[name]["state"] for name in ("here", "there", "other", "nano-1")] == ["measured"] * 2 + ["failed"] * 2
    assert "is not a device with MLPerf Tiny's protocol" in rows["other"]["error"]
    assert rows["nano-1"]["error"] == "nano-1 is no microcontroller"
    assert "is not a device with MLPerf Tiny's protocol" in alone.stderr
    provenances = {row["device"]: group["provenance"] for group in answer["table"]["groups"] for row in group["rows"]}
    assert provenances == {"here": "simulated", "there": "none"}
    # The firmware may have been changed: another command measures again.
    assert json.loads(again.stdout)["devices"][0]["state"] == "measured"
    assert len(fleet_store().jobs()) == 3


def test_a_model_on_a_microcontroller_is_refused_with_what_to_give(fleet, desk, tmp_path) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text('[[devices]]\nname = "node"\nmcu = "/dev/ttyACM0"\n')
    done = fleet("bench", desk.model, "--inventory", path, code=2)
    assert "node is a microcontroller" in done.stderr
    assert "edgeprof fleet bench mcu --on node" in done.stderr


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('mcu = "/dev/null"', 'mcu = "/dev/../dev/null@9600"'),
        ('ssh = "pi"\nmcu = "node"', 'ssh = "pi"\nmcu = "node"'),
    ],
)
def test_two_devices_on_one_port_are_refused(tmp_path, first, second) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(f'[[devices]]\nname = "a"\n{first}\n[[devices]]\nname = "b"\n{second}\n')
    with pytest.raises(InputError, match=r"inventory\.toml: a and b are both on the port"):
        inventory.load(path)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ('mcu = "ttyACM0"', "is no port of this machine"),
        ('ssh = "pi"\nmcu = "/dev/ttyACM0"', "is no name of a microcontroller behind pi"),
        ('ssh = "pi"\nmcu = "node"\nmeter = "ppk2"', "is set on that board"),
        ('meter = "ppk2"', "meter is for microcontrollers"),
        ("mcu = 5", "mcu should be a text"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(tmp_path, lines, part) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(f'[[devices]]\nname = "node"\n{lines}\n')
    with pytest.raises(InputError) as caught:
        inventory.load(path)
    assert part in caught.value.message
    assert "node" in caught.value.message


def test_the_key_of_a_boards_job_does_not_depend_on_what_only_a_microcontroller_has() -> None:
    file = protocol.File(name="m.onnx", sha256="0" * 64)
    place = {"machine": "m", "fingerprint": "f", "version": "1"}
    board = protocol.job_key(protocol.Bench(models=[[file]]), **place)
    assert protocol.job_key(protocol.Bench(models=[[file]], nonce="x"), **place) == board
    keys = {protocol.job_key(protocol.Bench(models=[], mcu=mcu, nonce=n), **place) for mcu in "ab" for n in "xy"}
    assert len(keys) == 4


def test_one_job_has_another_key_for_each_port_of_a_machine() -> None:
    """Otherwise the second of two devices would be given the first one's result."""
    job = task.Job.of(["mcu"], {})
    places = [("", "/dev/ttyACM0"), ("", "/dev/ttyACM1"), ("pi", "one"), ("pi", "two")]
    requests = [job.request(inventory.Device("node", "node", ssh=ssh, mcu=mcu)) for ssh, mcu in places]
    place = {"machine": "m", "fingerprint": "f", "version": "1"}
    assert len({protocol.job_key(request, **place) for request in requests}) == len(places)
