"""A recording: sensors that are sampled over a time, the spans of work in it, and the idles.

``Recording.quote`` is the only way from readings to joules: benchmarks, ``edgeprof run``, calibrations and users' own
programs all use it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeprof.energy import spans as joining
from edgeprof.energy.estimate import estimate_joules
from edgeprof.energy.figures import Quote
from edgeprof.energy.filters import fit_filters, rests, with_time_constant
from edgeprof.energy.influences import chip_name
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.quote import measure_spans, nothing_measured
from edgeprof.energy.sag import sag_of
from edgeprof.energy.standstill import least_work_w
from edgeprof.errors import unknown
from edgeprof.results.schema import Reason
from edgeprof.sensing.clock import Clock, MonotonicClock
from edgeprof.worker.span import BLOCK, Span, idle_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.energy.estimate import CoreWatts
    from edgeprof.energy.figures import Measured, Statistic
    from edgeprof.energy.filters import TimeConstant
    from edgeprof.energy.sag import Sag
    from edgeprof.sensing.board.topology import Topology
    from edgeprof.sensing.sensor import Channel, Quantity
    from edgeprof.sensing.trace import Key, Series

#: The longest that a quote waits for the readings of a span that has just ended (s).
_CATCH_UP_S = 5.0
_VOLTS_AND_AMPERES: tuple[Quantity, Quantity] = ("voltage", "current")
#: A shorter stretch without work (s) is not searched for the fall of a filter.
_LEAST_REST_S = 0.3
#: Work that fills at least this share of its span is continuous.
_STEADY_SHARE = 0.9


class Readings(Protocol):
    """The sampled readings: a ``Trace``, or the part of one that a sampler in another process has sent."""

    channels: list[Channel]

    def series(self, key: Key) -> Series:
        """A channel's readings without those that only repeat the one before."""

    def readings(self, key: Key) -> Series:
        """A channel's readings as they were read."""


class AnySampler(Protocol):
    """The interface of a sampler that a recording uses."""

    def start(self) -> None:
        """Start sampling."""

    def stop(self) -> None:
        """Stop sampling; the readings stay available."""

    @property
    def trace(self) -> Readings:
        """What was sampled so far."""


class OpenSpan:
    """A context manager that records a span; ``count`` may be set until it ends.

    Work that raises an exception is not recorded, because it may not have done all of its units.
    """

    __slots__ = ("_cpu_s", "_key", "_recording", "_start_s", "count", "kind", "unit")

    def __init__(self, recording: Recording, key: tuple[str, ...], count: int, unit: str, kind: str) -> None:
        self._recording, self._key = recording, key
        self._start_s = self._cpu_s = 0.0
        self.count, self.unit, self.kind = count, unit, kind

    def __enter__(self) -> Self:
        self._cpu_s = time.process_time() if self._recording.estimates else 0.0
        self._start_s = self._recording.now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_s = self._recording.now()
        if kind is None:
            cpu_s = time.process_time() - self._cpu_s if self._recording.estimates else None
            span = Span(self.kind, self._start_s, end_s, self.count, self.unit, self._key)
            self._recording.add(span, cpu_s=cpu_s)


@dataclass(frozen=True)
class _RecordedSpan:
    span: Span
    cpu_s: float | None
    thread: int
    busy_s: float | None = None
    is_elsewhere: bool = False

    @property
    def is_intermittent(self) -> bool:
        """Whether the span contains more idle time than the gaps between calls."""
        return self.busy_s is not None and self.busy_s < _STEADY_SHARE * self.span.seconds


