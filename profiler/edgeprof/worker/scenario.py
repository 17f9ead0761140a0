"""The ways in which a workload is called, and the loops of the worker that do so.

Terms: a *call* is one run of a workload; it does a number of *units* (``batch`` inferences for a batch of samples).
Latencies are those of calls. In the closed loops (single-stream, multi-stream, offline) the next call starts when the
previous one is done. In the open loops (server, periodic) calls are due at times fixed beforehand, and latency counts
from the moment a call was due, not from when it could be started: a stall is then paid for by every call that waited
for it (MLPerf inference rules: "from when LoadGen was scheduled to pass the query").

Python 3.6 grammar. Inside a window no memory is allocated for good, nothing is logged, and the cyclic garbage collector
is off; each call of a closed loop costs one reading of the clock and one store.
"""

import gc
import math
import random
import threading
import time
from array import array
from bisect import bisect_left
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from edgeprof.worker.span import WINDOW, Span

Call = Callable[[], Any]

SCENARIOS = ("single-stream", "multi-stream", "offline", "server", "periodic")
#: Scenarios whose calls are due at a rate.
OPEN = ("server", "periodic")

#: How long before a due time (s) a sleep ends and spinning begins: the kernel wakes a sleeper some 50 to 100 µs late.
SPIN_S = 150e-6
#: The latencies of calls that begin in this time (s) after the start of a window are left out, because caches, thread
#: pools and clocks have to come back to what they are under load. At most half of the calls are left out, and none if
#: calls are at least this long (s). Their energy counts: nothing may run just before a window.
WAKE_S, _LONG_S = 0.05, 1.0
#: A window is saturated if it made less than this share of the calls that were due.
SATURATION = 0.99
#: Most time-stamps of one stream and window (80 MB): a window that needs more ends early and is marked ``cut_short``.
MAX_STAMPS = 10000000


class Scenario(NamedTuple):
    """How the calls of a window follow one another.

    Attributes:
        name: One of ``SCENARIOS``.
        rate_hz: Calls per second of ``server`` (Poisson) and ``periodic`` (a camera); None for the others.
        streams: How many threads call at once, each on a session of its own; in ``periodic``, one for each camera.
        batch: How many inferences one call does.
        seed: Seeds the Poisson arrivals; the same seed gives the same arrivals.
        queue: How many frames of a camera may wait in ``periodic``; with 0, a frame is dropped for the next one.
    """

    name: str = "single-stream"
    rate_hz: Optional[float] = None
    streams: int = 1
    batch: int = 1
    seed: int = 0
    queue: int = 0

    @property
    def threads(self) -> int:
        """Streams that really run at once."""
        return max(1, self.streams) if self.name in ("multi-stream", *OPEN) else 1


class Window(NamedTuple):
    """What happened in one window.

    Attributes:
        span: From its start until its last call was done or, in an open loop, until its time was over.
        calls: How many calls were made.
        latencies: Seconds of each call after the waking ones; in an open loop from the moment it was due.
        busy_s: Time within calls, summed over streams.
        cpu_s: CPU time of the process from start to end, without that of its child processes, in seconds.
        due: How many calls were due; None in a closed loop.
        due_s: The seconds in which they were due; None in a closed loop.
        late: Frames of ``periodic``, after the waking ones, that were done after the next was due; None in every other
            scenario.
        cut_short: Whether the buffer of time-stamps was full before the time was over.
        queued: Whether the next call always waited in the device's queue (offline, where a runtime supports it).
        standstill: What made its times useless (``was stopped by a signal``); None if nothing did.
        is_burst: Whether the device repeated the calls by itself, so that ``latencies`` is empty and only their mean
            is known.
        device_s: The length of a burst by the device's own clock, in seconds; None where that is unknown.
        is_second_try: Whether a device had to be brought back in step, and repeated the calls after that.
        waking: For each stream, how many of its calls came first and have no latency (``WAKE_S``).
    """

    span: Span
    calls: int
    latencies: "array[float]"
    busy_s: float
    cpu_s: float
    due: Optional[int] = None
    due_s: Optional[float] = None
    late: Optional[int] = None
    cut_short: bool = False
    queued: bool = False
    standstill: Optional[str] = None
    is_burst: bool = False
    device_s: Optional[float] = None
    is_second_try: bool = False
    waking: Tuple[int, ...] = ()

    @property
    def dropped(self) -> Optional[int]:
        """Calls that were due and not made; None in a closed loop."""
        return None if self.due is None else self.due - self.calls

    @property
    def saturated(self) -> bool:
        """Whether fewer than 99 % of the calls that were due could be made."""
        return self.due is not None and self.calls < SATURATION * self.due

    @property
    def achieved_hz(self) -> float:
        """Calls made per second: of the time in which they were due in an open loop, of the window in a closed one."""
        seconds = self.due_s or self.span.seconds
        return self.calls / seconds if seconds > 0 else 0.0

    @property
    def target_hz(self) -> Optional[float]:
        """Calls per second that were due; None in a closed loop."""
        return self.due / self.due_s if self.due is not None and self.due_s else None

    def to_wire(self) -> Tuple[Dict[str, Any], bytes]:
        """The window as it crosses to the parent: an object, and its latencies as float64."""
        return dict(self._asdict(), span=list(self.span), latencies=None), self.latencies.tobytes()

    @classmethod
    def from_wire(cls, fields: Dict[str, Any], latencies: bytes) -> "Window":
        """The inverse of ``to_wire``."""
        seconds = array("d")
        seconds.frombytes(latencies)
        known = {name: fields[name] for name in cls._fields}
        kind, start_s, end_s, count, unit, key, edge_s = fields["span"]
        span = Span(kind, start_s, end_s, count, unit, tuple(key), edge_s)
        return cls(**dict(known, span=span, latencies=seconds, waking=tuple(fields["waking"])))


