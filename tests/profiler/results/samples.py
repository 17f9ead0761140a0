"""Synthetic but consistent results as a bench would write them: every kind that a reporter must render.

All numbers follow from a few for each variant (joules, latency, spread), so that windows, ratios and traces agree.
"""

from __future__ import annotations

import itertools
import math
import random

from edgeprof.results import schema as s

CREATED = "2026-11-21T14:12:03.512+00:00"
ID = "20261121-1412-k3f"


def host(**changes) -> s.Host:
    facts = {
        "board": "Jetson Orin Nano",
        "hostname": "bench-7",
        "arch": "aarch64",
        "cpu": "Cortex-A78AE",
        "cores": 6,
        "memory_bytes": 8 * 2**30,
        "kernel": "5.15.136-tegra",
        "os": "L4T 36.4",
        "power_mode": "15W",
        "governor": "schedutil",
        "fingerprint": "sha256:5f1c",
        "context": {"kernel": "5.15.136-tegra", "python": "3.10.12"},
    }
    return s.Host(**{**facts, **changes})


def sensor(**changes) -> s.SensorUse:
    facts = {
        "sensor": "ina3221",
        "channel": "VDD_IN",
        "quantity": "power",
        "unit": "W",
        "scope": "module",
        "role": "total",
        "parent": None,
        "provenance": "measured",
        "resolution": 0.04,
        "update_interval_s": 0.0084,
        "rate_hz": 99.8,
        "samples": 34120,
        "missed": 3,
        "max_gap_s": 0.021,
        "filter": {"kind": "exponential", "tau_s": 0.43},
    }
    return s.SensorUse(**{**facts, **changes})


def energy(gross: float, *, relative: float = 0.017, provenance="measured", idle: float = 0.43, **changes) -> s.Energy:
    """Return ``gross`` joules with the relative expanded uncertainty ``relative``; the share ``idle`` is not net."""
    u = gross * relative / 2.1
    net = gross * (1 - idle)
    rng = random.Random(f"{gross}")
    if provenance == "estimated":
        budget = s.Budget(repeatability=u * 0.1, model=u * 0.99)
    else:
        budget = s.Budget(
            repeatability=u * 0.5, gain=u * 0.8, offset=u * 0.25, sync=u * 0.1, resolution=u * 0.05, filter=u * 0.15
        )
    facts = {
        "provenance": provenance,
        "rail": "VDD_IN",
        "covers": "module",
        "gross": s.EnergyFigure(
            value=gross,
            expanded_uncertainty=gross * relative,
            ci95=(gross * (1 - relative), gross * (1 + relative)),
            windows=[gross * (1 + rng.gauss(0, relative / 4)) for _ in range(5)],
            median=gross * 0.999,
            budget=budget,
            coverage_factor=2.1,
            degrees_of_freedom=31.0,
        ),
        "net": s.EnergyFigure(
            value=net, expanded_uncertainty=gross * relative * 0.95, ci95=(net - 0.95 * relative * gross, net)
        ),
        "rails": {"VDD_IN": gross, "VDD_CPU_GPU_CV": gross * 0.41, "VDD_SOC": gross * 0.16},
    }
    return s.Energy(**{**facts, **changes})


def latency(p50: float, *, samples: int = 21650, spread: float = 0.03, p99: float | None = None) -> s.Latency:
    rng = random.Random(f"{p50}")
    values = sorted(p50 * (1 + abs(rng.gauss(0, spread)) + (0.3 if rng.random() < 0.004 else 0)) for _ in range(2000))
    low, high = values[0], values[int(0.998 * len(values))]
    edges = [low + (high - low) * n / 40 for n in range(41)]
    counts = [sum(a <= v < b for v in values) for a, b in itertools.pairwise(edges)]
    enough = samples >= 662
    return s.Latency(
        mean=p50 * 1.02,
        std=p50 * spread,
        min=values[0],
        max=values[-1],
        samples=samples,
        outliers=samples // 900,
        p50=p50,
        p90=p50 * 1.05,
        p95=p50 * 1.08,
        p99=(p99 or p50 * 1.13) if enough else None,
        median=p50,
        p50_bound=p50 * 1.002,
        p90_bound=p50 * 1.055,
        p95_bound=p50 * 1.085,
        p99_bound=(p99 or p50 * 1.13) * 1.02 if enough else None,
        histogram=s.Histogram(edges=edges, counts=counts),
    )


