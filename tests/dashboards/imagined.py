"""A day of an imaginary site, as OpenMetrics text for ``promtool tsdb create-blocks-from openmetrics``.

For pictures and for many devices at once: eight boards with a working day, a hot afternoon, a device that falls silent
and a model that becomes dearer. A test holds names and labels to those of the exporter.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_S = 86_400
Labels = tuple[tuple[str, str], ...]


@dataclass
class Device:
    """One device and what it has counted so far."""

    name: str
    board: str
    site: str
    idle_w: float
    busy_w: float
    rails: dict[str, float]  # rail → share
    models: tuple[tuple[str, str, float, float], ...] = ()  # model, variant, seconds, J
    seed: int = 0
    counters: dict[tuple[str, Labels], float] = field(default_factory=lambda: defaultdict(float))


_ORIN = {"VDD_CPU_GPU_CV": 0.52, "VDD_SOC": 0.27}
_AGX = {"VDD_GPU_SOC": 0.5, "VDD_CPU_CV": 0.2, "VIN_SYS_5V0": 0.3}
_PI = {"VDD_CORE": 0.5, "DDR": 0.2, "3V3_SYS": 0.12}
_YOLO = (("yolov8s", "int8", 0.011, 0.09), ("yolov8s", "baseline", 0.024, 0.24))
_WORDS = (("keywords", "int8", 0.004, 0.012),)


def site() -> list[Device]:
    """Eight devices in two halls."""
    made = [Device(f"camera-{n}", "NVIDIA Jetson Orin Nano", "hall-1", 4.2, 13.5, _ORIN, _YOLO, n) for n in range(1, 5)]
    made += [Device(f"gate-{n}", "Raspberry Pi 5", "hall-2", 2.6, 6.8, _PI, _WORDS, 10 + n) for n in range(1, 4)]
    made.append(Device("sorter-1", "NVIDIA Jetson AGX Orin", "hall-2", 11.0, 38.0, _AGX, _YOLO, 20))
    made[3].idle_w *= 1.6  # camera-4: something else runs there
    return made


def fleet(count: int) -> list[Device]:
    """Many alike, for the cost of rules."""
    return [
        Device(f"dev-{n:04d}", "NVIDIA Jetson Orin Nano", f"site-{n % 20:02d}", 4.2, 13.5, _ORIN, _YOLO, n)
        for n in range(count)
    ]


def _load(device: Device, second: float, rng: random.Random) -> float:
    """Share of the day's full load, 0 to 1."""
    hour = (second % DAY_S) / 3600
    work = 0.08 + 0.8 * math.exp(-(((hour - 13) / 4.2) ** 2))
    return min(1.0, max(0.02, work * (0.85 + 0.3 * rng.random()) * (0.8 + 0.05 * (device.seed % 7))))


