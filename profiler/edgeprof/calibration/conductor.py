"""The conductor of ``calibrate``: compare this device's sensors with a meter, and their filters with a step of load."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.calibration.burner import Burner
from edgeprof.calibration.fit import Level, Line, TimeConstant, time_constant
from edgeprof.calibration.levels import LEAST_LEVELS, fit_levels
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.recording import Recording
from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.sensing.clock import Clock, MonotonicClock
from edgeprof.sensing.corrections import Calibrations, Entry, MeasuredFilter, Uncalibrated, board_name
from edgeprof.sensing.discover import discover
from edgeprof.sensing.meter.record import read_record
from edgeprof.sensing.sampler import Sampler
from edgeprof.sensing.sensor import INSTANTANEOUS, Calibration, Channel
from edgeprof.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Sensor
    from edgeprof.worker.span import Span

    Say = Callable[[str], None]

#: The least wait before a level until the machine and filters have settled, in seconds and in time constants.
_SETTLE_S, _SETTLE_TAUS = 1.5, 6.0
#: The sampling rate (Hz); each source settles at its own.
_RATE_HZ = 100.0
#: How long (s) to wait after the last level for readings of the meter that are still on their way.
_TAIL_S = 1.0
#: How many steps of load measure a filter, and how long each is watched: in time constants, and at least in seconds.
_STEPS, _WATCH_TAUS, _WATCH_S = 10, 8.0, 1.5
#: How far (s) a record may lag behind: the program that writes it may buffer some seconds.
_LAG_S = 30.0
#: A record that ends this long (s) before the calibration begins is no longer being written.
_FINISHED_S = 600.0


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        board: The board's name in the file of calibrations.
        rail: The calibrated channels, as one name.
        meter: The name of the meter.
        levels: The uncorrected powers of both sides at each level.
        line: The fitted line.
        before: The calibration until now; None without one, and for a sum.
        entries: The entries to store, one for each channel.
        unstored: Why they could not be stored; None if they are.
    """

    board: str
    rail: str
    meter: str
    levels: Sequence[Level]
    line: Line
    before: Calibration | None
    entries: Sequence[Entry]
    unstored: EdgeprofError | None = None