class Phase(NamedTuple):
    """The moments (s, CLOCK_MONOTONIC) at which a window may start: ``offset_s`` plus any multiple of ``period_s``."""

    offset_s: float
    period_s: float

    def delay_s(self, now_s: float) -> float:
        """How long it is from ``now_s`` to the next such moment."""
        return (self.offset_s - now_s) % self.period_s


class _Margins(NamedTuple):
    """The first part of a window, whose calls have no latencies, the quiet time on either side (s), and the phase."""

    wake_s: float
    quiet_s: float
    phase: Optional[Phase]

    def before(self) -> None:
        time.sleep(self.quiet_s)
        if self.phase is not None:
            time.sleep(self.phase.delay_s(time.monotonic()))

    def after(self) -> None:
        time.sleep(self.quiet_s)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """A context without garbage collection: garbage is collected once before it."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def stamps_for(seconds: float, latency_s: float) -> "array[float]":
    """A buffer for the time-stamps of twice the expected calls, whose memory pages are already mapped."""
    expected = 2.0 * seconds / max(latency_s, 1e-7)
    return array("d", [0.0]) * (int(min(MAX_STAMPS, expected)) + 64)


def closed_loop(call: Call, seconds: float, stamps: "array[float]", calls_in_loop: int = 1) -> int:
    """Call back to back for ``seconds``, at least once.

    Args:
        call: The function to repeat.
        seconds: The window ends with the first call that is done after this time and completes a loop.
        stamps: Receives the start time, then the time at which each call was done.
        calls_in_loop: How many calls make a loop.

    Returns:
        How many calls were made.
    """
    clock = time.monotonic
    now = clock()
    stamps[0] = now
    end = now + seconds
    for i in range(1, len(stamps)):
        call()
        now = clock()
        stamps[i] = now
        if now >= end and i % calls_in_loop == 0:
            return i
    return len(stamps) - 1


def wait_until(due: float) -> float:
    """Sleep until shortly before ``due``, then spin; return the time, which is ``due`` or later."""
    clock = time.monotonic
    now = clock()
    while due - now > SPIN_S:
        time.sleep(due - now - SPIN_S)
        now = clock()
    while now < due:
        now = clock()
    return now


def poisson_arrivals(rate_hz: float, seconds: float, seed: int) -> "array[float]":
    """Poisson arrivals as offsets from the start in seconds, all before ``seconds``; at least one.

    The gaps between them are independent and exponentially distributed with the mean 1 / ``rate_hz``.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable is what is wanted
    due = array("d")
    now = chance.expovariate(rate_hz)
    while now < seconds:
        due.append(now)
        now += chance.expovariate(rate_hz)
    if not due:
        due.append(0.0)
    return due


def frame_times(rate_hz: float, seconds: float, loop: int = 1) -> "array[float]":
    """The times of a camera's frames as offsets from the start in seconds: whole periods and loops, at least one."""
    fitting = max(1, math.floor(seconds * rate_hz + 1e-9))
    return array("d", [k / rate_hz for k in range(fitting + -fitting % loop)])


