"""Sampling for months: the sensors, their meters, and what each channel last said.

The Sampler keeps the rhythm. Between it and each sensor stands a Tap, which hands every row on to the meters in the
thread that read it, so that nothing polls and nothing is kept but sums.
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
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableSequence, Sequence

    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.sensor import Quantity

    Key = tuple[str, str, Quantity]

#: A reading older than this (s) is not shown as what is so now; a source that refreshes more slowly has three
#: refreshes.
STALE_S = 10.0
#: A sensor that was not read for this long (s) holds the daemon's health: its thread hangs, or the machine does.
STUCK_S = 15.0
#: How often (Hz) what is no power is read.
CONTEXT_HZ = 1.0
#: The longest single sleep of a sampling thread (s), and so the longest that a stop waits for it.
_SLICE_S = 0.25
#: How much of the trace the Sampler keeps (s): the daemon needs none of it.
_KEEP_S = 1.0


@dataclass
class Rail:
    """One rail as it is exposed: its best source of joules, and its reading of power where it has one of its own.

    Attributes:
        meter: Counts its joules.
        power: The channel that tells its power; the meter does where it is None.
        parent: The rail that contains it and is exposed too, ``unknown`` where nobody knows what it overlaps; None for
            those that may be added up.
    """

    meter: Meter
    power: Meter | None = None
    parent: str | None = None

    @property
    def name(self) -> str:
        return self.meter.channel.name

    def watts(self, now: float) -> float | None:
        """Power at the last reading; None where that is too old or there was none."""
        meter = self.power or self.meter
        return None if is_stale(meter, now) else meter.watts


def stale_after(channel: Channel) -> float:
    """How long (s) a channel's reading counts as the present."""
    return max(STALE_S, 3 * (channel.update_interval_s or 0.0))


def is_stale(meter: Meter, now: float) -> bool:
    """Whether its last reading is too old to tell what is so now."""
    return meter.read_at is None or now - meter.read_at > stale_after(meter.channel)


class _Patient(MonotonicClock):
    """Waits in long slices: stopping may take a quarter of a second, and each wake-up less is battery."""

    def wait(self, deadline: float, stop: threading.Event) -> None:
        while not stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_S))


class Tap(Sensor):
    """A sensor that tells the engine what it read; the Sampler reads it like any other."""

    def __init__(self, sensor: Sensor, engine: Engine, channels: dict[Key, Channel]) -> None:
        self.inner = sensor
        self.name = sensor.name
        self.slow = sensor.slow
        self._engine = engine
        known = [channels.get(channel.key, channel) for channel in sensor.channels]
        #: (position in the row, channel) of what can be read
        self.watched = [(index, channel) for index, channel in enumerate(known) if channel.available]
        self._bounds = [plausible_bounds(channel) for channel in known]
        self.stale_s = max((stale_after(channel) for _, channel in self.watched), default=STALE_S)
        self.tells_power = any(c.quantity in {"power", "energy", "voltage", "current"} for _, c in self.watched)
        self.meters: list[tuple[int, Meter]] = []
        self.latest: dict[Key, tuple[float, float]] = {}
        self.samples = 0
        self.refused = 0
        self.last_read = -math.inf

    @property
    def channels(self) -> Sequence[Channel]:
        return self.inner.channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self.inner.unavailable

    def open(self) -> None:
        self.inner.open()

    def close(self) -> None:
        self.inner.close()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        self.inner.read(values, times)
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
    """Log that a step of a counter was no energy; it is in the gap of its source too."""
    reasons = {
        "counter_reset": "it fell, which no wrap explains",
        "counter_jumped": "it rose by more than the machine can draw",
    }
    reason = reasons.get(meter.refusal or "", "")
    event(
        logging.WARNING,
        "a counter was not believed",
        source=meter.channel.sensor,
        rail=meter.channel.name,
        reason=reason,
    )