def against(
    target: str,
    host: PluginHost,
    roots: Roots,
    *,
    rail: str | None = None,
    sensors: Sequence[str] | None = None,
    levels: int = 6,
    hold_s: float = 5.0,
    load: bool = True,
    accuracy: float | None = None,
    covers: str | None = None,
    say: Say = lambda _text: None,
    calibrations: Calibrations | None = None,
    clock: Clock | None = None,
) -> Compared:
    """Compare the device's total (or ``rail``) with a meter at several loads, and keep the line between them.

    Args:
        target: A source with an address (``meter:/dev/ttyUSB0``), a source or meter by name, or a CSV file that the
            meter's own program writes meanwhile, with columns ``time`` (Unix seconds or ISO 8601) and ``watts``.
        rail: ``--rail``.
        sensors: ``--sensor``: the sources to calibrate.
        levels: The number of load levels.
        hold_s: How long each level is measured, in seconds.
        load: Whether to make the load; otherwise the levels are whatever the device does by itself.
        accuracy: The relative limit of the meter's error; by default the one that it states, if any.
        covers: What the meter covers, if it does not say.
        say: Called with a text for each step.
        calibrations: Where the line is stored; by default in the data directory.
        clock: Replaces the clock in tests.

    Raises:
        InputError: an unusable target or file, too few levels, levels that differ too little.
        UnavailableError: the meter or the rail does not read.
    """
    if levels < LEAST_LEVELS:
        raise InputError(f"--levels {levels} is too few", remedy=f"At least {LEAST_LEVELS}.")
    clock, calibrations = clock or MonotonicClock(), calibrations or Calibrations()
    record = Path(target) if _is_record(target) else None
    if record is not None:
        _check_written(record)
    old = {entry.name: entry.line for entry in calibrations.entries()}
    discovery = discover(host, roots, sensors, rail, calibrations=Uncalibrated())
    rails = discovery.topology.headline.channels
    reference: Channel | None = None
    meters: list[Sensor] = []
    if record is None:
        meters, reference = meter_of(target, host, roots)
        rails = tuple(channel for channel in rails if channel.sensor != reference.sensor)
    if not rails:
        why = discovery.topology.headline.reason or "the total is the meter itself"
        raise UnavailableError(f"there is nothing to calibrate: {why}", remedy="Name a rail: --rail NAME.")
    wanted = {channel.sensor for channel in rails}
    channels = dict(discovery.topology.by_key())
    if reference is not None:
        channels[reference.key] = reference
    sampler = Sampler([*(s for s in discovery.sensors if s.name in wanted), *meters], _RATE_HZ, channels, clock=clock)
    recording = Recording(discovery.topology, sampler, clock=clock)
    settle_s = max(_SETTLE_S, *(_SETTLE_TAUS * (c.filter.tau_s or 0.0) for c in rails))
    settle_s += reference.filter.length_s or 0.0 if reference else 1.0
    epoch = time.time() - clock.now()
    with recording:
        holds = (
            _step_through_levels(levels, settle_s, hold_s, say, recording)
            if load
            else _watch_levels(levels, hold_s, say, recording)
        )
        recording.hold(_TAIL_S)
    theirs = _reference_series(record, reference, recording, holds, epoch=epoch, say=say)
    usable, fitted = fit_levels([_held_series(recording, channel) for channel in rails], theirs, holds)
    name = reference.name if reference is not None else (record.name if record else target)
    meter_limit = accuracy if accuracy is not None else (reference.gain_limit if reference else None)
    entries = _entries_for(
        rails,
        usable,
        fitted,
        meter=name,
        limit=meter_limit,
        covers=_scope_covered(covers, reference, rails),
        where=board_name(discovery.topology.board, roots),
    )
    unstored = _store(calibrations, entries)
    rail_name = " + ".join(channel.name for channel in rails)
    before = old.get(entries[0].name) if len(entries) == 1 else None
    return Compared(entries[0].board, rail_name, name, usable, fitted, before, entries, unstored)


def _store(calibrations: Calibrations, entries: Sequence[Entry]) -> EdgeprofError | None:
    """Store entries, and return why that was not possible, for minutes of measuring must not be lost with it."""
    try:
        for entry in entries:
            calibrations.put(entry)
    except EdgeprofError as error:
        return error
    return None


def _is_record(target: str) -> bool:
    path = Path(target)
    if path.suffix.lower() in {".csv", ".tsv", ".txt"} or path.is_file():
        if not path.is_file():
            raise InputError(f"{target} is not a file", remedy="Columns time,watts; written while calibrate runs.")
        return True
    return False


def _check_written(record: Path) -> None:
    """Refuse an unusable record now, and not after minutes of load."""
    times, _ = read_record(record)
    if times and (age := time.time() - times[-1]) > _FINISHED_S:
        raise InputError(
            f"{record} ends {duration(age)} ago, and edgeprof has no readings of its own from then",
            remedy="Let the meter's program write it while calibrate runs, in Unix seconds of this machine's clock.",
        )


def meter_of(target: str, host: PluginHost, roots: Roots) -> tuple[list[Sensor], Channel]:
    """The sensors of a meter and its reference channel.

    Raises:
        InputError: there is no such source.
        UnavailableError: the source gives no readings.
    """
    sources = host.of("sensors")
    spec = target if target.partition(":")[0] in sources else f"meter:{target}"
    discovery = discover(host, roots, [spec])
    if discovery.failures:
        raise UnavailableError(discovery.failures[0].reason, remedy=discovery.failures[0].remedy)
    powers = [c for c in discovery.topology.channels if c.available and c.tells_joules]
    if not powers:
        raise UnavailableError(f"{target} tells no power", remedy="edgeprof sensors --sensor " + spec)
    # The headline if it is one channel, else a counter before sampled power.
    headline = discovery.topology.headline.channels
    best = headline[0] if len(headline) == 1 else min(powers, key=lambda c: c.quantity != "energy")
    return [sensor for sensor in discovery.sensors if best.key in {c.key for c in sensor.channels}], best


