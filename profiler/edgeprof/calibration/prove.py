"""The proof of a board in two minutes: play a known load pattern, and judge what its sensors read."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import psutil

from edgeprof.calibration.burner import Burner
from edgeprof.calibration.conductor import meter_of
from edgeprof.calibration.observed import Observed
from edgeprof.calibration.pattern import Played, plan, play
from edgeprof.calibration.proof import sensor_checks
from edgeprof.calibration.proof_of_sums import meter_check, sum_checks, unproved_gain
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.recording import Recording
from edgeprof.errors import InputError, UnavailableError
from edgeprof.sensing.clock import Clock, MonotonicClock
from edgeprof.sensing.corrections import board_name
from edgeprof.sensing.discover import discover
from edgeprof.sensing.proofs import Proofs, Proved
from edgeprof.sensing.sampler import Sampler
from edgeprof.sensing.sensor import INSTANTANEOUS
from edgeprof.worker.span import idle_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.calibration.pattern import Load, Plan, Say
    from edgeprof.calibration.proof import Check, Verdict
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Channel

    #: CPU seconds that each process has used so far, by its ID.
    Activity = Callable[[], dict[int, float]]

SCHEMA = "edgeprof.prove/1"
#: The sampling rate (Hz) during the pattern, and the rate of a benchmark, whose cost is measured.
_RATE_HZ, _BENCH_RATE_HZ = 200.0, 100.0
#: How many other programs are named.
_NAMED = 3


@dataclass(frozen=True)
class Proof:
    """The result of a proof.

    Attributes:
        board: The board's name.
        rail: The name of the headline; None if there is none.
        date: The date in ISO 8601.
        seconds: The length of the pattern, in seconds.
        checks: All checks with their verdicts.
        believable: The relative half-width within which the joules of windows of 1 s and longer add up; None if
            unknown. It does not contain the gain of the sensor.
        gain_limit: The stated relative limit of that gain; None if none is stated.
    """

    board: str
    rail: str | None
    date: str
    seconds: float
    checks: Sequence[Check]
    believable: float | None
    gain_limit: float | None

    @property
    def verdict(self) -> Verdict:
        """``failed`` where one check failed, ``passed`` where the headline's windows add up, else ``cannot_tell``."""
        if any(check.verdict == "failed" for check in self.checks):
            return "failed"
        return "passed" if any(c.name == "additivity" and c.verdict == "passed" for c in self.checks) else "cannot_tell"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "schema": SCHEMA,
            "board": self.board,
            "rail": self.rail,
            "date": self.date,
            "seconds": self.seconds,
            "verdict": self.verdict,
            "believable": self.believable,
            "gain_limit": self.gain_limit,
            "checks": [asdict(check) for check in self.checks],
        }


def prove(
    host: PluginHost,
    roots: Roots,
    *,
    rail: str | None = None,
    sensors: Sequence[str] | None = None,
    against: str | None = None,
    quick: bool = False,
    say: Say = lambda _text: None,
    clock: Clock | None = None,
    load: Callable[[], Load] = Burner,
    activity: Activity | None = None,
    proofs: Proofs | None = None,
) -> Proof:
    """Play the pattern, judge the readings of every sensor of power, and store the verdicts.

    Args:
        host: Holds the sources.
        roots: Where to look.
        rail: ``--rail``: which rail is the headline.
        sensors: ``--sensor``: the sources to prove.
        against: A meter, as ``meter:/dev/ttyUSB0``.
        quick: Whether to use a shorter pattern of about a minute.
        say: Called with a text for each step.
        clock: Replaces the clock in tests.
        load: Makes the load.
        activity: Returns the CPU time that other programs have used; replaced in tests.
        proofs: Where the verdicts are stored; by default in the data directory.

    Raises:
        UnavailableError: nothing here measures power.
        InputError: see ``discover``; the total is the meter; the verdicts cannot be kept.
    """
    clock = clock or MonotonicClock()
    discovery = discover(host, roots, sensors, rail)
    channels = [c for c in discovery.topology.channels if c.available and _is_power(c)]
    if not channels:
        headline = discovery.topology.headline
        raise UnavailableError(
            f"there is nothing to prove: {headline.reason or 'nothing here measures power'}", remedy=headline.remedy
        )
    meters, reference = meter_of(against, host, roots) if against else ([], None)
    if reference is not None:
        if reference.key in {channel.key for channel in discovery.topology.headline.channels}:
            raise InputError("the total is the meter itself", remedy="Name a rail to prove: --rail NAME.")
        channels = [channel for channel in channels if channel.key != reference.key]
    wanted = {channel.sensor for channel in channels}
    watched = [sensor for sensor in discovery.sensors if sensor.name in wanted]
    known = discovery.topology.by_key() | ({reference.key: reference} if reference is not None else {})
    sampler = Sampler([*watched, *(m for m in meters if m not in watched)], _RATE_HZ, known, clock=clock)
    recording = Recording(discovery.topology, sampler, clock=clock)
    planned, played = plan(_slowest_filter_s(channels), quick=quick), Played()
    say(f"about {planned.seconds:.0f} s: leave the machine alone meanwhile")
    with load() as burner:
        with recording:
            _watch_rest(planned, recording, played, activity or _program_cpu_s, say)
            play(planned, recording, burner, played, say)
            recording.hold(0.5)
        say(f"what sampling costs: {2 * planned.pairs * planned.block_s:.0f} s")
        _play_blocks(
            planned,
            lambda sampled: Sampler(watched if sampled else [], _BENCH_RATE_HZ, known, clock=clock),
            recording,
            burner,
            played,
        )
    seen = Observed(discovery.topology, channels, sampler.trace, planned, played)
    checks = [*sensor_checks(seen), *sum_checks(seen)]
    if reference is not None:
        checks.append(_check_against_meter(seen, reference))
    elif seen.headline:
        checks.append(unproved_gain(seen))
    proof = _summarise_proof(discovery.topology.board.name, seen, checks)
    (proofs or Proofs()).put(_verdicts_to_keep(board_name(discovery.topology.board, roots), seen, proof))
    return proof


