"""A device that nobody here wrote: Debian's MicroPython for the micro:bit, run by Debian's QEMU."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
import tty
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.worker.runtime import LoadOptions
from edgeprof_plugins.runtimes.mcu.runtime import Microcontrollers

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRMWARE = Path(os.environ.get("EDGEPROF_TESTS_MICROBIT", "/usr/share/firmware-microbit-micropython/firmware.hex"))
PROGRAM = Path(__file__).parent / "microbit_program.py"

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None or not FIRMWARE.exists(),
    reason="Debian's qemu-system-arm and firmware-microbit-micropython are not installed",
)


def hear(descriptor: int, end: bytes, limit_s: float = 20.0) -> bytes:
    """What comes until ``end``."""
    heard, deadline = b"", time.monotonic() + limit_s
    while end not in heard:
        left = deadline - time.monotonic()
        assert left > 0, heard
        if select.select([descriptor], [], [], left)[0]:
            heard += os.read(descriptor, 4096)
    return heard


def upload(descriptor: int) -> None:
    """Send the program in MicroPython's paste mode, each character after the echo of the last: its buffer is small."""
    hear(descriptor, b">>> ")
    os.write(descriptor, b"\x05")
    hear(descriptor, b"=== ")
    source = PROGRAM.read_text().partition('"""\n\n')[2]
    for line in source.splitlines():
        for character in line.encode():
            os.write(descriptor, bytes([character]))
            hear(descriptor, bytes([character]))
        os.write(descriptor, b"\r")
        hear(descriptor, b"=== ")
    os.write(descriptor, b"\x04")


@pytest.fixture
def port() -> Iterator[str]:
    """The serial port of a micro:bit that runs the program."""
    machine = ["-M", "microbit", "-device", f"loader,file={FIRMWARE}"]
    command = ["qemu-system-arm", *machine, "-nographic", "-monitor", "none", "-serial", "pty"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            path = next(word for word in process.stdout.readline().split() if word.startswith("/dev/pts/"))
            descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
            try:
                tty.setraw(descriptor, tty.TCSANOW)
                upload(descriptor)
                hear(descriptor, b"m-ready\r\n")
            finally:
                os.close(descriptor)
            yield path
        finally:
            process.kill()


def expected_scores(data: np.ndarray) -> list[float]:
    places, values = np.arange(64), data.ravel().astype(int) - 128
    a = abs(int((values * (places * 37 % 17 - 8)).sum()))
    b = abs(int((values * ((places + 7) * 37 % 17 - 8)).sum()))
    return [a / (a + b + 1), b / (a + b + 1)]


def test_an_interpreter_on_an_emulated_microbit_gives_its_scores_and_times_itself(port: str) -> None:
    with contextlib.closing(Microcontrollers().load(port, LoadOptions("mcu", None, 1, {}, {}))) as session:
        for seed in range(2):
            data = np.random.default_rng(seed).integers(0, 256, (1, 64), np.uint8)
            scores = session.run({"input": data})["results"]
            np.testing.assert_allclose(scores[0], expected_scores(data), atol=6e-4)  # three decimals
        burst = session.bind_burst("inference", {"input": data})(0.3)
        assert burst.span.count > 1
        assert burst.device_s > 0
        assert session.microcontroller()["name"] == "microbit"
