"""Sample all sensors periodically, from outside the workload, and measure the cost of doing so.

Deadlines are absolute on the monotonic clock; a missed one is counted and skipped, never made up in a burst. Quick
sensors share one thread; each slow one, and each that turns out to be slow, has its own, so that a read that blocks
delays no other sensor. A sensor that raises is retried with growing pauses and costs the others nothing.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.roots import Roots
from edgeprof.sensing.clock import Clock, MonotonicClock
from edgeprof.sensing.lane import Lane
from edgeprof.sensing.reader import ChannelStats, Probe
from edgeprof.sensing.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.sensing.sensor import Channel, Sensor
    from edgeprof.sensing.trace import Key

__all__ = ["ChannelStats", "Sampler", "SelfCostNumbers", "SensorFailure"]

#: How long start() waits for every sensor's first reading, and stop() for a thread to end (s).
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class SelfCostNumbers:
    """The cost of sampling.

    Attributes:
        cpu_ratio: CPU time of the sampling threads over wall time: 0.01 is 1 % of one core; None before the start.
        rss_bytes: Resident memory of this process; None if /proc does not have it.
    """

    cpu_ratio: float | None
    rss_bytes: int | None


@dataclass(frozen=True)
class SensorFailure:
    """A sensor that failed as a whole at least once.

    Attributes:
        sensor: Its name.
        reason: What it raised last, one sentence.
    """

    sensor: str
    reason: str


class Sampler:
    """Samples sensors in threads of its own from ``start`` to ``stop``. It is used once.

    Args:
        sensors: Not open; each is opened, read and closed in the thread that samples it.
        rate_hz: Readings per second; a source that refreshes more slowly is read less often (``reader.period_for``).
            None: as often as the refresh and the filter of each source give new values, at most 100 Hz.
        channels: Key → channel, as annotated by the topology and the characterisation; for a key that is not in it, the
            sensor's own description is used. A channel that is not ``available`` is left out of the trace.
        cpu: The CPU that the sampling threads stay on, away from the workload; None leaves that to the scheduler.
        keep_s: How long readings are kept (s); None keeps all.
        clock: Replaces the clock in tests.
        phase: Returns where in its period each reading falls, from 0 to 1. By default this is random, so that a load in
            step with the sampler is not always seen at the same phase (stratified sampling). None: at the beginning.

    Raises:
        ValueError: ``rate_hz`` is not a positive number.
    """

    def __init__(
        self,
        sensors: Sequence[Sensor],
        rate_hz: float | None = 100.0,
        channels: Mapping[Key, Channel] | None = None,
        *,
        cpu: int | None = None,
        keep_s: float | None = None,
        clock: Clock | None = None,
        phase: Callable[[], float] | None = random.random,
    ) -> None:
        if rate_hz is not None and not 0 < rate_hz < float("inf"):
            raise ValueError(f"rate_hz is {rate_hz}; it has to be a positive number")
        self._clock = clock or MonotonicClock()
        self._cpu = cpu
        probes = [Probe(sensor, channels, rate_hz, keep_s, phase) for sensor in sensors]
        self._probes = [probe for probe in probes if any(channel.available for channel in probe.channels)]
        self._lanes: list[Lane] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._begin: float | None = None
        self._end: float | None = None
        self._trace = Trace(probe.record for probe in self._probes)

    @property
    def trace(self) -> Trace:
        """The readings so far."""
        return self._trace

    def start(self) -> None:
        """Start sampling; return when each sensor was tried once (a slow one has up to a few seconds for it).

        Raises:
            RuntimeError: it was started before.
        """
        with self._lock:
            if self._begin is not None:
                raise RuntimeError("a Sampler samples once; make a new one")
            self._begin = self._clock.now()
            quick = [probe for probe in self._probes if not probe.sensor.slow]
            groups = [quick] if quick else []
            groups += [[probe] for probe in self._probes if probe.sensor.slow]
            self._lanes = [self._lane(group) for group in groups]
            lanes = list(self._lanes)
            for lane in lanes:
                lane.thread.start()
        for lane in lanes:
            lane.started.wait(_PATIENCE_S)

    def stop(self) -> None:
        """Stop sampling and close the sensors. Safe to call twice, and before ``start``."""
        with self._lock:
            self._stop.set()
            end = self._clock.now()
            lanes = list(self._lanes)
        for lane in lanes:
            lane.thread.join(_PATIENCE_S)
            if lane.thread.is_alive():
                for probe in lane.probes:
                    probe.reason = f"a read had not come back after {_PATIENCE_S:g} s"
        with self._lock:
            if self._begin is not None and self._end is None:
                self._end = end
                for probe in self._probes:
                    probe.settle(end)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def latest(self) -> dict[Key, tuple[float, float]]:
        """The newest reading of each channel as ``(monotonic s, value)``, NaN where it failed."""
        newest: dict[Key, tuple[float, float]] = {}
        for probe in self._probes:
            row = probe.record.last()
            if row is None:
                continue
            for channel, time, value in zip(probe.channels, *row, strict=True):
                if channel.available:
                    newest.setdefault(channel.key, (time, value))
        return newest

    def stats(self) -> list[ChannelStats]:
        """How well each channel was sampled so far; after ``stop`` every deadline is accounted for."""
        return [stats for probe in self._probes for stats in probe.stats()]

    def failures(self) -> list[SensorFailure]:
        """The sensors that failed as a whole, each once."""
        return [SensorFailure(p.sensor.name, p.reason) for p in self._probes if p.reason is not None]

    def cost(self) -> SelfCostNumbers:
        """The cost of sampling since ``start``."""
        with self._lock:
            lanes, begin = list(self._lanes), self._begin
        wall = 0.0 if begin is None else (self._end or self._clock.now()) - begin
        ratio = sum(lane.cpu_s for lane in lanes) / wall if wall > 0 else None
        return SelfCostNumbers(cpu_ratio=ratio, rss_bytes=_resident_bytes())

    def _lane(self, probes: list[Probe]) -> Lane:
        return Lane(probes, self._clock, self._stop, self._adopt, self._cpu)

    def _adopt(self, probe: Probe) -> bool:
        """Give a probe a lane of its own, unless all is being stopped."""
        with self._lock:
            if self._stop.is_set():
                return False
            lane = self._lane([probe])
            self._lanes.append(lane)
            lane.thread.start()
            return True


def _resident_bytes() -> int | None:
    try:
        pages = (Roots().procfs / "self" / "statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