def accuracy(value: float, *, samples: int = 200, drop: float | None = 0.0, p_value: float | None = None) -> s.Accuracy:
    half = 1.96 * math.sqrt(value * (1 - value) / samples)
    return s.Accuracy(
        metric="top1",
        value=value,
        ci95=(value - half, min(1.0, value + half)),
        samples=samples,
        drop=drop,
        p_value=p_value,
        dataset="cifar.npz",
        preprocessing="sha256:77aa",
    )


def variant(name: str = "baseline", gross: float = 0.01234, p50: float = 0.00231, **changes) -> s.Variant:
    """Return a variant without problems, with ``gross`` joules per inference and a median of ``p50`` seconds."""
    relative = changes.pop("relative", 0.017)
    provenance = changes.pop("provenance", "measured")
    order = changes.pop("order", [0, 5, 6, 11, 12])
    rng = random.Random(name)
    power = gross / p50
    facts = {
        "name": name,
        "recipe": [] if name == "baseline" else [{"compressor": name}],
        "status": "ok",
        "reasons": [],
        "model": s.Model(
            path=f"zoo/resnet8{'' if name == 'baseline' else '.' + name}.tflite",
            format="tflite",
            sha256="b5c0046d6e0328b4956afd6baa29555a29b1f1c65bdd45aaed75b7cd484d9f79",
            size_bytes=318144,
            size_compressed_bytes=289310,
            name="resnet8",
        ),
        "runtime": s.RuntimeUse(
            name="litert", version="2.3.0", device="cpu", threads=4, facts={"delegate": "XNNPACK"}, load_s=0.034
        ),
        "inferences": round(107.5 / p50),
        "throughput_per_s": 0.995 / p50,
        "latency_s": latency(p50),
        "energy_j_per_inference": energy(gross, relative=relative, provenance=provenance),
        "power_w": s.Power(mean=power, max=power * 1.2, idle=power * 0.43, idle_before=2.29, idle_after=2.31),
        "memory_bytes": s.Memory(peak_rss=43_200_000, loaded_rss=38_000_000, gpu_peak=None),
        "temperature_c": s.Temperature(start=45.1, max=47.8),
        "utilization": s.Utilization(cpu=0.66, gpu=None),
        "throttled": False,
        "steady": s.Steady(reached=True, inferences=410, seconds=1.0),
        "windows": [
            s.Window(
                start_s=8.0 + 24 * at,
                end_s=8.0 + 24 * at + 21.5,
                inferences=round(21.5 / p50),
                order=at,
                energy_j=gross * round(21.5 / p50) * (1 + rng.gauss(0, 0.002)),
                mean_power_w=power,
                latency_median_s=p50,
            )
            for at in order
        ],
    }
    return s.Variant(**{**facts, **changes})


def trace(variants: list[s.Variant], channel: str = "VDD_IN", idle_w: float = 2.3, noise: float = 0.06) -> s.TraceStrip:
    """Return what the rail would have shown during the windows of these variants."""
    rng = random.Random(7)
    windows = sorted((w.start_s, w.end_s, w.mean_power_w or idle_w) for v in variants for w in v.windows)
    end = max((w[1] for w in windows), default=30.0) + 6
    times = [n * end / 700 for n in range(701)]
    power: list[float | None] = []
    for t in times:
        level = next((p for a, b, p in windows if a <= t <= b), idle_w)
        power.append(round((level + rng.gauss(0, noise)) / 0.04) * 0.04)
    power[350] = None
    return s.TraceStrip(channel=channel, times_s=times, power_w=power)


def comparison(name: str, energy_ratio: float, latency_ratio: float, verdict: s.Verdict = "better", half: float = 0.02):
    return s.Comparison(
        variant=name,
        baseline="baseline",
        energy_ratio=s.Ratio(value=energy_ratio, ci95=(energy_ratio * (1 - half), energy_ratio * (1 + half))),
        latency_ratio=s.Ratio(value=latency_ratio, ci95=(latency_ratio * (1 - half), latency_ratio * (1 + half))),
        verdict=verdict,
    )


def result(variants: list[s.Variant] | None = None, **changes) -> s.Result:
    variants = [variant()] if variants is None else variants
    facts = {
        "id": ID,
        "created": CREATED,
        "edgeprof": "0.1.0",
        "host": host(),
        "sensors": [
            sensor(),
            sensor(channel="VDD_CPU_GPU_CV", scope="soc", role="part", parent="VDD_IN"),
            sensor(
                sensor="thermal",
                channel="tj",
                quantity="temperature",
                unit="°C",
                role=None,
                resolution=0.5,
                filter=None,
            ),
        ],
        "protocol": s.Protocol(
            scenario="single-stream",
            batch=1,
            threads=4,
            windows=5,
            window_s=21.5,
            warmup_s=1.0,
            idle_s=5.0,
            interleave="ABBA",
            sample_rate_hz=100,
        ),
        "variants": variants,
        "self_cost": s.SelfCost(cpu_ratio=0.006, rss_bytes=31_000_000),
        "traces": [trace(variants)],
    }
    return s.Result(**{**facts, **changes})


