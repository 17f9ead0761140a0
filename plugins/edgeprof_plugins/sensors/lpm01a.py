"""ST X-NUCLEO-LPM01A (PowerShield), the default meter of MLPerf Tiny: ``--sensor lpm01a:3.3V@/dev/ttyACM1``.

It supplies the device with the given voltage (1.8 to 3.3 V) and measures what the device draws. The address is the
voltage, ``@`` and the port; a prefix ``static:`` allows currents up to 200 mA (by default it measures dynamically, up
to 50 mA). Protocol: text over USB (ST UM2269, UM2243): ``htc``, ``acqmode``, ``volt``, ``freq``, ``output energy``,
``format ascii_dec``, ``acqtime inf``, ``trigsrc sw``, ``pwrend on``, ``start``; each is answered by ``ack`` or
``error``. Then it sends one line for each sample, ``6409-07`` for 6409 × 10⁻⁷ J, and a time stamp every 1000 samples.
Covers: ``board`` (what it supplies). Refresh: 1 kHz. Traps: the first ``htc`` after plugging it in may be refused; the
device loses its supply if an acquisition ends without ``pwrend on``, so one acquisition runs until the program ends;
lost samples are recognised by the time stamps, and their time counts as a gap.
"""

from __future__ import annotations

import atexit
import math
import re
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots
    from edgeprof_plugins.sensors.lpm01a_stream import Stream

NAME = "lpm01a"
_ADDRESS = re.compile(r"(?:(static|dynamic):)?([0-9]+(?:\.[0-9]+)?)V?@(/\S+)")
_LOW_V, _HIGH_V = 1.8, 3.3
_MOST_A = {"static": 0.2, "dynamic": 0.05}
#: ST DB3450: ±2 % of the reading in dynamic mode.
_GAIN_LIMIT = 0.02


class PowerShield(Sensor):
    """One instrument."""

    name = NAME

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lost = 0
        most_w = _MOST_A[stream.mode] * stream.volts
        self._channels = (
            Channel(
                NAME,
                "lpm01a",
                "energy",
                kind="counter",
                scope="board",
                role="total",
                provenance="measured",
                gain_limit=_GAIN_LIMIT,
                update_interval_s=stream.sample_s,
                limit_w=1.2 * most_w,
                location=stream.place,
                note=f"supplies {stream.volts:g} V",
            ),
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        self._stream.wait()
        self._lost = self._stream.row()[2]

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        joules, at_s, lost = self._stream.row()
        values[0] = joules if lost == self._lost else math.nan  # lost samples become a gap
        times[0], self._lost = at_s, lost


_streams: dict[str, Stream] = {}


def disconnect() -> None:
    """End every acquisition of this process."""
    while _streams:
        _streams.popitem()[1].close()


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Find the instruments that the user asked for; without a voltage no device may be switched on.

    Raises:
        InputError: an address does not contain voltage and port.
        UnavailableError: there is no such instrument, or it refuses a command.
    """
    if not addresses or not roots.is_live:
        return []
    return [PowerShield(_connect(address)) for address in addresses]


def _connect(address: str) -> Stream:
    from edgeprof_plugins.sensors.lpm01a_stream import Stream  # for who has the instrument

    mode, volts, port = parse(address)
    known = _streams.get(port)
    if known is not None and (known.trouble or (known.mode, known.volts) != (mode, volts)):
        _streams.pop(port).close()
        known = None
    if known is None:
        if not _streams:
            atexit.register(disconnect)
        known = _streams[port] = Stream(port, volts, mode)
    return known


def parse(address: str) -> tuple[str, float, str]:
    """Parse an address into mode, voltage (V) and port.

    Raises:
        InputError: the address has another form.
    """
    match = _ADDRESS.fullmatch(address)
    volts: Any = float(match[2]) if match else math.nan
    if match is None or not _LOW_V <= volts <= _HIGH_V:
        raise InputError(
            f"lpm01a:{address} does not give a voltage and a port",
            remedy="Write it as lpm01a:3.3V@/dev/ttyACM1 or lpm01a:static:3.3V@/dev/ttyACM1 (1.8 to 3.3 V).",
        )
    return match[1] or "dynamic", volts, match[3]


find.is_instrument = True  # type: ignore[attr-defined]  # discover asks the factory


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
