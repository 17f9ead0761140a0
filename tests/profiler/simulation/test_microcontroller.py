"""The virtual microcontroller: its answers, compared with those of MLCommons' own firmware, and its faults."""

from __future__ import annotations

import os
import re
import select
import time
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof.simulation.microcontroller.faults import FAULTS, Faults
from edgeprof.simulation.microcontroller.firmware import Firmware
from edgeprof.simulation.microcontroller.live import LiveMicrocontroller
from tests.transcript import BOOT, TRANSCRIPT

if TYPE_CHECKING:
    from pathlib import Path


class Machine:
    """A device whose inferences take no time."""

    def __init__(self) -> None:
        self.sent = b""
        self.inferences = 0
        self.is_connected = True

    def send(self, data: bytes) -> None:
        self.sent += data

    def clock_us(self) -> int:
        return 9

    def work(self, inferences: int) -> None:
        self.inferences += inferences

    def hang_up(self) -> None:
        self.is_connected = False

    def take(self) -> str:
        sent, self.sent = self.sent, b""
        return sent.decode("latin-1")


def numbers_masked(text: str) -> str:
    """Mask what may differ: laps, results and the count of a short load."""
    text = re.sub(r"m-lap-us-\d+", "m-lap-us-N", text)
    text = re.sub(r"\d\.\d\d\d", "R", text)
    return re.sub(r"db has \d+", "db has N", text)


def test_it_answers_as_the_firmware_of_mlcommons_does():
    machine = Machine()
    firmware = Firmware(machine, "ic01", "unspecified", Faults())
    firmware.boot()
    assert machine.take() == BOOT
    for command, answer in TRANSCRIPT[:-1]:  # before the last command, a whole input was loaded
        firmware.receive(command.encode() + b"%")
        assert numbers_masked(machine.take()) == numbers_masked(answer), command


def test_it_answers_an_inference_of_a_whole_input_as_that_firmware_does():
    machine = Machine()
    firmware = Firmware(machine, "ic01", "unspecified", Faults())
    data = bytes(range(256)) * 12
    firmware.receive(b"db load 3072%")
    for start in range(0, len(data), 26):
        firmware.receive(b"db " + data[start : start + 26].hex().encode() + b"%")
    assert machine.take().endswith("m-load-done\r\nm-ready\r\n")
    command, answer = TRANSCRIPT[-1]
    firmware.receive(command.encode() + b"%")
    said = machine.take()
    assert numbers_masked(said) == numbers_masked(answer)
    scores = [float(word) for word in re.search(r"\[(.*)\]", said)[1].split(",")]
    assert scores.index(max(scores)) == sum(data) % 10
    assert machine.inferences == 2  # one to warm up, one that is timed


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("garbage", "\x00ÿþm-ready"),
        ("login", "infer 1 0"),
        ("lost-byte", "m-infer-start-1"),
        ("nan", "m-results-[nan,"),
        ("out-of-step", "m-ready\r\nm-ready\r\n"),
        ("reset", "m-init-done\r\nm-ready\r\n"),
        ("short-results", ",0.011]"),
        ("unprefixed", "Invoke failed\nm-ready"),
        ("wrong-prompt", "]\r\nok\r\n"),
    ],
)
def test_a_fault_shows_in_its_answer(fault, word):
    machine = Machine()
    Firmware(machine, "ic01", "x", Faults.parse([fault])).receive(b"infer 1 0%")
    assert word in machine.take()


def test_a_fault_waits_for_its_command():
    machine = Machine()
    firmware = Firmware(machine, "ic01", "x", Faults.parse(["silent@2"]))
    firmware.receive(b"name%")
    assert machine.take().endswith("m-ready\r\n")
    firmware.receive(b"name%name%")
    assert machine.take() == ""


@pytest.mark.parametrize("text", ["explode", "reset@", "reset@0", "reset@x"])
def test_a_fault_that_cannot_be_played_is_refused(text):
    with pytest.raises(InputError):
        Faults.parse([text])


def read_until(descriptor: int, end: bytes) -> bytes:
    said = b""
    while not said.endswith(end):
        assert select.select([descriptor], [], [], 10)[0], said
        said += os.read(descriptor, 4096)
    return said


def test_a_live_one_speaks_on_its_port_and_its_meter_tells_the_true_joules(tmp_path: Path):
    with LiveMicrocontroller(tmp_path / "board", latency_s=0.002, watts=(0.01, 0.11), faults=Faults()) as live:
        meter = os.open(live.meter, os.O_RDONLY)
        port = os.open(live.port, os.O_RDWR | os.O_NOCTTY)
        try:
            assert read_until(port, b"m-ready\r\n").startswith(b"m-timestamp-mode-performance")
            joules, began_s = live.supply.read()[1], time.monotonic()
            os.write(port, b"infer 50 0%")
            laps = [int(lap) for lap in re.findall(rb"m-lap-us-(\d+)", read_until(port, b"m-ready\r\n"))]
            joules, seconds = live.supply.read()[1] - joules, time.monotonic() - began_s
            header, first, *_ = (
                read_until(meter, b"\n").decode().splitlines() + read_until(meter, b"\n").decode().split()
            )
        finally:
            os.close(port)
            os.close(meter)
    assert laps[1] - laps[0] >= 50 * 2000
    worked_s = (laps[1] - laps[0]) * 1e-6
    assert joules == pytest.approx(0.01 * seconds + 0.1 * worked_s, rel=0.3)
    assert "simulated=yes" in header
    assert first.startswith("J=")
    assert not live.port.exists()
    assert not live.meter.exists()


def test_every_fault_is_described_and_the_help_names_how_to_list_them():
    assert all(FAULTS.values())
    with pytest.raises(InputError) as error:
        Faults.parse(["?"])
    assert all(name in (error.value.remedy or "") for name in FAULTS)


@pytest.mark.parametrize(
    "options", [{"model": "resnet"}, {"latency_s": 0.0}, {"watts": (0.2, 0.1)}, {"watts": (float("nan"), 1.0)}]
)
def test_a_device_that_cannot_be_played_is_refused(tmp_path, options):
    with pytest.raises(InputError):
        LiveMicrocontroller(tmp_path, faults=Faults(), **options)
