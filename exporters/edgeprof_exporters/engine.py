"""The sampling of the daemon, which runs for months: sensors, their meters, and the newest value of each channel.

The Sampler decides when to read. Between it and each sensor is a Tap, which passes every row to the meters in the
thread that read it; so nothing polls, and nothing but sums is kept.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof.energy.online.running_sum import BRIDGE_S, USUAL_S, History, Meter, Total
from edgeprof.provenance import provenance_of_sum
from edgeprof.sensing.board.headline import is_power
from edgeprof.sensing.clock import MonotonicClock
from edgeprof.sensing.limits import SENTINELS, plausible_bounds
from edgeprof.sensing.sampler import Sampler
from edgeprof.sensing.sensor import Channel, Sensor, WrappedSensor
from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableSequence

    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.sensor import Quantity

    Key = tuple[str, str, Quantity]

#: Age at which a reading is no longer shown as the present value (s); for a source that refreshes more slowly it is
#: three refreshes.
STALE_S = 10.0
#: If no sensor was read for this long (s), the daemon is not healthy: its threads hang, or the machine does.
STUCK_S = 15.0
#: Rate at which channels other than power are read (Hz).
CONTEXT_HZ = 1.0
#: Longest single sleep of a sampling thread (s), and therefore the longest wait of ``stop``.
_SLICE_S = 0.25
#: Length of the trace that the Sampler keeps (s); the daemon does not need it.
_KEEP_S = 1.0


@dataclass
class Rail:
    """One rail as it is exposed: its best source of joules, and its own readings of power, if it has them.

    Attributes:
        meter: The meter that counts its joules.
        power: The meter of the channel that measures its power; None: ``meter`` is used.
        parent: The exposed rail that contains this one; ``unknown`` if it is not known what the rail overlaps; None if
            the rail may be added to others.
    """

    meter: Meter
    power: Meter | None = None
    parent: str | None = None

    @property
    def name(self) -> str:
        return self.meter.channel.name

    def watts(self, now: float) -> float | None:
        """Power at the last reading (W); None if that is too old or there was none."""
        meter = self.power or self.meter
        return None if is_stale(meter, now) else meter.watts


def stale_after(channel: Channel) -> float:
    """Age at which a channel's reading is no longer the present value (s)."""
    return max(STALE_S, 3 * (channel.update_interval_s or 0.0))


def is_stale(meter: Meter, now: float) -> bool:
    """Whether the last reading of a meter is too old to be the present value."""
    return meter.read_at is None or now - meter.read_at > stale_after(meter.channel)


class _Patient(MonotonicClock):
    """A clock that waits in long slices: each wake-up costs energy, and a stop may take a quarter of a second."""

    def wait(self, deadline: float, stop: threading.Event) -> None:
        while not stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_S))


class Tap(WrappedSensor):
    """A sensor that passes its readings to the engine; the Sampler reads it like any other sensor."""

    def __init__(self, sensor: Sensor, engine: Engine, channels: dict[Key, Channel]) -> None:
        super().__init__(sensor)
        self._engine = engine
        known = [channels.get(channel.key, channel) for channel in sensor.channels]
        #: Position in the row, and channel, of each channel that can be read.
        self.watched = [(index, channel) for index, channel in enumerate(known) if channel.available]
        self._bounds = [plausible_bounds(channel) for channel in known]
        self.stale_s = max((stale_after(channel) for _, channel in self.watched), default=STALE_S)
        self.tells_power = any(c.quantity in {"power", "energy", "voltage", "current"} for _, c in self.watched)
        self.meters: list[tuple[int, Meter]] = []
        self.latest: dict[Key, tuple[float, float]] = {}
        self.samples = 0
        self.refused = 0
        self.last_read = -math.inf

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        self.wrapped.read(values, times)
        middle = 0.5 * (before + time.monotonic())
        engine, latest = self._engine, self.latest
        with engine.lock:
            for index, channel in self.watched:
                value = values[index]
                low, high = self._bounds[index]
                if not low <= value <= high or not math.isfinite(value) or value in SENTINELS:
                    self.refused += 1
                    continue
                at = times[index]
                latest[channel.key] = (at if before - STUCK_S <= at <= middle + 1 else middle, value)
                self.samples += 1
                self.last_read = middle
            for index, meter in self.meters:
                seen = latest.get(meter.channel.key)
                if seen is not None and not math.isnan(values[index]) and seen[0] != meter.read_at:
                    meter.add(*seen)
                    if meter.refusal is not None:
                        _tell_refusal(meter)
                    engine.advanced(meter, seen)


