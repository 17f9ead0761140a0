"""One channel's energy since the daemon began: every sample is integrated, and gaps are reported.

Power is integrated by the trapezoidal rule; a hardware counter is differenced. A pause in the readings is bridged
between the power before it and the power after it (``bridge``), once enough readings after it have been seen. A pause
that is longer than ``bridge_s`` is counted in ``gap_s``, and its energy is left out.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.energy.online.bridge import SIDE_S, Edge, bridge_energy, edge_at
from edgeprof.sensing.limits import counter_rise

if TYPE_CHECKING:
    from edgeprof.sensing.sensor import Channel

#: A pause in power readings up to this long (s) is bridged.
BRIDGE_S = 5.0
#: Readings that are farther apart than this (s) leave a pause.
USUAL_S = 0.5
#: No edge device draws more (W): a counter that wraps cannot have wrapped twice within ``wrap / _MOST_W`` seconds.
_MOST_W = 1000.0
#: The power of a counter is its rise over at least this long (s): the power of a processor from one millisecond to the
#: next reveals secrets that it works on (PLATYPUS, CVE-2020-8694).
_COUNTER_POWER_S = 1.0
#: The most joules in a saved state: a kilowatt for thirty years. A state with more is damaged.
MOST_JOULES = 1e12
#: The longest delay (s) of a source for which attribution waits.
_MOST_LAG_S = 5.0
#: The shortest time (s) between two changes of a processor counter's energy as it is shown, for the same reason.
_COUNTER_LATCH_S = 1.0


class Meter:
    """The integral of one power channel, or the rise of one energy counter.

    One thread adds readings; others may read the attributes.

    Args:
        channel: The channel, as annotated by the topology.
        bridge_s: The longest pause (s) that is bridged; three update intervals of the channel always are.
        usual_s: Readings that are farther apart than this (s), and than three update intervals, leave a pause.

    Attributes:
        joules: The energy up to ``time`` (J) without gaps. It may fall a little where a sensor reads below zero because
            of its offset; ``shown`` never falls.
        gap_s: How many seconds are missing from ``joules``.
        time: How far ``joules`` reaches (monotonic s): the last good reading, or the last one before a pause whose
            bridge is not finished. None before the first.
        read_at: The time of the last good reading (monotonic s); None before the first.
        watts: The power at the last reading; None before the first.
        is_read: Whether anything was read since this meter was made.
        refusal: Why the last step of a counter is no energy: ``counter_reset`` or ``counter_jumped``; otherwise None.
    """

    __slots__ = (
        "_after",
        "_before",
        "_bridge_s",
        "_latched",
        "_latched_at",
        "_pause_s",
        "_recent",
        "_rise_from",
        "_shown",
        "_usual_s",
        "_value",
        "channel",
        "gap_s",
        "is_read",
        "joules",
        "read_at",
        "refusal",
        "time",
        "watts",
    )

    def __init__(self, channel: Channel, bridge_s: float = BRIDGE_S, usual_s: float = USUAL_S) -> None:
        self.joules = 0.0
        self.gap_s = 0.0
        self.time: float | None = None
        self.read_at: float | None = None
        self.watts: float | None = None
        self.is_read = False
        self.refusal: str | None = None
        self._value = math.nan
        self._recent: deque[tuple[float, float]] = deque()
        self._before: Edge | None = None  # before the pause that is being bridged, or at the end of an earlier daemon
        self._pause_s = 0.0  # the length of that pause; 0: none is being bridged
        self._after = 0.0  # joules since the end of that pause
        self._shown = 0.0
        self._latched, self._latched_at = 0.0, -math.inf
        self._rise_from: tuple[float, float] | None = None
        self.describe(channel, bridge_s, usual_s)

    def describe(self, channel: Channel, bridge_s: float, usual_s: float) -> None:
        """Replace the channel's description and the pauses (s) that are bridged, from now on."""
        refreshes = 3 * (channel.update_interval_s or 0.0)
        self.channel = channel
        self._usual_s = max(usual_s, refreshes)
        self._bridge_s = max(bridge_s, refreshes)
        if channel.kind == "counter":  # a counter goes on by itself; only an unseen wrap is an error
            self._bridge_s = math.inf if channel.wrap is None else max(bridge_s, channel.wrap / _MOST_W)

    def add(self, time: float, value: float) -> None:
        """Add a good reading.

        Args:
            time: Seconds of CLOCK_MONOTONIC; a time that is not later than the last reading is ignored.
            value: Watts, or joules for a counter.
        """
        before = self.read_at
        if before is not None and time <= before:
            return
        if self.channel.kind == "counter":
            self._count(time, value, before)
        else:
            self._integrate(time, value, before)
            self.watts = value
        self._shown = max(self._shown, self.joules)
        self.read_at, self._value, self.is_read = time, value, True

    def shown(self, now: float) -> float:
        """The joules as a monotone counter shows them."""
        if self.channel.kind != "counter":
            return self._shown
        if now - self._latched_at >= _COUNTER_LATCH_S:
            self._latched, self._latched_at = self._shown, now
        return self._latched

    def gap(self, now: float) -> float:
        """The seconds left out, including a gap that is open now if it is too long to be bridged."""
        if self.read_at is None or now - self.read_at <= self._bridge_s or self._bridge_s == math.inf:
            return self.gap_s
        return self.gap_s + now - self.read_at

    @property
    def filtered_joules(self) -> float:
        """The energy up to the last reading that the channel's exponential filter has not shown yet (J).

        The input of such a filter is x = y + τ·dy/dt, so that the true energy up to a moment is ∫y dt + τ·y.
        """
        tau = self.channel.filter.tau_s if self.channel.filter.kind == "exponential" else None
        return tau * self.watts if tau and self.watts is not None and self.channel.kind != "counter" else 0.0

    @property
    def lag_s(self) -> float:
        """The longest delay (s) after which a reading shows an event; 0 behind a filter that is inverted."""
        if self.channel.filter.kind == "exponential":
            return 0.0
        return min((self.channel.filter.length_s or 0.0) + (self.channel.update_interval_s or 0.0), _MOST_LAG_S)

    def open_joules(self) -> float:
        """The energy (J) of the pause that is being bridged and of the time since, if they were settled now."""
        if not self._pause_s or self._before is None:
            return 0.0
        return bridge_energy(self._before, edge_at(self._recent, self._recent[0][0]), self._pause_s) + self._after

    def settle(self) -> None:
        """Finish the bridge with the readings since the pause."""
        if self._pause_s:
            self.joules += self.open_joules()
            self._shown = max(self._shown, self.joules)
            self._before, self._pause_s, self._after = None, 0.0, 0.0
            self.time = self.read_at

    def state(self) -> dict[str, Any]:
        """The state that ``resume`` needs."""
        return {
            "joules": max(self._shown, self.joules + self.open_joules()),
            "gap_s": self.gap_s,
            "time": self.read_at,
            "value": self._value,
            "edge": self._edge(),
        }

    def resume(self, state: dict[str, Any], now: float | None) -> None:
        """Go on from where an earlier daemon stopped.

        Args:
            state: The ``state()`` of the earlier meter.
            now: The monotonic time if the machine was not rebooted since: the time in between is then a pause like any
                other. None after a reboot: the energy in between is unknown, and the sensor left no gap.
        """
        joules, gap_s = _checked_sums(state)
        self.joules = self._shown = joules
        self.gap_s = gap_s
        time, value = state["time"], state["value"]
        if now is not None and time is not None and float(time) <= now and math.isfinite(float(value)):
            self.time = self.read_at = float(time)
            self._value = float(value)
            watts, slope = map(float, state.get("edge") or (value, 0.0))
            self._before = Edge(watts, slope) if math.isfinite(watts + slope) else None

    def _integrate(self, time: float, value: float, before: float | None) -> None:
        span = 0.0 if before is None else time - before
        if span > min(self._usual_s, self._bridge_s):
            known = self._edge()
            self.settle()
            self._recent.clear()
            if span > self._bridge_s:
                self.gap_s += span
            else:
                self._before, self._pause_s = known, span
        elif span:
            joules = 0.5 * (value + self._value) * span
            if self._pause_s:
                self._after += joules
            else:
                self.joules += joules
        recent = self._recent
        recent.append((time, value))
        side = max(SIDE_S, self._usual_s)
        if not self._pause_s:
            self.time = time
            while recent[0][0] < time - side:
                recent.popleft()
        elif time - recent[0][0] >= side:
            self.read_at = time
            self.settle()

    def _edge(self) -> Edge | None:
        """The power at the last reading, from the readings beside it; None before the first."""
        if self._recent:
            return edge_at(self._recent, self._recent[-1][0])
        return self._before or (Edge(self._value, 0.0) if math.isfinite(self._value) else None)

    def _count(self, time: float, value: float, before: float | None) -> None:
        self.time = time
        if before is not None:
            span = time - before
            rise, self.refusal = counter_rise(self.channel, self._value, value, span)
            if self.refusal is not None or span > self._bridge_s:  # no energy, or it may have wrapped unseen
                self.gap_s += span
                self._rise_from = None
            else:
                self.joules += rise
        if self._rise_from is None:
            self._rise_from = (time, self.joules)
        begun, joules = self._rise_from
        if time - begun >= _COUNTER_POWER_S:
            self.watts = (self.joules - joules) / (time - begun)
            self._rise_from = (time, self.joules)


