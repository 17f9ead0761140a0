"""``edgeprof.record`` and ``edgeprof.measure``: joules of a user's own code.

Sampling happens in a separate process, so that it does not take the caller's interpreter lock; a span costs the caller
only two readings of the clock.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from edgeprof.energy import recording as energy
from edgeprof.energy.estimate import CoreWatts
from edgeprof.energy.stage_figures import report_stages
from edgeprof.errors import require_range
from edgeprof.launch.lock import measuring
from edgeprof.roots import Roots
from edgeprof.sensing.remote_sampler import RemoteSampler
from edgeprof.stage_rings import StageWatch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.energy.figures import Quote
    from edgeprof.energy.recording import OpenSpan
    from edgeprof.energy.stage_figures import StageReport
    from edgeprof.results.schema import Reason
    from edgeprof.worker.span import Span

P = ParamSpec("P")
R = TypeVar("R")

#: Remedies for reasons in a user's own code, where the command line's flags do not apply.
_REMEDIES = {
    "few_samples": "Put the span around more calls, and say how many with count=.",
    "no_samples": "Put the span around more calls, and say how many with count=.",
    "uncertain": "Record more and longer spans; edgeprof calibrate narrows gain and offset.",
    "net_uncertain": "Record longer spans and longer idles.",
    "no_idle": "Call recording.idle(2.0) before or after the work.",
    "idle_drift": "Let the device settle first, or use longer idles.",
    "no_sensor": "edgeprof doctor says which sensors this device has and how to open them.",
    "estimated": "State what a busy core draws: estimate_power_w=.",
}


class Recording(energy.Recording):
    """A recording whose sensors are sampled in a separate process. See ``record``.

    Args:
        sampler: The sampler, not yet started.
        roots: The device, whose lock is held from ``start`` to ``stop``.
        core_watts: The power of a busy core, for an estimate if no sensor works.
    """

    def __init__(self, sampler: RemoteSampler, roots: Roots, core_watts: CoreWatts | None) -> None:
        super().__init__(None, sampler, core_watts=core_watts)
        self._remote = sampler
        self._roots = roots
        self._lock = contextlib.ExitStack()
        self._watch = StageWatch(is_own=True)

    def start(self) -> None:
        """Start sampling; return when each sensor was tried once (the first time after a boot this takes some seconds).

        Raises:
            BusyError: Another measurement is running on this device.
            EdgeprofError: There is no such sensor or rail.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(measuring(self._roots, f"edgeprof.record in {Path(sys.argv[0]).name or 'Python'}"))
            super().start()
            self._lock = stack.pop_all()
        self._topology = self._remote.topology
        self._watch.start()
        _active.append(self)

    def stop(self) -> None:
        """Stop sampling; what was recorded can still be quoted. Safe to call twice."""
        if self in _active:
            _active.remove(self)
        self._watch.stop()
        super().stop()
        self._lock.close()

    def stages(self) -> StageReport:
        """Return times and joules of each stage that this process has marked with ``edgeprof.stage``, and reasons.

        The joules come from a regression of the readings on the times at which each stage ran; half a minute of
        readings is needed.
        """
        report = report_stages(self, self._watch.poll(), self._watch.rings)
        return replace(report, reasons=[_in_own_code(reason) for reason in report.reasons])

    def quote(self, *key: str, **choices: Any) -> Quote:
        """Return the joules per unit of work, gross and net, with uncertainty and the reasons for anything missing.

        Args:
            key: The key that was given to ``span``; by default the only key.
            choices: ``statistic="median"`` instead of the mean of the spans.

        Raises:
            InputError: There is no span with that key, or no key was given and there are several.
        """
        quote = super().quote(*key, **choices)
        return replace(quote, reasons=[_in_own_code(reason) for reason in quote.reasons])


def _in_own_code(reason: Reason) -> Reason:
    remedy = _REMEDIES.get(reason.code)
    return reason if remedy is None else type(reason)(code=reason.code, message=reason.message, remedy=remedy)


#: The running recordings, the newest last: ``measure`` adds to the newest.
_active: list[Recording] = []