def sample(device: Device, second: float, step_s: float, rng: random.Random) -> dict[tuple[str, Labels], float]:
    """Every series of a device at one moment; ``second`` is counted from midnight."""
    load = _load(device, second, rng)
    watts = device.idle_w + (device.busy_w - device.idle_w) * load
    hot = 38 + 42 * load + (11 if device.name == "sorter-1" and 12 <= second % DAY_S / 3600 < 16 else 0)
    held = hot > 84
    count, now = device.counters, {}

    def put(name: str, value: float, **labels: str) -> None:
        now[name, tuple(sorted(labels.items()))] = value

    def add(name: str, value: float, **labels: str) -> None:
        key = name, tuple(sorted(labels.items()))
        count[key] += value
        now[key] = count[key]

    of = {"source": "ina3221", "provenance": "measured"}
    add("edgeprof_device_energy_joules_total", watts * step_s, **of)
    put("edgeprof_device_power_watts", watts * (0.93 + 0.14 * rng.random()), **of)
    for rail, share in device.rails.items():
        power = watts * share * (0.97 + 0.06 * rng.random())
        add("edgeprof_rail_energy_joules_total", power * step_s, rail=rail, **of)
        put("edgeprof_rail_power_watts", power * (0.93 + 0.14 * rng.random()), rail=rail, **of)
        volts = 5.02 - 0.006 * power
        put("edgeprof_rail_voltage_volts", volts, rail=rail, source="ina3221")
        put("edgeprof_rail_current_amperes", power / volts, rail=rail, source="ina3221")
    if "VIN_SYS_5V0" in device.rails:
        part = {"rail": "VDDQ_VDD2_1V8AO", "parent": "VIN_SYS_5V0", **of}
        add("edgeprof_subrail_energy_joules_total", watts * 0.08 * step_s, **part)
        put("edgeprof_subrail_power_watts", watts * 0.08, **part)
    for sensor, offset in (("cpu-thermal", 0.0), ("gpu-thermal", -1.8), ("tj-thermal", 0.6)):
        put("edgeprof_temperature_celsius", hot + offset + rng.random(), sensor=sensor)
    put("edgeprof_cpu_utilization_ratio", min(1.0, 0.05 + 0.5 * load))
    put("edgeprof_gpu_utilization_ratio", min(1.0, 0.9 * load), gpu="gpu")
    put("edgeprof_memory_used_bytes", (2.1 + 1.8 * load) * 2**30, pool="ram")
    put("edgeprof_memory_total_bytes", 8 * 2**30, pool="ram")
    put("edgeprof_frequency_hertz", 1.1e9 if held else 1.51e9, clock="cpu0")
    put("edgeprof_frequency_hertz", 4.1e8 if held else 6.25e8, clock="gpu")
    put("edgeprof_fan_speed_ratio", min(1.0, max(0.0, (hot - 40) / 45)), fan="fan")
    add("edgeprof_throttle_events_total", float(held), cause="thermal throttling (package)")
    add("edgeprof_throttle_events_total", 0.0, cause="under-voltage (OC1)")
    put("edgeprof_throttled", float(held), cause="gpu is held down by heat")
    put("edgeprof_device_info", 1, board=device.board, model=device.board, arch="aarch64", kernel="5.15.148-tegra",
        covers="processor and memory" if device.rails is _PI else "module",
        rail="VDD_IN" if device.rails is _ORIN else " + ".join(device.rails))  # fmt: skip
    if device.rails is not _PI:
        mode = "50W" if device.rails is _AGX else "25W"
        put("edgeprof_power_mode_info", 1, mode=mode, governor="schedutil")
    put("edgeprof_build_info", 1, version="0.1.0", python="3.10.12")
    for sensor, rate in (("ina3221", 10.0), ("thermal", 1.0), ("system", 2.0)):
        add("edgeprof_sampler_samples_total", rate * step_s, sensor=sensor)
        add("edgeprof_sampler_missed_total", float(rng.random() < 0.01), sensor=sensor)
        put("edgeprof_sampler_last_sample_timestamp_seconds", math.nan, sensor=sensor)  # filled in by ``text``
        put("edgeprof_sampler_up", 1, sensor=sensor)
    add("edgeprof_sampler_gap_seconds_total", 0.0, sensor="ina3221")
    _inferences(device, load, second, step_s, put, add)
    for collector in ("power", "device", "inference", "bench", "sampler", "process"):
        put("edgeprof_scrape_collector_success", 1, collector=collector)
        put("edgeprof_scrape_collector_duration_seconds", 2e-4 * (1 + rng.random()), collector=collector)
    put("edgeprof_config_last_reload_success", 1)
    add("process_cpu_seconds_total", 0.003 * step_s)
    put("process_resident_memory_bytes", 28.4e6)
    put("up", 1)
    put("scrape_duration_seconds", 0.004 + 0.004 * rng.random())
    put("scrape_samples_post_metric_relabeling", 104)
    return now


