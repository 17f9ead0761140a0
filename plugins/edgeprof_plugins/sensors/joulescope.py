"""Joulescope JS110 and JS220 by their own library (``pip install 'edgeprof[joulescope]'``): ``--sensor joulescope``.

Calls: ``pyjoulescope_driver.Driver``; ``open``, ``publish`` of the statistics' rate, ``subscribe`` to
``<device>/s/stats/value`` (JS220) or ``/s/sstats/value`` (JS110). Its value contains each interval's mean power (W),
voltage, current, and the energy since the device was opened (J), which is the counter for joules. Refresh: 20 Hz
(JS110: 2 Hz). It covers what is wired through it: ``board``, or as given by ``--sensor joulescope:wall``. Traps:
opening takes about a second and blocks the device for other programs, so it is opened only if it is named. Sources:
jetperch/pyjoulescope_driver, entry_points/statistics.py; the JS220's and JS110's user's guides.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import InputError, UnavailableError
from edgeprof.sensing.board.files import SCOPES
from edgeprof.sensing.sensor import Channel, Filter, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "joulescope"
RATE_HZ, _JS110_RATE_HZ, _SAMPLES_PER_S = 20.0, 2.0, 1_000_000
#: Limit of the gain error: the user's guides' accuracy of power in the middle ranges, rounded up to ±0.5 %.
_GAIN_LIMIT = 0.005
_FIRST_S, _SILENT_S = 5.0, 2.0


class Joulescope(Sensor):
    """One instrument.

    Args:
        driver: A ``pyjoulescope_driver.Driver``.
        device: Path of the instrument, as ``u/js220/002557``.
        covers: Scope of what is wired through it.
    """

    name = NAME

    def __init__(self, driver: Any, device: str, covers: str) -> None:
        self._driver, self._device = driver, device
        self._old = "js110" in device
        self._topic = f"{device}/s/{'sstats' if self._old else 'stats'}/value"
        self._news = threading.Condition()
        self._latest: tuple[float, float, float, float, float] | None = None
        interval = 1 / (_JS110_RATE_HZ if self._old else RATE_HZ)
        base = {"scope": covers, "location": device, "update_interval_s": interval, "gain_limit": _GAIN_LIMIT}
        name = device.rsplit("/", 2)[-2] if device.count("/") > 1 else device
        self._channels = (
            Channel(NAME, name, "energy", kind="counter", role="total", provenance="counter", **base),  # type: ignore[arg-type]  # facts of several types
            Channel(NAME, name, "power", role="total", filter=Filter("block", length_s=interval), **base),  # type: ignore[arg-type]  # see above
            Channel(NAME, name, "voltage", **base),  # type: ignore[arg-type]  # see above
            Channel(NAME, name, "current", **base),  # type: ignore[arg-type]  # see above
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        driver, device = self._driver, self._device
        try:
            driver.open(device)
            if self._old:
                driver.publish(f"{device}/s/i/range/select", "auto")
            else:
                driver.publish(f"{device}/s/i/range/mode", "auto")
                driver.publish(f"{device}/s/stats/scnt", round(_SAMPLES_PER_S / RATE_HZ))
                driver.publish(f"{device}/s/stats/ctrl", 1)
            driver.subscribe(self._topic, "pub", self._on_value)
        except RuntimeError as error:  # the library raises this for every error of the device
            raise UnavailableError(
                f"the Joulescope {device} cannot be opened: {error}", remedy="Close other programs that use it."
            ) from None
        with self._news:
            if not self._news.wait_for(lambda: self._latest is not None, _FIRST_S):
                raise UnavailableError(f"the Joulescope {device} sent nothing for {_FIRST_S:g} s")

    def _on_value(self, _topic: str, value: Any) -> None:
        """Take the statistics of an interval; the driver's thread calls this."""
        signals = value["signals"]
        means = [float(signals[name]["avg"]["value"]) for name in ("power", "voltage", "current")]
        with self._news:
            self._latest = (
                time.monotonic(),
                float(value["accumulators"]["energy"]["value"]),
                means[0],
                means[1],
                means[2],
            )
            self._news.notify_all()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        with self._news:
            latest = self._latest
        age = math.inf if latest is None else time.monotonic() - latest[0]
        if latest is None or age > _SILENT_S:
            raise UnavailableError(f"the Joulescope {self._device} sent nothing for {age:.3g} s")
        for index in range(4):
            values[index], times[index] = latest[1 + index], latest[0]

    def close(self) -> None:
        self._latest = None
        self._driver.unsubscribe(self._topic, self._on_value)
        self._driver.close(self._device)


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Find the connected instruments, if the user asked for them by name.

    Raises:
        UnavailableError: there is no instrument, or the library is not installed.
        InputError: an address is not a scope.
    """
    if not addresses or not roots.is_live:
        return []
    covers = addresses[0] or "board"
    if covers not in SCOPES:
        raise InputError(f"joulescope:{covers} does not say what it covers", remedy=f"One of {', '.join(SCOPES)}.")
    try:
        from pyjoulescope_driver import Driver
    except ImportError:
        raise UnavailableError(
            "the Joulescope's library is not installed", remedy="pip install 'edgeprof[joulescope]'"
        ) from None
    return instruments(Driver(), covers)


def instruments(driver: Any, covers: str) -> list[Sensor]:
    """Make a sensor for each instrument of a driver.

    Raises:
        UnavailableError: there is no instrument.
    """
    devices = [device for device in driver.device_paths() if "js110" in device or "js220" in device]
    if not devices:
        raise UnavailableError(
            "no Joulescope is connected",
            remedy="Plug it in; its udev rules: https://www.joulescope.com/pages/downloads",
        )
    return [Joulescope(driver, device, covers) for device in devices]


find.is_instrument = True  # type: ignore[attr-defined]  # discover reads this mark


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
