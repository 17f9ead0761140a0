"""The samples of each collector, made from the daemon's state."""

from __future__ import annotations

import itertools
import math
import os
import time
from typing import TYPE_CHECKING

from edgeprof_exporters.exposition import memory_total
from edgeprof_exporters.inferences import BUCKETS

if TYPE_CHECKING:
    from edgeprof.roots import Roots
    from edgeprof_exporters.engine import Engine
    from edgeprof_exporters.exposition import Samples
    from edgeprof_exporters.inferences import Inferences, Tally
    from edgeprof_exporters.stages import Stages
    from edgeprof_exporters.throttling import Throttling

#: Quantity → the metric that shows it, with the channel's name as label.
_DEVICE = {
    "temperature": "edgeprof_temperature_celsius",
    "memory": "edgeprof_memory_used_bytes",
    "frequency": "edgeprof_frequency_hertz",
    "fan": "edgeprof_fan_speed_ratio",
}
_BUCKET_LABELS = (*map(str, BUCKETS), "+Inf")


def power(engine: Engine) -> Samples:
    """Samples of joules and watts of rails, their parts, and the device."""
    now = time.monotonic()
    samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}

    def add(name: str, labels: tuple[str, ...], value: float | None) -> None:
        if value is not None and math.isfinite(value):
            samples.setdefault(name, []).append((labels, value))

    with engine.lock:
        for rail in engine.rails:
            channel = rail.meter.channel
            kind = "rail" if rail.parent is None else "subrail"
            place = (channel.name,) if rail.parent is None else (channel.name, rail.parent)
            if rail.meter.read_at is not None:
                add(
                    f"edgeprof_{kind}_energy_joules_total",
                    (*place, channel.sensor, channel.provenance),
                    rail.meter.shown(now),
                )
            teller = (rail.power or rail.meter).channel
            add(f"edgeprof_{kind}_power_watts", (*place, teller.sensor, teller.provenance), rail.watts(now))
        if engine.total is not None and engine.ready:
            labels = engine.sources_of_total
            add("edgeprof_device_energy_joules_total", labels, engine.total.shown(now))
            add("edgeprof_device_power_watts", labels, engine.watts(now))
    for channel, value in engine.latest(now):
        if channel.quantity == "voltage":
            add("edgeprof_rail_voltage_volts", (channel.name, channel.sensor), value)
        elif channel.quantity == "current":
            add("edgeprof_rail_current_amperes", (channel.name, channel.sensor), value)
    return samples


def device(engine: Engine, roots: Roots, throttling: Throttling, power_mode: tuple[str, str]) -> Samples:
    """Samples of everything about the device except power."""
    samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    seen: set[tuple[str, str]] = set()

    def add(name: str, label: str, source: str, value: float) -> None:
        if (name, label) in seen:  # two sources have different channels with the same name
            label = f"{source} {label}"
        if (name, label) not in seen:
            seen.add((name, label))
            samples.setdefault(name, []).append(((label,), value))

    for channel, value in engine.latest(time.monotonic()):
        if channel.quantity in _DEVICE:
            add(_DEVICE[channel.quantity], channel.name, channel.sensor, value)
        elif channel.quantity == "utilization" and channel.scope == "gpu":
            add("edgeprof_gpu_utilization_ratio", channel.name, channel.sensor, value)
        elif channel.quantity == "utilization" and channel.scope == "cpu":
            samples.setdefault("edgeprof_cpu_utilization_ratio", [((), value)])
    if (total := memory_total(roots.procfs)) is not None:
        samples["edgeprof_memory_total_bytes"] = [(("ram",), float(total))]
    events, states = throttling.seen()
    samples["edgeprof_throttle_events_total"] = [((cause,), float(count)) for cause, count in events.items()]
    samples["edgeprof_throttled"] = [((cause,), float(state)) for cause, state in states.items()]
    samples["edgeprof_device_info"] = [(labels, 1.0) for labels in _device_info(engine)]
    samples["edgeprof_power_mode_info"] = [(power_mode, 1.0)] if any(power_mode) else []
    return samples


def _device_info(engine: Engine) -> list[tuple[str, ...]]:
    if engine.topology is None:
        return []
    board, headline = engine.topology.board, engine.topology.headline
    return [(board.name, board.model, *_machine_labels(), headline.covers or "", headline.rail or "")]


def _machine_labels() -> tuple[str, str]:
    host = os.uname()
    return host.machine, host.release


def inference(inferences: Inferences, engine: Engine) -> Samples:
    """Samples of the inferences that applications reported."""
    inferences.settle(time.monotonic(), engine.lock)
    provenance = engine.sources_of_total[1]
    with inferences.lock:
        rows = list(inferences.tallies.items())
        return {
            "edgeprof_inferences_total": [(key, float(t.count)) for key, t in rows],
            "edgeprof_inference_energy_joules_total": [((*key, provenance), t.joules) for key, t in rows],
            "edgeprof_inference_duration_seconds": [(key, (_cumulative_buckets(t), t.seconds)) for key, t in rows],
            "edgeprof_inferences_without_energy_total": [(key, float(t.without)) for key, t in rows],
        }


def stages(stages: Stages, engine: Engine) -> Samples:
    """Samples of the stages that applications marked."""
    provenance = engine.sources_of_total[1]
    with stages.lock:
        rows = [((model, variant, runtime, stage), t) for (stage, model, variant, runtime), t in stages.tallies.items()]
        return {
            "edgeprof_stages_total": [(key, float(t.count)) for key, t in rows],
            # Not before some are known: a stage that cannot be told from the others has no energy of 0 J.
            "edgeprof_stage_energy_joules_total": [((*key, provenance), t.joules) for key, t in rows if t.known],
            "edgeprof_stages_with_energy_total": [(key, float(t.known)) for key, t in rows if t.known],
            "edgeprof_stage_seconds_total": [(key, t.seconds) for key, t in rows],
            "edgeprof_stages_without_energy_total": [(key, float(t.without)) for key, t in rows],
        }


def _cumulative_buckets(tally: Tally) -> list[tuple[str, float]]:
    return list(zip(_BUCKET_LABELS, map(float, itertools.accumulate(tally.buckets)), strict=True))


def sampler(engine: Engine) -> Samples:
    """Samples on how well the sensors are sampled."""
    now, wall = time.monotonic(), time.time()
    counts = engine.counts()
    newest = {name: max(tap.last_read for tap in taps) for name, taps in engine.sources().items()}
    read = {name: time_s for name, time_s in newest.items() if math.isfinite(time_s)}
    return {
        "edgeprof_sampler_samples_total": [((name,), float(good)) for name, (good, _) in counts.items()],
        "edgeprof_sampler_missed_total": [((name,), float(missed)) for name, (_, missed) in counts.items()],
        "edgeprof_sampler_gap_seconds_total": [((name,), gap) for name, gap in engine.gaps(now).items()],
        "edgeprof_sampler_last_sample_timestamp_seconds": [
            ((name,), wall - (now - time_s)) for name, time_s in read.items()
        ],
        "edgeprof_sampler_up": [((name,), float(engine.is_up(name, now))) for name in engine.known],
    }


def messages(inferences: Inferences) -> Samples:
    """Samples of the messages on the track socket."""
    with inferences.lock:
        return {"edgeprof_track_messages_total": [((k,), float(v)) for k, v in inferences.messages.items()]}