def _inferences(device: Device, load: float, second: float, step_s: float, put, add) -> None:
    from edgeprof_exporters.inferences import BUCKETS

    for index, (model, variant, seconds, joules) in enumerate(device.models):
        who = {"model": model, "variant": variant, "runtime": "tensorrt" if "Jetson" in device.board else "litert"}
        rate = (55.0 if index == 0 else 6.0) * load
        dearer = 1.22 if device.name == "camera-3" and second % DAY_S / 3600 > 15 else 1.0  # a driver was updated
        done = round(rate * step_s)
        add("edgeprof_inferences_total", done, **who)
        add("edgeprof_inferences_without_energy_total", 0, **who)
        add("edgeprof_inference_energy_joules_total", done * joules * dearer, **who, provenance="measured")
        spread = 0.16 + 0.1 * load
        for bound in (*BUCKETS, math.inf):
            z = math.log(bound / (seconds * (1 + 0.25 * load))) / spread if bound < math.inf else math.inf
            share = 0.5 * (1 + math.erf(z / math.sqrt(2)))
            le = "+Inf" if bound == math.inf else f"{bound:g}"
            add("edgeprof_inference_duration_seconds_bucket", round(done * share), **who, le=le)
        for stage, part in (("decode", 0.1), ("detect", 0.7), ("draw", 0.05)):
            add("edgeprof_stages_total", done, **who, stage=stage)
            add("edgeprof_stages_with_energy_total", done, **who, stage=stage)
            add("edgeprof_stages_without_energy_total", 0, **who, stage=stage)
            add("edgeprof_stage_seconds_total", done * seconds * part, **who, stage=stage)
            add("edgeprof_stage_energy_joules_total", done * joules * part, **who, stage=stage, provenance="measured")
        add("edgeprof_inference_duration_seconds_sum", done * seconds, **who)
        add("edgeprof_inference_duration_seconds_count", done, **who)


#: variant, gross J, net share, median latency, accuracy, bytes, peak memory
_VARIANTS = (
    ("baseline", 0.2380, 0.56, 0.0241, 0.447, 22_573_000, 612 * 2**20),
    ("fp16", 0.1490, 0.52, 0.0153, 0.447, 11_340_000, 540 * 2**20),
    ("int8-static", 0.0902, 0.47, 0.0109, 0.438, 6_020_000, 498 * 2**20),
    ("int8-static+2:4", 0.0815, 0.46, 0.0101, 0.421, 5_870_000, 495 * 2**20),
    ("prune-structured(amount=0.3)+int8-static", 0.0713, 0.45, 0.0087, 0.402, 4_310_000, 471 * 2**20),
)


#: variant, gross J of a prompt token and of an output token, output tokens a second, bytes of the KV cache
_LANGUAGE = (("Q8_0", 0.041, 0.31, 16.6, 12 * 2**20), ("Q4_K_M", 0.049, 0.26, 19.1, 12 * 2**20))

#: Of a language model: workload, unit, units in a call, J per unit, median latency of a call
_WORKLOADS = (
    ("request", "request", 1, 11.8, 2.31),
    ("prefill", "prompt token", 512, 0.0041, 0.33),
    ("decode", "output token", 127, 0.0761, 1.96),
)