def one() -> s.Result:
    """One model, everything well."""
    return result([variant(accuracy=accuracy(0.855, drop=None))])


def study() -> s.Result:
    """Three variants with accuracy, compared with the baseline; one clearly best, one tied with a reason."""
    small = s.Model(path="zoo/resnet8.int8.tflite", format="tflite", sha256="3c00", size_bytes=98496, name="resnet8")
    variants = [
        variant(accuracy=accuracy(0.855), order=[0, 5, 6, 11, 12]),
        variant(
            "int8-static",
            0.00512,
            0.00098,
            relative=0.021,
            accuracy=accuracy(0.850, drop=0.005, p_value=0.56),
            model=small,
            memory_bytes=s.Memory(peak_rss=39_800_000, loaded_rss=36_000_000, gpu_peak=None),
            order=[1, 4, 7, 10, 13],
        ),
        variant(
            "prune(amount=0.5)",
            0.01231,
            0.00230,
            relative=0.018,
            accuracy=accuracy(0.849, drop=0.006, p_value=0.44),
            order=[2, 3, 8, 9, 14],
            reasons=[
                s.Reason(
                    code="no_speedup",
                    message="50 % of weights are zero but 0 % of channels; the kernels multiply zeros like any number",
                    remedy="Try prune-structured.",
                )
            ],
        ),
    ]
    return result(
        variants,
        comparisons=[
            comparison("int8-static", 0.415, 0.424),
            comparison("prune(amount=0.5)", 0.998, 0.997, "tied", half=0.012),
        ],
        pareto=["baseline", "int8-static"],
    )


def language() -> s.Result:
    """A language model: three workloads, the times of its tokens, a perplexity, and memory by kind."""
    time = s.TokenTime(mean=0.02, p50=0.02, p90=0.022, p99=0.031, samples=900)
    model = variant(
        "q8_0",
        41.0,
        3.1,
        model=s.Model(path="zoo/smol-q8_0.gguf", format="gguf", sha256="77", size_bytes=145_000_000, name="smol"),
        memory_bytes=s.Memory(
            peak_rss=310_000_000,
            loaded_rss=210_000_000,
            gpu_peak=None,
            anonymous=120_000_000,
            mapped=145_000_000,
            load_peak=320_000_000,
            kv_cache=s.KvCache(bytes=11_796_480, formula_bytes=11_796_480, source="measured"),
            compute_buffer=90_000_000,
        ),
        workloads=[
            s.Workload("request", "request", 1, 9, energy(41.0), latency(3.1), 0.32),
            s.Workload("prefill", "prompt token", 512, 9216, energy(0.02), latency(0.41), 1248.0),
            s.Workload("decode", "output token", 127, 2286, energy(0.24), latency(2.6), 49.0),
        ],
        language=s.Language(
            prompt_tokens=512,
            generated_tokens=128,
            kv_type="f16",
            architecture="llama",
            bits_per_weight=8.5,
            ttft_s=time,
            tpot_s=time,
            itl_s=time,
            closure=s.Closure(energy=s.Ratio(value=0.994, ci95=(0.971, 1.018))),
            perplexity=s.Perplexity(
                value=22.0,
                ci95=(19.0, 25.0),
                tokens=1530,
                chunk=512,
                text="wiki.txt",
                text_sha256="4f",
                tokens_sha256="5a",
            ),
        ),
    )
    return result([model], id="20261121-1512-k3g")


def degraded() -> s.Result:
    """Throttled, drifting, and too few requests for a p99."""
    hot = variant(
        status="degraded",
        throttled=True,
        reasons=[
            s.Reason(
                code="throttled",
                message="the CPU clock fell to 0.81 of its start in windows 3 to 5, at 85.5 °C",
                remedy="Cool the board, or choose a lower power mode.",
            ),
            s.Reason(
                code="idle_drift",
                message="idle power rose from 2.29 W to 2.71 W (18 %); net joules use the line between them",
                remedy="Give it time to cool: --preset rigorous.",
            ),
        ],
    )
    hot.latency_s = latency(0.0312, samples=320)
    return result([hot])


