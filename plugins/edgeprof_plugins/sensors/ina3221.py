"""INA3221 power monitors, the rails of every Jetson since the TX1: three channels of bus and shunt voltage each.

JetPack 5 and later (mainline hwmon driver): ``/sys/class/hwmon/hwmonN/`` with ``name`` ina3221, channels from 1:
``inN_input`` mV (steps of 8 mV), ``currN_input`` mA (steps of 40 µV / shunt), ``inN_label``, ``inN_enable``,
``shuntN_resistor`` µΩ, ``samples``, ``update_interval``. in4..in7 and curr4 are shunt voltages and sums, no rails.
JetPack 4 (NVIDIA's IIO driver): ``/sys/bus/i2c/drivers/ina3221x/<bus>-00<addr>/iio:deviceN/``, channels from 0:
``ui_input_N`` "mV mA" (one coherent read, preferred), else ``in_voltageN_input`` mV and ``in_currentN_input`` mA
(``in_powerN_input`` is their product cut to whole mW); ``rail_name_N``. The ``*_trigger_input`` files read 0: not used.

Refresh: one cycle, channels × 2 × conversion time; the value is a running exponential average of ``samples`` cycles.
Traps: disabled and "NC" channels answer ENODATA or have no input file; labels may be missing; power can be negative by
a step; a shunt of 5 µΩ in a device tree is a typing error for 5 mΩ; kernel 5.10 blocks for up to 430 ms per read; JP4's
files may be readable by root only. Each read is an I2C transfer of about 0.5 ms.
Sources: drivers/hwmon/ina3221.c and Documentation/hwmon/ina3221.rst; OE4T linux-tegra-4.9 staging/iio/meter/ina3221.c;
TI SBOS576.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof import hookimpl
from edgeprof.sensing.board.identity import identify_board
from edgeprof.sensing.board.placement import Origin, distinct_names, find_rails
from edgeprof.sensing.files import NumberFile, TextFile, listing, number_of, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Filter, Sensor
from edgeprof_plugins.sensors.ina3221_timing import IIO_DEFAULT, Timing, timing

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots
    from edgeprof.sensing.board.files import Rail

NAME = "ina3221"
#: SBOS576: bus range and step (V), shunt step and full scale (V).
_BUS_RANGE_V, _BUS_STEP_V, _SHUNT_STEP_V, _SHUNT_RANGE_V = 26.0, 8e-3, 40e-6, 0.16384
#: Gain: 0.25 % of the part and ±1 % assumed of the shunt; offset: 80 µV over the shunt (SBOS576, 7.5).
_GAIN_LIMIT, _OFFSET_V = math.hypot(0.0025, 0.01), 80e-6
#: Range of plausible shunts (Ω).
_SANE_SHUNT = (1e-4, 2.0)
#: A read that takes this long (s) has waited for a conversion. The voltage, which hardly changes, is then read only
#: once per this many readings of the current.
_WAITED_S, _READS_PER_VOLTAGE = 0.05, 10
#: A chip whose reads together take this long gets its own thread (s).
_SLOW_S = 0.02


class _Chip(NamedTuple):
    path: Path
    place: str
    first: int  # number of the first channel
    timing: Timing

    def label(self, number: int) -> str | None:
        """The driver's label of a channel; None if it has none."""
        return text_of(self.path / (f"in{number}_label" if self.first else f"rail_name_{number}"))

    def origin(self, number: int) -> Origin:
        return Origin(self.label(number), f"i2c {self.place}", number - self.first + 1)


class _Connected(NamedTuple):
    """One connected channel: its properties, and the function that reads its voltage and current (V, A)."""

    chip: _Chip
    number: int
    rail: Rail | None
    reader: Callable[[], tuple[float, float]]
    files: tuple[TextFile, ...]
    shunt_ohm: float | None
    note: str
    name: str = ""

    @property
    def origin(self) -> Origin:
        return self.chip.origin(self.number)


class Ina3221(Sensor):
    """One chip: power, voltage and current of each connected channel."""

    name = NAME

    def __init__(
        self, rails: Sequence[_Connected], channels: Sequence[Channel], refused: Sequence[Channel], slow: bool
    ) -> None:
        self._rails = tuple(rails)
        self._channels = tuple(channels)
        self._refused = tuple(refused)
        self.slow = slow

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self._refused

    def open(self) -> None:
        for rail in self._rails:
            for file in rail.files:
                file.open()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        # Voltage and current are two transfers, half a millisecond apart; the current, which varies, comes second. A
        # driver that waits for a conversion returns the value at the end of the wait.
        index = 0
        clock = time.monotonic
        before = clock()
        for rail in self._rails:
            volts, amperes = rail.reader()
            after = clock()
            took = after - before
            read_s = after if took > _WAITED_S else after - took / 4
            before = after
            values[index], values[index + 1], values[index + 2] = volts * amperes, volts, amperes
            times[index] = times[index + 1] = times[index + 2] = read_s
            index += 3

    def close(self) -> None:
        for rail in self._rails:
            for file in rail.files:
                file.close()