def camera_times(offsets: "array[float]", period: float, cameras: int) -> "array[float]":
    """The frame times of one camera after the other; the frames of all cameras are evenly spaced."""
    return array("d", [offset + index * period / cameras for index in range(cameras) for offset in offsets])


def run_window(
    scenario: Scenario,
    calls: Sequence[Call],
    seconds: float,
    latency_s: float,
    drains: Sequence[Call] = (),
    *,
    calls_in_loop: int = 1,
    quiet_s: float = 0.0,
    phase: Optional[Phase] = None,
) -> Window:
    """Run one window.

    Args:
        scenario: How the calls follow one another.
        calls: One call per stream, ``scenario.threads`` of them.
        seconds: The length of the window.
        latency_s: How long a call takes, known from the warm-up; it sizes the buffers of closed loops.
        drains: For calls that return while the device still works (a full queue): one function per call that waits for
            the last of them. The window ends when it is done; latencies are then the times from the end of one call to
            the end of the next.
        calls_in_loop: How many calls make a loop; a window holds whole loops, except with Poisson arrivals.
        quiet_s: For how long (s) this process does nothing directly before the window and directly after it, so that
            the energy at its edges can be told from that of its preparation.
        phase: When the window may start; None for at once.

    Returns:
        The window; each call counts as one unit.

    Raises:
        Exception: whatever a call raises.
    """
    margins = _Margins(WAKE_S if latency_s < _LONG_S else 0.0, quiet_s, phase)
    if scenario.name in OPEN:
        assert scenario.rate_hz is not None
        if scenario.name == "server":
            arrivals = poisson_arrivals(scenario.rate_hz, seconds, scenario.seed)
            return _serve_arrivals(calls, arrivals, seconds, margins)
        due = frame_times(scenario.rate_hz, seconds, calls_in_loop)
        return _run_periodic(calls, due, 1.0 / scenario.rate_hz, scenario.queue, margins)
    buffers = [stamps_for(seconds + (calls_in_loop - 1) * latency_s, latency_s) for _ in calls]
    return _run_closed_loop(calls, seconds, buffers, drains, calls_in_loop=calls_in_loop, margins=margins)


def _run_closed_loop(
    calls: Sequence[Call],
    seconds: float,
    buffers: "Sequence[array[float]]",
    drains: Sequence[Call],
    *,
    calls_in_loop: int,
    margins: _Margins,
) -> Window:
    counts = [0] * len(calls)

    def run_stream(index: int) -> None:
        counts[index] = closed_loop(calls[index], seconds, buffers[index], calls_in_loop)
        if drains:
            drains[index]()
            buffers[index][counts[index]] = time.monotonic()

    with without_garbage_collection():
        cpu = _in_streams(run_stream, len(calls), margins.before, margins.after)
    start = min(stamps[0] for stamps in buffers)
    end = max(stamps[count] for stamps, count in zip(buffers, counts))
    latencies = array("d")
    waking = []
    busy = 0.0
    for stamps, count in zip(buffers, counts):
        waking.append(_count_waking(bisect_left(stamps, stamps[0] + margins.wake_s, 0, count), count))
        latencies.extend([stamps[i + 1] - stamps[i] for i in range(waking[-1], count)])
        busy += stamps[count] - stamps[0]
    full = any(
        count == len(stamps) - 1 and stamps[count] < stamps[0] + seconds for stamps, count in zip(buffers, counts)
    )
    calls_made = sum(counts)
    span = Span(WINDOW, start, end, calls_made)
    return Window(span, calls_made, latencies, busy, cpu, cut_short=full, waking=tuple(waking))


