"""Make the variants of a result from the conductor's records. All functions are pure."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgeprof.benchmark import gpu_findings as device
from edgeprof.benchmark import health, isolated, language, latency, loads, microcontrollers, operators, stages
from edgeprof.energy.counters import unwrap
from edgeprof.reasons import Code, Severity, severity_of
from edgeprof.results import schema
from edgeprof.results.schema import Reason
from edgeprof.verdicts import accuracy
from edgeprof.worker.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from edgeprof.benchmark.plan import Plan
    from edgeprof.benchmark.records import Sampled, VariantRecord, WorkloadRecord
    from edgeprof.energy.figures import Quote
    from edgeprof.sensing.proofs import Proved
    from edgeprof.sensing.sampler import ChannelStats
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

#: Points of a power trace that a report draws.
TRACE_POINTS = 1200

_NAN_REMEDY = "Feed it real inputs (--input-data FILE.npz); if they give the same, the model overflows or is damaged."


def variant(record: VariantRecord, sampled: Sampled, plan: Plan, operators_kept: int = 0) -> schema.Variant:
    """Make one variant of the result.

    Args:
        record: The record of the variant.
        sampled: The readings of the sensors.
        plan: The plan that was carried out.
        operators_kept: How many operators get their own row, if a profile was taken.
    """
    row = schema.Variant(
        name=record.name,
        recipe=record.recipe,
        status="ok",
        reasons=[],
        model=schema.Model(
            path=record.artifact.spec,
            format=record.artifact.format,
            sha256=record.artifact.sha256,
            size_bytes=record.artifact.size_bytes,
            size_compressed_bytes=record.artifact.size_compressed(),
        ),
        runtime=_runtime_use(record),
    )
    if record.main.warmup is not None:
        warmup = record.main.warmup
        row.steady = schema.Steady(
            reached=warmup.reached, inferences=warmup.inferences, seconds=warmup.seconds, reason=warmup.reason
        )
    if record.memory is not None and record.loaded is not None and not record.loaded.is_served:
        row.memory_bytes = schema.Memory(
            peak_rss=record.memory.peak_rss,
            loaded_rss=record.loaded.rss_bytes,
            gpu_peak=record.memory.gpu_peak,
            runtime_rss=record.loaded.library_rss_bytes,
            anonymous=record.memory.anonymous,
            mapped=record.memory.mapped,
            load_peak=record.loaded.peak_rss_bytes,
        )
    if record.main.windows:
        _add_measurements(row, record, sampled, plan)
    operators.add_findings(row, record, operators_kept)
    if record.alone is not None and row.operators:
        turns = [_workload_figures(workload, record.alone.idles, sampled, plan) for workload in record.alone.workloads]
        isolated.add_findings(row, record.alone, turns, plan.statistic)
    language.add_findings(row, record)
    microcontrollers.add_findings(row, record)
    stages.add_findings(row, record, plan)
    loads.add_findings(row, record)
    _add_accuracy(row, record)
    _judge_status(row, record)
    return row


def _runtime_use(record: VariantRecord) -> schema.RuntimeUse | None:
    loaded = record.loaded
    if record.runtime is None:
        return None
    return schema.RuntimeUse(
        name=record.runtime,
        version=loaded.version if loaded else None,
        device=record.options.device,
        threads=record.options.threads,
        options=dict(record.options.options),
        facts=dict(loaded.facts) if loaded else {},
        load_s=loaded.load_s if loaded else None,
    )


def _add_measurements(row: schema.Variant, record: VariantRecord, sampled: Sampled, plan: Plan) -> None:
    """Add latency, joules, power, temperature and utilisation from the windows."""
    several = len(record.workloads) > 1
    for workload in record.workloads:
        if not workload.windows:  # interrupted before its turn
            continue
        figures, quote = _workload_figures(workload, record.idles, sampled, plan)
        row.workloads.append(figures)
        reasons = [*quote.reasons, *_window_remarks(workload, plan)]
        if several:
            reasons = [
                msgspec.structs.replace(reason, message=f"{figures.name}: {reason.message}") for reason in reasons
            ]
        row.reasons += reasons
        if workload is record.main:
            row.power_w = quote.power
    main, spans = row.workloads[0], record.main.spans
    row.inferences, row.throughput_per_s = main.count, main.throughput_per_s
    row.latency_s, row.energy_j_per_inference = main.latency_s, main.energy_j_per_unit
    row.windows = main.windows
    hot = [_hottest_reading(sampled, span.start_s, span.end_s) for span in spans]
    known = [c for c in hot if c is not None]
    row.temperature_c = schema.Temperature(
        start=_hottest_reading(sampled, spans[0].start_s - 1.0, spans[0].start_s), max=max(known, default=None)
    )
    is_served = record.loaded is not None and record.loaded.is_served
    row.utilization = _mean_utilization(record.main, sampled, is_served=is_served)
    slower = health.warming_slowdown([w.latency_median_s for w in row.windows if w.latency_median_s], hot)
    row.reasons += [r for r in (slower, *_clock_drifts(sampled, spans)) if r is not None]
    row.throttled = slower is not None or any(workload.throttles for workload in record.workloads)
    row.gpu = _gpu_figures(row, record, sampled)


def _workload_figures(
    record: WorkloadRecord, idles: Sequence[Span], sampled: Sampled, plan: Plan
) -> tuple[schema.Workload, Quote]:
    """Return the figures of one workload, per unit, and the quote of its joules."""
    windows, spans = record.windows, record.spans
    count, seconds = sum(span.count for span in spans), sum(span.seconds for span in spans)
    busy_s = sum(window.busy_s for window in windows)
    load = record.scenario or Scenario(plan.scenario, plan.rate_hz, plan.streams or 1)
    quote = sampled.recording.quote(
        *spans[0].key,
        idles=idles,
        statistic=plan.statistic,
        max_rate_hz=count / busy_s if load.rate_hz and busy_s else None,
    )
    is_estimate = quote.provenance == "estimated"
    window_joules: Sequence[float | None] = quote.windows or [None] * len(spans)
    known_late = [window.late for window in windows if window.late is not None]
    known_dropped = [window.dropped for window in windows if window.dropped is not None]
    figures = schema.Workload(
        name=record.workload.name,
        unit=record.workload.unit,
        units_per_call=record.workload.units(plan.batch),
        count=count,
        energy_j_per_unit=quote.energy,
        latency_s=microcontrollers.mean_latency(windows) or latency.summarise([w.latencies for w in windows]),
        throughput_per_s=count / seconds if seconds else None,
        late=sum(known_late) if known_late else None,
        dropped=sum(known_dropped) if known_dropped else None,
        cut_short=sum(window.cut_short for window in windows),
        rate_hz=load.rate_hz,
        streams=load.threads if load.rate_hz else None,
        windows=[
            schema.Window(
                start_s=window.span.start_s - sampled.start_s,
                end_s=window.span.end_s - sampled.start_s,
                inferences=window.span.count,
                order=order,
                energy_j=joule,
                mean_power_w=None if joule is None or is_estimate else joule / window.span.seconds,
                latency_median_s=float(np.median(window.latencies)) if len(window.latencies) else None,
                latency_mean_s=mean_s,
                is_second_try=window.is_second_try,
            )
            for window, order, joule, mean_s in zip(
                windows, record.orders, window_joules, microcontrollers.window_means_s(windows), strict=True
            )
        ],
    )
    return figures, quote


def _window_remarks(record: WorkloadRecord, plan: Plan) -> Iterable[Reason]:
    """Yield the remarks on the windows that do not degrade the figures."""
    windows = record.windows
    late = sum(window.late or 0 for window in windows)
    due = sum(window.due or 0 for window in windows)
    dropped = sum(window.dropped or 0 for window in windows)
    noun = "frames" if plan.scenario == "periodic" else "requests"
    if late:
        yield Reason(
            code=Code.LATE,
            message=f"{late} of {due} {noun} were done after the next one was due",
            remedy="Lower --rate, or use a faster variant.",
        )
    if dropped:
        yield Reason(
            code=Code.DROPPED,
            message=f"{dropped} of {due} {noun} were dropped, because the ones before them were not done",
            remedy="Lower --rate, or use a faster variant.",
        )
    repeated = sum(window.is_second_try for window in windows)
    if repeated:
        yield Reason(
            code=Code.RESYNCHRONISED,
            message=f"{repeated} of {len(windows)} windows are second tries: the device answered out of step, and was "
            "brought back",
            remedy="See that nothing else writes to its line; a shorter cable or a lower speed loses fewer bytes.",
        )
    short = sum(window.cut_short for window in windows)
    if short:
        yield Reason(
            code=Code.CUT_SHORT,
            message=f"{short} of {len(windows)} windows ended early: they held more calls than there was room to time",
            remedy="Use shorter windows (--window S) or a larger --batch.",
        )


def _gpu_figures(row: schema.Variant, record: VariantRecord, sampled: Sampled) -> schema.Gpu | None:
    """The GPU's own times, memory, clock and joules; None if the variant did not run on one."""
    if not device.is_gpu(record.options.device):
        return None
    spans = record.main.spans
    gpu = device.summarise([times for times in record.main.device_times if times]) or schema.Gpu()
    loaded = record.loaded
    row.reasons += device.remarks(gpu, graph=bool(loaded and loaded.facts.get("cuda_graph", "no") != "no"))
    gpu.queue = "full" if any(window.queued for window in record.main.windows) else "empty"
    gpu.memory_bytes = record.gpu_process_bytes
    for channel in sampled.of("frequency"):
        if channel.scope == "gpu" and gpu.clock_hz is None:
            values = _readings_within(sampled, channel, spans)
            if len(values):
                gpu.clock_hz = schema.Clock(
                    min=float(values.min()), median=float(np.median(values)), max=float(values.max())
                )
    masks = [_readings_within(sampled, c, spans) for c in sampled.of("count") if c.name.endswith(device.REASONS)]
    gpu.throttle_reasons = device.throttle_reasons(np.concatenate(masks)) if masks else []
    energy = row.energy_j_per_inference
    if energy is not None and energy.provenance != "estimated":
        names = {c.name for quantity in ("energy", "power") for c in sampled.of(quantity) if c.scope == "gpu"}
        parts = [joules for name, joules in energy.rails.items() if name in names]
        gpu.energy_j_per_inference = sum(parts) if parts else None
    return gpu


