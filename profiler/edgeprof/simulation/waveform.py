"""Power over time with an integral in closed form: the truth with which a measurement is compared.

A waveform consists of straight lines (constants, squares, ramps, bursts, tables) or is a sine. Its energy from the
start to any time is exact up to floating-point rounding, and not a sum of steps.
"""

from __future__ import annotations

import bisect
import csv
import io
import itertools
import math
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import whole_files
from edgeprof.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WATTS = {"": 1.0, "w": 1.0, "mw": 1e-3, "uw": 1e-6, "kw": 1e3}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([a-zA-Zµ]*)\s*")


class Waveform(ABC):
    """Power (W) at each time since the waveform's start (s); it is defined for times from 0 on."""

    @abstractmethod
    def power(self, time: float) -> float:
        """Return the power at ``time``, W; at a jump, the power after it."""

    @abstractmethod
    def energy(self, time: float) -> float:
        """Return the integral of the power from 0 to ``time``, J, in closed form."""

    def flat(self, start: float, end: float) -> float | None:  # noqa: ARG002 - most are not
        """Return the power if it is constant from ``start`` to ``end`` and that is cheap to determine; else None."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the waveform as values for JSON; ``restore`` makes the waveform from them."""

    def between(self, start: float, end: float) -> float:
        """Return the energy from ``start`` to ``end``, J."""
        return self.energy(end) - self.energy(start)


class Sine(Waveform):
    """``(high + low)/2 + (high − low)/2 · sin(2πt/period)``."""

    def __init__(self, low: float, high: float, period: float) -> None:
        self._terms = (low, high, period)
        self._mean, self._swing, self._omega = (low + high) / 2, (high - low) / 2, 2 * math.pi / period

    def describe(self) -> dict[str, Any]:
        return {"sine": list(self._terms)}

    def power(self, time: float) -> float:
        return self._mean + self._swing * math.sin(self._omega * time)

    def energy(self, time: float) -> float:
        # 1 − cos x = 2 sin²(x/2), which loses no digits near x = 0.
        return self._mean * time + self._swing / self._omega * 2 * math.sin(self._omega * time / 2) ** 2


class Pieces(Waveform):
    """Consecutive straight lines, which repeat, or after which the last power remains.

    Args:
        pieces: For each line: (duration s, power at its start W, power at its end W).
        repeat: Whether the waveform begins again after the last line.
    """

    def __init__(self, pieces: Sequence[tuple[float, float, float]], *, repeat: bool) -> None:
        self._pieces = [piece for piece in pieces if piece[0] > 0]
        if not self._pieces:
            raise ValueError("a waveform needs a piece with a duration")
        self._starts = [0.0, *itertools.accumulate(duration for duration, _, _ in self._pieces)]
        self._energies = [0.0, *itertools.accumulate((a + b) / 2 * duration for duration, a, b in self._pieces)]
        self.period = self._starts.pop()
        self._sum = self._energies.pop()
        self._repeat = repeat

    def power(self, time: float) -> float:
        _, offset = self._locate(time)
        if not self._repeat and time >= self.period:
            return self._pieces[-1][2]
        index = bisect.bisect_right(self._starts, offset) - 1
        duration, first, last = self._pieces[index]
        return first + (last - first) * (offset - self._starts[index]) / duration

    def energy(self, time: float) -> float:
        rounds, offset = self._locate(time)
        if not self._repeat and time >= self.period:
            return self._sum + self._pieces[-1][2] * (time - self.period)
        index = bisect.bisect_right(self._starts, offset) - 1
        duration, first, last = self._pieces[index]
        into = offset - self._starts[index]
        return rounds * self._sum + self._energies[index] + into * (first + (last - first) * into / (2 * duration))

    def flat(self, start: float, end: float) -> float | None:
        rounds, offset = self._locate(start)
        if not self._repeat and start >= self.period:
            return self._pieces[-1][2]
        index = bisect.bisect_right(self._starts, offset) - 1
        duration, first, last = self._pieces[index]
        until = rounds * self.period + self._starts[index] + duration
        return first if first == last and (end < until or (len(self._pieces) == 1 and self._repeat)) else None

    def describe(self) -> dict[str, Any]:
        return {"pieces": [list(piece) for piece in self._pieces], "repeat": self._repeat}

    def _locate(self, time: float) -> tuple[float, float]:
        """Return the number of whole periods before ``time``, and the time within the present period."""
        if not self._repeat:
            return 0.0, time
        rounds = math.floor(time / self.period)
        # Rounding may put the rest just outside its period.
        return rounds, min(max(time - rounds * self.period, 0.0), self.period)


def restore(description: Mapping[str, Any]) -> Waveform:
    """Return the waveform that ``describe`` described."""
    if "sine" in description:
        return Sine(*description["sine"])
    return Pieces([(d, a, b) for d, a, b in description["pieces"]], repeat=description["repeat"])


def constant(watts: float) -> Waveform:
    return Pieces([(1.0, watts, watts)], repeat=True)


def square(low: float, high: float, period: float) -> Waveform:
    """Half of each period at ``low``, then half at ``high``."""
    return Pieces([(period / 2, low, low), (period / 2, high, high)], repeat=True)


