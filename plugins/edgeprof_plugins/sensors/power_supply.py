"""Batteries and USB-C supplies: ``/sys/class/power_supply``.

``power_now`` µW, else ``voltage_now`` µV × ``current_now`` µA; ``status``, ``type``, ``online``.
Refresh: that of the fuel gauge, 1 to 30 s; it is good for minutes, not for windows.
Traps: the sign of ``current_now`` depends on the driver, so the magnitude is used, and only while discharging; with AC
plugged in, a battery's power says nothing about the machine's; ``ucsi-source-psy-*`` shows the values that USB-C
negotiated, and measures nothing.
Source: Documentation/ABI/testing/sysfs-class-power.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.sensing.files import NumberFile, TextFile, listing, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "power_supply"
#: Largest plausible power of an edge device's battery (W).
_MOST_W = 500.0


class Battery(Sensor):
    """The power of one battery while it discharges; NaN while it does not."""

    name = NAME

    def __init__(self, channel: Channel, status: TextFile, files: Sequence[NumberFile]) -> None:
        self._channel = channel
        self._status = status
        self._files = tuple(files)

    @property
    def channels(self) -> Sequence[Channel]:
        return (self._channel,)

    def open(self) -> None:
        for file in (self._status, *self._files):
            file.open()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        product = 1.0
        for file in self._files:
            product *= file.number()
        discharging = (self._status.read() or b"").strip() == b"Discharging"
        values[0] = abs(product) if discharging else math.nan
        times[0] = 0.5 * (before + time.monotonic())

    def close(self) -> None:
        for file in (self._status, *self._files):
            file.close()


class _Refused(Sensor):
    """A supply whose readings would be misleading; it is listed with the reason and never read."""

    name = NAME

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def channels(self) -> Sequence[Channel]:
        return ()

    @property
    def unavailable(self) -> Sequence[Channel]:
        return (self._channel,)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        """Nothing to read."""


def find(roots: Roots) -> list[Sensor]:
    """Find the batteries that feed the machine, and the supplies that only seem to measure something."""
    paths = listing(roots.sysfs / "class/power_supply")
    plugged = any(_is_plugged(path) for path in paths)
    return [sensor for path in paths if (sensor := _make_supply(path, roots, plugged))]


def _is_plugged(path: Path) -> bool:
    """Whether this is a connected external supply."""
    return text_of(path / "type") != "Battery" and text_of(path / "online") == "1"


def _make_supply(path: Path, roots: Roots, plugged: bool) -> Sensor | None:
    def channel(reason: str | None = None) -> Channel:
        return Channel(
            NAME,
            path.name,
            "power",
            scope="board",
            provenance=provenance(roots),
            update_interval_s=None,
            plausible=(0.0, _MOST_W),
            location=path.name,
            chip=path.name,
            additive=True,  # it adds to the machine's other batteries, and contains everything else
            note="the fuel gauge refreshes every 1 to 30 s; it is good for minutes, not for short windows",
            available=reason is None,
            reason=reason,
        )

    if path.name.startswith("ucsi-source-psy"):
        return _Refused(channel("it shows the values that USB-C negotiated, and measures nothing"))
    if text_of(path / "type") != "Battery" or text_of(path / "scope") == "Device":
        return None  # the battery of a mouse does not feed this machine
    power, volts, amperes = (path / name for name in ("power_now", "voltage_now", "current_now"))
    if power.exists() and trouble(power) is None:
        files = [NumberFile(power, 1e-6)]
    elif not (problem := trouble(volts) or trouble(amperes)):
        files = [NumberFile(volts, 1e-6), NumberFile(amperes, 1e-6)]
    else:
        return _Refused(channel(problem[0]))
    reason = _why_idle(path, plugged)
    return Battery(channel(), TextFile(path / "status"), files) if reason is None else _Refused(channel(reason))


def _why_idle(path: Path, plugged: bool) -> str | None:
    """Why a battery does not feed the machine now; None if it does."""
    if text_of(path / "present") == "0":
        return "there is no battery in the slot"
    status = text_of(path / "status") or "Unknown"
    if status == "Discharging":
        return None
    if plugged or status in {"Charging", "Full"}:
        return "external power is plugged in: the battery's power is not the machine's"
    return f"it is not discharging ({status.lower()}): something else feeds the machine"


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
