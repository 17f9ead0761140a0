"""The power chip of the Raspberry Pi 5 (Renesas DA9091): twelve rails, by ``vcgencmd pmic_read_adc``.

It prints a line per rail and quantity, as ``VDD_CORE_A current(7)=0.82557000A`` and
``VDD_CORE_V volt(15)=0.72065750V``.
A captured or simulated tree has the same text in ``root/vcgencmd/pmic_read_adc``.
Refresh: about 47 ms (21 Hz measured); one call costs 24 ms, 22.6 of them inside the firmware: a slow source.
Traps: EXT5V and BATT have no current, so the board's input power is not measured; the sum of the rails leaves out
everything supplied by 5 V (USB, HATs, NVMe, the fan) and the chip's own losses; small currents read exactly 0; it needs
/dev/vcio, which belongs to the group video. Pi 4 and older have no such chip.
Sources: raspberrypi/documentation; ml-energy/zeus rpi.py; jfikar/RPi5-power.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.errors import UnavailableError
from edgeprof.sensing.board.identity import identify_board
from edgeprof.sensing.files import provenance, text_of
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "pmic"
_LINE = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?[0-9.]+)[AV]")
_TIMEOUT_S = 2.0
#: The converter's step (A), as observed in readings; the limit of gain error, ±5 % after fits against a wall meter; and
#: the refresh (s).
_STEP_A, _GAIN_LIMIT, _REFRESH_S = 0.00097585, 0.05, 0.047


class Pmic(Sensor):
    """The rails that have both a voltage and a current."""

    name = NAME
    slow = True

    def __init__(self, channels: Sequence[Channel], report: Callable[[], str | None]) -> None:
        self._channels = tuple(channels)
        self._report = report

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        rails = parse(self._report() or "")
        middle = 0.5 * (before + time.monotonic())
        for index, channel in enumerate(self._channels):
            volts, amperes = rails.get(channel.name, (math.nan, math.nan))
            values[index], times[index] = volts * amperes, middle


def parse(text: str) -> dict[str, tuple[float, float]]:
    """Parse the report: rail → voltage (V) and current (A), for rails that have both."""
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for name, unit, number in _LINE.findall(text):
        (volts if unit == "V" else amperes)[name] = float(number)
    return {name: (volts[name], amperes[name]) for name in amperes if name in volts}


def find(roots: Roots) -> list[Sensor]:
    """Find the PMIC of a Raspberry Pi 5.

    Raises:
        UnavailableError: the machine is a Raspberry Pi 5, but vcgencmd is missing or fails.
    """
    captured = roots.root / "vcgencmd/pmic_read_adc"
    if roots.is_live:
        if identify_board(roots).id != "raspberry-pi-5":
            return []
        import shutil  # for the boards that need the program

        program = shutil.which("vcgencmd")
        if program is None:
            raise UnavailableError("vcgencmd is not installed", remedy="sudo apt install raspi-utils")
        report = _make_caller(program)
    elif captured.exists():

        def report() -> str | None:
            return text_of(captured)

    else:
        return []
    rails = parse(report() or "")
    if not rails:
        raise UnavailableError(
            "vcgencmd pmic_read_adc reports no rails", remedy="Join the group video: sudo usermod -aG video $USER"
        )
    return [Pmic([_pmic_channel(name, volts, roots) for name, (volts, _) in rails.items()], report)]


def _make_caller(program: str) -> Callable[[], str | None]:
    def call() -> str | None:
        import subprocess  # for the boards that need the program

        try:
            done = subprocess.run(
                [program, "pmic_read_adc"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    return call


def _pmic_channel(name: str, volts: float, roots: Roots) -> Channel:
    return Channel(
        NAME,
        name,
        "power",
        role="part",
        provenance=provenance(roots),
        resolution=_STEP_A * volts,
        gain_limit=_GAIN_LIMIT,
        update_interval_s=_REFRESH_S,
        plausible=(-1.0, 40.0),
        location="vcgencmd pmic_read_adc",
    )


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
