"""Energy, power and memory of any command: the conductor of ``edgeprof run``."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from edgeprof.benchmark.plan import make_plan
from edgeprof.energy.estimate import CoreWatts
from edgeprof.energy.recording import Recording
from edgeprof.energy.stage_figures import report_stages
from edgeprof.launch.command import SignalRelay, require_command, run_command
from edgeprof.launch.lock import holder
from edgeprof.reasons import Code
from edgeprof.results.schema import Reason
from edgeprof.sensing.device.host import describe_host
from edgeprof.sensing.prepare import prepare
from edgeprof.sensing.sampler import Sampler
from edgeprof.stage_rings import StageWatch
from edgeprof.worker.span import COMMAND, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.recording import Quote
    from edgeprof.launch.command import CommandRun
    from edgeprof.plugins import PluginHost
    from edgeprof.results.schema import Stage
    from edgeprof.roots import Roots

SCHEMA = "edgeprof.run/1"


@dataclass(frozen=True)
class Outcome:
    """What running a command brought.

    Attributes:
        argv: The command.
        runs: One per repetition.
        quote: Joules per run, watts over all runs, and why something is missing or degraded.
        stages: What the command marked with ``edgeprof.stage``, over all runs.
    """

    argv: Sequence[str]
    runs: Sequence[CommandRun]
    quote: Quote
    stages: Sequence[Stage] = ()

    @property
    def duration_s(self) -> float:
        """Mean seconds of a run."""
        return sum(run.end_s - run.start_s for run in self.runs) / len(self.runs)

    @property
    def exit_code(self) -> int:
        return self.runs[-1].exit_code

    @property
    def peak_rss(self) -> int | None:
        """Bytes, the highest of all runs."""
        return max((run.peak_rss for run in self.runs if run.peak_rss is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Duration, exit code, peak memory, and the energy block of a result (contract §2)."""
        return {
            "schema": SCHEMA,
            "command": list(self.argv),
            "repeat": len(self.runs),
            "duration_s": self.duration_s,
            "durations_s": [run.end_s - run.start_s for run in self.runs],
            "exit_code": self.exit_code,
            "peak_rss_bytes": self.peak_rss,
            "cpu_s": sum(run.cpu_s for run in self.runs) / len(self.runs),
            "energy_j_per_run": msgspec.to_builtins(self.quote.energy),
            "power_w": msgspec.to_builtins(self.quote.power),
            "stages": msgspec.to_builtins(list(self.stages)),
            "reasons": msgspec.to_builtins(self.quote.reasons),
        }


def measure_command(
    argv: Sequence[str],
    host: PluginHost,
    roots: Roots,
    *,
    repeat: int = 1,
    idle_s: float = 2.0,
    sample_rate_hz: float | None = None,
    sensors: Sequence[str] | None = None,
    rail: str | None = None,
    estimate_power_w: float | None = None,
) -> Outcome:
    """Run ``argv`` under the sampler, ``repeat`` times or until a signal ends it, with idle before and after.

    The device's lock is not taken: a command may be a bench of its own. Who else measures meanwhile is said.

    Raises:
        InputError: no such command, sensor or rail.
    """
    require_command(argv[0])
    discovery = prepare(host, roots, sensors, rail)
    core_watts = CoreWatts.for_host(estimate_power_w, describe_host(roots))
    sampler = Sampler(discovery.sensors, sample_rate_hz, discovery.topology.by_key())
    runs: list[CommandRun] = []
    channels = discovery.topology.headline.channels
    plan = make_plan(idle_s=idle_s, channels=channels, sample_rate_hz=sample_rate_hz)
    before = holder(roots)
    recording = Recording(discovery.topology, sampler, core_watts=core_watts, is_quiet_between=True)
    watch = StageWatch(is_own=False)
    with SignalRelay() as relay, recording, watch:
        if channels and idle_s:  # where nothing measures, idling tells nothing
            recording.idle(idle_s, relay.ended)
        if relay.ended.is_set():
            raise KeyboardInterrupt
        while len(runs) < repeat and not (runs and runs[-1].exit_code > 128) and not relay.ended.is_set():
            if channels:
                time.sleep(plan.pause_s)
            runs.append(run_command(argv, relay))
            span = Span(COMMAND, runs[-1].start_s, runs[-1].end_s, 1, "run", (argv[0],))
            recording.add(span, cpu_s=runs[-1].cpu_s)
        if channels and idle_s:
            time.sleep(plan.settle_s)
            recording.idle(idle_s, relay.ended)
    others = {str(other) for other in (before, holder(roots)) if other is not None}
    quote = recording.quote(argv[0])
    marked = report_stages(recording, watch.spans, watch.rings)
    _, filter_reasons = recording.fitted_filters()
    shared = [Reason(code=Code.SHARED_DEVICE, message=f"another measurement ran on this device: {o}") for o in others]
    reasons = [*quote.reasons, *marked.reasons, *filter_reasons, *shared]
    return Outcome(argv, runs, replace(quote, reasons=reasons), marked.stages)