class Engine:
    """All that is sampled, from ``start`` to ``stop``; ``rescan`` puts another discovery in place of the last.

    Joules survive a rescan: a meter belongs to its channel's key and not to the sensor object that reads it.

    Args:
        rate_hz: Readings per second.
        bridge_s: The longest gap (s) in power readings that is bridged.
    """

    def __init__(self, rate_hz: float = 10.0, bridge_s: float = BRIDGE_S) -> None:
        self.rate_hz = rate_hz
        self.bridge_s = bridge_s
        self.lock = threading.Lock()
        self.history = History()
        self.rails: list[Rail] = []
        self.total: Total | None = None
        self.topology: Topology | None = None
        #: Hears every reading of the headline: channel, monotonic s, W or J.
        self.listener: Callable[[Channel, float, float], None] | None = None
        self.taps: list[Tap] = []
        #: The sources that were ever read: one that is lost is shown as lost.
        self.known: dict[str, None] = {}
        self._meters: dict[Key, Meter] = {}
        self._samplers: list[Sampler] = []
        self._headline: frozenset[Meter] = frozenset()
        self._sums: dict[Key, float] = {}
        #: Of the total that was counted last: one that is lost goes on from it when it is back.
        self._last_total: dict[str, Any] | None = None
        self._kept: dict[str, Any] = {}
        self._kept_now: float | None = None
        #: Source → readings that succeeded and that are missing: of the samplers before, and in all.
        self._base: dict[str, tuple[int, int]] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._started = time.monotonic()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, discovery: Discovery, cpu: int | None = None) -> None:
        """Sample what was found; what was sampled before is stopped first.

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
            # A source that is there and deliberately not read (a battery that is being charged) is not lost.
            rest = {channel.sensor for channel in discovery.unavailable} - {tap.name for tap in taps}
            failed = {failure.source for failure in discovery.failures}
            self.known = {name: None for name in self.known if name not in rest or name in failed}
            self.known |= dict.fromkeys(tap.name for tap in taps)
            self._started = time.monotonic()
        # Watts follow every burst; temperatures, loads and clocks do not, and reading them costs as much.
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
        """Stop sampling; the joules stay. Safe to call twice."""
        samplers, self._samplers = self._samplers, []
        for sampler in samplers:
            sampler.stop()
        with self.lock:
            self._add_counts(samplers)
            self._base = dict(self._counted)

    def advanced(self, meter: Meter, seen: tuple[float, float]) -> None:
        """A meter has a new reading (called under the lock, by a Tap)."""
        if self.total is not None and meter in self._headline:
            self.total.advance(meter)
            if self.listener is not None:
                self.listener(meter.channel, *seen)

    @property
    def headline_channels(self) -> list[Channel]:
        """The channels whose sum is the device's power; empty where nothing tells it."""
        return [meter.channel for meter in self.total.meters] if self.total is not None else []

    # -- what is known ------------------------------------------------------------------------------------------------

    def latest(self, now: float) -> list[tuple[Channel, float]]:
        """Every channel's last good reading that is not too old."""
        with self.lock:
            return [
                (channel, seen[1])
                for tap in self.taps
                for _, channel in tap.watched
                if (seen := tap.latest.get(channel.key)) is not None and now - seen[0] <= stale_after(channel)
            ]

    def sources(self) -> dict[str, list[Tap]]:
        """The taps by the name of their source."""
        grouped: dict[str, list[Tap]] = {}
        for tap in self.taps:
            grouped.setdefault(tap.name, []).append(tap)
        return grouped

    def counts(self) -> dict[str, tuple[int, int]]:
        """Source → readings that succeeded and that are missing, since the daemon began; neither ever falls."""
        with self.lock:
            self._add_counts(self._samplers)
            return dict(self._counted)

    def gaps(self, now: float) -> dict[str, float]:
        """Source → seconds that are in none of the joules of its worst rail."""
        with self.lock:
            worst_gap: dict[str, float] = {}
            for meter in self._meters.values():
                name = meter.channel.sensor
                worst_gap[name] = max(worst_gap.get(name, 0.0), meter.gap(now))
            return worst_gap

    def stuck(self, now: float) -> str | None:
        """Which sensor's thread hangs, as a sentence; None where all is well.

        A sensor that fails is not stuck: it is tried again, and the others go on. It is stuck when no deadline of any
        sensor was served for long.
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
        """Whether a counter of the headline has not risen since this was last asked while another of its source has."""
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
        """Whether each sensor of that source was read lately.

        Args:
            source: Its name.
            now: Monotonic s.
            within_s: What is lately (s), and at least three refreshes; a reading that is still shown by default.
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
        """Power of the whole device at the last reading; None where nothing tells it, or a part's is too old."""
        if self.total is None or any(is_stale(meter, now) for meter in self.total.meters):
            return None
        return self.total.watts()

    @property
    def ready(self) -> bool:
        """Whether a plausible sample was read; of power where the device has a power sensor."""
        if self.total is not None:
            return all(meter.is_read for meter in self.total.meters)
        return any(tap.latest for tap in self.taps)

    @property
    def sources_of_total(self) -> tuple[str, str]:
        """The headline's source and provenance, as labels."""
        channels = [m.channel for m in self.total.meters] if self.total else []
        return "+".join(dict.fromkeys(c.sensor for c in channels)), provenance_of_sum([c.provenance for c in channels])

    # -- state over restarts ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a later daemon resumes from."""
        with self.lock:
            meters = {"\t".join(key): meter.state() for key, meter in self._meters.items()}
            meter_states = {**self._kept.get("meters", {}), **meters}  # a sensor that is away just now keeps its joules
            headline = sorted(m.channel.name for m in self._headline)
            total = self.total.state() if self.total else self._last_total
            return {"meters": meter_states, "total": total, "headline": headline}

    def resume(self, state: dict[str, Any], now: float | None) -> None:
        """Before ``start``: go on from an earlier daemon's state (see Meter.resume).

        Raises:
            ValueError, TypeError, LookupError, AttributeError: it is none; nothing of it is taken over.
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
        """The longest pause (s) that is bridged, and the shortest that is one: three periods at least."""
        three = 3 / self.rate_hz
        return max(self.bridge_s, three), max(USUAL_S, three)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wire_meters(self, topology: Topology) -> None:
        """Give every power channel its meter, and find which of them are rails."""
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
        """Take over the samplers' counts, on top of those of the samplers before them."""
        seen: dict[str, tuple[int, int]] = {}
        for stats in (stats for sampler in samplers for stats in sampler.stats()):
            good, missed = seen.get(stats.key[0], (0, 0))
            seen[stats.key[0]] = good + stats.samples, missed + stats.missed
        for name, (good, missed) in seen.items():
            base, counted = self._base.get(name, (0, 0)), self._counted.get(name, (0, 0))
            # A deadline that is being served counts as missed for a moment: never let the counter fall for it.
            self._counted[name] = max(counted[0], base[0] + good), max(counted[1], base[1] + missed)


def _rails(power: Iterable[Channel], topology: Topology, meters: dict[Key, Meter]) -> list[Rail]:
    """The rails that may be added up, and their parts; each rail once, a counter before sampled power.

    A channel that stands for the whole device is no rail: what it counts is device_energy.
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
