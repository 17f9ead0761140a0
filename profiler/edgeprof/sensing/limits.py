"""Limits of plausible readings: sentinel values, the highest possible power, and the fastest rise of a counter.

The first readings, the sampler, windows (``energy.counters``) and the daemon's running sums (``energy.online``) use the
same rules.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgeprof.sensing.sensor import Channel

#: The values that a wide register or a driver gives without a reading, in every unit that it may have been scaled from.
#: No real reading equals one of them exactly; 16-bit values are not among them, because 65.535 W may be true.
_ALL_ONES = (0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
_LOWEST = (-0x80000000, -0x8000000000000000)
SENTINELS = frozenset(bits * scale for bits in (*_ALL_ONES, *_LOWEST) for scale in (1.0, 1e-1, 1e-2, 1e-3, 1e-6, 1e-9))
#: The same values as numbers of milliunits that a driver converts to microunits, as ACPI's power meter does.
SENTINELS = SENTINELS | {bits * 1000 * 1e-6 for bits in (0xFFFFFFFF, 0x7FFFFFFF, -0x80000000)}

#: The most power (W) in a scope where no design limit is known; generous enough for servers.
_MOST_W = {"package": 2000.0, "cpu": 2000.0, "gpu": 3000.0, "accelerator": 3000.0, "memory": 1000.0, "soc": 2000.0}
_MOST_ELSEWHERE_W = 20_000.0
#: The assumed refresh interval (s) of a counter whose refresh is unknown.
_UNKNOWN_REFRESH_S = 0.25


def power_limit(channel: Channel) -> float:
    """The highest possible power (W) of a channel of power or energy."""
    if channel.limit_w is not None:
        return channel.limit_w
    most = _MOST_W.get(channel.scope, _MOST_ELSEWHERE_W)
    return min(most, channel.plausible[1]) if channel.quantity == "power" else most


def plausible_bounds(channel: Channel) -> tuple[float, float]:
    """The lowest and highest possible value in the channel's unit, bounded by the highest possible power.

    A negative power comes from the offset of a sensor, or flows back from a motor or a battery; the limit is the same.
    """
    low, high = channel.plausible
    if channel.quantity != "power":
        return low, high
    most = power_limit(channel)
    return max(low, -most), min(high, most)


def why_impossible(channel: Channel, value: float) -> str | None:
    """Return why a reading is impossible, as a clause; None if it is possible."""
    if value in SENTINELS:
        return f"it reads {value:.10g} {channel.unit}, which is what a register without a reading says"
    low, high = plausible_bounds(channel)
    if not low <= value <= high:
        return f"it reads {value:.6g} {channel.unit}, outside {low:g} to {high:g}"
    return None


def allowed_rise(channel: Channel, seconds: float) -> float:
    """How far (J) a counter can have risen between two readings that are ``seconds`` apart.

    A counter is up to one refresh behind at either reading.
    """
    refresh = channel.update_interval_s if channel.update_interval_s is not None else _UNKNOWN_REFRESH_S
    return power_limit(channel) * (seconds + 2 * refresh) + 2 * (channel.resolution or 0.0)


def counter_rise(
    channel: Channel, before: float, after: float, seconds: float
) -> tuple[float, Literal["counter_reset", "counter_jumped"] | None]:
    """Return the energy (J) between two readings of a counter, or NaN and the reason why it is unknown.

    A fall is a wrap only if the energy that it then implies is possible; every other fall is a reset (a suspend, a
    reloaded driver, a false reading of 0). An impossibly large rise is no energy either.
    """
    rise = after - before
    code: Literal["counter_reset", "counter_jumped"] = "counter_jumped"
    if rise < 0:
        code = "counter_reset"
        if channel.wrap is None:
            return math.nan, code
        rise += channel.wrap
    if rise < 0 or rise > allowed_rise(channel, seconds):
        return math.nan, code
    return rise, None
