"""Energy, power and memory of any command: the conductor of ``edgeprof run``."""

from __future__ import annotations

import contextlib
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
from edgeprof.launch.output_lines import OutputLines
from edgeprof.launch.uprobes import UprobeWatch
from edgeprof.reasons import Code
from edgeprof.results.schema import Reason
from edgeprof.sensing.device.host import describe_host
from edgeprof.sensing.prepare import prepare
from edgeprof.sensing.sampler import Sampler
from edgeprof.stage_rings import StageWatch
from edgeprof.worker.span import COMMAND, PHASE, Span

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence

    from edgeprof.energy.figures import Quote
    from edgeprof.launch.command import CommandRun
    from edgeprof.launch.uprobes import Probe
    from edgeprof.plugins import PluginHost
    from edgeprof.results.schema import Stage
    from edgeprof.roots import Roots
    from edgeprof.stage_rings import StageSpan

SCHEMA = "edgeprof.run/1"


@dataclass(frozen=True)
class Outcome:
    """The result of running a command.

    Attributes:
        argv: The command.
        runs: One entry per repetition.
        quote: Joules per run, watts over all runs, and the reasons for anything missing or degraded.
        stages: The stages that the command marked with ``edgeprof.stage``, over all runs.
        phases: The phases that the command's output named, in the order of their first appearance.
    """

    argv: Sequence[str]
    runs: Sequence[CommandRun]
    quote: Quote
    stages: Sequence[Stage] = ()
    phases: Sequence[Quote] = ()

    @property
    def duration_s(self) -> float:
        """Mean seconds of a run."""
        return sum(run.end_s - run.start_s for run in self.runs) / len(self.runs)

    @property
    def exit_code(self) -> int:
        return self.runs[-1].exit_code

    @property
    def peak_rss(self) -> int | None:
        """The highest memory of all runs, in bytes."""
        return max((run.peak_rss for run in self.runs if run.peak_rss is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return duration, exit code, peak memory, and the same energy block as in a result."""
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
            "phases": [quote.to_dict() for quote in self.phases],
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
    phases: re.Pattern[str] | None = None,
    probes: Sequence[Probe] = (),
    outputs: tuple[int, int] = (1, 2),
) -> Outcome:
    """Run ``argv`` while the sampler measures, ``repeat`` times or until a signal ends it, with idle before and after.

    With ``phases``, each matching line of the command's output begins a phase, which lasts until the next one or the
    end; its name is the first group of the pattern, or by default the whole match.

    With ``probes``, each call of one of these functions is a stage of the command.

    ``outputs`` are the descriptors of the command's stdout and stderr.

    The device's lock is not taken, because the command may itself be a benchmark. Other measurements at the same time
    are reported as a reason.

    Raises:
        InputError: There is no such command, sensor or rail.
        UnavailableError: The kernel does not allow the probes.
    """
    require_command(argv[0])
    calls = UprobeWatch(probes) if probes else None
    discovery = prepare(host, roots, sensors, rail)
    core_watts = CoreWatts.for_host(estimate_power_w, describe_host(roots))
    sampler = Sampler(discovery.sensors, sample_rate_hz, discovery.topology.by_key())
    runs: list[CommandRun] = []
    channels = discovery.topology.headline.channels
    plan = make_plan(idle_s=idle_s, channels=channels, sample_rate_hz=sample_rate_hz)
    before = holder(roots)
    recording = Recording(discovery.topology, sampler, core_watts=core_watts, is_quiet_between=True)
    watch = StageWatch(is_own=False)
    output = OutputLines() if phases is not None else None
    with (
        calls or contextlib.nullcontext(),
        SignalRelay() as relay,
        recording,
        watch,
        output or contextlib.nullcontext(),
    ):
        if channels and idle_s:  # without a sensor, an idle period gives no information
            recording.idle(idle_s, relay.ended)
        if relay.ended.is_set():
            raise KeyboardInterrupt
        while len(runs) < repeat and not (runs and runs[-1].exit_code > 128) and not relay.ended.is_set():
            if channels:
                time.sleep(plan.pause_s)
            stdout = output.descriptor if output is not None else outputs[0]
            runs.append(run_command(argv, relay, stdout, outputs[1]))
            span = Span(COMMAND, runs[-1].start_s, runs[-1].end_s, 1, "run", (argv[0],))
            recording.add(span, cpu_s=runs[-1].cpu_s)
        if channels and idle_s:
            time.sleep(plan.settle_s)
            recording.idle(idle_s, relay.ended)
    others = {str(other) for other in (before, holder(roots)) if other is not None}
    quote = recording.quote(argv[0])
    spans = [] if output is None or phases is None else phase_spans(output.lines, phases, runs)
    for span in spans:
        recording.add(span)
    quotes = [recording.quote(*key) for key in dict.fromkeys(span.key for span in spans)]
    if phases is not None and not spans:
        unmatched = f"no line of the output matched --phases {phases.pattern}"
        quote = replace(quote, reasons=[*quote.reasons, Reason(code=Code.NO_PHASES, message=unmatched)])
    marked = report_stages(recording, [*watch.spans, *_called(calls, watch)], watch.rings)
    _, filter_reasons = recording.fitted_filters()
    shared = [Reason(code=Code.SHARED_DEVICE, message=f"another measurement ran on this device: {o}") for o in others]
    reasons = [*quote.reasons, *marked.reasons, *_interrupted_stages(runs, marked.stages), *filter_reasons, *shared]
    return Outcome(argv, runs, replace(quote, reasons=reasons), marked.stages, quotes)


def _interrupted_stages(runs: Sequence[CommandRun], stages: Sequence[Stage]) -> Iterator[Reason]:
    """Yield the reason that a signal which ended the program left stages unfinished; which ones, no record says."""
    killed = [run.exit_code - 128 for run in runs if run.exit_code > 128]
    if killed and stages:
        yield Reason(
            code=Code.STAGES_UNFINISHED,
            message=f"the program was ended by signal {killed[-1]}: stages that had begun then are not counted",
        )


def _called(calls: UprobeWatch | None, watch: StageWatch) -> list[StageSpan]:
    """Return the calls of probed functions, and count what is missing of them with that of the marked stages."""
    if calls is None:
        return []
    if watch.rings is not None:
        watch.rings.lost += calls.lost
        watch.rings.unfinished += calls.unfinished
    return calls.spans


def phase_spans(lines: Sequence[tuple[float, str]], pattern: re.Pattern[str], runs: Sequence[CommandRun]) -> list[Span]:
    """Return the phases of all runs: each matching line begins one, which lasts until the next or until its run ends.

    Args:
        lines: CLOCK_MONOTONIC seconds and text, in order of time.
        pattern: Its first group names the phase; without a group, the whole match does.
        runs: The runs, with their start and end times.
    """
    spans = []
    for run in runs:
        begins = [
            (time_s, match.group(1 if pattern.groups else 0) or "")
            for time_s, text in lines
            if run.start_s <= time_s <= run.end_s and (match := pattern.search(text)) is not None
        ]
        ends = [*(time_s for time_s, _ in begins[1:]), run.end_s]
        for (start_s, name), end_s in zip(begins, ends, strict=False):
            spans.append(Span(PHASE, start_s, end_s, 1, "phase", ("phase", name)))
    return spans
