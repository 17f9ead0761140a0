"""The LPM01A, against an instrument on a pty that speaks the protocol that ST publishes."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof_plugins.sensors import lpm01a, lpm01a_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

WATTS = 0.0123


class Instrument:
    """An LPM01A: it answers commands, and while it measures it sends a sample for each millisecond."""

    def __init__(self, *, refuses: str = "", refuses_once: str = "", loses: int = 0, ends_after: int = 10**9) -> None:
        self.commands: list[str] = []
        self._refuses, self._refuses_once, self._loses, self._ends_after = refuses, refuses_once, loses, ends_after
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        os.write(self._master, b"PowerShield > \r\n")  # of somebody before
        self._interrupt, self._wake = os.pipe()
        self._sent, self._start_s = 0, 0.0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        heard = b""
        while True:
            wait = 0.005 if self._start_s else None
            ready, _, _ = select.select([self._master, self._interrupt], [], [], wait)
            if self._master in ready:
                heard += os.read(self._master, 4096)
                *commands, heard = heard.split(b"\n")
                for command in commands:
                    self._answer(command.decode())
            elif self._interrupt in ready:
                return
            if self._start_s:
                self._send_samples()

    def _answer(self, command: str) -> None:
        self.commands.append(command)
        if command == self._refuses or (command == self._refuses_once and self.commands.count(command) == 1):
            os.write(self._master, b"\r\nerror: Command unknown\r\nPowerShield > \r\n")
            return
        os.write(self._master, f"\r\nPowerShield > ack {command}\r\n".encode())
        if command == "start":
            os.write(self._master, b"TimeStamp: 000s 000ms, buff 00%\r\n")
            self._start_s = time.monotonic()
        if command == "stop":
            self._start_s = 0.0
            os.write(self._master, b"Acquisition completed\r\n")

    def _send_samples(self) -> None:
        lines = []
        while self._sent < int((time.monotonic() - self._start_s) / lpm01a_stream.SAMPLE_S):
            self._sent += 1
            if self._sent > self._ends_after:
                lines.append("error: Overcurrent")
                self._start_s = 0.0
                break
            if not 500 <= self._sent < 500 + self._loses:
                lines.append(f"{round(WATTS * lpm01a_stream.SAMPLE_S * 1e9):04d}-09")
            if self._sent == 300:
                lines.append("event 00 ris")
            if self._sent % 1000 == 0:
                lines.append(f"TimeStamp: {self._sent // 1000:03d}s {self._sent % 1000:03d}ms, buff 07%")
        os.write(self._master, "".join(line + "\r\n" for line in lines).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        lpm01a.disconnect()
        os.close(self._wake)
        self._thread.join()
        for descriptor in (self._interrupt, self._master, self._slave):
            os.close(descriptor)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path) -> Iterator[None]:
    monkeypatch.setattr(lpm01a_stream, "_ANSWER_S", 0.5)
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    yield
    lpm01a.disconnect()


def find(instrument: Instrument, address: str = "3.0V"):
    return discover(PluginHost(only=["lpm01a"]), Roots(), [f"lpm01a:{address}@{instrument.path}"])


def test_its_samples_are_added_up_to_the_joules_of_what_it_supplies() -> None:
    with Instrument(refuses_once="htc") as instrument:
        found = find(instrument)
        (channel,) = found.topology.headline.channels
        assert (channel.quantity, channel.kind, channel.provenance) == ("energy", "counter", "measured")
        assert (channel.gain_limit, found.topology.headline.covers) == (0.02, "board")
        sampler = Sampler(found.sensors, 50.0, found.topology.by_key())
        sampler.start()
        try:
            deadline = time.monotonic() + 10
            while len(sampler.trace.series(channel.key).times) < 40 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            sampler.stop()
        series = sampler.trace.series(channel.key)
    joules, seconds = series.values[-1] - series.values[0], series.times[-1] - series.times[0]
    assert joules / seconds == pytest.approx(WATTS, rel=0.15)
    assert instrument.commands[:4] == ["htc", "htc", "acqmode dyn", "volt 3000m"]
    assert "pwrend on" in instrument.commands  # what it supplies must not lose its power between two acquisitions
    assert instrument.commands[-2:] == ["stop", "hrc"]
    assert instrument.commands.count("start") == 1


def test_samples_that_were_lost_are_a_gap() -> None:
    with Instrument(loses=100) as instrument:
        (sensor,) = find(instrument).sensors
        sensor.open()
        seen = []
        deadline = time.monotonic() + 10
        while not (seen and seen[-1] != seen[-1]) and time.monotonic() < deadline:  # until NaN
            values, times = [0.0], [0.0]
            sensor.read(values, times)
            seen.append(values[0])
            time.sleep(0.02)
        assert seen[-1] != seen[-1]
        sensor.read(values, times)
        assert values[0] > 0
        sensor.close()


def read_on(sensor: lpm01a.PowerShield) -> None:
    values, times = [0.0], [0.0]
    while True:
        sensor.read(values, times)
        time.sleep(0.01)


def test_an_acquisition_that_ends_by_itself_is_told() -> None:
    with Instrument(ends_after=200) as instrument:
        (sensor,) = lpm01a.find(Roots(), [f"static:3.3@{instrument.path}"])
        sensor.open()
        with pytest.raises(UnavailableError, match="Overcurrent"):
            read_on(sensor)


@pytest.mark.parametrize("command", ["htc", "volt 3000m", "start"])
def test_an_instrument_that_refuses_a_command_is_told(command: str) -> None:
    with Instrument(refuses=command) as instrument, pytest.raises(UnavailableError, match=f"refuses '{command}'"):
        find(instrument)


@pytest.mark.parametrize("address", ["", "3.3V", "5V@/dev/ttyACM0", "1.2@/dev/ttyACM0", "fast:3V@/dev/ttyACM0"])
def test_an_address_without_a_voltage_that_it_can_give_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="does not give a voltage and a port"):
        lpm01a.parse(address)
    assert lpm01a.parse("static:1.8V@/dev/ttyACM0") == ("static", 1.8, "/dev/ttyACM0")


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(UnavailableError, match="not a serial port"):
        lpm01a.find(Roots(), ["3.3V@/dev/null"])
