"""Every metric that edgeprof exposes: its name, type, labels and help, in one table.

The exposition, the textfile, the pushes, docs/exporter.md and the name lint read this table, so that they cannot
disagree. Names of docs' contract are stable; base units only, and no label that belongs to the scrape configuration.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MetricType = Literal["counter", "gauge", "histogram", "info", "summary"]


class Name(NamedTuple):
    """One metric family.

    Attributes:
        name: As it is exposed; a counter's ends in ``_total``, an info's in ``_info``.
        kind: Its type.
        labels: In the order in which values are given.
        text: The HELP line.
        collector: What ``?collect[]=`` calls the group that it belongs to.
    """

    name: str
    kind: MetricType
    labels: tuple[str, ...]
    text: str
    collector: str

    @property
    def family(self) -> str:
        """The name that prometheus-client wants: without the suffix that it adds itself."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.name.removesuffix(suffix) if suffix else self.name


_RAIL = ("rail", "source", "provenance")
_INFERENCE = ("model", "variant", "runtime")
_STAGE = (*_INFERENCE, "stage")
_BENCH = ("model", "variant", "runtime", "scenario")
_WORKLOAD = ("workload", "unit")
_OWN = "edgeprof's own thread samples and integrates between scrapes, since a gauge would miss every burst."

#: The collectors in the order of the exposition, with what each holds.
COLLECTORS = {
    "power": "rails and the whole device: joules, watts, volts, amperes",
    "device": "temperatures, loads, clocks, memory, fans, throttling, and what the device is",
    "inference": "inferences that applications report, with the joules attributed to them",
    "bench": "the newest stored result of each model, variant, runtime and scenario",
    "sampler": "how well the sensors are sampled",
    "process": "this daemon itself: process_*, Python's version, what was received on its sockets",
}

