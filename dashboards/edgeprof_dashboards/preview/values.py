"""Format numbers as Grafana does for the id of a unit; only the units that edgeprof's panels use are known."""

from __future__ import annotations

import math

from edgeprof import units

_SI = {
    "watt": "W",
    "joule": "J",
    "watth": "Wh",
    "volt": "V",
    "amp": "A",
    "hertz": "Hz",
    "ops": "/s",
    "cps": "/s",
    "short": "",
    "none": "",
}


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """``written(0.0123, "joule")`` → ``12.3 mJ``."""
    if not math.isfinite(value):
        return "–"
    if unit in ("percentunit", "celsius"):
        scaled, sign = (100 * value, "%") if unit == "percentunit" else (value, "°C")
        return f"{scaled:.{1 if decimals is None else decimals}f} {sign}"
    if unit in _LONG:
        return _LONG[unit](value)
    if unit in ("short", "none") and abs(value) < 1e5 and (decimals is not None or value == round(value)):
        return f"{value:.{decimals or 0}f}"
    if unit in _PLAIN and 0 < abs(value) < 1000:
        return f"{units.significant(value)} {_SI[unit]}".rstrip()
    return units.quantity(value, _SI.get(unit, unit)).rstrip()


def _long_text(value: float) -> str:
    if value < 172_800:
        return units.duration(value)
    days = value / 86_400
    return f"{days:.1f} days" if days < 100 else f"{days / 365.25:.1f} years"


def _seconds_text(value: float) -> str:
    return units.quantity(value, "s") if abs(value) < 100 else _long_text(value)


def _bytes_text(value: float) -> str:
    return units.size(round(value))


_LONG = {"bytes": _bytes_text, "dtdurations": _long_text, "s": _seconds_text}
#: Units that take no prefix for small numbers: nobody says milli-inferences.
_PLAIN = ("short", "none", "ops", "cps")