def _step_through_levels(levels: int, settle_s: float, hold_s: float, say: Say, recording: Recording) -> list[Span]:
    """Make the levels, from idle to all cores busy, in an order that does not correlate with a slow drift."""
    shares = [number / (levels - 1) for number in range(levels)]
    holds = []
    with Burner() as burner:
        # Every other level upwards, and the rest downwards, so that rising heat does not look like a curved line.
        for share in [*shares[::2], *reversed(shares[1::2])]:
            say(f"load {share:.0%}: settle {settle_s:.1f} s, hold {hold_s:g} s")
            burner.set(share)
            recording.hold(settle_s)
            holds.append(recording.hold(hold_s))
    return holds


def _watch_levels(levels: int, hold_s: float, say: Say, recording: Recording) -> list[Span]:
    """Take the levels as they come, one hold after the other; holds in which the power moved get a low weight."""
    say(f"change the load yourself, about every {3 * hold_s:g} s: {4 * levels} times {hold_s:g} s are watched")
    return [recording.hold(hold_s) for _ in range(4 * levels)]


def _reference_series(
    record: Path | None,
    reference: Channel | None,
    recording: Recording,
    holds: Sequence[Span],
    *,
    epoch: float,
    say: Say,
) -> ChannelSeries:
    if record is None:
        assert reference is not None
        return recording.series(reference)
    deadline = recording.now() + _LAG_S
    while True:
        times, watts = read_record(record)
        times = [at - epoch for at in times]
        if times and times[-1] >= holds[-1].end_s:
            break
        if recording.now() > deadline:
            last = f"ends {holds[-1].end_s - times[-1]:.1f} s before the last level did" if times else "is empty"
            raise InputError(
                f"{record} {last}",
                remedy="Its time must be Unix seconds of this machine's clock, and it must be written meanwhile.",
            )
        say(f"waiting for {record} to catch up")
        recording.hold(1.0)
    channel = Channel("record", record.name, "power")
    return ChannelSeries(channel, times, watts)


def _held_series(recording: Recording, channel: Channel) -> ChannelSeries:
    # A hold begins when the filter has settled, so that its readings are the power. Inverting the filter would only
    # amplify the steps of the sensor.
    if channel.filter.kind == "exponential":
        channel = replace(channel, filter=INSTANTANEOUS)
    return recording.series(channel)


def _scope_covered(covers: str | None, reference: Channel | None, mine: Sequence[Channel]) -> str | None:
    meter_scope = covers or (reference.scope if reference is not None and reference.scope != "unknown" else None)
    return None if meter_scope is None or {channel.scope for channel in mine} == {meter_scope} else meter_scope


def _entries_for(
    mine: Sequence[Channel],
    levels: Sequence[Level],
    fitted: Line,
    *,
    meter: str,
    limit: float | None,
    covers: str | None,
    where: str,
) -> list[Entry]:
    """Make one entry for each channel; the rails of a sum have the same gain, and equal parts of the sum's offset."""
    count = len(mine)
    powers = [level.sensor_w for level in levels]
    whole = Calibration(
        gain=fitted.gain,
        offset_w=fitted.offset_w / count,
        u_gain=fitted.u_gain,
        u_offset_w=fitted.u_offset_w / math.sqrt(count),
        covariance_w=fitted.covariance_w / count,
        low_w=min(powers),
        high_w=max(powers),
        levels=len(levels),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        against=meter,
        meter_limit=limit,
        covers=covers,
    )
    # The calibrated range is that of the sum; a single rail of several has none.
    line = whole if count == 1 else replace(whole, low_w=-math.inf, high_w=math.inf)
    return [Entry(where, channel.sensor, channel.name, line=line) for channel in mine]


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stepped:
    """The filter of one channel as steps of load showed it.

    Attributes:
        channel: The channel as its driver declares it.
        fitted: The fitted time constant; None if the steps were too small.
        contradiction: How the declared time constant contradicts it, as a sentence; None if it does not.
        unstored: Why it could not be stored; None if it is stored, or if nothing was fitted.
    """

    channel: Channel
    fitted: TimeConstant | None
    contradiction: str | None
    unstored: EdgeprofError | None = None