def find(roots: Roots) -> list[Sensor]:
    """Make a sensor for each INA3221 chip below the roots, with either driver."""
    chips = [*_hwmon_chips(roots), *_iio_chips(roots)]
    places = [(chip, number) for chip in chips for number in range(chip.first, chip.first + 3)]
    origins = [chip.origin(number) for chip, number in places]
    rails = find_rails(identify_board(roots), dict(enumerate(origins)))
    names = distinct_names(
        [
            origin.label or (rails[i].name if i in rails else _unlabelled_name(origin))
            for i, origin in enumerate(origins)
        ],
        origins,
        keep=rails,
    )
    connected: dict[Path, list[_Connected]] = {chip.path: [] for chip in chips}
    refused: dict[Path, list[Channel]] = {chip.path: [] for chip in chips}
    for index, (chip, number) in enumerate(places):
        read = _hwmon_channel if chip.first else _iio_channel
        result = read(chip, number, names[index], rails.get(index))
        if isinstance(result, _Connected):
            connected[chip.path].append(result)
        elif result is not None:
            refused[chip.path].append(result)
    return [
        _make_sensor(chip, connected[chip.path], refused[chip.path], roots)
        for chip in chips
        if connected[chip.path] or refused[chip.path]
    ]


def _unlabelled_name(origin: Origin) -> str:
    return f"{origin.chip.removeprefix('i2c ')} channel {origin.input}"


def _hwmon_chips(roots: Roots) -> list[_Chip]:
    chips = []
    release = text_of(roots.procfs / "sys/kernel/osrelease")
    for path in listing(roots.sysfs / "class/hwmon"):
        if text_of(path / "name") != NAME:
            continue
        enabled = sum(number_of(path / f"in{n}_enable") != 0 and _has_files(path, n) for n in (1, 2, 3))
        samples, interval = number_of(path / "samples"), number_of(path / "update_interval")
        chips.append(_Chip(path, _i2c_device(path), 1, timing(samples, interval, enabled, release)))
    return chips


def _has_files(path: Path, number: int) -> bool:
    return (path / f"in{number}_input").exists() and (path / f"curr{number}_input").exists()


def _iio_chips(roots: Roots) -> list[_Chip]:
    chips = []
    for device in listing(roots.sysfs / "bus/i2c/drivers/ina3221x"):
        path = next((p for p in listing(device) if p.name.startswith(("iio:device", "iio_device"))), None)
        if path is not None:
            triggered = number_of(path / "running_mode") == 0
            kind = replace(IIO_DEFAULT, filter=Filter("block", length_s=IIO_DEFAULT.filter.tau_s))
            chips.append(_Chip(path, device.name, 0, kind if triggered else IIO_DEFAULT))
    return chips


def _i2c_device(path: Path) -> str:
    """The I2C device that an hwmon directory belongs to, as ``1-0040``."""
    owner = (path / "device").resolve().name
    return owner if re.fullmatch(r"\d+-00[0-9a-f]{2}", owner) else "0-0000"


def _hwmon_channel(chip: _Chip, number: int, name: str, rail: Rail | None) -> _Connected | Channel | None:
    volts, amperes = chip.path / f"in{number}_input", chip.path / f"curr{number}_input"
    if chip.label(number) == "NC" or number_of(chip.path / f"in{number}_enable") == 0:
        return _disabled_channel(chip, number, name)
    for path in (volts, amperes):
        problem = trouble(path)
        if problem is not None:
            return _refused_channel(chip, number, name, *problem)
    declared = number_of(chip.path / f"shunt{number}_resistor", 1e-6)
    shunt, factor, note = _shunt_of(declared, rail)
    if factor is None:
        remedy = f"As root, write the true resistance in µΩ to {chip.path / f'shunt{number}_resistor'}."
        return _refused_channel(chip, number, name, note, remedy)
    voltage, current = NumberFile(volts, 1e-3), NumberFile(amperes, 1e-3 * factor)

    pair = _waiting_pair(voltage, current) if chip.timing.may_block else _read_pair(voltage, current)
    return _Connected(chip, number, rail, pair, (voltage, current), shunt, note, name)


def _read_pair(voltage: NumberFile, current: NumberFile) -> Callable[[], tuple[float, float]]:
    return lambda: (voltage.number(), current.number())


def _waiting_pair(voltage: NumberFile, current: NumberFile) -> Callable[[], tuple[float, float]]:
    """A reader of voltage and current for a driver whose reads may wait; it then keeps a voltage for some readings."""
    volts, age, waits = math.nan, 0, False

    def read() -> tuple[float, float]:
        nonlocal volts, age, waits
        age += 1
        if not waits or age >= _READS_PER_VOLTAGE or math.isnan(volts):
            begin = time.monotonic()
            volts, age = voltage.number(), 0
            waits = time.monotonic() - begin > _WAITED_S
        return volts, current.number()

    return read


