"""A product's requirements: read and check ``requirements.toml``, and compute what follows from them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof import toml_files, units
from edgeprof.errors import InputError, unknown
from edgeprof.worker.workload import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_TABLES = ("product", "accuracy", "reliability", "devices")
#: Smallest and largest number that is accepted; beyond them arithmetic could overflow.
_LEAST, _MOST = 1e-15, 1e15
_TIME = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(min|h|d)\s*")
_LONG_TIMES = {"min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Device:
    """What only the owner knows about a kind of device.

    Attributes:
        key: Name of the entry in the file.
        board: Name of the board; empty: any board whose name contains ``key``, or the host of that name.
        price: Price of the device, in the same currency for all.
        outside_w: Power of all that the measured rail leaves out (carrier, camera, modem), in W; None: not given.
    """

    key: str
    board: str = ""
    price: float | None = None
    outside_w: float | None = None

    def fits(self, board: str, hostname: str) -> bool:
        """Whether the entry describes a board, or a host, of this name."""
        if self.board:
            return _plain_name(self.board) == _plain_name(board)
        return _plain_name(self.key) == _plain_name(hostname) or _plain_name(self.key) in _plain_name(board)


@dataclass(frozen=True)
class Requirements:
    """The requirements of a product; None: not required.

    Attributes:
        rate_hz: Units of work per second while the device is awake.
        workload: The work that is done at that rate: ``inference`` or another workload of the results.
        duty: Share of the time awake, above 0 and at most 1.
        sleep_w: Power while asleep (W); None: the device idles instead.
        latency_p99_s: Time within which 99 % of the answers must come at the product's rate (s).
        battery_wh: Usable energy of a new battery (Wh).
        derate: Share of that energy that remains in the cold and after ageing, above 0 and at most 1.
        hours: Hours that the battery must last.
        max_w: Largest mean power (W).
        memory_bytes: Largest memory of the model's process (bytes).
        max_price: Highest price of a device.
        metric: Metric of the accuracy.
        accuracy_min: Smallest value that the lower end of the accuracy's interval must reach.
        accuracy_max: Largest value for the upper end, for metrics of which a smaller value is better.
        sustained_s: Time for which the rate must have been held without throttling (s).
        devices: The owner's entries for devices.
    """

    rate_hz: float
    workload: str = INFERENCE.name
    duty: float = 1.0
    sleep_w: float | None = None
    latency_p99_s: float | None = None
    battery_wh: float | None = None
    derate: float = 1.0
    hours: float | None = None
    max_w: float | None = None
    memory_bytes: float | None = None
    max_price: float | None = None
    metric: str | None = None
    accuracy_min: float | None = None
    accuracy_max: float | None = None
    sustained_s: float | None = None
    devices: tuple[Device, ...] = field(default=())

    @property
    def usable_wh(self) -> float | None:
        return None if self.battery_wh is None else self.battery_wh * self.derate

    @property
    def budget_w(self) -> float | None:
        """Mean power that the battery allows (W): watt-hours divided by hours; None without a battery and hours."""
        return self.usable_wh / self.hours if self.usable_wh is not None and self.hours is not None else None

    def device(self, board: str, hostname: str) -> Device | None:
        """The owner's entry for a device; None if there is none.

        Raises:
            InputError: two entries fit the device.
        """
        fitting = [device for device in self.devices if device.fits(board, hostname)]
        named = [device for device in fitting if device.board] or fitting
        if len(named) > 1:
            raise InputError(
                f"[devices.{named[0].key}] and [devices.{named[1].key}] both fit {board} ({hostname})",
                remedy=f'Add board = "{board}" to the one that is meant.',
            )
        return named[0] if named else None

    def arithmetic(self) -> list[str]:
        """Say in sentences what follows from the requirements alone."""
        done = f"{self.rate_hz:g} a second at {100 * self.duty:g} % duty"
        sentences = [f"{done} are {self.rate_hz * self.duty * 86400:,.0f} {self.workload}s a day."]
        if self.usable_wh is not None and self.hours is not None and self.budget_w is not None:
            battery = f"{self.battery_wh:g} Wh" + (f" × {self.derate:g}" if self.derate < 1 else "")
            sentences.append(
                f"{battery} over {self.hours:g} h leave {units.significant(self.budget_w)} W on average for everything."
            )
            awake = self.awake_budget_w
            if awake is not None:
                sentences.append(
                    f"Asleep it draws {self.sleep_w:g} W, which leaves {units.significant(awake)} W while it is awake."
                )
        if self.duty < 1 and self.sleep_w is None:
            sentences.append("No sleep power is given, so the device is assumed to idle when it is not awake.")
        return sentences

    @property
    def awake_budget_w(self) -> float | None:
        """Mean power that the battery allows while awake (W); None if no sleep power is given."""
        if self.budget_w is None or self.sleep_w is None:
            return None
        return (self.budget_w - (1 - self.duty) * self.sleep_w) / self.duty


def load(path: Path) -> Requirements:
    """Read ``requirements.toml``.

    Raises:
        InputError: the file is not TOML, a key or value is not valid, or two requirements contradict each other.
    """
    content = toml_files.read(path, remedy="edgeprof choose --ask FILE writes one.")
    return from_toml(content, path)


def from_toml(content: Mapping[str, Any], path: Path) -> Requirements:
    """Build the requirements from a file's content.

    Raises:
        InputError: see ``load``.
    """
    for name in content:
        if name not in _TABLES:
            raise unknown(f"table of {path.name}", name, _TABLES)
    tables = {name: _checked_table(path, name, content.get(name, {})) for name in _TABLES}
    values: dict[str, Any] = {}
    for table, readers in _KEYS.items():
        for key, value in tables[table].items():
            if key not in readers:
                raise unknown(f"key of [{table}] in {path.name}", key, readers)
            name, read = readers[key]
            values[name] = _read_value(path, key, value, read)
    if "rate_hz" not in values:
        raise InputError(f"{path} does not say the rate", remedy="Add rate = 15 to [product]: inferences a second.")
    values["devices"] = tuple(_read_device(path, key, value) for key, value in tables["devices"].items())
    requirements = Requirements(**values)
    contradiction = _find_contradiction(requirements)
    if contradiction:
        raise InputError(f"{path}: {contradiction[0]}", remedy=contradiction[1])
    return requirements


def value_of(key: str, text: object) -> float | str:
    """Convert a value of [product], as it stands in the file, to SI units.

    Raises:
        ValueError: the value is not valid; the message says why.
    """
    return _PRODUCT[key][1](text)


def _read_value(path: Path, key: str, value: object, read: Callable[[object], float | str]) -> float | str:
    try:
        return read(value)
    except ValueError as error:
        raise InputError(f"{path}: {key} = {_written_value(value)} {error}") from None


def _written_value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _checked_table(path: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {name} is not a table", remedy=f"Write it as [{name}].")
    return value


def _read_device(path: Path, key: str, value: object) -> Device:
    given = _checked_table(path, f"devices.{key}", value)
    if not _plain_name(key):
        raise InputError(f"{path}: [devices.{_written_value(key)}] names no device")
    for name in given:
        if name not in _DEVICE:
            raise unknown(f"key of [devices.{key}] in {path.name}", name, _DEVICE)
    read = {name: _read_value(path, f"{name} of devices.{key}", text, _DEVICE[name]) for name, text in given.items()}
    return Device(key, **read)  # type: ignore[arg-type] # each name has the reader of its type


def _find_contradiction(asked: Requirements) -> tuple[str, str] | None:
    """Find two requirements that contradict each other; return a sentence on them, and a remedy."""
    bounded = asked.accuracy_min is not None or asked.accuracy_max is not None
    low, high = asked.accuracy_min, asked.accuracy_max
    conflicts = (
        (
            asked.hours is not None and asked.battery_wh is None,
            "hours needs battery_wh beside it",
            "Add battery_wh, or leave hours out for a device on mains.",
        ),
        (
            asked.derate < 1 and asked.battery_wh is None,
            "derate needs battery_wh beside it",
            "Add battery_wh, or leave derate out.",
        ),
        (
            asked.sleep_w is not None and asked.duty == 1,
            "duty is 1, so the device never sleeps and sleep_w is never drawn",
            "Set duty below 1, or leave sleep_w out.",
        ),
        (
            low is not None and high is not None and low > high,
            f"the accuracy's min {low} is above its max {high}",
            "Keep the one that is meant.",
        ),
        (
            bounded != (asked.metric is not None),
            "[accuracy] needs a metric, and a min or a max",
            'Write metric = "top1" and min = 0.9.',
        ),
    )
    conflict = next(((sentence, remedy) for holds, sentence, remedy in conflicts if holds), None)
    return conflict or _sleep_draws_all(asked)


def _sleep_draws_all(asked: Requirements) -> tuple[str, str] | None:
    limits = [watts for watts in (asked.budget_w, asked.max_w) if watts is not None]
    if asked.sleep_w is None or not limits or (1 - asked.duty) * asked.sleep_w < min(limits):
        return None
    asleep = units.significant((1 - asked.duty) * asked.sleep_w)
    return (
        f"sleep alone draws {asleep} W on average, but only {units.significant(min(limits))} W are available",
        "Lower sleep_w or hours, or take a larger battery.",
    )


# --- parsers of values: a ValueError's text follows "KEY = VALUE" -----------------------------------------------------


def _parse_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number; write it without quotes and unit")  # noqa: TRY004 - a user's value
    if not math.isfinite(value):
        raise ValueError("is not finite")
    if value and not _LEAST <= abs(value) <= _MOST:
        raise ValueError(f"lies beyond {_LEAST:g} to {_MOST:g}")
    return float(value)


def _above_zero(value: object) -> float:
    number = _parse_number(value)
    if number <= 0:
        raise ValueError("is not above 0")
    return number


def _not_below_zero(value: object) -> float:
    number = _parse_number(value)
    if number < 0:
        raise ValueError("is below 0")
    return number


def _parse_share(value: object) -> float:
    number = _above_zero(value)
    if number > 1:
        raise ValueError("is not a share from 0 to 1")
    return number


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not text in quotes")
    return value


def _with_unit(value: object, unit: str, example: str) -> float:
    """Parse a quantity that must have its unit: a bare 100 could mean seconds or milliseconds."""
    if not isinstance(value, str) or not re.search(r"[A-Za-z]\s*$", value):
        raise ValueError(f'has no unit; write it as "{example}"')
    try:
        number = units.parse(value, unit)
    except (ValueError, OverflowError):
        raise ValueError(f'is not a quantity in {unit}; write it as "{example}"') from None
    if not _LEAST <= number <= _MOST:
        raise ValueError(f"lies beyond {_LEAST:g} to {_MOST:g} {unit}")
    return number


def _parse_latency(value: object) -> float:
    return _with_unit(value, "s", "100ms")


def _parse_bytes(value: object) -> float:
    return _with_unit(value, "B", "512MiB")


def _parse_period(value: object) -> float:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return _with_unit(value, "s", "30min")
    seconds = float(match[1]) * _LONG_TIMES[match[2]]
    if not _LEAST <= seconds <= _MOST:
        raise ValueError(f"lies beyond {_LEAST:g} to {_MOST:g} s")
    return seconds


_PRODUCT: dict[str, tuple[str, Callable[[object], float | str]]] = {
    "rate": ("rate_hz", _above_zero),
    "workload": ("workload", _parse_text),
    "duty": ("duty", _parse_share),
    "sleep_w": ("sleep_w", _not_below_zero),
    "latency_p99": ("latency_p99_s", _parse_latency),
    "battery_wh": ("battery_wh", _above_zero),
    "derate": ("derate", _parse_share),
    "hours": ("hours", _above_zero),
    "max_w": ("max_w", _above_zero),
    "memory": ("memory_bytes", _parse_bytes),
    "max_price": ("max_price", _not_below_zero),
}
_KEYS: dict[str, dict[str, tuple[str, Callable[[object], float | str]]]] = {
    "product": _PRODUCT,
    "accuracy": {
        "metric": ("metric", _parse_text),
        "min": ("accuracy_min", _parse_number),
        "max": ("accuracy_max", _parse_number),
    },
    "reliability": {"sustained": ("sustained_s", _parse_period)},
}
_DEVICE: dict[str, Callable[[object], float | str]] = {
    "board": _parse_text,
    "price": _not_below_zero,
    "outside_w": _not_below_zero,
}


def _plain_name(name: str) -> str:
    """Reduce a name to lower-case letters and digits: ``Raspberry Pi 5`` becomes ``raspberrypi5``."""
    return "".join(character for character in name.casefold() if character.isalnum())