def step_response(
    host: PluginHost,
    roots: Roots,
    *,
    rail: str | None = None,
    sensors: Sequence[str] | None = None,
    steps: int = _STEPS,
    say: Say = lambda _text: None,
    calibrations: Calibrations | None = None,
    clock: Clock | None = None,
) -> list[Stepped]:
    """Switch the load of all cores on and off, fit how the power channels follow, and store their time constants.

    Raises:
        UnavailableError: there is no power channel whose driver declares an exponential filter.
    """
    clock, calibrations = clock or MonotonicClock(), calibrations or Calibrations()
    discovery = discover(host, roots, sensors, rail, calibrations=Uncalibrated())
    channels = [
        c
        for c in discovery.topology.channels
        if c.quantity == "power" and c.available and c.filter.kind == "exponential"
    ]
    if not channels:
        raise UnavailableError(
            "no power channel here has an exponential filter to measure",
            remedy="That is an INA3221 with samples above 1; edgeprof sensors shows each channel's filter.",
        )
    wanted = {channel.sensor for channel in channels}
    watched = [sensor for sensor in discovery.sensors if sensor.name in wanted]
    sampler = Sampler(watched, 2 * _RATE_HZ, discovery.topology.by_key(), clock=clock)
    recording = Recording(discovery.topology, sampler, clock=clock)
    watch_s = max(_WATCH_S, _WATCH_TAUS * max(c.filter.tau_s or 0.0 for c in channels))
    edges = []
    with recording, Burner() as burner:
        for number in range(2 * steps):
            say(f"step {number + 1}/{2 * steps}: {watch_s:.1f} s")
            burner.set(float(number % 2 == 0))
            edges.append((recording.hold(watch_s).start_s, number % 2 == 0))
    results = [_judge_steps(channel, recording, edges, watch_s) for channel in channels]
    board = board_name(discovery.topology.board, roots)
    return [
        result if result.fitted is None else replace(result, unstored=_store(calibrations, [_entry_of(result, board)]))
        for result in results
    ]


def _judge_steps(
    channel: Channel, recording: Recording, edges: Sequence[tuple[float, bool]], watch_s: float
) -> Stepped:
    series = recording.trace.series(channel.key)
    cuts = []
    for at, rising in edges:
        # Work ends at once but begins only as fast as the clocks rise; the first readings after either are left out.
        begin = at + (0.15 if rising else 0.03)
        rows = [(t, v) for t, v in zip(series.times, series.values, strict=True) if begin <= t < at + watch_s]
        if len(rows) > 1:
            cuts.append(([t for t, _ in rows], [v for _, v in rows]))
    fitted = time_constant(cuts, channel.resolution or 0.0)
    if fitted is None:
        return Stepped(channel, None, None)
    declared = channel.filter.tau_s or 0.0
    limit = channel.filter.tau_limit if channel.filter.tau_limit is not None else 0.1
    wrong = None
    if abs(fitted.tau_s - declared) > 2 * fitted.u_s + limit * declared:
        wrong = (
            f"{channel.name} follows a step with {fitted.tau_s:.3g} s,"
            f" where its driver's settings give {declared:.3g} s"
        )
    return Stepped(channel, fitted, wrong)


def _entry_of(stepped: Stepped, board: str) -> Entry:
    assert stepped.fitted is not None
    channel = stepped.channel
    measured = MeasuredFilter(
        tau_s=stepped.fitted.tau_s,
        u_s=stepped.fitted.u_s,
        declared_s=channel.filter.tau_s or 0.0,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        steps=stepped.fitted.steps,
    )
    return Entry(board, channel.sensor, channel.name, filter=measured)
