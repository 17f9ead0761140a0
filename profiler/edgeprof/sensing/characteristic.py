"""The measured characteristics of a channel."""

from __future__ import annotations

from dataclasses import dataclass


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