def bench(created: float, device: Device) -> dict[tuple[str, Labels], float]:
    """What one device's store holds: five variants of one model, and a language model with its workloads."""
    made: dict[tuple[str, Labels], float] = {}
    provenance, covers = ("estimated", "unknown") if device.rails is _PI else ("measured", "module")
    dearer = 1 + 0.04 * (device.seed % 5)
    how = {"board": device.board, "power_mode": "15W", "runtime_version": "10.3.0", "threads": "", "batch": "1"}
    for variant, gross, net, median, accuracy, size, memory in _VARIANTS:
        who = {"model": "yolov8s", "variant": variant, "runtime": "tensorrt", "scenario": "single-stream"}

        def put(name: str, value: float, who: dict[str, str] = who, **labels: str) -> None:
            made[f"edgeprof_bench_{name}", tuple(sorted({**who, **labels}.items()))] = value

        put("info", 1, **how, provenance=provenance, covers=covers)
        for kind, value in (("gross", dearer * gross), ("net", dearer * gross * net)):
            put("energy_joules_per_inference", value, provenance=provenance, kind=kind)
            put("energy_uncertainty_joules", gross * 0.017, provenance=provenance, kind=kind)
        for quantile, factor in (("0.5", 1.0), ("0.9", 1.06), ("0.95", 1.1), ("0.99", 1.24)):
            put("latency_seconds", median * factor, quantile=quantile)
        put("throughput_per_second", 0.97 / median)
        put("accuracy_ratio", accuracy, metric="map50-95")
        put("model_size_bytes", size)
        put("peak_memory_bytes", memory)
        put("last_run_timestamp_seconds", created)
        put("last_run_success", 1)
    for variant, prefill, decode, rate, kv in _LANGUAGE:
        who = {"model": "qwen2.5-0.5b", "variant": variant, "runtime": "llamacpp", "scenario": "single-stream"}

        def tell(name: str, value: float, who: dict[str, str] = who, **labels: str) -> None:
            made[f"edgeprof_bench_{name}", tuple(sorted({**who, **labels}.items()))] = value

        for phase, joules, tokens in (("prefill", prefill, 9 * rate), ("decode", decode, rate)):
            for kind, share in (("gross", 1.0), ("net", 0.6)):
                tell("energy_joules_per_token", share * joules, phase=phase, provenance="measured", kind=kind)
            tell("tokens_per_second", tokens, phase=phase)
        tell("time_to_first_token_seconds", 512 / (9 * rate), quantile="0.5")
        for kind, size in (("anonymous", 90 * 2**20 + kv), ("mapped", 500 * 2**20), ("kv_cache", kv)):
            tell("memory_bytes", size, kind=kind)
        facts = {"architecture": "qwen2", "kv_type": "f16", "prompt": "512", "generate": "128", "depth": "0"}
        tell("language_info", 1, **facts, batch="1", random_weights="false")
        tell("perplexity", 22.7 + 30 * decode, text="wiki.txt")
        tell("last_run_timestamp_seconds", created)
        tell("last_run_success", 1)
    for name, value, labels in language_model():
        who = {"model": "smollm2.gguf", "variant": "baseline", "runtime": "llamacpp", "scenario": "single-stream"}
        made[f"edgeprof_bench_{name}", tuple(sorted({**who, **labels}.items()))] = value
    return made


def language_model() -> Iterator[tuple[str, float, dict[str, str]]]:
    for workload, unit, units, joules, latency in _WORKLOADS:
        of = {"workload": workload, "unit": unit}
        for kind, share in (("gross", 1.0), ("net", 0.71)):
            labels = {**of, "provenance": "measured", "kind": kind}
            yield "workload_energy_joules_per_unit", joules * share, labels
        yield "workload_latency_seconds", latency, of
        yield "workload_units_per_second", 0.97 * units / latency, of


def text(devices: list[Device], end: float, span_s: float, step_s: float, bench_on: tuple[str, ...] = ()) -> str:
    """OpenMetrics with timestamps; families need not be together for promtool, only in order of time in each series."""
    series: dict[str, list[str]] = defaultdict(list)
    first = int((end - span_s) // step_s)
    for device in devices:
        rng = random.Random(device.seed)
        target = f'job="edgeprof",instance="{device.name}",site="{device.site}"'
        for index in range(first, int(end // step_s) + 1):
            time = index * step_s
            values = sample(device, time, step_s, rng)
            hour = time % DAY_S / 3600
            if device.name == "gate-3" and 9.5 <= hour < 10.25:
                values = {key: 0.0 for key in values if key[0] == "up"}
            if device.name in bench_on:
                values |= bench(end - 3 * 3600, device)
            for (name, labels), value in values.items():
                sampled = name == "edgeprof_sampler_last_sample_timestamp_seconds"
                said = f"{time - 0.1 - rng.random() if sampled else value:.13g}"
                inside = ",".join([target, *(f'{k}="{v}"' for k, v in labels)])
                series[name].append(f"{name}{{{inside}}} {said} {time:.0f}")
    lines = []
    for name, samples in series.items():
        lines += [f"# TYPE {name} gauge", *samples] if not name.endswith("_total") else samples
    return "\n".join([*lines, "# EOF", ""])