TABLE: tuple[Name, ...] = (
    Name("edgeprof_rail_energy_joules_total", "counter", _RAIL, f"Energy of a rail. {_OWN}", "power"),
    Name("edgeprof_rail_power_watts", "gauge", _RAIL, "Power of a rail at its last reading.", "power"),
    Name("edgeprof_rail_voltage_volts", "gauge", ("rail", "source"), "Voltage of a rail at its last reading.", "power"),
    Name(
        "edgeprof_rail_current_amperes", "gauge", ("rail", "source"), "Current of a rail at its last reading.", "power"
    ),
    Name(
        "edgeprof_device_energy_joules_total",
        "counter",
        ("source", "provenance"),
        f"Energy of the whole board, or of as much of it as is measured (edgeprof_device_info, covers). {_OWN}",
        "power",
    ),
    Name(
        "edgeprof_device_power_watts",
        "gauge",
        ("source", "provenance"),
        "Power of what edgeprof_device_energy_joules_total counts, at the last reading.",
        "power",
    ),
    Name(
        "edgeprof_subrail_energy_joules_total",
        "counter",
        ("rail", "parent", "source", "provenance"),
        "Energy of a part of a rail that is exposed itself; never to be added to it.",
        "power",
    ),
    Name(
        "edgeprof_subrail_power_watts",
        "gauge",
        ("rail", "parent", "source", "provenance"),
        "Power of a part of a rail that is exposed itself; never to be added to it.",
        "power",
    ),
    Name("edgeprof_temperature_celsius", "gauge", ("sensor",), "Temperature.", "device"),
    Name("edgeprof_gpu_utilization_ratio", "gauge", ("gpu",), "Load of a GPU, 0 to 1.", "device"),
    Name("edgeprof_cpu_utilization_ratio", "gauge", (), "Load of all CPUs together, 0 to 1.", "device"),
    Name("edgeprof_memory_used_bytes", "gauge", ("pool",), "Memory in use; the GPU of a Jetson shares ram.", "device"),
    Name("edgeprof_memory_total_bytes", "gauge", ("pool",), "Memory that there is.", "device"),
    Name("edgeprof_frequency_hertz", "gauge", ("clock",), "Clock of a CPU group, a GPU or the memory.", "device"),
    Name("edgeprof_fan_speed_ratio", "gauge", ("fan",), "Drive of a fan, 0 to 1.", "device"),
    Name(
        "edgeprof_throttle_events_total",
        "counter",
        ("cause",),
        "Times that the device was held back since this daemon began (or its state file).",
        "device",
    ),
    Name("edgeprof_throttled", "gauge", ("cause",), "1 while this cause holds the device back, else 0.", "device"),
    Name(
        "edgeprof_device_info",
        "info",
        ("board", "model", "arch", "kernel", "covers", "rail"),
        "What the device is, and what its device_energy covers.",
        "device",
    ),
    Name("edgeprof_power_mode_info", "info", ("mode", "governor"), "The power mode and the CPU governors.", "device"),
    Name("edgeprof_inferences_total", "counter", _INFERENCE, "Inferences that applications reported.", "inference"),
    Name(
        "edgeprof_inference_energy_joules_total",
        "counter",
        (*_INFERENCE, "provenance"),
        "Energy of the whole device while these inferences ran; at each moment shared equally among those that ran.",
        "inference",
    ),
    Name(
        "edgeprof_inference_duration_seconds",
        "histogram",
        _INFERENCE,
        "How long an inference took; those of a batch each as long as the batch.",
        "inference",
    ),
    Name(
        "edgeprof_inferences_without_energy_total",
        "counter",
        _INFERENCE,
        "Inferences whose energy is not known in full: no sensor, a gap, reported too late, too many.",
        "inference",
    ),
    Name("edgeprof_stages_total", "counter", _STAGE, "Calls of stages that applications marked.", "inference"),
    Name(
        "edgeprof_stage_energy_joules_total",
        "counter",
        (*_STAGE, "provenance"),
        "Energy of the whole device while these stages ran, by regression of its readings on when each of them ran.",
        "inference",
    ),
    Name(
        "edgeprof_stage_seconds_total", "counter", _STAGE, "Seconds of these stages, inner ones included.", "inference"
    ),
    Name(
        "edgeprof_stages_with_energy_total",
        "counter",
        _STAGE,
        "Calls of stages whose energy is known: joules over these are the joules of a call.",
        "inference",
    ),
    Name(
        "edgeprof_stages_without_energy_total",
        "counter",
        _STAGE,
        "Calls of stages whose energy stayed unknown for ten minutes: not separable from others, or no sensor.",
        "inference",
    ),
    Name(
        "edgeprof_bench_info",
        "info",
        (*_BENCH, "board", "power_mode", "runtime_version", "threads", "batch", "provenance", "covers"),
        "How the newest benchmark was measured, and what its joules cover; joules of different covers do not compare.",
        "bench",
    ),
    Name(
        "edgeprof_bench_energy_joules_per_inference",
        "gauge",
        (*_BENCH, "provenance", "kind"),
        "Joules per inference of the newest benchmark, gross or net of idle.",
        "bench",
    ),
    Name(
        "edgeprof_bench_energy_uncertainty_joules",
        "gauge",
        (*_BENCH, "provenance", "kind"),
        "Expanded uncertainty (95 %) of edgeprof_bench_energy_joules_per_inference.",
        "bench",
    ),
    Name(
        "edgeprof_bench_latency_seconds",
        "summary",
        (*_BENCH, "quantile"),
        "Latency of the newest benchmark: the quantiles of its requests.",
        "bench",
    ),
    Name("edgeprof_bench_throughput_per_second", "gauge", _BENCH, "Inferences per second.", "bench"),
    Name(
        "edgeprof_bench_workload_energy_joules_per_unit",
        "gauge",
        (*_BENCH, *_WORKLOAD, "provenance", "kind"),
        "Joules per unit of each workload, where a model has several: a request, an output token, a stage.",
        "bench",
    ),
    Name(
        "edgeprof_bench_workload_latency_seconds",
        "gauge",
        (*_BENCH, *_WORKLOAD),
        "Median latency of one call of each workload, where a model has several.",
        "bench",
    ),
    Name(
        "edgeprof_bench_workload_units_per_second",
        "gauge",
        (*_BENCH, *_WORKLOAD),
        "Units per second of each workload, where a model has several.",
        "bench",
    ),
    Name(
        "edgeprof_bench_energy_joules_per_token",
        "gauge",
        (*_BENCH, "phase", "provenance", "kind"),
        "Joules per token of a language model: of a prompt (phase prefill) or of its answer (decode).",
        "bench",
    ),
    Name(
        "edgeprof_bench_tokens_per_second",
        "gauge",
        (*_BENCH, "phase"),
        "Tokens per second of a language model while it reads a prompt (phase prefill) or answers (decode).",
        "bench",
    ),
    Name(
        "edgeprof_bench_time_to_first_token_seconds",
        "summary",
        (*_BENCH, "quantile"),
        "From the beginning of a language model's request to its first token.",
        "bench",
    ),
    Name(
        "edgeprof_bench_memory_bytes",
        "gauge",
        (*_BENCH, "kind"),
        "Memory of the worker by kind: anonymous, mapped, load_peak, and of a language model kv_cache and "
        "compute_buffer, which are parts of the others.",
        "bench",
    ),
    Name(
        "edgeprof_bench_language_info",
        "info",
        (*_BENCH, "architecture", "kv_type", "prompt", "generate", "depth", "batch", "random_weights"),
        "What a language model is and was asked for; with random_weights true its answers mean nothing.",
        "bench",
    ),
    Name(
        "edgeprof_bench_perplexity",
        "gauge",
        (*_BENCH, "text"),
        "Perplexity of a language model on a text; less is better, and texts do not compare.",
        "bench",
    ),
    Name(
        "edgeprof_bench_accuracy_ratio",
        "gauge",
        (*_BENCH, "metric"),
        "Accuracy of the newest benchmark, where its metric is a ratio.",
        "bench",
    ),
    Name("edgeprof_bench_model_size_bytes", "gauge", _BENCH, "Size of the model's file.", "bench"),
    Name("edgeprof_bench_peak_memory_bytes", "gauge", _BENCH, "Most resident memory of the worker.", "bench"),
    Name(
        "edgeprof_bench_last_run_timestamp_seconds", "gauge", _BENCH, "When the newest benchmark was created.", "bench"
    ),
    Name(
        "edgeprof_bench_last_run_success",
        "gauge",
        _BENCH,
        "1 if the newest benchmark may be quoted (ok or degraded), 0 if it is invalid or failed.",
        "bench",
    ),
    Name("edgeprof_build_info", "info", ("version", "python"), "This edgeprof.", "process"),
    Name("edgeprof_scrape_collector_success", "gauge", ("collector",), "1 if this collector succeeded.", ""),
    Name("edgeprof_scrape_collector_duration_seconds", "gauge", ("collector",), "How long this collector took.", ""),
    Name("edgeprof_sampler_samples_total", "counter", ("sensor",), "Readings that succeeded.", "sampler"),
    Name(
        "edgeprof_sampler_missed_total",
        "counter",
        ("sensor",),
        "Readings that were due and are missing: late, failed, or impossible.",
        "sampler",
    ),
    Name(
        "edgeprof_sampler_gap_seconds_total",
        "counter",
        ("sensor",),
        "Time without power readings that was too long to be bridged and is in no energy counter; of the worst rail.",
        "sampler",
    ),
    Name(
        "edgeprof_sampler_last_sample_timestamp_seconds",
        "gauge",
        ("sensor",),
        "When this sensor was last read successfully.",
        "sampler",
    ),
    Name(
        "edgeprof_sampler_up", "gauge", ("sensor",), "1 while this sensor is being read, 0 once it is lost.", "sampler"
    ),
    Name(
        "edgeprof_track_messages_total",
        "counter",
        ("outcome",),
        "Datagrams on the track socket: accepted, malformed, or over the limit of series (counted under other).",
        "process",
    ),
    Name("edgeprof_config_last_reload_success", "gauge", (), "1 if the last reload was taken over.", "process"),
)

BY_NAME = {name.name: name for name in TABLE}
