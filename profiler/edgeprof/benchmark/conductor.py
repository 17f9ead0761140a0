"""The conductor of a benchmark: it carries out a plan and makes the result from windows and traces.

It contains no formulas. The models run in worker processes while this process only samples. Both read CLOCK_MONOTONIC,
so that windows and samples have the same time base. Variants alternate (ABBA) while all of them stay loaded, if memory
allows.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from edgeprof import __version__
from edgeprof.benchmark import assemble, gpu_findings, isolated, language, microcontrollers, operators, stages
from edgeprof.benchmark.judging import Judge
from edgeprof.benchmark.memory import device_memory, group_candidates, own_memory
from edgeprof.benchmark.plan import Plan, make_plan, start_phase
from edgeprof.benchmark.progress import headlines
from edgeprof.benchmark.records import Sampled, VariantRecord, charge_load
from edgeprof.benchmark.request import BenchRequest, Candidate, candidates, load_options
from edgeprof.compression.recipe import check_preprocessing, judged_before
from edgeprof.energy.estimate import CoreWatts
from edgeprof.energy.recording import Recording
from edgeprof.errors import GateError, InputError, VariantError, about
from edgeprof.evaluation import labels
from edgeprof.launch.interpreter import probe
from edgeprof.launch.lock import measuring
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.results import document, schema
from edgeprof.results.ids import new_id
from edgeprof.sensing import corrections
from edgeprof.sensing.device import fast_sensor, throttle
from edgeprof.sensing.device import host as context
from edgeprof.sensing.device.settings import Settings
from edgeprof.sensing.prepare import prepare
from edgeprof.sensing.proofs import Proofs
from edgeprof.sensing.sampler import Sampler
from edgeprof.units import duration
from edgeprof.verdicts import compare, recommend
from edgeprof.worker.scenario import Scenario, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.benchmark.progress import Progress
    from edgeprof.benchmark.records import WorkloadRecord
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.discover import Discovery
    from edgeprof.sensing.proofs import Proved
    from edgeprof.sensing.sensor import PartTime
    from edgeprof.worker.span import Span

#: The longest cool-down (s), and how close (°C) the temperature must come to that at the start.
_COOL_DOWN_LIMIT_S = 60.0
_COOL_DOWN_BAND_C = 2.0
#: The reason in the results of callables.
_IN_PROCESS = "it ran in the caller's process, whose memory and interpreter lock it shares with edgeprof's sampling"
#: How many times a window is measured before it fails because the model was stopped each time.
_TRIES = 3


def bench(request: BenchRequest, host: PluginHost, roots: Roots, progress: Progress) -> schema.Result:
    """Profile the models of ``request`` on this device.

    Raises:
        InputError: A flag, a dataset or every model cannot be used; nothing was run.
        UnavailableError: No installed runtime loads any of the models, or ``fast_sensor`` is not possible; nothing was
            run.
        BusyError: Another measurement is running on this device.
        GateError: ``strict`` is set, and no sensor measures power here.
    """
    if request.worker_python is not None:
        probe(request.worker_python)
    models = candidates(request, host)
    if request.dataset is not None and request.metric is not None:
        labels.require_some(request.dataset.labels, request.dataset.name)
        request.metric.check(request.dataset.labels)
    for model in (candidate for candidate in models if candidate.failure is None):
        check_preprocessing(model.name, model.history, request.dataset)
    with measuring(roots, "bench " + " ".join(model.artifact.name for model in models)):
        if not request.fast_sensor:
            return _run_bench(request, models, host, roots, progress)
        with Settings() as settings:
            lowered = fast_sensor.lower_samples(roots, settings)
            result = _run_bench(request, models, host, roots, progress)
    result.reasons += [schema.Reason(code=Code.FAST_SENSOR, message=what) for what in lowered]
    return result


def _run_bench(
    request: BenchRequest, models: list[Candidate], host: PluginHost, roots: Roots, progress: Progress
) -> schema.Result:
    _plan_for(request)  # wrong flags are reported before any sensor is read
    discovery = _discover_sensors(request, models, host, roots, progress)
    if request.strict and not discovery.topology.headline.channels:
        raise GateError(
            f"nothing measures power here ({discovery.topology.headline.reason}), and --strict accepts no estimate",
            remedy="edgeprof doctor tells what is missing.",
        )
    plan = _plan_for(request, discovery)
    return _Run(request, plan, discovery, roots, progress).result(models)


def _discover_sensors(
    request: BenchRequest, models: list[Candidate], host: PluginHost, roots: Roots, progress: Progress
) -> Discovery:
    """Discover the sensors: this machine's, or only instruments if the models run on other devices."""
    if not microcontrollers.run_elsewhere(models):
        return prepare(host, roots, request.sensors, request.rail, note=progress.note)
    among = microcontrollers.sensors_beside(request, host)
    discovery = prepare(host, roots, request.sensors, note=progress.note, among=among)
    return microcontrollers.seen_from_outside(discovery, models, request.rail)


