"""The C harness of examples/mcu: compiled for this machine and for an Arm microcontroller, and driven by its line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tty
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes.mcu import protocol
from edgeprof_plugins.runtimes.mcu.port import Port
from edgeprof_plugins.runtimes.mcu.protocol import Device
from edgeprof_plugins.runtimes.mcu.runtime import Microcontrollers

if TYPE_CHECKING:
    from collections.abc import Iterator

HARNESS = Path(__file__).parents[2] / "examples/mcu"
SOURCES = [str(HARNESS / "edgeprof_mcu.c"), str(HARNESS / "model.c")]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(protocol, "QUIET_S", 0.05)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    target = tmp_path_factory.mktemp("host") / "host"
    flags = [*STRICT, "-D_POSIX_C_SOURCE=200809L", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run(["gcc", *flags, str(HARNESS / "ports/host.c"), *SOURCES, "-o", str(target)], check=True)
    return target


@pytest.fixture
def port(program: Path) -> Iterator[str]:
    """The serial port behind which the program runs."""
    master, slave = os.openpty()
    tty.setraw(slave)
    process = subprocess.Popen([program], stdin=master, stdout=master)
    try:
        yield os.ttyname(slave)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def load(path: str):
    return Microcontrollers().load(path, LoadOptions("mcu", None, 1, {}, {}))


def expected_scores(data: np.ndarray) -> np.ndarray:
    """The formula of model.c."""
    places, classes = np.arange(64), np.arange(4)
    weights = (7 * places + 5 * classes[:, None]) % 17 - 8
    sums = weights @ (data.ravel().astype(int) - 128)
    return (sums - sums.min()) / (sums - sums.min()).sum()


def check_session(path: str) -> None:
    with contextlib.closing(load(path)) as session:
        (spec,) = session.inputs
        assert (spec.shape, spec.dtype) == ((1, 64), "uint8")
        for seed in range(3):
            data = np.random.default_rng(seed).integers(0, 256, (1, 64), np.uint8)
            scores = session.run({"input": data})["results"]
            np.testing.assert_allclose(scores[0], expected_scores(data), atol=1e-6)
        burst = session.bind_burst("inference", {"input": data})(0.3)
        assert burst.span.count > 100
        assert burst.device_s > 0.05
        assert session.microcontroller()["ram_bytes"] == 64 + 16


def test_the_harness_on_this_machine_gives_the_models_scores_and_runs_its_own_windows(port: str) -> None:
    check_session(port)


BAD_COMMANDS = [
    "", "  ", "foo", "db", "db load", "db load 0", "db load 63", "db load 65", "db load 99999999999", "db load -64",
    "db 00", "db 0", "db 0g", "infer", "infer 0", "infer x", "infer 1 -1", "infer 1 0", "infer 99999999999", "x" * 200,
    "name\r\n",
]  # fmt: skip


def test_a_bad_command_is_an_error_and_the_next_one_is_answered(port: str) -> None:
    with contextlib.closing(Port(port)) as line:
        device = Device(line)
        for command in BAD_COMMANDS:
            with pytest.raises(LoadError):
                device.ask(command)
            assert [line.text for line in device.ask("name")] == ["m-name-dut-[host]"], command


def test_more_bytes_than_were_announced_are_refused_and_those_before_stay(port: str) -> None:
    with contextlib.closing(Port(port)) as line:
        device = Device(line)
        device.load(bytes(64))
        with pytest.raises(LoadError, match="More bytes"):
            device.ask("db 00")
        assert device.infer(1, 0, 5.0).count == 1


def test_every_port_fills_in_what_the_harness_needs() -> None:
    """Those for Arduino, ESP-IDF and Zephyr too, which no compiler here takes."""
    needed = {"name", "model", "input", "buffer", "input_bytes", "results", "classes", "infer", "microseconds", "send"}
    ports = [port for port in sorted((HARNESS / "ports").iterdir()) if port.suffix in {".c", ".ino"}]
    assert len(ports) == 5
    for port in ports:
        assert needed <= set(re.findall(r"\.(\w+) = ", port.read_text())), port.name


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("arm-none-eabi-gcc is not installed (Debian: gcc-arm-none-eabi)")
    target = tmp_path_factory.mktemp("arm") / "mps2.elf"
    flags = [*STRICT, "-mcpu=cortex-m3", "-mthumb", "-Os", "-ffreestanding", "-nostdlib"]
    script = ["-T", str(HARNESS / "ports/bare_mps2.ld")]
    subprocess.run(
        [compiler, *flags, *script, str(HARNESS / "ports/bare_mps2.c"), *SOURCES, "-lgcc", "-o", str(target)],
        check=True,
    )
    return target


@contextlib.contextmanager
def emulated(*arguments: str) -> Iterator[str]:
    """The serial port of a machine that QEMU emulates."""
    command = ["qemu-system-arm", "-nographic", "-monitor", "none", "-serial", "pty", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            yield next(word for word in first.split() if word.startswith("/dev/pts/"))
        finally:
            process.kill()


def test_the_harness_compiles_for_an_arm_microcontroller_without_a_warning(image: Path) -> None:
    assert image.stat().st_size > 0


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
def test_the_harness_on_an_emulated_microcontroller_is_measured_by_its_serial_line(image: Path) -> None:
    with emulated("-M", "mps2-an385", "-kernel", str(image)) as port:
        check_session(port)