class Recording:
    """Samples sensors from ``start`` to ``stop`` (or within ``with``), and keeps the spans of work in that time.

    Spans may be nested and may come from several threads.

    Args:
        topology: The board and its headline.
        sampler: A sampler that was not started yet.
        core_watts: The assumed power of a busy core where nothing measures; None: nothing is estimated.
        is_quiet_between: Whether nothing runs beside the added spans and the occupied times. The edges of spans and the
            time constants of filters are then taken from the quiet time between them.
        clock: Replaces the clock in tests.
    """

    def __init__(
        self,
        topology: Topology | None,
        sampler: AnySampler,
        *,
        core_watts: CoreWatts | None = None,
        is_quiet_between: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._is_quiet_between = is_quiet_between
        self._topology, self._sampler = topology, sampler
        self._core_watts = core_watts
        clock = clock or MonotonicClock()
        self._clock = clock
        #: Seconds of CLOCK_MONOTONIC, which spans and readings share.
        self.now: Callable[[], float] = time.monotonic if isinstance(clock, MonotonicClock) else clock.now
        self._recorded: list[_RecordedSpan] = []
        self._idles: list[Span] = []
        self._occupied: list[Span] = []
        self._filters: tuple[dict[str, TimeConstant], list[Reason]] | None = None
        self._is_live = False

    # --- recording ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start sampling; return after each sensor was tried once."""
        self._sampler.start()
        self._is_live = True

    def stop(self) -> None:
        """Stop sampling. Safe to call twice."""
        self._sampler.stop()
        self._is_live = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def hold(self, seconds: float, stop: threading.Event | None = None) -> Span:
        """Wait for ``seconds``, or until ``stop`` is set, and return the span that has passed."""
        start_s = self.now()
        self._clock.wait(start_s + seconds, stop or threading.Event())
        return idle_span(start_s, self.now())

    def idle(self, seconds: float, stop: threading.Event | None = None) -> Span:
        """Wait without work; the power of the idles is the baseline of net energies.

        Args:
            seconds: How long to wait, in seconds.
            stop: Ends the wait early when it is set.
        """
        span = self.hold(seconds, stop)
        self._idles.append(span)
        return span

    def span(self, *key: str, count: int = 1, unit: str = "call", kind: str = BLOCK) -> OpenSpan:
        """Record the body of a ``with`` statement as work of a key.

        Args:
            key: The key by which the work is quoted; all spans of one key have the same unit.
            count: How many units of work the body does.
            unit: The unit in the singular: ``frame``, ``output token`` …
            kind: The kind of the span (``worker.span``).
        """
        return OpenSpan(self, key, count, unit, kind)

    def add(
        self, span: Span, *, cpu_s: float | None = None, busy_s: float | None = None, is_elsewhere: bool = False
    ) -> None:
        """Add a span that was timed elsewhere on CLOCK_MONOTONIC.

        Args:
            span: The work.
            cpu_s: The CPU time that it used (s), for an estimate where nothing measures.
            busy_s: For how many seconds of the span work was done, if that is less than its length.
            is_elsewhere: Whether another process or a GPU did the work, so that ``cpu_s`` says nothing about its
                joules.
        """
        self._recorded.append(_RecordedSpan(span, cpu_s, threading.get_ident(), busy_s, is_elsewhere))

    def occupy(self, start_s: float, end_s: float) -> None:
        """Note work that is not quoted, such as the loading of a model, because the device was not quiet then."""
        if end_s > start_s:
            self._occupied.append(Span(BLOCK, start_s, end_s))

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def estimates(self) -> bool:
        """Whether joules are estimated from CPU time where nothing measures."""
        return self._core_watts is not None

    @property
    def topology(self) -> Topology:
        """The board, its channels and its headline."""
        if self._topology is None:
            raise RuntimeError("the recording was not started")
        return self._topology

    @property
    def trace(self) -> Readings:
        """What was sampled so far."""
        return self._sampler.trace

    @property
    def idles(self) -> list[Span]:
        """The stretches without work, in order of time."""
        return list(self._idles)

    def recorded_keys(self) -> list[tuple[str, ...]]:
        """The keys that can be quoted, in the order of their first spans."""
        return list(dict.fromkeys(recorded.span.key for recorded in self._recorded))

    def spans(self, *key: str) -> list[Span]:
        """The spans of a key, in order of time."""
        return sorted(
            (recorded.span for recorded in self._recorded if recorded.span.key == key), key=lambda span: span.start_s
        )

    @property
    def busy(self) -> list[Span]:
        """Everything that ran, quoted or not."""
        return [*(recorded.span for recorded in self._recorded), *self._occupied]

    def series(self, channel: Channel) -> ChannelSeries:
        """A channel with its readings, without repeats; its filter has the fitted time constant."""
        filters, _ = self.fitted_filters()
        return _filtered_series(self.trace, channel, filters)

    def fitted_filters(self) -> tuple[dict[str, TimeConstant], list[Reason]]:
        """The time constants that were fitted to falls after work, by chip, and a reason for each contradiction.

        Both are empty if it is not known that the device was quiet between the spans.
        """
        if not self._is_quiet_between:
            return {}, []
        if self._filters is not None:
            return self._filters
        trace = self.trace
        series = [_filtered_series(trace, channel, {}) for channel in self.of("power")]
        ends = [
            float(times[-1])
            for channel_series in series
            if (times := np.asarray(channel_series.times, dtype=np.float64)).size
        ]
        _, filters, reasons = fit_filters(series, rests(self.busy, max(ends, default=0.0), _LEAST_REST_S))
        if not self._is_live:  # no more readings will come
            self._filters = filters, reasons
        return filters, reasons

    def of(self, quantity: str) -> list[Channel]:
        """The channels of a quantity that were sampled."""
        keys = {channel.key for channel in self.trace.channels}
        return [c for c in self.topology.channels if c.quantity == quantity and c.key in keys]

    # --- the one way to joules ----------------------------------------------------------------------------------------

    def quote(
        self,
        *key: str,
        idles: Sequence[Span] | None = None,
        statistic: Statistic = "mean",
        max_rate_hz: float | None = None,
    ) -> Quote:
        """Quote joules per unit of the work of a key, gross and net, with their uncertainties.

        Args:
            key: The key that was given to ``span``; it may be left out if the recording has only one.
            idles: The stretches without work that are the baseline of the net energy; by default all of the recording.
            statistic: Which statistic of the spans is quoted.
            max_rate_hz: The highest rate of back-to-back units (Hz), where the spans ran at a lower one.

        Raises:
            InputError: there is no span of that key, or there are several and none is named.
        """
        keys = self.recorded_keys()
        if not key and len(keys) == 1:
            key = keys[0]
        recorded = sorted((k for k in self._recorded if k.span.key == key), key=lambda k: k.span.start_s)
        if not recorded:
            raise unknown("span", " ".join(key), [" ".join(known) for known in keys])
        reasons = [] if len({k.span.unit for k in recorded}) == 1 else [_mixed_units(recorded)]
        last_s = max([k.span.end_s for k in recorded] + [idle.end_s for idle in self._idles])
        trace = self._caught_up(last_s)
        spans, cpu_seconds = joining.merge_overlaps([(k.span, k.cpu_s) for k in recorded])
        beside = joining.overlap_reason(
            spans, [k.span for k in self._recorded if k.span.key != key and self._is_apart(k, recorded)]
        )
        if beside is not None:
            reasons.append(beside)
        count, seconds = sum(span.count for span in spans), sum(span.seconds for span in spans)
        spans, joined = joining.join_short_spans(spans, self._least_span_s(trace))
        if joined is not None:
            reasons.append(joined)
            cpu_seconds = [sum(s for s in cpu_seconds if s is not None)] if len(spans) == 1 else [None] * len(spans)
        idles = self._idles if idles is None else idles
        measured = self._measure_headline(
            trace, spans, cpu_seconds, idles=idles, statistic=statistic, max_rate_hz=max_rate_hz
        )
        if measured is None:
            measured = self._estimate_from_cpu(recorded, spans, cpu_seconds)
        return Quote(
            key=key,
            unit=spans[0].unit,
            count=count,
            seconds=seconds,
            energy=measured.energy,
            power=measured.power,
            windows=measured.windows,
            reasons=[*measured.reasons, *reasons],
        )

    def _measure_headline(
        self,
        trace: Readings,
        spans: Sequence[Span],
        cpu_seconds: Sequence[float | None],
        *,
        idles: Sequence[Span],
        statistic: Statistic,
        max_rate_hz: float | None,
    ) -> Measured | None:
        """Measure the spans with the headline; None if there is no headline."""
        headline = self.topology.headline
        filters, _ = self.fitted_filters()
        if not headline.channels:
            return None
        chosen = {channel.key for channel in headline.channels}
        parts = [c for quantity in ("power", "energy") for c in self.of(quantity) if c.key not in chosen]
        return measure_spans(
            [
                _filtered_series(trace, channel, filters, self._rail_sag(trace, channel))
                for channel in headline.channels
            ],
            [_filtered_series(trace, channel, filters, self._rail_sag(trace, channel)) for channel in parts],
            spans,
            idles,
            covers=headline.covers,
            rail=headline.rail,
            statistic=statistic,
            max_rate_hz=max_rate_hz,
            busy=self.busy if self._is_quiet_between else (),
            expected_w=least_work_w(headline.channels, cpu_seconds, sum(span.seconds for span in spans)),
            intermittent={work.span for work in self._recorded if work.is_intermittent},
        )

    def _estimate_from_cpu(
        self, recorded: Sequence[_RecordedSpan], spans: Sequence[Span], cpu_seconds: Sequence[float | None]
    ) -> Measured:
        """Estimate the spans from CPU time, marked as an estimate; otherwise no figure and the reason."""
        reason = self.topology.headline.reason or "nothing measures power here"
        if self._core_watts is None:
            return nothing_measured(reason)
        is_elsewhere = any(work.is_elsewhere for work in recorded)
        busy_seconds = [work.busy_s for work in recorded if work.busy_s is not None]
        return estimate_joules(
            spans,
            [None] * len(spans) if is_elsewhere else cpu_seconds,
            self._core_watts.core_w,
            relative_uncertainty=self._core_watts.half_width,
            stated=self._core_watts.stated,
            reason=reason,
            working_s=sum(busy_seconds) if len(busy_seconds) == len(recorded) else None,
        )

    def _rail_sag(self, trace: Readings, channel: Channel) -> Sag | None:
        """How a rail's voltage falls with its current, if its source reads both behind one filter; otherwise None."""
        if channel.quantity != "power" or channel.filter.kind != "exponential":
            return None
        keys = [(channel.sensor, channel.name, quantity) for quantity in _VOLTS_AND_AMPERES]
        if not set(keys) <= {known.key for known in trace.channels}:
            return None
        volts, amperes = (np.asarray(trace.readings(key).values, dtype=np.float64) for key in keys)
        return sag_of(volts, amperes) if volts.size == amperes.size else None

    def _is_apart(self, other: _RecordedSpan, others: Sequence[_RecordedSpan]) -> bool:
        """Whether a span ran in none of the threads of ``others``; within one thread spans are nested."""
        return other.thread not in {k.thread for k in others}

    def _caught_up(self, until_s: float) -> Readings:
        """Wait until the headline has a reading after a time, because its sampler may be a moment behind; return the
        trace.
        """
        keys = [channel.key for channel in self.topology.headline.channels]
        deadline = time.monotonic() + _CATCH_UP_S
        while True:
            trace = self.trace
            times = [trace.readings(key).times for key in keys if key in {c.key for c in trace.channels}]
            if not self._is_live or all(t and t[-1] >= until_s for t in times) or time.monotonic() > deadline:
                return trace
            time.sleep(0.01)

    def _least_span_s(self, trace: Readings) -> float:
        """The shortest span (s) that the headline can measure."""
        intervals = [0.0]
        for channel in self.topology.headline.channels:
            times = np.asarray(trace.series(channel.key).times, dtype=np.float64)
            read_s = float(np.median(np.diff(times))) if times.size > 1 else 0.0
            intervals.append(max(read_s, channel.update_interval_s or 0.0))
        return joining.LEAST_READINGS * max(intervals)


def _filtered_series(
    trace: Readings, channel: Channel, filters: Mapping[str, TimeConstant], sag: Sag | None = None
) -> ChannelSeries:
    samples = trace.series(channel.key)
    known = with_time_constant(channel, filters.get(chip_name(channel)))
    return ChannelSeries(known, samples.times, samples.values, sag)


def _mixed_units(recorded: Sequence[_RecordedSpan]) -> Reason:
    units = ", ".join(dict.fromkeys(k.span.unit for k in recorded))
    return Reason("mixed_units", f"the spans of {' '.join(recorded[0].span.key)} count different units: {units}")
