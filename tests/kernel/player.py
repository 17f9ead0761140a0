"""Plays power into the registers of the emulated chips, averaging as the datasheets say; runs in the guest.

i2c-stub only keeps register values: time, conversions and averaging are computed here, by the same
``edgeprof.simulation.chip`` that drives the virtual boards, from the configuration that the driver wrote.
"""

from __future__ import annotations

import bisect
import ctypes
import fcntl
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.chip import BlockAverage, Ina3221
from edgeprof.simulation.waveform import Waveform

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

I2C_SLAVE_FORCE, I2C_SMBUS = 0x0706, 0x0720
BYTE, WORD, BLOCK = 2, 3, 8
#: INA3221 CONFIG: averages, conversion times (SBOS576, tables 3 to 5).
SAMPLES = (1, 4, 16, 64, 128, 256, 512, 1024)
CONVERSIONS_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
INA238_PERIOD_S = 16 * 1052e-6 * 3
TICK_S, QUIET_S = 1e-3, 0.02


class _Message(ctypes.Structure):
    _fields_ = (
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


class Registers:
    """One chip's registers, as SMBus words of either byte order."""

    def __init__(self, address: int, bus: int = 0) -> None:
        self._fd = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
        fcntl.ioctl(self._fd, I2C_SLAVE_FORCE, address)
        self._buffer = ctypes.create_string_buffer(34)
        self._message = _Message(0, 0, WORD, ctypes.addressof(self._buffer))
        self._written: dict[int, int] = {}

    def read(self, register: int) -> int:
        """A 16-bit register; these chips send the high byte first, SMBus the low one."""
        self._call(1, register, WORD)
        return int.from_bytes(self._buffer.raw[:2], "big")

    def write(self, register: int, value: int) -> None:
        if self._written.get(register) != value:
            self._buffer[0:2] = (value & 0xFFFF).to_bytes(2, "big")
            self._call(0, register, WORD)
            self._written[register] = value

    def write24(self, register: int, value: int) -> None:
        """A 24-bit register: i2c-stub serves a block read from the low bytes of neighbouring registers."""
        self._buffer[0:4] = bytes([3, *value.to_bytes(3, "big")])
        self._call(0, register, BLOCK)

    def _call(self, read: int, register: int, size: int) -> None:
        self._message.read_write, self._message.command, self._message.size = read, register, size
        fcntl.ioctl(self._fd, I2C_SMBUS, self._message)


def configuration(registers: Registers) -> tuple[int, float, list[bool]]:
    """Samples, conversion time (s) and enabled channels, as the driver wrote them into CONFIG."""
    config = registers.read(0)
    return SAMPLES[config >> 9 & 7], CONVERSIONS_S[config >> 3 & 7], [bool(config >> bit & 1) for bit in (14, 13, 12)]


class _Rail:
    """One channel: its true power and, while it plays, its converter."""

    def __init__(
        self, registers: Registers, number: int, volts: float, shunt: float, make: Callable[..., Ina3221 | BlockAverage]
    ) -> None:
        self.registers, self.number, self.volts, self.shunt, self.make = registers, number, volts, shunt, make
        self.converter = make(watts=0.0)
        self.waveform: Waveform | None = None
        self.start = 0.0

    def begin(self, waveform: Waveform, now: float) -> None:
        self.waveform, self.start = waveform, now
        self.converter = self.make(start=now, watts=waveform.power(0.0))
        self.write()

    def advance(self, before: float, now: float) -> None:
        assert self.waveform is not None
        self.converter.advance(now, self.energy, self.waveform.flat(before - self.start, now - self.start))

    def rests(self, now: float, until: float) -> bool:
        assert self.waveform is not None
        level = self.waveform.flat(now - self.start, until - self.start)
        return level is not None and abs(self.converter.average_w - level) < 1e-3

    def energy(self, now: float) -> float:
        assert self.waveform is not None
        return self.waveform.energy(max(0.0, now - self.start))

    def write(self) -> None:
        if isinstance(self.converter, Ina3221):
            self.registers.write(1 + 2 * self.number, self.converter.shunt_register << 3)
            self.registers.write(2 + 2 * self.number, self.converter.bus_register << 3)
            return
        watts = self.converter.average_w
        # ±163.84 mV in 32768 steps; 3.125 mV; the driver's SHUNT_CAL makes power steps of 2 mW at 2 mΩ.
        self.registers.write(4, round(watts / self.volts * self.shunt / 5e-6))
        self.registers.write(5, round(self.volts / 3.125e-3))
        self.registers.write(7, round(watts / self.volts * self.shunt / 20e-6))
        self.registers.write24(8, round(abs(watts) * self.shunt / 4e-6))


class SwitchedLoad:
    """A load that a test switches; rails follow it, and it counts its work (one loop for each second of all of it)."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._times, self._levels, self._done = [0.0], [0.0], [0.0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set(0.0)

    def begin(self, time_s: float) -> None:
        """Count times from now on (monotonic s)."""
        self._begin = time_s

    def set(self, share: float) -> None:
        """From now on do this share of the work that can be done."""
        now = time.monotonic() - self._begin
        self._done.append(self.work(now))
        self._levels.append(share)
        self._times.append(now)

    def loops(self) -> float:
        """The work done so far."""
        return self.work(time.monotonic() - self._begin)

    def work(self, time_s: float) -> float:
        """The work done up to a time since the beginning."""
        at = max(0, bisect.bisect_right(self._times, time_s) - 1)
        return self._done[at] + self._levels[at] * max(0.0, time_s - self._times[at])

    def level(self, time_s: float) -> float:
        """The share at a time since the beginning."""
        return self._levels[max(0, bisect.bisect_right(self._times, time_s) - 1)]

    def share(self, idle_w: float, load_w: float) -> Waveform:
        """What a rail draws: so much without the load, and so much more with all of it."""
        return _Following(self, idle_w, load_w)


class _Following(Waveform):
    def __init__(self, load: SwitchedLoad, idle_w: float, load_w: float) -> None:
        self._load, self._idle_w, self._load_w = load, idle_w, load_w

    def power(self, time: float) -> float:
        return self._idle_w + self._load_w * self._load.level(time)

    def energy(self, time: float) -> float:
        return self._idle_w * time + self._load_w * self._load.work(time)

    def describe(self) -> dict[str, Any]:
        return {"following": [self._idle_w, self._load_w]}


class Player:
    """All chips of a board.

    Args:
        board: Its name.
        off: Labels that the device tree has disabled.
    """

    def __init__(self, board: str, off: tuple[str, ...] = ()) -> None:
        self.chips: dict[int, Registers] = {}
        self._rails: dict[str, _Rail] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for chip in BOARDS[board].chips:
            registers = self.chips[chip.address] = Registers(chip.address)
            connected = [n for n, rail in enumerate(chip.rails) if rail is not None and rail.label not in off]
            if chip.part == "ina238":
                samples, conversion = 16, 1052e-6
            else:
                samples, conversion, enabled = configuration(registers)
                assert [n for n in range(3) if enabled[n]] == connected, "the driver did not do as the tree says"
            for position, number in enumerate(connected):
                spec = chip.rails[number]
                assert spec is not None
                make: Callable[..., Ina3221 | BlockAverage]
                if chip.part == "ina238":
                    make = partial(BlockAverage, refresh_s=INA238_PERIOD_S, step_w=2e-3)
                else:
                    make = partial(
                        Ina3221,
                        shunt_ohm=spec.shunt_ohm,
                        volts=spec.volts,
                        samples=samples,
                        conversion_s=conversion,
                        channels=len(connected),
                        position=position,
                    )
                self._rails[spec.label] = _Rail(registers, number, spec.volts, spec.shunt_ohm, make)

    def converter(self, label: str) -> Ina3221 | BlockAverage:
        return self._rails[label].converter

    def hold(self, watts: dict[str, float]) -> None:
        """Write steady powers once; rails that are not named are at 0 W."""
        for label, rail in self._rails.items():
            rail.converter = rail.make(watts=watts.get(label, 0.0))
            rail.write()

    def start(self, waveforms: dict[str, Waveform]) -> float:
        """Play from now on; every rail has been at its waveform's first power for ever. The time it starts, s."""
        begin = time.monotonic()
        for label, waveform in waveforms.items():
            self._rails[label].begin(waveform, begin)
        self._thread = threading.Thread(target=self._play, args=(begin,))
        self._thread.start()
        return begin

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def energy(self, label: str, start: float, end: float) -> float:
        """True joules between two monotonic times."""
        rail = self._rails[label]
        return rail.energy(end) - rail.energy(start)

    def _play(self, begin: float) -> None:
        playing = [rail for rail in self._rails.values() if rail.waveform is not None]
        now = begin
        while not self._stop.is_set():
            before, now = now, time.monotonic()
            for rail in playing:
                rail.advance(before, now)
                rail.write()
            # Where nothing will move for a while, the registers need no one to say so.
            quiet = all(rail.rests(now, now + QUIET_S) for rail in playing)
            time.sleep(QUIET_S if quiet else TICK_S)


def hwmon(address: int) -> Path:
    """The hwmon directory of the chip at that address."""
    (found,) = Path("/sys/bus/i2c/devices", f"0-{address:04x}", "hwmon").iterdir()
    return found


def nvpower(addresses: list[int]) -> None:
    """What NVIDIA's nvpower.sh writes at each start of a Xavier or Orin: 512 averages, 430 ms."""
    for address in addresses:
        (hwmon(address) / "samples").write_text("512")
        (hwmon(address) / "update_interval").write_text("430")