def record(
    *,
    sensors: Sequence[str] | None = None,
    rail: str | None = None,
    sample_rate_hz: float = 100.0,
    estimate_power_w: float | None = None,
    sysfs_root: str | os.PathLike[str] | None = None,
    procfs_root: str | os.PathLike[str] | None = None,
) -> Recording:
    """Sample this device's sensors while your code runs.

    Use it as a context manager, or call ``start`` and ``stop``::

        with edgeprof.record() as recording:
            recording.idle(2.0)
            with recording.span("detect", count=100, unit="frame"):
                ...
        print(recording.quote("detect"))

    Spans may be nested, and threads may record spans at the same time; each has the energy of the whole device over its
    own time.

    Args:
        sensors: Only these sources; by default all that work.
        rail: The rail to use as the headline; by default the board's own total.
        sample_rate_hz: Readings per second; a source that refreshes more slowly is read less often.
        estimate_power_w: Watts of one busy core. If no sensor works, joules are estimated from this process's CPU time
            and marked as an estimate; without this argument there are no joules then, only the reason.
        sysfs_root: Read a captured or simulated tree instead of /sys.
        procfs_root: Read a captured or simulated tree instead of /proc.

    The recording holds the device's lock while it runs, as every command that measures does; recordings, ``bench`` and
    commands that your own program starts may run at the same time.

    Raises:
        InputError: A root is not a directory, or the wattage is out of range.
        BusyError: When the recording starts, another program is measuring on this device.
    """
    require_range("estimate_power_w", estimate_power_w, 1e-3, 1e4)
    roots = Roots.resolve(sysfs_root, procfs_root)
    sampler = RemoteSampler(roots, sensors, rail, sample_rate_hz)
    return Recording(sampler, roots, None if estimate_power_w is None else CoreWatts(estimate_power_w))


class measure:  # noqa: N801 - it is used as a function is
    """Measure one block, or every call of a function.

    As a context manager::

        with edgeprof.measure("detect", count=100, unit="frame", idle_s=2.0) as measured:
            ...
        print(measured.quote())

    As a decorator, which adds a ``quote`` method to the function::

        @edgeprof.measure(unit="frame")
        def detect(frame): ...

        print(detect.quote())

    Within ``edgeprof.record`` the span goes to that recording; otherwise a separate recording is made. Decorated
    functions share one, from the first call to the end of the process.

    Args:
        name: The name of the span; by default the function's name, or ``block``.
        count: How many units of work the block, or one call, does; may be set on the object inside the ``with``.
        unit: The name of a unit of work, in the singular.
        idle_s: For a block with a separate recording: how long to wait without work before and after the block (s).
        options: The arguments of ``record``, for a separate recording.
    """

    def __init__(
        self, name: str | None = None, *, count: int = 1, unit: str = "call", idle_s: float = 0.0, **options: Any
    ) -> None:
        self.count = count
        self._name, self._unit, self._idle_s, self._options = name, unit, idle_s, options
        self._recording: Recording | None = None
        self._is_own = False
        self._span: OpenSpan | None = None

    def __enter__(self) -> Self:
        if self._span is not None:
            raise RuntimeError("a measure() measures one block; make a new one for each")
        self._is_own = not _active
        self._recording = recording = record(**self._options) if self._is_own else _active[-1]
        if self._is_own:
            recording.start()
            if self._idle_s:
                recording.idle(self._idle_s)
        self._span = recording.span(self._name or "block", count=self.count, unit=self._unit)
        self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._span is not None
        assert self._recording is not None
        self._span.count = self.count
        self._span.__exit__(kind, error, trace)
        if self._is_own:
            if self._idle_s and kind is None:
                self._recording.idle(self._idle_s)
            self._recording.stop()

    def __call__(self, function: Callable[P, R]) -> MeasuredFunction[P, R]:
        return MeasuredFunction(function, self._name or function.__qualname__, self.count, self._unit, self._options)

    def quote(self) -> Quote:
        """Return the joules per unit of the block.

        Raises:
            RuntimeError: The block has not run yet.
        """
        if self._recording is None:
            raise RuntimeError("nothing was measured yet: use it in a with statement first")
        return self._recording.quote(self._name or "block")


class MeasuredFunction(Generic[P, R]):
    """A function whose calls are recorded; ``quote`` returns their joules."""

    def __init__(self, function: Callable[P, R], name: str, count: int, unit: str, options: dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{name} is async or a generator: calling it does no work; measure a block inside it")
        functools.update_wrapper(self, function)
        self._function, self._name = function, name
        self._count, self._unit, self._options = count, unit, options
        self._recording: Recording | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self._recording = recording = _active[-1] if _active else _shared_recording(self._options)
        with recording.span(self._name, count=self._count, unit=self._unit):
            return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a method does."""
        return self if instance is None else functools.partial(cast("Callable[..., R]", self), instance)

    def spans(self) -> list[Span]:
        """Return the recorded calls."""
        return [] if self._recording is None else self._recording.spans(self._name)

    def quote(self) -> Quote:
        """Return the joules per unit of the calls so far.

        Raises:
            RuntimeError: The function has not been called yet.
        """
        if self._recording is None:
            raise RuntimeError(f"{self._name} was not called yet")
        return self._recording.quote(self._name)


_shared_lock = threading.Lock()


def _shared_recording(options: dict[str, Any]) -> Recording:
    """Return the recording of decorated functions that are called outside any other; it ends with the process."""
    with _shared_lock:
        if not _active:
            recording = record(**options)
            recording.start()
            atexit.register(recording.stop)
        return _active[-1]
