"""SI base units inside; this is the one place that turns them into something to read.

The number of digits follows the uncertainty (GUM 7.2.6): two significant digits of the uncertainty when they begin
with 1 or 2, else one ... and the value to the same decimal place.
"""

from __future__ import annotations

import math
import re

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def prefix_for(values: list[float]) -> tuple[float, str]:
    """One prefix for a whole column: the one in which the median is between 1 and 1000 and none is above 10 000.

    Args:
        values: Numbers in a base unit; zeros and non-finite ones are passed over.

    Returns:
        The factor to divide by, and the prefix.
    """
    sizes = sorted(abs(v) for v in values if v and math.isfinite(v))
    if not sizes:
        return 1.0, ""
    least = max(sizes[len(sizes) // 2], sizes[-1] / 10)
    for factor, prefix in _PREFIXES:
        if least >= factor * 0.9995:
            return factor, prefix
    return _PREFIXES[-1]


def decimals_for(uncertainty: float) -> int:
    """How many decimals a number with this uncertainty deserves (never negative)."""
    if not uncertainty or not math.isfinite(uncertainty):
        return 3
    exponent = math.floor(math.log10(abs(uncertainty)))
    leading = abs(uncertainty) / 10**exponent
    digits = 1 if leading < 2.95 else 0
    return max(0, digits - exponent)


def significant(value: float, digits: int = 3) -> str:
    """``value`` with that many significant digits and no exponent.

    >>> significant(1013.4), significant(0.98234), significant(12.345)
    ('1013', '0.982', '12.3')
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """A number with the SI prefix that suits it, or a dash for unknown.

    >>> quantity(0.01234, "J"), quantity(None, "J")
    ('12.3 mJ', '–')
    """
    if value is None:
        return "–"
    factor, prefix = prefix_for([value])
    return f"{significant(value / factor, digits)} {prefix}{unit}"


def plus_minus(value: float | None, uncertainty: float | None, unit: str) -> str:
    """``12.34 ± 0.21 mJ``: as many digits as the uncertainty allows, or a dash for unknown."""
    if value is None:
        return "–"
    if uncertainty is None:
        return quantity(value, unit)
    factor, prefix = prefix_for([value])
    decimals = decimals_for(uncertainty / factor)
    return f"{value / factor:.{decimals}f} ± {uncertainty / factor:.{decimals}f} {prefix}{unit}"


def size(count: int | None) -> str:
    """Bytes in binary prefixes, or a dash for unknown.

    >>> size(98496), size(41 * 2**20)
    ('96.2 KiB', '41.0 MiB')
    """
    if count is None:
        return "–"
    for factor, name in _BINARY:
        if count >= factor:
            return f"{significant(count / factor)} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """A time to wait, as a person says it.

    >>> duration(371), duration(6.2), duration(0.5)
    ('6 min 11 s', '6 s', '1 s')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


#: How a quantity is written on a command line; decimal and binary prefixes are told apart by their ``i``.
_WRITTEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ%]*)\s*")


def parse(text: str, unit: str) -> float:
    """A quantity as a person writes it, in the base unit.

    Args:
        text: A number, with the unit and a prefix or without (then it is in the base unit).
        unit: ``J``, ``s`` or ``B``.

    Raises:
        ValueError: it is no such quantity.

    >>> parse("5mJ", "J"), parse("2.5 ms", "s"), parse("64MiB", "B"), parse("0.005", "J")
    (0.005, 0.0025, 67108864.0, 0.005)
    """
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with the unit {unit}")
    number, suffix = float(match[1]), match[2]
    scales = {prefix + unit: factor for factor, prefix in _PREFIXES} | {"u" + unit: 1e-6, "": 1.0}
    if unit == "B":
        scales |= {name: float(factor) for factor, name in _BINARY}
        scales = {name: factor for name, factor in scales.items() if factor >= 1}
    if suffix not in scales:
        raise ValueError(f"{suffix!r} in {text!r} is not a unit of {unit}")
    # 5 / 1e3 is the double nearest to 0.005 and 5 * 1e-3 is not.
    factor = scales[suffix]
    return number * factor if factor >= 1 else number / round(1 / factor)


def parse_ratio(text: str) -> float:
    """``5%``, ``0.5pt`` or ``0.05`` as a ratio.

    Raises:
        ValueError: it is none, or a bare number of 1 and more, which could mean either.

    >>> parse_ratio("5%"), parse_ratio("0.05"), parse_ratio("0.5pt")
    (0.05, 0.05, 0.005)
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or match[2] not in ("", "%", "pt"):
        raise ValueError(f"{text!r} is not a share, as 5% or 0.05")
    number = float(match[1])
    if match[2]:
        return number / 100
    if abs(number) >= 1:
        raise ValueError(f"{text!r} could mean {number:g} % or {100 * number:g} %")
    return number
