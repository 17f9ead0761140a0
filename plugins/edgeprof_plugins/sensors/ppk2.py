"""Nordic Power Profiler Kit II by ``ppk2-api`` (``pip install 'edgeprof[ppk2]'``): ``--sensor ppk2:ADDRESS``.

Address: ``ampere:5V`` (it measures the current of a supply of that voltage, at most 1 A) or ``source:3.3V`` (it
supplies that voltage, 0.8 to 5 V, and switches the device on), with ``@/dev/ttyACM0`` if there are several.
Calls: ``PPK2_API(port)``, ``get_modifiers``, ``set_source_voltage`` mV, ``use_ampere_meter`` or ``use_source_meter``,
``start_measuring``, ``get_data`` and ``get_samples`` (µA at 100 kHz), which a thread adds up to a counter of joules.
Covers: ``board``. Traps: it does not measure voltage, so the joules are only as accurate as the given voltage (assumed
±2 %); above 1 A it clips; samples that are not fetched in time are lost, and the mean of the samples since the last
fetch replaces them.
Sources: IRNAS/ppk2-api-python; Nordic, PPK2 user guide (accuracy ±10 % at worst, typically 2 %).
"""

from __future__ import annotations

import math
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import InputError, UnavailableError
from edgeprof.sensing.sensor import Channel, Filter, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "ppk2"
_ADDRESS = re.compile(r"(ampere|source):([0-9.]+)V?(?:@(/\S+))?")
_LOW_V, _HIGH_V, _MOST_A = 0.8, 5.0, 1.0
_CURRENT_LIMIT, _VOLTAGE_LIMIT = 0.10, 0.02
#: Interval at which samples are fetched (s), and time without samples after which the kit counts as silent (s).
FETCH_S, _SILENT_S = 0.02, 1.0


class Ppk2(Sensor):
    """One kit.

    Args:
        kit: A ``ppk2_api.ppk2_api.PPK2_API``.
        mode: ``ampere`` or ``source``.
        volts: Voltage of the supply (V).
        port: Path of its port.
    """

    name = NAME

    def __init__(self, kit: Any, mode: str, volts: float, port: str) -> None:
        self._kit, self._mode, self._volts, self._port = kit, mode, volts, port
        limit = math.hypot(_CURRENT_LIMIT, _VOLTAGE_LIMIT)
        facts: dict[str, Any] = {"scope": "board", "role": "total", "location": port, "gain_limit": limit}
        facts |= {"update_interval_s": FETCH_S, "note": f"assumes {volts:g} V, which it does not measure"}
        self._channels = (
            Channel(NAME, "ppk2", "energy", kind="counter", provenance="counter", **facts),
            Channel(
                NAME,
                "ppk2",
                "power",
                filter=Filter("block", length_s=FETCH_S),
                plausible=(-0.01, 1.05 * _MOST_A * volts),
                **facts,
            ),
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._joules, self._watts, self._at = 0.0, math.nan, -math.inf

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        try:
            self._kit.get_modifiers()
            self._kit.set_source_voltage(round(1e3 * self._volts))
            if self._mode == "source":
                self._kit.use_source_meter()
            else:
                self._kit.use_ampere_meter()
            self._kit.toggle_DUT_power("ON")
            self._kit.start_measuring()
        except OSError as error:  # pyserial's errors are subclasses
            raise UnavailableError(f"the PPK2 at {self._port} does not answer: {error}") from None
        self._stop.clear()
        self._thread = threading.Thread(target=self._fetch, name="edgeprof ppk2", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _SILENT_S
        while not math.isfinite(self._at):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the PPK2 at {self._port} measures nothing", remedy="Unplug it and plug it in again."
                )
            time.sleep(FETCH_S)

    def _fetch(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(FETCH_S):
            try:
                data = self._kit.get_data()
            except OSError:
                return  # it was unplugged; read() reports it
            samples, _ = self._kit.get_samples(data) if data else ([], None)
            now = time.monotonic()
            if not samples:
                continue
            watts = self._volts * 1e-6 * math.fsum(samples) / len(samples)
            with self._lock:
                self._joules += watts * (now - before)
                self._watts, self._at = watts, now
            before = now

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        with self._lock:
            row = self._joules, self._watts, self._at
        age = time.monotonic() - row[2]
        if age > _SILENT_S:
            raise UnavailableError(f"the PPK2 at {self._port} sent nothing for {age:.3g} s")
        values[0], values[1] = row[0], row[1]
        times[0] = times[1] = row[2]

    def close(self) -> None:
        """Stop measuring; the supply stays on, since the device under test may be running from it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None
            self._kit.stop_measuring()


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Find the kits that the user asked for; power cannot be computed without the voltage.

    Raises:
        InputError: an address does not contain mode and voltage.
        UnavailableError: there is no kit, or the library is not installed.
    """
    if not addresses or not roots.is_live:
        return []
    wanted = [parse(address) for address in addresses]
    try:
        from ppk2_api.ppk2_api import PPK2_API
    except ImportError:
        raise UnavailableError("ppk2-api is not installed", remedy="pip install 'edgeprof[ppk2]'") from None
    sensors: list[Sensor] = []
    for mode, volts, port in wanted:
        ports = [port] if port else PPK2_API.list_devices()
        if not ports:
            raise UnavailableError("no PPK2 is connected", remedy="Plug it in, or name its port: …@/dev/ttyACM0.")
        try:
            kit = PPK2_API(ports[0], timeout=1, write_timeout=1, exclusive=True)
        except OSError as error:
            raise UnavailableError(
                f"the PPK2 at {ports[0]} cannot be opened: {error}", remedy="sudo usermod -aG dialout $USER"
            ) from None
        sensors.append(Ppk2(kit, mode, volts, ports[0]))
    return sensors


def parse(address: str) -> tuple[str, float, str | None]:
    """Parse an address into mode, voltage (V) and port.

    Raises:
        InputError: the address has another form.
    """
    match = _ADDRESS.fullmatch(address)
    try:
        volts = float(match[2]) if match else math.nan
    except ValueError:
        volts = math.nan
    if match is None or not volts > 0 or (match[1] == "source" and not _LOW_V <= volts <= _HIGH_V):
        raise InputError(
            f"ppk2:{address} does not give a mode and a voltage",
            remedy="Write it as ppk2:ampere:5V or ppk2:source:3.3V (0.8 to 5 V).",
        )
    return match[1], volts, match[3]


find.is_instrument = True  # type: ignore[attr-defined]  # discover asks the factory


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