def _count_waking(first: int, count: int) -> int:
    """How many of ``count`` calls have no latency, if ``first`` of them began while things woke up."""
    return min(first, count // 2)


def _serve_arrivals(calls: Sequence[Call], due: "array[float]", seconds: float, margins: _Margins) -> Window:
    """Serve arrivals in their order, by as many servers as there are calls.

    When the time is over, the calls that still wait are made if they are at most 1 % of all (or one call). Otherwise
    the window ends there, and the calls that were not made mark it as saturated.
    """
    count = len(due)
    started = array("d", [0.0]) * count
    done = array("d", [0.0]) * count
    stream_of = array("q", [0]) * count
    queue: Deque[int] = deque(range(count))
    tolerated = max(1.0, (1.0 - SATURATION) * count)
    begin = [0.0]

    def run_stream(index: int) -> None:
        call = calls[index]
        clock = time.monotonic
        start = begin[0]
        cutoff = start + seconds
        while True:
            try:
                k = queue.popleft()  # atomic, so that streams share one queue without a lock
            except IndexError:
                return
            now = clock()
            if now < start + due[k]:
                now = wait_until(start + due[k])
            elif now >= cutoff and count - k > tolerated:
                return
            started[k], stream_of[k] = now, index
            call()
            done[k] = clock()

    def set_begin() -> None:
        margins.before()
        begin[0] = time.monotonic()

    def wait_for_end() -> None:
        wait_until(begin[0] + seconds)
        margins.after()

    with without_garbage_collection():
        cpu = _in_streams(run_stream, len(calls), set_begin, wait_for_end)
    times = _Times(due, started, done, stream_of)
    return _open_window(begin[0], begin[0] + seconds, times, margins.wake_s, None)._replace(cpu_s=cpu)


def _run_periodic(
    calls: Sequence[Call], offsets: "array[float]", period: float, queue: int, margins: _Margins
) -> Window:
    """Make one call per frame of each camera.

    A frame that is ``queue + 1`` periods old before it can be started is dropped for the next one.

    The window is a whole number of periods. It includes the idle time after the last frame, because the joules per
    frame include the waiting for the next one.
    """
    count = len(offsets)
    due = camera_times(offsets, period, len(calls))
    started = array("d", [0.0]) * len(due)
    done = array("d", [0.0]) * len(due)
    begin = 0.0
    oldest = (queue + 1) * period

    def run_stream(index: int) -> None:
        clock = time.monotonic
        call = calls[index]
        for k in range(index * count, (index + 1) * count):
            now = clock()
            intended = begin + due[k]
            if now < intended:
                now = wait_until(intended)
            elif now >= intended + oldest:
                continue
            started[k] = now
            call()
            done[k] = clock()

    def set_begin() -> None:
        nonlocal begin
        margins.before()
        begin = time.monotonic()

    length = count * period

    def wait_for_end() -> None:
        wait_until(begin + length)
        margins.after()

    with without_garbage_collection():
        cpu = _in_streams(run_stream, len(calls), set_begin, wait_for_end)
    times = _Times(due, started, done, array("q", [k // count for k in range(len(due))]))
    return _open_window(begin, begin + length, times, margins.wake_s, period)._replace(cpu_s=cpu)


class _Times(NamedTuple):
    """When each call of an open loop was due (after the beginning), was started and was done, and in which stream."""

    due: "array[float]"
    started: "array[float]"
    done: "array[float]"
    stream_of: "array[int]"


def _open_window(begin: float, end: float, times: _Times, wake_s: float, period: Optional[float]) -> Window:
    due, started, done, stream_of = times
    served = sorted((k for k in range(len(due)) if done[k]), key=due.__getitem__)
    first = _count_waking(sum(1 for k in served if due[k] < wake_s), len(served))
    waking = served[:first]
    latencies = array("d", [done[k] - begin - due[k] for k in served[first:]])
    busy = sum(done[k] - started[k] for k in served)
    last = max([end] + [done[k] for k in served])
    late = None if period is None else sum(1 for latency in latencies if latency > period)
    return Window(
        Span(WINDOW, begin, last, len(served)),
        len(served),
        latencies,
        busy,
        0.0,
        len(due),
        end - begin,
        late,
        waking=tuple(sum(1 for k in waking if stream_of[k] == stream) for stream in range(max(stream_of) + 1)),
    )


def _in_streams(
    stream: Callable[[int], None],
    count: int,
    before: Callable[[], Any] = lambda: None,
    after: Callable[[], Any] = lambda: None,
) -> float:
    """Run ``stream(0)`` … ``stream(count − 1)`` concurrently, and return the CPU seconds of this process meanwhile.

    A single stream runs in this thread. ``before`` is called when all streams are ready, ``after`` when all are done.
    """
    if count == 1:
        before()
        cpu = time.process_time()
        stream(0)
        after()
        return time.process_time() - cpu
    failures: List[BaseException] = []
    gate = threading.Barrier(count + 1)

    def guarded(index: int) -> None:
        gate.wait()
        try:
            stream(index)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    before()
    cpu = time.process_time()
    gate.wait()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    after()
    return time.process_time() - cpu