def _shunt_of(declared: float | None, rail: Rail | None) -> tuple[float | None, float | None, str]:
    """The shunt (Ω), the factor that corrects the driver's current (None: it cannot be corrected), and a note."""
    known = None if rail is None or rail.shunt_uohm is None else rail.shunt_uohm * 1e-6
    if declared is None:
        return known, 1.0, "" if known else "the shunt is unknown, and therefore the step of the current"
    if _SANE_SHUNT[0] <= declared <= _SANE_SHUNT[1]:
        return declared, 1.0, ""
    wrong = f"the device tree gives the shunt as {declared * 1e6:g} µΩ"
    if known is None:
        return None, None, f"{wrong}, which is impossible"
    return known, declared / known, f"{wrong}; corrected to {known * 1e6:g} µΩ"


def _iio_channel(chip: _Chip, number: int, name: str, rail: Rail | None) -> _Connected | Channel | None:
    label = chip.label(number)
    if label == "NC":
        return _disabled_channel(chip, number, name)
    shunt = None if rail is None or rail.shunt_uohm is None else rail.shunt_uohm * 1e-6
    note = "averaging assumed: the driver's default of 64 samples"
    both = chip.path / f"ui_input_{number}"
    volts, amperes = chip.path / f"in_voltage{number}_input", chip.path / f"in_current{number}_input"
    if _is_pair(both):
        file = TextFile(both)

        def coherent() -> tuple[float, float]:
            words = (file.read() or b"").split()
            try:
                return int(words[0]) * 1e-3, int(words[1]) * 1e-3
            except (ValueError, IndexError):
                return math.nan, math.nan

        return _Connected(chip, number, rail, coherent, (file,), shunt, note, name)
    for path in (volts, amperes):
        problem = trouble(path)
        if problem is not None:
            exists = both.exists() or volts.exists() or label is not None
            return _refused_channel(chip, number, name, *problem) if exists else None
    voltage, current = NumberFile(volts, 1e-3), NumberFile(amperes, 1e-3)

    def pair() -> tuple[float, float]:
        return voltage.number(), current.number()

    return _Connected(chip, number, rail, pair, (voltage, current), shunt, note, name)


def _is_pair(path: Path) -> bool:
    file = TextFile(path)
    text = file.read() or b""
    file.close()
    return re.fullmatch(rb"\d+ -?\d+\s*", text) is not None


def _disabled_channel(chip: _Chip, number: int, name: str) -> Channel:
    """A channel that nothing is connected to; its label "NC" is not used as a name, since several may have it."""
    unnamed = chip.label(number) == "NC"
    return _refused_channel(
        chip, number, _unlabelled_name(chip.origin(number)) if unnamed else name, "disabled by the board"
    )


def _refused_channel(chip: _Chip, number: int, name: str, reason: str, remedy: str | None = None) -> Channel:
    return Channel(NAME, name, "power", available=False, reason=reason, remedy=remedy, **_location_facts(chip, number))


def _location_facts(chip: _Chip, number: int) -> dict[str, Any]:
    origin = chip.origin(number)
    return {
        "location": f"{origin.chip} channel {origin.input}",
        "chip": origin.chip,
        "input": origin.input,
        "label": origin.label,
    }


def _make_sensor(chip: _Chip, rails: Sequence[_Connected], refused: Sequence[Channel], roots: Roots) -> Sensor:
    channels: list[Channel] = []
    source = provenance(roots)
    begin = time.monotonic()
    for rail in rails:
        volts, _ = rail.reader()
        channels += _rail_channels(rail, volts, source == "simulated")
    took = time.monotonic() - begin
    for rail in rails:
        for file in rail.files:
            file.close()
    return Ina3221(rails, channels, refused, slow=chip.timing.may_block or took > _SLOW_S)


def _rail_channels(rail: _Connected, volts: float, simulated: bool) -> list[Channel]:
    shunt, chip = rail.shunt_ohm, rail.chip
    step_a = None if shunt is None else _SHUNT_STEP_V / shunt
    known_v = not math.isnan(volts)
    most_a = math.inf if shunt is None else _SHUNT_RANGE_V / shunt
    most_w = most_a * _BUS_RANGE_V
    base = Channel(
        NAME,
        rail.name,
        "power",
        provenance="simulated" if simulated else "measured",
        resolution=step_a * volts if step_a is not None and known_v else None,
        gain_limit=_GAIN_LIMIT,
        offset_limit=_OFFSET_V / shunt * volts if shunt is not None and known_v else None,
        update_interval_s=chip.timing.cycle_s,
        filter=chip.timing.filter,
        plausible=(-most_w, most_w),
        **_location_facts(chip, rail.number),
        note="; ".join(filter(None, (rail.note, chip.timing.note))),
    )
    volt = replace(
        base, quantity="voltage", resolution=_BUS_STEP_V, offset_limit=None, plausible=(-0.1, _BUS_RANGE_V), note=""
    )
    ampere = replace(
        base,
        quantity="current",
        resolution=step_a,
        offset_limit=None if shunt is None else _OFFSET_V / shunt,
        plausible=(-most_a, most_a),
        note="",
    )
    return [base, volt, ampere]


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