class Total:
    """The energy of the whole device: the sum of the headline's meters, advanced when each of them has a new reading.

    An interval in which any part had a gap is left out as a whole, because a missing part makes a sum unknown, not
    smaller.

    Attributes:
        joules: The energy since the beginning (J).
        gap_s: How many seconds are missing from ``joules``.
        history: The recent energy, for attribution.
    """

    def __init__(self, meters: list[Meter], history: History) -> None:
        self.meters = meters
        self.history = history
        self.joules = 0.0
        self.gap_s = 0.0
        self._shown = 0.0
        self._latched, self._latched_at = 0.0, -math.inf
        self._waiting = set(meters)
        self._before: list[tuple[float, float]] | None = None  # each meter's joules and gap at the last advance
        self._time: float | None = None

    def advance(self, meter: Meter) -> None:
        """Note that a meter of the headline has a new reading, and advance the sum once all of them have."""
        self._waiting.discard(meter)
        if self._waiting:
            return
        self._waiting = set(self.meters)
        time = max(m.time for m in self.meters if m.time is not None)
        if self._time is not None and time <= self._time:
            return
        now = [(m.joules, m.gap_s) for m in self.meters]
        if self._before is not None and self._time is not None:
            whole = all(gap == before for (_, gap), (_, before) in zip(now, self._before, strict=True))
            if whole:
                self.joules += math.fsum(j - before for (j, _), (before, _) in zip(now, self._before, strict=True))
                self._shown = max(self._shown, self.joules)
            else:
                self.gap_s += time - self._time
        self._before, self._time = now, time
        self.history.lag_s = max(m.lag_s for m in self.meters)
        self.history.tau_s = max(m.channel.filter.tau_s or 0.0 for m in self.meters)
        self.history.append(time, self.joules + math.fsum(m.filtered_joules for m in self.meters), self.gap_s)

    def begin(self) -> None:
        """Take the present state of the meters as the beginning, after they were resumed."""
        if self.meters and all(m.time is not None for m in self.meters):
            self._before = [(m.joules, m.gap_s) for m in self.meters]
            self._time = max(m.time for m in self.meters if m.time is not None)

    def shown(self, now: float) -> float:
        """The joules as a monotone counter shows them; with a processor's counter in the sum they change seldom."""
        if not any(m.channel.kind == "counter" for m in self.meters):
            return self._shown
        if now - self._latched_at >= _COUNTER_LATCH_S:
            self._latched, self._latched_at = self._shown, now
        return self._latched

    def watts(self) -> float | None:
        """The sum of the powers of all parts (W); None while one of them is unknown."""
        parts = [m.watts for m in self.meters]
        known = [watts for watts in parts if watts is not None]
        return math.fsum(known) if parts and len(known) == len(parts) else None

    def state(self) -> dict[str, Any]:
        """The state that ``resume`` needs, including energy that the parts have and ``joules`` does not have yet."""
        waiting = math.fsum(m.open_joules() for m in self.meters)
        return {"joules": max(self._shown, self.joules + waiting), "gap_s": self.gap_s}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from where an earlier daemon stopped."""
        joules, gap_s = _checked_sums(state)
        self.joules = self._shown = joules
        self.gap_s = gap_s


def _checked_sums(state: dict[str, Any]) -> tuple[float, float]:
    """Read and check the joules and the gap seconds of a state.

    Raises:
        ValueError, TypeError, LookupError: they are missing, no numbers, or more than any device can use.
    """
    joules, gap_s = float(state["joules"]), float(state["gap_s"])
    if not (0 <= joules <= MOST_JOULES and 0 <= gap_s < math.inf):
        raise ValueError(f"{joules:g} J in a state cannot be")
    return joules, gap_s


class Curve(NamedTuple):
    """A copy of a part of a history.

    Attributes:
        times: The times of the readings (monotonic s).
        joules: The device's energy up to each time (J), with filters inverted.
        gaps: The seconds up to each time that are missing from it.
        first: The earliest time in the history; infinity if it is empty.
        lag_s: The longest delay (s) after which a reading shows an event.
        tau_s: The longest time constant (s) of the filters that were inverted.
    """

    times: array[float]
    joules: array[float]
    gaps: array[float]
    first: float
    lag_s: float
    tau_s: float = 0.0


class History:
    """The device's energy and gap seconds over the last minutes, for spans that are reported afterwards.

    Args:
        keep_s: For how long (s) readings are kept.

    Attributes:
        lag_s: The longest delay (s) after which a reading shows an event.
        tau_s: The longest time constant (s) of the filters that were inverted.
    """

    def __init__(self, keep_s: float = 300.0) -> None:
        self.keep_s = keep_s
        self.lag_s = self.tau_s = 0.0
        self._times = array("d")
        self._joules = array("d")
        self._gaps = array("d")

    def append(self, time: float, joules: float, gap_s: float) -> None:
        """Add the energy and the gap seconds at a time (monotonic s), which is later than the last one."""
        times = self._times
        times.append(time)
        self._joules.append(joules)
        self._gaps.append(gap_s)
        if times[0] < time - 2 * self.keep_s:  # in bulk: half of it at once
            cut = bisect_right(times, time - self.keep_s)
            del times[:cut], self._joules[:cut], self._gaps[:cut]

    def copy_since(self, time: float) -> Curve:
        """Copy the history from the last reading before ``time`` on."""
        cut = max(0, bisect_right(self._times, time) - 1)
        first = self._times[0] if self._times else math.inf
        return Curve(self._times[cut:], self._joules[cut:], self._gaps[cut:], first, self.lag_s, self.tau_s)