def _tell_refusal(meter: Meter) -> None:
    """Log that a step of a counter was not taken as energy; it is also in the gap of its source."""
    reasons = {
        "counter_reset": "it fell, but not by a wrap",
        "counter_jumped": "it rose by more than the machine can draw",
    }
    reason = reasons.get(meter.refusal or "", "")
    event(
        logging.WARNING,
        "a step of a counter was ignored",
        source=meter.channel.sensor,
        rail=meter.channel.name,
        reason=reason,
    )


class Engine:
    """Everything that is sampled, from ``start`` to ``stop``; another ``start`` replaces the sensors.

    Joules survive another ``start``: a meter belongs to its channel's key, not to the sensor object that reads it.

    Args:
        rate_hz: Readings per second.
        bridge_s: Longest gap in power readings that is bridged (s).
    """

    def __init__(self, rate_hz: float = 10.0, bridge_s: float = BRIDGE_S) -> None:
        self.rate_hz = rate_hz
        self.bridge_s = bridge_s
        self.lock = threading.Lock()
        self.history = History()
        self.rails: list[Rail] = []
        self.total: Total | None = None
        self.topology: Topology | None = None
        #: Is called with every reading of the headline: channel, monotonic s, W or J.
        self.listener: Callable[[Channel, float, float], None] | None = None
        self.taps: list[Tap] = []
        #: All sources that were ever read, so that a lost one can be shown as lost.
        self.known: dict[str, None] = {}
        self._meters: dict[Key, Meter] = {}
        self._samplers: list[Sampler] = []
        self._headline: frozenset[Meter] = frozenset()
        self._sums: dict[Key, float] = {}
        #: State of the last total; after a loss the total continues from it.
        self._last_total: dict[str, Any] | None = None
        self._kept: dict[str, Any] = {}
        self._kept_now: float | None = None
        #: Source → readings that succeeded and that are missing: of earlier samplers, and in total.
        self._base: dict[str, tuple[int, int]] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._started = time.monotonic()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, discovery: Discovery, cpu: int | None = None) -> None:
        """Sample the sensors of a discovery; sampling of earlier sensors is stopped first.

        Raises:
            RuntimeError: a thread cannot be started.
        """
        self.stop()
        channels = discovery.topology.by_key()
        taps = [Tap(sensor, self, channels) for sensor in discovery.sensors]
        with self.lock:
            self.topology = discovery.topology
            self.taps = taps
            self._wire_meters(discovery.topology)
            # A source that exists but is deliberately not read (a charging battery) is not lost.
            rest = {channel.sensor for channel in discovery.unavailable} - {tap.name for tap in taps}
            failed = {failure.source for failure in discovery.failures}
            self.known = {name: None for name in self.known if name not in rest or name in failed}
            self.known |= dict.fromkeys(tap.name for tap in taps)
            self._started = time.monotonic()
        # Power changes with every burst. Temperatures, loads and clocks change slowly, and are read more rarely, since
        # reading them costs as much.
        quick = [tap for tap in taps if tap.tells_power]
        context = [tap for tap in taps if not tap.tells_power]
        clock = _Patient()
        samplers = [
            Sampler(group, min(rate, self.rate_hz), channels, cpu=cpu, keep_s=_KEEP_S, clock=clock)
            for group, rate in ((quick, self.rate_hz), (context, CONTEXT_HZ))
            if group
        ]
        for sampler in samplers:
            sampler.start()
        self._samplers = samplers

    def stop(self) -> None:
        """Stop sampling; the joules stay. Calling it twice is safe."""
        samplers, self._samplers = self._samplers, []
        for sampler in samplers:
            sampler.stop()
        with self.lock:
            self._add_counts(samplers)
            self._base = dict(self._counted)

    def advanced(self, meter: Meter, seen: tuple[float, float]) -> None:
        """Take note of a meter's new reading; a Tap calls this and holds the lock."""
        if self.total is not None and meter in self._headline:
            self.total.advance(meter)
            if self.listener is not None:
                self.listener(meter.channel, *seen)

    @property
    def headline_channels(self) -> list[Channel]:
        """The channels whose sum is the device's power; empty if nothing measures it."""
        return [meter.channel for meter in self.total.meters] if self.total is not None else []

    # -- what is known ------------------------------------------------------------------------------------------------

    def latest(self, now: float) -> list[tuple[Channel, float]]:
        """The last good reading of every channel, unless it is too old."""
        with self.lock:
            return [
                (channel, seen[1])
                for tap in self.taps
                for _, channel in tap.watched
                if (seen := tap.latest.get(channel.key)) is not None and now - seen[0] <= stale_after(channel)
            ]

    def sources(self) -> dict[str, list[Tap]]:
        """Name of a source → its taps."""
        grouped: dict[str, list[Tap]] = {}
        for tap in self.taps:
            grouped.setdefault(tap.name, []).append(tap)
        return grouped

    def counts(self) -> dict[str, tuple[int, int]]:
        """Source → readings that succeeded and that are missing, since the daemon started; neither ever falls."""
        with self.lock:
            self._add_counts(self._samplers)
            return dict(self._counted)

    def gaps(self, now: float) -> dict[str, float]:
        """Source → seconds that are missing in the joules of its worst rail."""
        with self.lock:
            worst_gap: dict[str, float] = {}
            for meter in self._meters.values():
                name = meter.channel.sensor
                worst_gap[name] = max(worst_gap.get(name, 0.0), meter.gap(now))
            return worst_gap

    def stuck(self, now: float) -> str | None:
        """A sentence if sampling is stuck; None if it is not.

        A sensor that fails is not stuck: it is tried again, and the others continue. Sampling is stuck if no sensor was
        read successfully for ``STUCK_S``.
        """
        if not self.taps:
            return None
        if not self._samplers:
            return "the sampler does not run"
        if now - self._started < STUCK_S:
            return None
        newest = max(tap.last_read for tap in self.taps)
        if now - newest > STUCK_S:
            since = f"for {now - newest:.0f} s" if math.isfinite(newest) else "yet"
            return f"no sensor has given a plausible reading {since}"
        return None

    def is_standing_still(self) -> bool:
        """Whether, since the last call, a counter of the headline has not risen while another of its source has."""
        with self.lock:
            before, self._sums = self._sums, {key: meter.joules for key, meter in self._meters.items()}
            rose = {
                meter.channel.sensor
                for key, meter in self._meters.items()
                if meter.channel.kind == "counter" and meter.joules > before.get(key, math.inf)
            }
            return any(
                meter.channel.kind == "counter"
                and meter.channel.sensor in rose
                and meter.joules == before.get(meter.channel.key)
                for meter in self._headline
            )

    def is_up(self, source: str, now: float, within_s: float | None = None) -> bool:
        """Whether each sensor of a source was read recently.

        Args:
            source: Name of the source.
            now: The present (monotonic s).
            within_s: Largest age of a reading (s), which is extended for slow sensors; by default ``stale_after``.
        """
        taps = self.sources().get(source, [])

        def patience(tap: Tap) -> float:
            return tap.stale_s if within_s is None else within_s + tap.stale_s - STALE_S

        return bool(taps) and all(now - tap.last_read <= patience(tap) for tap in taps)

    @property
    def watched(self) -> set[Key]:
        """The channels that are read."""
        return {channel.key for tap in self.taps for _, channel in tap.watched}

    def watts(self, now: float) -> float | None:
        """Power of the whole device at the last reading (W); None if nothing measures it or a part is too old."""
        if self.total is None or any(is_stale(meter, now) for meter in self.total.meters):
            return None
        return self.total.watts()

    @property
    def ready(self) -> bool:
        """Whether a plausible sample was read; if the device has a power sensor, a sample of power."""
        if self.total is not None:
            return all(meter.is_read for meter in self.total.meters)
        return any(tap.latest for tap in self.taps)

    @property
    def sources_of_total(self) -> tuple[str, str]:
        """The source and the provenance of the headline, as labels."""
        channels = [m.channel for m in self.total.meters] if self.total else []
        return "+".join(dict.fromkeys(c.sensor for c in channels)), provenance_of_sum([c.provenance for c in channels])

    # -- state over restarts ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state from which a later daemon resumes."""
        with self.lock:
            meters = {"\t".join(key): meter.state() for key, meter in self._meters.items()}
            meter_states = {**self._kept.get("meters", {}), **meters}  # an absent sensor keeps its joules
            headline = sorted(m.channel.name for m in self._headline)
            total = self.total.state() if self.total else self._last_total
            return {"meters": meter_states, "total": total, "headline": headline}

    def resume(self, state: dict[str, Any], now: float | None) -> None:
        """Resume from an earlier daemon's state (see Meter.resume); must be called before ``start``.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: the state is not valid; nothing of it is used.
        """
        nothing = Channel("", "", "power")
        for saved in state["meters"].values():
            Meter(nothing).resume(saved, now)
        if state["total"] is not None:
            Total([], History()).resume(state["total"])
        list(state["headline"])
        self._kept, self._kept_now = state, now

    @property
    def _pauses(self) -> tuple[float, float]:
        """The longest gap that is bridged and the shortest one that counts (s); both are at least three periods."""
        three = 3 / self.rate_hz
        return max(self.bridge_s, three), max(USUAL_S, three)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wire_meters(self, topology: Topology) -> None:
        """Give every power channel a meter, and find out which channels are rails."""
        power = [c for c in topology.channels if is_power(c) and c.available]
        for channel in power:
            if channel.key not in self._meters:
                self._meters[channel.key] = self._new_meter(channel)
            self._meters[channel.key].describe(channel, *self._pauses)
        for tap in self.taps:
            tap.meters = [(i, self._meters[c.key]) for i, c in tap.watched if is_power(c)]
        read = {channel.key for tap in self.taps for _, channel in tap.watched}
        chosen = [self._meters[c.key] for c in topology.headline.channels if c.key in read]
        whole = len(chosen) == len(topology.headline.channels) and bool(chosen)
        self._headline = frozenset(chosen) if whole else frozenset()
        if self.total is not None:
            self._last_total = self.total.state()
        self.total = self._new_total(chosen) if whole else None
        if self._last_total is not None and self.total is not None:
            self.total.resume(self._last_total)
        for meter in self._meters.values():
            meter.settle()
        if self.total is not None:
            self.total.begin()
        self.rails = _rails([c for c in power if c.key in read], topology, self._meters)

    def _new_meter(self, channel: Channel) -> Meter:
        meter = Meter(channel, *self._pauses)
        saved = self._kept.get("meters", {}).get("\t".join(channel.key))
        if saved is not None:
            meter.resume(saved, self._kept_now)
        return meter

    def _new_total(self, meters: list[Meter]) -> Total:
        total = Total(meters, self.history)
        saved = self._kept.get("total")
        if saved is not None and self._kept.get("headline") == sorted(m.channel.name for m in meters):
            total.resume(saved)
        return total

    def _add_counts(self, samplers: Iterable[Sampler]) -> None:
        """Add the samplers' counts to those of earlier samplers."""
        seen: dict[str, tuple[int, int]] = {}
        for stats in (stats for sampler in samplers for stats in sampler.stats()):
            good, missed = seen.get(stats.key[0], (0, 0))
            seen[stats.key[0]] = good + stats.samples, missed + stats.missed
        for name, (good, missed) in seen.items():
            base, counted = self._base.get(name, (0, 0)), self._counted.get(name, (0, 0))
            # A reading in progress counts as missed for a moment; the counter must not fall afterwards.
            self._counted[name] = max(counted[0], base[0] + good), max(counted[1], base[1] + missed)


def _rails(power: Iterable[Channel], topology: Topology, meters: dict[Key, Meter]) -> list[Rail]:
    """The rails that may be added up, and their parts; each rail once, by its counter if it has one.

    A channel that measures the whole device is not a rail: its energy is device_energy.
    """
    containers = topology.containers
    groups: dict[tuple[str, str], list[Channel]] = {}
    for channel in power:
        if channel.key in containers:
            groups.setdefault((channel.sensor, channel.name), []).append(channel)
    rails = []
    for channels in groups.values():
        counter = next((c for c in channels if c.kind == "counter"), None)
        gauge = next((c for c in channels if c.kind != "counter"), None)
        best = counter or channels[0]
        power_of = meters[gauge.key] if gauge is not None and counter is not None else None
        rails.append(Rail(meters[best.key], power_of, containers[best.key]))
    return rails
