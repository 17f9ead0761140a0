"""What was found out about a channel by reading it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Characteristic:
    """What was found out about one channel.

    Attributes:
        update_interval_s: How often it has something new (s); None where it changed too seldom or too irregularly to
            tell. Where it changed at nearly every read, the true one may be shorter.
        step: The smallest step seen, in the channel's unit: the greatest common divisor of all differences; None if it
            never changed. A product of volts and amperes has a finer step than either part resolves.
        effective_rate_hz: New values per second, which is what a reader learns; not the rate of reading.
        plausible: Whether its values can be true.
        reason: Why they cannot, or why something above is None.
    """

    update_interval_s: float | None
    step: float | None
    effective_rate_hz: float
    plausible: bool
    reason: str | None = None