def _readings_within(sampled: Sampled, channel: Channel, spans: Sequence[Span]) -> npt.NDArray[np.float64]:
    """Return a channel's readings in the windows without failed ones, and with repeats: a clock may be constant."""
    samples = sampled.trace.readings(channel.key)
    times, values = np.asarray(samples.times, float), np.asarray(samples.values, float)
    inside = np.zeros(len(times), bool)
    for span in spans:
        inside |= (times >= span.start_s) & (times <= span.end_s)
    readings: npt.NDArray[np.float64] = values[inside & np.isfinite(values)]
    return readings


def _hottest_reading(sampled: Sampled, start: float, end: float) -> float | None:
    """The hottest zone's highest reading in an interval, celsius."""
    highs = []
    for channel in sampled.of("temperature"):
        series = sampled.series(channel)
        high = health.span(series.times, series.values, start, end).high
        if high is not None:
            highs.append(high)
    return max(highs, default=None)


def _mean_utilization(record: WorkloadRecord, sampled: Sampled, *, is_served: bool) -> schema.Utilization:
    """Return the mean utilization: for the CPU the worker's CPU seconds divided by all cores' seconds (None if a server
    computes), for the GPU the mean reading within the windows.
    """
    used, seconds = sum(window.cpu_s for window in record.windows), sum(span.seconds for span in record.spans)
    is_known = seconds > 0 and not is_served
    busy = []
    for channel in sampled.of("utilization"):
        if channel.scope != "gpu":
            continue
        series = sampled.series(channel)
        for span in record.spans:
            mean = health.span(series.times, series.values, span.start_s, span.end_s).mean
            if mean is not None:
                busy.append(mean)
    return schema.Utilization(
        cpu=used / (seconds * sampled.cores) if is_known else None,
        gpu=statistics.fmean(busy) if busy else None,
    )


