"""The measured characteristics of a channel, and what they say about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeprof.sensing.sensor import Channel
    from edgeprof.sensing.trace import Key


@dataclass(frozen=True)
class Characteristic:
    """The characteristics of one channel, found by reading it fast.

    Attributes:
        update_interval_s: The interval (s) at which new values appear; None if it changed too seldom or too
            irregularly. If it changed at nearly every read, the true interval may be shorter.
        step: The smallest step seen, in the channel's unit: the greatest common divisor of all differences; None if it
            never changed. A product of volts and amperes has a finer step than either part resolves.
        effective_rate_hz: New values per second, which may be fewer than readings per second.
        plausible: Whether its values can be true.
        reason: Why they cannot, or why something above is None.
    """

    update_interval_s: float | None
    step: float | None
    effective_rate_hz: float
    plausible: bool
    reason: str | None = None


def annotate_channels(channels: Iterable[Channel], characteristics: Mapping[Key, Characteristic]) -> dict[Key, Channel]:
    """Fill the measured characteristics into channels; returns them by key, as ``Sampler(channels=…)`` takes them.

    A declared resolution stays. A declared refresh interval stays if it is shorter than the measured one of a gauge,
    because a constant signal hides refreshes; a shorter measured interval replaces it, and so does the measured
    interval of a counter, which rises at each refresh. A channel with impossible values becomes unavailable.
    """
    result: dict[Key, Channel] = {}
    for channel in channels:
        known = characteristics.get(channel.key)
        if known is not None and not known.plausible:
            channel = replace(channel, available=False, reason=known.reason)  # noqa: PLW2901 - the same one, annotated
        elif known is not None:
            channel = replace(  # noqa: PLW2901 - the same one, annotated
                channel,
                update_interval_s=_refresh_interval(channel, known.update_interval_s),
                resolution=channel.resolution or known.step,
            )
        result[channel.key] = channel
    return result


def _refresh_interval(channel: Channel, seen: float | None) -> float | None:
    declared = channel.update_interval_s
    if declared is None or seen is None:
        return declared or seen
    return seen if channel.kind == "counter" else min(declared, seen)