def failed() -> s.Result:
    """One variant failed with a last message, the other is complete."""
    dead = s.Variant(
        name="int4-weight",
        recipe=[{"compressor": "int4-weight"}],
        status="failed",
        reasons=[
            s.Reason(
                code="crashed",
                message="the worker died of SIGSEGV while it ran window 2",
                remedy="Its last words are below; another --runtime may run this model.",
            )
        ],
        model=s.Model(path="zoo/resnet8.int4.tflite", format="tflite", sha256="9e", size_bytes=51200, name="resnet8"),
        runtime=None,
        last_words="INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nFatal Python error: Segmentation fault\n",
    )
    return result([variant(), dead])


def estimated() -> s.Result:
    """No sensor: joules from CPU time and a stated wattage."""
    variants = [
        variant("baseline", 0.0052, 0.0031, relative=0.5, provenance="estimated"),
        variant("int8-static", 0.0021, 0.0012, relative=0.5, provenance="estimated"),
    ]
    for v in variants:
        assert v.energy_j_per_inference
        v.energy_j_per_inference.rail = None
        v.energy_j_per_inference.covers = "cpu"
        v.energy_j_per_inference.rails = {}
        v.reasons.append(
            s.Reason(
                code="estimated",
                message="no sensor measures power here; 15 W at full load is assumed",
                remedy="Say what the device draws: --estimate-power WATTS.",
            )
        )
    return result(
        variants,
        host=host(board="x86_64 PC", power_mode=None, os="Debian 12", cpu="AMD EPYC 9654", cores=4),
        sensors=[],
        traces=[],
        comparisons=[comparison("int8-static", 0.404, 0.387)],
        pareto=["int8-static"],
    )


def simulated() -> s.Result:
    """On a virtual board."""
    variants = [
        variant("mnist", 0.0009, 0.00019, provenance="simulated"),
        variant("mnist-int8", 0.0006, 0.00012, provenance="simulated", order=[1, 4, 7, 10, 13]),
    ]
    sensors = [sensor(provenance="simulated")]
    return result(variants, sensors=sensors, pareto=["mnist-int8"], comparisons=[])


def no_sensor() -> s.Result:
    """Latency only: neither a sensor nor an estimate."""
    quiet = variant(energy_j_per_inference=None, power_w=None, temperature_c=None)
    quiet.reasons.append(
        s.Reason(
            code="no_sensor",
            message="nothing measures power here",
            remedy="Run edgeprof doctor, or say what the device draws: --estimate-power WATTS.",
        )
    )
    return result([quiet], sensors=[], traces=[])


def interrupted() -> s.Result:
    """Ctrl-C after two windows of the first of two variants."""
    first = variant(order=[0, 1], status="degraded")
    first.reasons.append(s.Reason(code="interrupted", message="2 of 5 windows were measured"))
    return result([first], interrupted=True)


def uncertain() -> s.Result:
    """Joules that must not be quoted: the value is None and the reason says why."""
    weak = variant()
    assert weak.energy_j_per_inference
    weak.energy_j_per_inference.net = s.EnergyFigure(value=None, expanded_uncertainty=None, ci95=None)
    weak.reasons.append(
        s.Reason(
            code="uncertain",
            message="net energy is under 3 of its standard uncertainties: the model adds 0.02 W to 2.30 W of idle",
            remedy="Make the load heavier: --batch, or more --windows.",
        )
    )
    return result([weak])


def many(count: int = 12) -> s.Result:
    """A sweep with as many variants as a board measures overnight."""
    variants = []
    for n in range(count):
        value = 0.0123 * 0.9**n
        drop = 0.004 * n
        variants.append(
            variant(
                "baseline" if n == 0 else f"prune-structured(amount={n / 20:.2f})+int8-static",
                value,
                0.0023 * 0.92**n,
                accuracy=accuracy(0.915 - drop, samples=5000, drop=drop, p_value=0.3 if n < 5 else 0.0004),
                order=[n, 2 * count - 1 - n, 2 * count + n],
            )
        )
    return result(
        variants,
        comparisons=[comparison(v.name, 0.9**n, 0.92**n) for n, v in enumerate(variants) if n],
        pareto=[v.name for v in variants],
    )


ALL = {
    "one": one,
    "study": study,
    "degraded": degraded,
    "failed": failed,
    "estimated": estimated,
    "simulated": simulated,
    "no_sensor": no_sensor,
    "interrupted": interrupted,
    "uncertain": uncertain,
    "many": many,
}
