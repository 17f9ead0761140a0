"""Holding this device's sensors against a meter, and their filters against a step: the conductor of ``calibrate``."""

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
from edgeprof.errors import InputError, UnavailableError
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
    from edgeprof.sensing.board.topology import Board
    from edgeprof.sensing.sensor import Sensor
    from edgeprof.worker.span import Span

    Say = Callable[[str], None]

#: How long a level waits at least until filters and the machine have settled (s), and in filters' time constants.
_SETTLE_S, _SETTLE_TAUS = 1.5, 6.0
#: The sampling rate (Hz); each source settles at its own.
_RATE_HZ = 100.0
#: What the meter still has on its way when the last level ends is waited for (s).
_TAIL_S = 1.0
#: The steps of a filter's characterisation, and how long each is watched: in the declared time constant, at least s.
_STEPS, _WATCH_TAUS, _WATCH_S = 10, 8.0, 1.5
#: How long a record may lag behind (s): whoever writes it may keep some seconds to himself.
_LAG_S = 30.0
#: A record that ends so long (s) before the calibration begins is finished: nobody who still writes is so far behind.
_FINISHED_S = 600.0


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        board: What it is kept under.
        rail: The channels that were calibrated, as one name.
        meter: The other side.
        levels: What was compared, uncorrected.
        line: What came of it.
        before: What this channel was corrected by until now; None without, and for a sum.
        entries: What was kept, one a channel.
    """

    board: str
    rail: str
    meter: str
    levels: Sequence[Level]
    line: Line
    before: Calibration | None
    entries: Sequence[Entry]


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
        levels: How many.
        hold_s: How long each is measured, s.
        load: Whether to make the levels; else they are what the device does by itself.
        accuracy: The meter's own relative limit of error; by default what it states, if it does.
        covers: What the meter sees, where it does not say.
        say: Told what happens.
        calibrations: Where the line is kept; the data directory by default.
        clock: For tests.

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
    old = {entry.name: entry.line for entry in calibrations.entries()}
    for entry in entries:
        calibrations.put(entry)
    rail_name = " + ".join(channel.name for channel in rails)
    before = old.get(entries[0].name) if len(entries) == 1 else None
    return Compared(entries[0].board, rail_name, name, usable, fitted, before, entries)


def _is_record(target: str) -> bool:
    path = Path(target)
    if path.suffix.lower() in {".csv", ".tsv", ".txt"} or path.is_file():
        if not path.is_file():
            raise InputError(f"{target} is not a file", remedy="Columns time,watts; written while calibrate runs.")
        return True
    return False


def _check_written(record: Path) -> None:
    """Say now, and not after minutes of load, that a record cannot be used."""
    times, _ = read_record(record)
    if times and (age := time.time() - times[-1]) > _FINISHED_S:
        raise InputError(
            f"{record} ends {duration(age)} ago, and edgeprof has no readings of its own from then",
            remedy="Let the meter's program write it while calibrate runs, in Unix seconds of this machine's clock.",
        )


def meter_of(target: str, host: PluginHost, roots: Roots) -> tuple[list[Sensor], Channel]:
    """The meter's sensors and the channel that is believed.

    Raises:
        InputError: no such source.
        UnavailableError: it does not read.
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
    """Make the levels, from idle to all cores busy and in an order that a slow drift does not follow."""
    shares = [number / (levels - 1) for number in range(levels)]
    holds = []
    with Burner() as burner:
        # Up by every other level and down by the rest: heat that builds up is not taken for a curve.
        for share in [*shares[::2], *reversed(shares[1::2])]:
            say(f"load {share:.0%}: settle {settle_s:.1f} s, hold {hold_s:g} s")
            burner.set(share)
            recording.hold(settle_s)
            holds.append(recording.hold(hold_s))
    return holds


def _watch_levels(levels: int, hold_s: float, say: Say, recording: Recording) -> list[Span]:
    """Take the levels as they come, one hold after the other; those in which the power moved will weigh little."""
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
    # A hold begins when the filter has settled: its readings then are the power, and what the correction would add are
    # only the steps of the sensor.
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
    """One entry a channel; the rails of a sum share the gain, and the sum's offset in equal parts."""
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
    # The range is that of the sum; a single rail of several has none of its own.
    line = whole if count == 1 else replace(whole, low_w=-math.inf, high_w=math.inf)
    return [Entry(where, channel.sensor, channel.name, line=line) for channel in mine]


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stepped:
    """What steps of load showed of one channel's filter.

    Attributes:
        channel: As its driver declares it.
        fitted: The time constant that the steps show; None where they were too small to tell.
        contradiction: What is wrong with the declared time constant, one sentence; None where it fits.
    """

    channel: Channel
    fitted: TimeConstant | None
    contradiction: str | None


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
    """Switch the load of all cores off and on and watch how the power channels follow; keep what filters they show.

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
    results = []
    for channel in channels:
        results.append(_judge_steps(channel, recording, edges, watch_s))
        if results[-1].fitted is not None:
            _keep_filter(results[-1], discovery.topology.board, roots, calibrations)
    return results


def _judge_steps(
    channel: Channel, recording: Recording, edges: Sequence[tuple[float, bool]], watch_s: float
) -> Stepped:
    series = recording.trace.series(channel.key)
    cuts = []
    for at, rising in edges:
        # Work ends at once, and begins as quickly as clocks rise; a reading or two are given to either.
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


def _keep_filter(stepped: Stepped, board: Board, roots: Roots, calibrations: Calibrations) -> None:
    assert stepped.fitted is not None
    channel = stepped.channel
    measured = MeasuredFilter(
        tau_s=stepped.fitted.tau_s,
        u_s=stepped.fitted.u_s,
        declared_s=channel.filter.tau_s or 0.0,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        steps=stepped.fitted.steps,
    )
    calibrations.put(Entry(board_name(board, roots), channel.sensor, channel.name, filter=measured))