def ramp(low: float, high: float, period: float) -> Waveform:
    """A straight line from ``low`` to ``high`` in each period (sawtooth)."""
    return Pieces([(period, low, high)], repeat=True)


def burst(low: float, high: float, length: float, period: float) -> Waveform:
    """``low``, but ``high`` for the last ``length`` (s) of each period."""
    if length > period:
        raise ValueError("the burst is longer than the time from one to the next")
    return Pieces([(period - length, low, low), (length, high, high)], repeat=True)


_KINDS: dict[str, tuple[Callable[..., Waveform], str, str]] = {
    # name: (maker, units of its numbers, how it is written)
    "constant": (constant, "W", "constant:5W"),
    "square": (square, "WWs", "square:1W,10W,20ms"),
    "ramp": (ramp, "WWs", "ramp:1W,10W,2s"),
    "burst": (burst, "WWss", "burst:4W,17W,100ms,2s"),
    "sine": (Sine, "WWs", "sine:2W,8W,1s"),
}


def parse(spec: str) -> Waveform:
    """Parse a waveform such as ``square:1W,10W,20ms``, or read it from a CSV file with one rail.

    ``constant:P`` · ``square:LOW,HIGH,PERIOD`` · ``ramp:LOW,HIGH,PERIOD`` · ``burst:LOW,HIGH,LENGTH,PERIOD`` ·
    ``sine:LOW,HIGH,PERIOD`` · ``FILE.csv``. Units W, mW, kW and s, ms, us, min; bare numbers are W and s.

    Raises:
        InputError: The text is not one of these; the remedy shows an example.
    """
    if spec.endswith(".csv"):
        tables = read_csv(Path(spec))
        if len(tables) > 1:
            raise InputError(f"{spec} holds several rails where one waveform is asked for")
        return next(iter(tables.values()))
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS:
        error = unknown("waveform", kind, _KINDS)
        raise InputError(error.message, remedy=f"{error.remedy} Or a file: --waveform power.csv")
    maker, units, example = _KINDS[kind]
    texts = rest.split(",") if rest else []
    if len(texts) != len(units):
        raise InputError(
            f"--waveform {spec} has {len(texts)} numbers where {kind} takes {len(units)}", remedy=f"As in {example}"
        )
    numbers = [_parse_number(text, unit, spec, example) for text, unit in zip(texts, units, strict=True)]
    if any(value <= 0 for value, unit in zip(numbers, units, strict=True) if unit == "s"):
        raise InputError(f"--waveform {spec} has a time that is not above 0", remedy=f"As in {example}")
    try:
        return maker(*numbers)
    except ValueError as error:
        raise InputError(f"--waveform {spec}: {error}", remedy=f"As in {example}") from None


def _parse_number(text: str, unit: str, spec: str, example: str) -> float:
    match = _NUMBER.fullmatch(text)
    factors = _WATTS if unit == "W" else _SECONDS
    factor = factors.get(match[2].lower().replace("µ", "u")) if match else None
    if match is None or factor is None or not math.isfinite(float(match[1])):
        what = "a power in W" if unit == "W" else "a time in s"
        raise InputError(f"--waveform {spec}: {text!r} is not {what}", remedy=f"As in {example}")
    return float(match[1]) * factor


def read_csv(path: Path) -> dict[str, Waveform]:
    """Read a table of powers over time: the first column is seconds, each other column the watts of one rail.

    Straight lines join the rows; two rows with the same time make a jump. After the last row the power stays constant.
    The headings name the rails; without a heading there must be one column of watts, whose name is ``""``.

    Raises:
        InputError: The file cannot be read, or a row is wrong; the message names the line.
    """
    remedy = "Two or more rows of: seconds,watts (a heading such as time_s,VDD_IN,VDD_SOC names several rails)"
    try:
        lines = io.StringIO(whole_files.read_text(path), newline="")
        rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}", remedy=remedy) from None
    names = [""]
    if rows and not _NUMBER.fullmatch(rows[0][1][0]):
        names = [cell.strip() for cell in rows.pop(0)[1][1:]]
        names = [""] if len(names) == 1 and names[0].lower() in {"w", "watts", "power", "power_w"} else names
    points: list[list[float]] = []
    for number, row in rows:
        try:
            values = [float(cell) for cell in row]
        except ValueError:
            raise InputError(f"{path}, line {number}: {','.join(row)!r} are not numbers", remedy=remedy) from None
        if len(values) != len(names) + 1 or not all(map(math.isfinite, values)):
            raise InputError(f"{path}, line {number}: needs {len(names) + 1} finite numbers", remedy=remedy)
        if points and values[0] < points[-1][0]:
            raise InputError(f"{path}, line {number}: time runs backwards", remedy=remedy)
        points.append(values)
    if len(points) < 2 or points[-1][0] <= points[0][0] or not names:
        raise InputError(f"{path} holds no two rows at different times", remedy=remedy)
    return {
        name: Pieces(
            [(b[0] - a[0], a[column], b[column]) for a, b in itertools.pairwise(points)],
            repeat=False,
        )
        for column, name in enumerate(names, 1)
    }