def _is_power(channel: Channel) -> bool:
    return channel.quantity == "power" or (channel.quantity == "energy" and channel.kind == "counter")


def _slowest_filter_s(channels: Sequence[Channel]) -> float:
    return max((c.filter.tau_s or c.filter.length_s or 0.0 for c in channels), default=0.0)


def _watch_rest(planned: Plan, recording: Recording, played: Played, activity: Activity, say: Say) -> None:
    say(f"idle: {3 * planned.idle_s:.0f} s")
    began_s, before = time.monotonic(), activity()
    for _ in range(3):
        span = recording.idle(planned.idle_s)
        played.idles.append((span.start_s, span.end_s))
    after, length = activity(), time.monotonic() - began_s
    used = {process: seconds - before.get(process, 0.0) for process, seconds in after.items()}
    played.others = sum(used.values()) / length / (os.cpu_count() or 1)
    played.busiest = tuple(
        _process_name(process) for process in sorted(used, key=lambda process: -used[process])[:_NAMED]
    )


def _program_cpu_s() -> dict[int, float]:
    """The CPU seconds of every process except this one."""
    used: dict[int, float] = {}
    for process in psutil.process_iter(["cpu_times"]):
        times = process.info["cpu_times"]
        if process.pid != os.getpid() and times is not None:
            used[process.pid] = times.user + times.system
    return used


def _process_name(process: int) -> str:
    try:
        return f"{psutil.Process(process).name()} ({process})"
    except psutil.Error:  # it has ended
        return f"process {process}"


def _play_blocks(
    planned: Plan, sampler: Callable[[bool], Sampler], recording: Recording, load: Load, played: Played
) -> None:
    """Run blocks with all cores busy, with and without the sampling of a benchmark, in alternating order against drift.

    Args:
        planned: How many blocks there are, and how long they are.
        sampler: Makes a sampler of all sensors (True) or of none (False).
        recording: A stopped recording, used as a clock.
        load: The load, which is switched off at the end.
        played: Receives the work per second of the blocks.
    """
    load.set(1.0)
    recording.hold(planned.block_s)  # the clocks have risen
    for number in range(planned.pairs):
        rates: dict[bool, float] = {}
        for sampled in (True, False) if number % 2 == 0 else (False, True):
            with sampler(sampled):
                start_s, before = recording.now(), load.loops()
                recording.hold(planned.block_s)
                rates[sampled] = (load.loops() - before) / (recording.now() - start_s)
        played.blocks.append((rates[True], rates[False]))
    load.set(0.0)


def _check_against_meter(seen: Observed, reference: Channel) -> Check:
    def series(channel: Channel) -> ChannelSeries:
        readings = seen.series(channel)
        # A hold begins when the filter has settled: its readings then are the power.
        plain = replace(channel, filter=INSTANTANEOUS) if channel.filter.kind == "exponential" else channel
        return ChannelSeries(plain, readings.times, readings.values)

    holds = [idle_span(start, end) for start, end in seen.played.holds()]
    return meter_check(seen, [series(channel) for channel in seen.headline], series(reference), holds)


def _summarise_proof(board: str, seen: Observed, checks: Sequence[Check]) -> Proof:
    headline = seen.headline
    limits = [channel.gain_limit for channel in headline if channel.gain_limit is not None]
    added = next((check for check in checks if check.name == "additivity" and check.verdict == "passed"), None)
    believable = None
    if added is not None and added.low is not None and added.high is not None:
        believable = max(abs(added.low), abs(added.high))
    return Proof(
        board=board,
        rail=" + ".join(channel.name for channel in headline) or None,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=seen.plan.seconds,
        checks=checks,
        believable=believable,
        gain_limit=max(limits, default=None),
    )


def _verdicts_to_keep(board: str, seen: Observed, proof: Proof) -> Proved:
    """The stored form of a proof: a verdict for each channel, and the whole proof."""
    verdicts: dict[str, str] = {}
    for channel in seen.channels:
        channel_verdicts = {check.verdict for check in proof.checks if channel.name in check.subject.split(" + ")}
        verdict = (
            "failed" if "failed" in channel_verdicts else "passed" if "passed" in channel_verdicts else "cannot_tell"
        )
        verdicts[f"{channel.sensor}/{channel.name}/{channel.quantity}"] = verdict
    return Proved(board, proof.date, proof.verdict, verdicts, proof.to_dict())