def _plan_for(request: BenchRequest, discovery: Discovery | None = None) -> Plan:
    """Make the plan from the request and the discovered sensors; without sensors, only check the request."""
    channels = discovery.topology.headline.channels if discovery else ()
    return make_plan(
        preset=request.preset,
        scenario=request.scenario,
        windows=request.windows,
        window_s=request.window_s,
        # Without a power sensor, an idle period gives no information.
        idle_s=request.idle_s if channels or discovery is None else 0.0,
        warmup_s=request.warmup_s,
        sample_rate_hz=request.sample_rate_hz,
        channels=channels,
        refresh_s=max((c.update_interval_s or 0.0 for c in channels), default=0.0),
        part_time=_part_time(discovery) if discovery else None,
        rate_hz=request.rate_hz,
        streams=request.streams,
        queue=request.queue,
        further=request.further,
        batch=request.batch,
        seed=request.seed,
    )


class _Run:
    """One call of ``bench``: the state that its steps share."""

    def __init__(
        self, request: BenchRequest, plan: Plan, discovery: Discovery, roots: Roots, progress: Progress
    ) -> None:
        self.request, self.plan, self.discovery, self.roots, self.progress = request, plan, discovery, roots, progress
        self.scenario = Scenario(
            name=plan.scenario,
            rate_hz=plan.rate_hz,
            streams=plan.streams or 1,
            batch=plan.batch,
            seed=plan.seed,
            queue=plan.queue,
        )
        self.sampler = Sampler(discovery.sensors, request.sample_rate_hz, discovery.topology.by_key())
        self.temperatures = [c.key for c in discovery.topology.channels if c.quantity == "temperature"]
        self.order = 0
        self.interrupted = False
        self.judge = Judge(request, plan.batch, progress)

    def _proved(self) -> Proved | None:
        """Return the newest proof of this board."""
        return Proofs().get(corrections.board_name(self.discovery.topology.board, self.roots))

    def result(self, candidates: list[Candidate]) -> schema.Result:
        """Run everything and make the result; after an interruption, make it from what was measured until then."""
        self.is_elsewhere, self.is_alone = microcontrollers.run_elsewhere(candidates), len(candidates) == 1
        groups = group_candidates(candidates)
        able = sum(candidate.failure is None for candidate in candidates)
        records: list[VariantRecord] = []
        host = context.describe_host(self.roots)
        preflight = [] if self.is_elsewhere else context.preflight(self.roots)
        self.progress.begin(
            headlines(host, self.discovery.topology.headline, self.plan, able, interleaved=len(groups) == 1),
            self.plan.seconds(able, interleaved=len(groups) == 1),
            self._live,
        )
        started = time.monotonic()
        created = datetime.now(timezone.utc)
        core_watts = None if self.is_elsewhere else CoreWatts.for_host(self.request.estimate_power_w, host)
        self.recording = Recording(self.discovery.topology, self.sampler, core_watts=core_watts, is_quiet_between=True)
        self.recording.start()
        try:
            for group in groups:
                members = [self._record(c) for c in group]
                for candidate, record in zip(group, members, strict=True):
                    if candidate.failure is None:
                        record.notes += judged_before(candidate.history, self.request.dataset)
                records += members
                if not self.interrupted:
                    self._group(list(zip(group, members, strict=True)))
            self._look_into_operators(list(zip(candidates, records, strict=False)))
            self.recording.stop()  # from here on nothing is measured
            for candidate, record in zip(candidates, records, strict=False):
                if candidate.runtime is not None and candidate.artifact.path is not None and record.main.windows:
                    record.microcontroller_need = candidate.runtime.microcontroller_need(str(candidate.artifact.path))
        finally:
            self.recording.stop()
            self.progress.end()
        if self.is_elsewhere and not self.interrupted:
            microcontrollers.refuse_silent(records)
        sampled = Sampled(self.recording, self.sampler.stats(), started, host.cores)
        _, filter_reasons = self.recording.fitted_filters()
        if not self.roots.is_simulated:
            fits = sampled.fits(created.isoformat(timespec="seconds"))
            board = corrections.board_name(self.discovery.topology.board, self.roots)
            corrections.keep_fitted(self.discovery.topology.channels, fits, board)
        preflight = charge_load(preflight, records)
        variants = [
            assemble.variant(record, sampled, self.plan, self.request.operators_kept or 0) for record in records
        ]
        assemble.pair_accuracies(variants, records)
        language.pair_perplexities(variants)
        cost = self.sampler.cost()
        proved = self._proved()
        failures = [*self.discovery.failures, *((f.sensor, f.reason, None) for f in self.sampler.failures())]
        result = schema.Result(
            id=new_id(created),
            created=created.isoformat(timespec="seconds"),
            edgeprof=__version__,
            host=microcontrollers.host_of(host, records) if self.is_elsewhere else host,
            sensors=assemble.sensor_uses(sampled, self.discovery.unavailable, proved),
            protocol=assemble.protocol(self.plan, self.request.threads, len(groups) == 1, self.request.inputs_from),
            variants=variants,
            comparisons=compare.comparisons(variants),
            reasons=[*preflight, *filter_reasons, *assemble.run_reasons(failures, interrupted=self.interrupted)],
            interrupted=self.interrupted,
            self_cost=schema.SelfCost(cpu_ratio=cost.cpu_ratio, rss_bytes=cost.rss_bytes),
            traces=assemble.traces(sampled),
            proof=None if proved is None else proved.cited(),
        )
        recommend.judge(result)
        return document.as_text(result)

    # ---- the steps of one group: variants that are loaded at the same time ----------------------------------------

    def _group(self, members: list[tuple[Candidate, VariantRecord]]) -> None:
        with contextlib.ExitStack() as stack:
            workers: list[Worker | None] = []
            try:
                for candidate, record in members:
                    workers.append(self._load(stack, candidate, record))
                self._measure([record for _, record in members], workers)
            except KeyboardInterrupt:
                self.interrupted = True
                self.progress.note("interrupted: keeping what was measured")

    def _measure(self, records: list[VariantRecord], workers: list[Worker | None]) -> None:
        self._take_turns(records, workers)
        for record, worker in zip(records, workers, strict=True):
            if worker is not None:
                with self._charged_to(record):
                    record.memory = own_memory(record.memory, worker.memory())
                    if record.options.device != "cpu":
                        record.gpu_process_bytes = device_memory(self.discovery.sensors, worker.pid)
                    self.judge.evaluate(worker, record)
                    self.judge.score_text(worker, record)

    def _take_turns(self, records: list[VariantRecord], workers: list[Worker | None]) -> None:
        """Measure the windows of all workloads, interleaved; the worker of a variant that fails becomes None."""
        idles: list[Span] = []
        for record in records:
            record.idles = idles
        if not any(workers):
            return
        self._idle(idles, "idle before, models loaded")
        start_c = self._hottest()
        # Workloads take turns as variants do: each is one member of the interleaved order.
        members = [(i, workload) for i, record in enumerate(records) for workload in record.workloads or [record.main]]
        total = self.plan.windows * len(members)
        self._announce_workloads(len(members), len(records))
        for done, (window, member) in enumerate(self.plan.order(len(members)), start=1):
            index, workload = members[member]
            record, worker = records[index], workers[index]
            if worker is None:
                continue
            if self.plan.cool_down:
                self._cool_down(start_c)
            name = record.name if len(record.workloads) == 1 else f"{record.name} {workload.workload.name}"
            self.progress.stage(f"window {done}/{total} · {name}", self.plan.window_s)
            with self._charged_to(record):
                self._window(worker, window, record, workload)
            if record.failure is not None:
                workers[index] = None
        self._idle(idles, "idle after")

    def _announce_workloads(self, members: int, variants: int) -> None:
        """Announce the additional time of several workloads; their number is known only when a model is loaded."""
        if members > variants:
            seconds = (members - variants) * self.plan.windows * (self.plan.window_s + self.plan.pause_s)
            self.progress.extend(f"{members} workloads to measure: about {duration(seconds)} longer", seconds)

    def _load(
        self, stack: contextlib.ExitStack, candidate: Candidate, record: VariantRecord, names: Sequence[str] = ()
    ) -> Worker | None:
        """Start, load and warm up one worker; return None if that failed, with the reason in the record.

        With ``names``, its workloads are the whole model and these operators.
        """
        if candidate.failure is not None:
            self.progress.note(about(record.name, candidate.failure.message))
        if candidate.runtime is None:
            return None
        spec = self._spec(candidate)
        ready: Worker | None = None
        began_s = time.monotonic()
        with self._charged_to(record):
            self.progress.stage(f"load · {record.name}", 1.0)
            worker = stack.enter_context(Worker(spec))
            record.loaded = worker.load()
            if names:
                load = Scenario(batch=self.scenario.batch, seed=self.scenario.seed)
                record.workloads, remarks = isolated.workload_records(worker, record.loaded.workloads[0], names, load)
                record.notes += remarks
            else:
                self.judge.rehearse(worker, record.loaded)
                record.workloads = stages.workload_records(record.loaded, self.scenario, self.plan.further)
            for workload in record.workloads:
                self.progress.stage(f"warm up · {record.name}", self.plan.warmup_s)
                longest_s = max(60.0, self.plan.warmup_s)
                name = workload.asked or workload.workload.name
                scenario = workload.scenario or self.scenario
                workload.warmup = worker.warm_up(self.plan.warmup_s, longest_s, scenario, name)
            record.memory = worker.memory()
            ready = worker
        self.recording.occupy(began_s, time.monotonic())
        return ready

    def _window(self, worker: Worker, position: int, variant: VariantRecord, record: WorkloadRecord) -> None:
        """Run the workload's window number ``position`` (from 0) and record it."""
        if self.is_elsewhere:  # the load of this machine does not matter
            window = self._undisturbed(worker, position, record)
        else:
            before = throttle.read_counters(self.roots)
            variant.foreign_load.begin(self.roots)
            window = self._undisturbed(worker, position, record)
            variant.foreign_load.end(self.roots)
            record.throttles += throttle.describe_difference(before, throttle.read_counters(self.roots))
        self.order += 1
        span = window.span._replace(key=(variant.name, record.workload.name))
        is_served = variant.loaded is not None and variant.loaded.is_served
        self.recording.add(
            span,
            cpu_s=None if is_served else window.cpu_s,
            busy_s=window.busy_s,
            is_elsewhere=is_served or gpu_findings.is_gpu(variant.options.device),
        )
        record.windows.append(window._replace(span=span))
        record.orders.append(self.order)
        if variant.loaded is not None and variant.loaded.language is not None:
            record.token_times += worker.token_times()
        if record is variant.main and variant.loaded is not None and variant.loaded.pipeline is not None:
            record.stage_times.append(worker.stage_times(len(variant.loaded.pipeline["stages"])))
        if record is not variant.main:  # only the main workload is timed by the device's own clock
            return
        began_s = time.monotonic()
        try:
            record.device_times.append(worker.device_times())
        except VariantError as error:  # the window is measured and stays
            self.progress.note(f"no device times: {error.message}")
        else:
            if record.device_times[-1]:
                self.recording.occupy(began_s, time.monotonic())

    def _undisturbed(self, worker: Worker, position: int, record: WorkloadRecord) -> Window:
        """Measure a window; a window in which the model was stopped is measured again.

        Raises:
            VariantError: The model was stopped in each try (``stopped``), or ``Worker.window`` failed.
        """
        quiet_s = self.plan.pause_s
        phase = start_phase(position, self.plan.windows, _part_time(self.discovery))
        scenario, name = record.scenario or self.scenario, record.asked or record.workload.name
        for _ in range(_TRIES):
            asked_s = time.monotonic()
            window = worker.window(scenario, self.plan.window_s, name, quiet_s=quiet_s, phase=phase)
            # What the worker does to prepare a window, and afterwards with its times, is work too.
            self.recording.occupy(asked_s, window.span.start_s - quiet_s)
            self.recording.occupy(window.span.end_s + quiet_s, time.monotonic())
            if window.standstill is None:
                return window
            self.recording.occupy(window.span.start_s, window.span.end_s)
            record.standstills.append(window.standstill)
            self.progress.note(f"the window {window.standstill} and is measured again")
        raise VariantError(
            f"a window {record.standstills[-1]}, and so did each of {_TRIES} tries",
            remedy="Let the measurement run: no SIGSTOP, no suspend, no frozen container.",
            code=Code.STOPPED,
        )

    def _idle(self, idles: list[Span], text: str) -> None:
        if self.plan.idle_s <= 0:
            return
        self.progress.stage(text, self.plan.idle_s)
        time.sleep(self.plan.settle_s)
        idles.append(self.recording.idle(self.plan.idle_s))

    def _cool_down(self, start_c: float | None) -> None:
        """Wait, for at most a minute, until the temperature is at most 2 °C above that before the first window."""
        deadline = time.monotonic() + _COOL_DOWN_LIMIT_S
        while start_c is not None and time.monotonic() < deadline:
            now_c = self._hottest()
            if now_c is None or now_c <= start_c + _COOL_DOWN_BAND_C:
                return
            self.progress.stage(f"cool down · {now_c:.1f} → {start_c + _COOL_DOWN_BAND_C:.1f} °C", 0.0)
            time.sleep(0.5)

    def _look_into_operators(self, members: Sequence[tuple[Candidate, VariantRecord]]) -> None:
        """Profile the operators of each measured model, and measure the longest of them alone, if that is requested.

        Each of the two happens in a separate worker, which is then discarded.
        """
        if self.request.operators_kept is None or self.interrupted:
            return
        with contextlib.suppress(KeyboardInterrupt):  # what was measured stays
            for candidate, record in members:
                if record.main.windows and record.failure is None:
                    self.progress.stage(f"operators · {record.name}", operators.SECONDS)
                    began_s = time.monotonic()
                    record.profile, missing = operators.look_into(self._spec(candidate), str(record.runtime))
                    self.recording.occupy(began_s, time.monotonic())
                    record.notes += missing
                    if self.request.isolate_ops and record.profile is not None:
                        names = isolated.longest(record.profile, self.request.isolate_ops)
                        self._isolate(candidate, record, names)

    def _isolate(self, candidate: Candidate, record: VariantRecord, names: Sequence[str]) -> None:
        """Measure operators alone, in turns with the whole model."""
        alone = self._record(candidate)
        alone.name = f"{record.name} by operator"
        with contextlib.ExitStack() as stack:
            self._take_turns([alone], [self._load(stack, candidate, alone, names)])
        if alone.failure is None:
            record.alone, record.notes = alone, [*record.notes, *alone.notes]
        else:
            record.notes.append(isolated.missing(alone.failure))

    # ---- small things -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _charged_to(self, record: VariantRecord) -> Iterator[None]:
        """Record a failure within this context for one variant, so that the others continue."""
        try:
            yield
        except (VariantError, InputError) as error:
            record.failure = VariantError.of(error)
            # The error of the only device, without a window, becomes that of the command.
            if not (self.is_elsewhere and self.is_alone and microcontrollers.silence(record)):
                self.progress.note(about(record.name, error.message))

    def _record(self, candidate: Candidate) -> VariantRecord:
        runtime = candidate.runtime.name if candidate.runtime else None
        return VariantRecord(
            candidate.name,
            candidate.recipe,
            candidate.artifact,
            runtime,
            load_options(self.request, candidate),
            failure=candidate.failure,
            notes=[schema.Reason(code=Code.IN_PROCESS, message=_IN_PROCESS)] if candidate.in_process else [],
        )

    def _spec(self, candidate: Candidate) -> WorkerSpec:
        """Describe the worker of a candidate that has a runtime."""
        assert candidate.runtime is not None
        return WorkerSpec.of(
            candidate.runtime,
            candidate.artifact.target,
            load_options(self.request, candidate),
            inputs=self.request.input_data,
            python=self.request.worker_python,
            timeout_s=self.request.timeout_s,
            isolated=self.request.isolated and not candidate.in_process,
            seed=self.plan.seed,
        )

    def _hottest(self) -> float | None:
        latest = self.sampler.latest()
        seen = [latest[key][1] for key in self.temperatures if key in latest]
        return max((c for c in seen if c == c), default=None)  # noqa: PLR0124 - NaN is not equal to itself

    def _live(self) -> str:
        """Return the live part of the progress line: the headline's watts and the highest temperature."""
        latest, words = self.sampler.latest(), []
        powers = [latest.get(c.key) for c in self.discovery.topology.headline.channels if c.quantity == "power"]
        if powers and all(powers):
            words.append(f"{sum(p[1] for p in powers if p):.2f} W")
        hottest = self._hottest()
        if hottest is not None:
            words.append(f"{hottest:.1f} °C")
        return " · ".join(words)


def _part_time(discovery: Discovery) -> PartTime | None:
    """Return the part-time sensor of the headline that has the longest blind time per period."""
    parts = [c.part_time for c in discovery.topology.headline.channels if c.part_time is not None]
    return max(parts, key=lambda part: part.period_s - part.look_s, default=None)