def _clock_drifts(sampled: Sampled, spans: Sequence[Span]) -> Iterable[Reason | None]:
    for channel in sampled.of("frequency"):
        if channel.scope not in {"cpu", "gpu"}:
            continue  # an idle video engine, or memory that slows down between windows, is not throttling
        series = sampled.series(channel)
        medians = [health.span(series.times, series.values, s.start_s, s.end_s).median for s in spans]
        yield health.clock_drift(medians, channel.name)


def _add_accuracy(row: schema.Variant, record: VariantRecord) -> None:
    if record.score is None or record.metric is None:
        return
    row.accuracy = schema.Accuracy(
        metric=record.metric,
        value=record.score.value,
        ci95=record.score.ci95,
        samples=record.score.samples,
        dataset=record.dataset,
        preprocessing=record.preprocessing,
        higher_is_better=record.higher_is_better,
        title=record.metric_title,
    )


def _standstill_reasons(record: VariantRecord) -> Iterator[Reason]:
    standstills = [standstill for workload in record.workloads for standstill in workload.standstills]
    if standstills:
        yield Reason(
            code=Code.STOPPED,
            message=f"left out and measured again, because the model {standstills[0]}: {len(standstills)} window(s)",
            remedy="Let the measurement run: no SIGSTOP, no suspend.",
        )


