"""The device side of MLPerf Tiny's serial protocol, as in MLCommons' device API, including its unusual answers.

A command ends with ``%``; its answer consists of lines that end with CR LF, and the last one is ``m-ready``. The tests
contain the transcript that this firmware must reproduce. Sources: mlcommons/tiny, benchmark/api and benchmark/runner.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.simulation.microcontroller.faults import Faults

#: A longer command is cut off without an error.
BUFFER_BYTES = 80
_PROFILE = "ULPMark for tinyML Firmware V0.0.1"
_NOISE = b"\x00\xff\xfe"


class Network(NamedTuple):
    """The sizes of the input and output of an MLPerf Tiny model."""

    input_bytes: int
    classes: int


NETWORKS = {
    "ic01": Network(3072, 10),
    "vww01": Network(27648, 2),
    "kws01": Network(490, 12),
    "ad01": Network(2560, 1),
}


class ResetDuringWorkError(Exception):
    """Raised if the device restarts."""


class Device(Protocol):
    """The hardware on which a firmware runs."""

    def send(self, data: bytes) -> None:
        """Send bytes to the host."""

    def clock_us(self) -> int:
        """Return the microseconds since the start, in 32 bits."""

    def work(self, inferences: int) -> None:
        """Run this number of inferences."""

    def hang_up(self) -> None:
        """Remove the port."""


class Firmware:
    """The protocol with a network whose answer is the sum of the input's bytes modulo the number of classes.

    Args:
        device: The hardware.
        model: A key of ``NETWORKS``.
        name: The name that the firmware reports.
        faults: The faults that it simulates.
    """

    def __init__(self, device: Device, model: str, name: str, faults: Faults) -> None:
        self._device, self._model, self._name, self._faults = device, model, name, faults
        self._network = NETWORKS[model]
        self._command = bytearray()
        self._forget()

    def _forget(self) -> None:
        self._input = bytes(self._network.input_bytes)
        self._buffer = bytearray()
        self._expected = 0
        self._results: list[float] = [0.5] * self._network.classes

    def boot(self) -> None:
        """Send the lines that a device sends when it starts."""
        self._forget()
        if self._faults.first.get("login"):
            self._device.send(b"\r\nDebian GNU/Linux 12 tty\r\n\r\nlogin: ")
            return
        self._say("m-timestamp-mode-performance", f"m-lap-us-{self._device.clock_us()}", "m-init-done", "m-ready")

    def receive(self, data: bytes) -> None:
        """Receive bytes from the host, and answer each command that they complete."""
        for byte in data:
            if self._faults.first.get("login"):
                self._device.send(bytes([byte]))  # a terminal echoes
            elif byte == ord("%"):
                command, self._command = bytes(self._command[:BUFFER_BYTES]), bytearray()
                self._answer(command)
            else:
                self._command.append(byte)

    def _answer(self, command: bytes) -> None:
        self._faults.count(is_inference=command.startswith(b"infer"))
        if self._faults.happens("hang-up"):
            self._device.hang_up()
            return
        if self._faults.happens("silent"):
            return
        if self._faults.happens("lost-byte"):
            command = command[:-1]
        try:
            self._do([word.decode("ascii", "replace") for word in command.split(b" ") if word])
        except ResetDuringWorkError:
            self.boot()
            return
        self._say("ok" if self._faults.happens("wrong-prompt") else "m-ready")
        if self._faults.happens("out-of-step"):
            self._say("m-ready")

    def _say(self, *lines: str) -> None:
        for line in lines:
            noise = _NOISE if self._faults.happens("garbage") else b""
            self._device.send(noise + line.encode("ascii", "replace") + b"\r\n")

    # --- commands -----------------------------------------------------------------------------------------------------

    def _do(self, words: Sequence[str]) -> None:
        verb = words[0] if words else "(null)"
        if verb == "name":
            self._say(f"m-name-dut-[{self._name}]")
        elif verb == "profile":
            self._say(f"m-profile-[{_PROFILE}]", f"m-model-[{self._model}]")
        elif verb == "timestamp":
            self._say(f"m-lap-us-{self._device.clock_us()}")
        elif verb == "help":
            self._say("name profile timestamp db infer results help")
        elif verb == "db":
            self._db(words[1:])
        elif verb == "infer":
            self._infer(words[1:])
        elif verb == "results":
            self._say_results()
        else:
            self._say(f"e-[Unknown command: {verb}]")

    def _db(self, words: Sequence[str]) -> None:
        if not words:
            self._say("e-[Command 'db' requires a subcommand]")
        elif words[0] == "load":
            self._load(words[1:])
        elif words[0] == "print":
            rows = [self._buffer[i : i + 8] for i in range(0, len(self._buffer), 8)]
            self._say(*("m-buffer-" + "-".join(f"{byte:02x}" for byte in row) for row in rows), "")
        else:
            self._take(words[0])

    def _load(self, words: Sequence[str]) -> None:
        if not words:
            self._say("e-[Command 'db load' requires the # of bytes]")
            return
        size = _number(words[0])
        if size <= 0:
            self._say("e-[Command 'db load' must be >0 bytes]")
        elif size > self._network.input_bytes:
            most = self._network.input_bytes
            self._device.send(f"Supplied buffer size {size} exceeds maximum of {most}\n".encode())
        else:
            self._buffer, self._expected = bytearray(), size
            self._say(f"m-[Expecting {size} bytes]")

    def _take(self, digits: str) -> None:
        for start in range(0, len(digits), 2):
            pair = digits[start : start + 2]
            if len(pair) < 2:
                self._say("e-[Insufficent number of hex digits]")
                return
            try:
                byte = bytes.fromhex(pair)
            except ValueError:
                self._say(f"e-[Invalid hex digit '{pair}']")
                return
            if len(self._buffer) < self._expected:
                self._buffer += byte
                if len(self._buffer) == self._expected:
                    self._say("m-load-done")

    def _infer(self, words: Sequence[str]) -> None:
        count, warmups = _number(words[0]) if words else 1, _number(words[1]) if len(words) > 1 else 10
        if count <= 0:
            self._say("e-[Inference iterations must be >0]")
            return
        if warmups < 0:
            self._say("e-[Inference warmup must be >=0]")
            return
        if len(self._buffer) == self._network.input_bytes:
            self._input = bytes(self._buffer)
        else:
            size = self._network.input_bytes
            self._device.send(f"Input db has {len(self._buffer)} elemented, expected {size}\n".encode())
        if self._faults.happens("unprefixed"):
            self._device.send(b"Invoke failed\n")
            return
        self._say(f"m-warmup-start-{warmups}")
        self._device.work(warmups)
        self._say("m-warmup-done", f"m-infer-start-{count}", f"m-lap-us-{self._device.clock_us()}")
        if self._faults.happens("reset"):
            self._device.work(max(1, count // 2))
            raise ResetDuringWorkError
        self._device.work(count)
        self._say(f"m-lap-us-{self._device.clock_us()}", "m-infer-done")
        self._results = self._scores()
        self._say_results()

    def _scores(self) -> list[float]:
        """Return scores with 0.9 for one class; with a single class, the mean input byte, scaled to 0 to 1."""
        classes, total = self._network.classes, sum(self._input)
        if classes == 1:
            return [total / len(self._input) / 255]
        return [0.9 if number == total % classes else 0.1 / (classes - 1) for number in range(classes)]

    def _say_results(self) -> None:
        values = self._results
        if self._faults.happens("nan"):
            values = [math.nan] * len(values)
        if self._faults.happens("short-results"):
            values = values[:-1]
        self._say(f"m-results-[{','.join(f'{value:.3f}' for value in values)}]")


def _number(text: str) -> int:
    """Parse a number like C's ``atoi``: 0 if the text is not a number."""
    try:
        return int(text)
    except ValueError:
        return 0