def _judge_status(row: schema.Variant, record: VariantRecord) -> None:
    """Set the status by the gravest reason, and add the reasons that concern the variant as a whole."""
    reasons = row.reasons
    reasons += record.notes
    if record.loaded is not None:
        reasons += [Reason(code=code, message=problem, remedy=_NAN_REMEDY) for code, problem in record.loaded.problems]
    for workload in record.workloads:
        warmup = workload.warmup
        if warmup is not None and not warmup.reached:
            named = "" if len(record.workloads) == 1 else f"{workload.workload.name}: "
            reasons.append(
                Reason(
                    code=Code.NOT_STEADY,
                    message=f"{named}no steady state after {warmup.seconds:.0f} s of warm-up ({warmup.reason})",
                    remedy="Close other work, fix the clocks, or lengthen --warmup.",
                )
            )
    reasons += _standstill_reasons(record)
    # Several loads are measured in order to find the rate that cannot be sustained, so saturation is no reason then.
    several = loads.are_several(record)
    windows = [] if several else [window for workload in record.workloads for window in workload.windows]
    saturated = next((window for window in windows if window.saturated), None)
    if saturated is not None:
        reasons.append(
            Reason(
                code=Code.SATURATED,
                message=f"only {saturated.achieved_hz:.4g} of {saturated.target_hz:.4g} requests/s were served",
                remedy="Lower --rate: beyond this the queue, and not the model, is measured.",
            )
        )
    throttles = sorted({event for workload in record.workloads for event in workload.throttles})
    if throttles:
        reasons.append(
            Reason(code=Code.THROTTLED, message="; ".join(throttles), remedy="Cool the device or its power supply.")
        )
    gravest = max((severity_of(reason.code) for reason in reasons), default=Severity.REMARK)
    if gravest is not Severity.REMARK:
        row.status = "degraded" if gravest is Severity.DEGRADES else "failed"
    if record.failure is not None:
        row.status = "failed"
        row.last_words = record.failure.last_words or None
        reasons.insert(
            0, Reason(code=record.failure.code, message=record.failure.message, remedy=record.failure.remedy)
        )
    elif not record.main.windows:
        row.status = "failed"
        reasons.insert(0, Reason(code=Code.INTERRUPTED, message="it was interrupted before it was measured"))


def pair_accuracies(variants: Sequence[schema.Variant], records: Sequence[VariantRecord]) -> None:
    """Set, in each accuracy, the drop against the first variant and the p-value of a paired test."""
    if not variants or variants[0].accuracy is None:
        return
    base, base_score = variants[0].accuracy, records[0].score
    for row, record in zip(variants, records, strict=True):
        if row.accuracy is None or row.accuracy.preprocessing != base.preprocessing:
            continue  # another tokenizer: its perplexity is on another scale
        row.accuracy.drop = base.sign * (base.value - row.accuracy.value)
        if row is variants[0] or base_score is None or record.score is None:
            continue
        if base_score.correct is not None and record.score.correct is not None:
            row.accuracy.p_value = accuracy.mcnemar(base_score.correct, record.score.correct)
        elif base_score.replicates is not None and record.score.replicates is not None:
            row.accuracy.p_value = accuracy.bootstrap_p(base_score.replicates, record.score.replicates)


def sensor_uses(
    sampled: Sampled, unavailable: Iterable[Channel], proved: Proved | None = None
) -> list[schema.SensorUse]:
    """Return all sampled channels and all unavailable ones, each with the verdict of the newest proof."""
    annotated = {channel.key: channel for channel in sampled.topology.channels}
    uses = [
        _sensor_use(sampled.series(annotated[s.key]).channel, s, proved) for s in sampled.stats if s.key in annotated
    ]
    return uses + [_sensor_use(channel, None, proved) for channel in unavailable]


def _sensor_use(channel: Channel, stat: ChannelStats | None, proved: Proved | None) -> schema.SensorUse:
    shape = channel.filter
    return schema.SensorUse(
        sensor=channel.sensor,
        channel=channel.name,
        quantity=channel.quantity,
        unit=channel.unit,
        scope=channel.scope,
        role=channel.role,
        parent=channel.parent,
        provenance=channel.provenance,
        resolution=channel.resolution,
        update_interval_s=channel.update_interval_s,
        rate_hz=stat.rate_hz if stat else None,
        samples=stat.samples if stat else 0,
        missed=stat.missed if stat else 0,
        max_gap_s=stat.max_gap_s if stat else None,
        filter={"kind": shape.kind, "tau_s": shape.tau_s, "length_s": shape.length_s, "tau_limit": shape.tau_limit},
        calibration=None if channel.calibration is None else asdict(channel.calibration),
        reason=channel.reason,
        proved=None if proved is None else proved.of(channel),
    )


def protocol(plan: Plan, threads: int | None, interleaved: bool, inputs: str | None) -> schema.Protocol:
    """Return the protocol of the run, from which the run can be repeated."""
    return schema.Protocol(
        scenario=plan.scenario,
        batch=plan.batch,
        threads=threads,
        windows=plan.windows,
        window_s=plan.window_s,
        warmup_s=plan.warmup_s,
        idle_s=plan.idle_s,
        interleave="ABBA" if interleaved else "sequential",
        sample_rate_hz=plan.sample_rate_hz,
        preset=plan.preset,
        rate_hz=plan.rate_hz,
        streams=plan.streams,
        queue=plan.queue,
        seed=plan.seed,
        inputs=inputs or "random",
    )


def traces(sampled: Sampled) -> list[schema.TraceStrip]:
    """Return the headline's power over the whole run, reduced to at most ``TRACE_POINTS`` points."""
    strips = []
    for channel in sampled.topology.headline.channels:
        series = sampled.series(channel)
        times, values = np.asarray(series.times, float), np.asarray(series.values, float)
        if channel.kind == "counter":
            times, values = power_of_counter(times, values, channel)
        seconds, watts = health.decimate(times - sampled.start_s, values, TRACE_POINTS)
        strips.append(schema.TraceStrip(channel=channel.name, times_s=seconds, power_w=watts))
    return strips


def power_of_counter(
    times: npt.NDArray[np.float64], joules: npt.NDArray[np.float64], channel: Channel
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean watts between successive readings of an energy counter, each at the later reading's time.

    Impossible steps of the counter are left out.
    """
    good = np.isfinite(joules)
    times, joules = times[good], joules[good]
    risen, marks = unwrap(times, joules, channel)
    believed = ~np.logical_or.reduce(list(marks.values()))[1:]
    return times[1:][believed], (np.diff(risen) / np.diff(times))[believed]


def run_reasons(failures: Iterable[tuple[str, str, str | None]], *, interrupted: bool) -> list[Reason]:
    """Return the reasons that concern the run as a whole: failed sensors and an interruption."""
    reasons = [
        Reason(code=Code.SENSOR_FAILED, message=f"{source}: {why}", remedy=mend) for source, why, mend in failures
    ]
    if interrupted:
        reasons.append(Reason(code=Code.INTERRUPTED, message="it was interrupted; what had been measured is kept"))
    return reasons
