"""The newest benchmark of every variant: what a variant saves, how certain that is, and what it costs in accuracy."""

from __future__ import annotations

from edgeprof_boards.dashboard import Dashboard, Panel, Row, Variable
from edgeprof_boards.queries import of
from edgeprof_boards.shapes import Value, answer, bars, scatter, states, table
from edgeprof_boards.style import DASHED, GREEN, ORANGE, RED, YELLOW
from edgeprof_dashboards.preview.panels import Override, Query

_CHOSEN = ('model=~"$model"', 'scenario=~"$scenario"')
#: The labels that two results must share to be compared.
_PLACE = "job, instance, scenario"
_KEY = "job, instance, model, runtime, scenario"
_WHO = "{{model}} {{variant}} {{runtime}} {{scenario}}"
_JOULES_WHO = f"{_WHO} ({{{{provenance}}}})"
_ONE = f"{_KEY}, variant"


def _bench_metric(what: str, *matchers: str) -> str:
    return of(f"edgeprof_bench_{what}", *_CHOSEN, *matchers)


_ENERGY = _bench_metric("energy_joules_per_inference", 'kind="$kind"')
_SURE = _bench_metric("energy_uncertainty_joules", 'kind="$kind"')
_MEDIAN = _bench_metric("latency_seconds", 'quantile="0.5"')


def _ratio_to_baseline(what: str, extra: str, *matchers: str) -> str:
    """Return PromQL for a figure relative to the chosen baseline file, on the same device and in the same scenario."""
    return f"{_bench_metric(what, *matchers)} / on ({_PLACE}{extra}) group_left () {_baseline_figure(what, *matchers)}"


def _baseline_figure(what: str, *matchers: str) -> str:
    """Return PromQL for the baseline's figure; the baseline may be of another model or runtime than the others."""
    return of(f"edgeprof_bench_{what}", 'scenario=~"$scenario"', *matchers, *_BASELINE)


#: What a file needs for the comparison with it; the figures of language models are those of their workloads.
_COMPARABLE = "edgeprof_bench_latency_seconds"
_BASELINE = ('model="$baseline_model"', 'variant="$baseline"', 'runtime="$baseline_runtime"')
_FAINT = {
    "custom.lineStyle": DASHED,
    "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
    "color": {"mode": "fixed", "fixedColor": "gray"},
}
_LESS = ((None, GREEN), (1.0, YELLOW), (1.1, ORANGE))

_QUOTED = {"0": ("no", RED), "1": ("yes", GREEN)}
#: An axis from 0, so that half the distance means half the cost.
_FROM_ZERO = {"min": 0}
_ENERGY_COLUMN = Value(f"sum by ({_ONE}, provenance) ({_ENERGY})", "joule", _FROM_ZERO)
_SURE_COLUMN = Value(f"sum by ({_ONE}, provenance) ({_SURE})", "joule")
_LATENCY_COLUMN = Value(f"sum by ({_ONE}) ({_MEDIAN})", "s", _FROM_ZERO)
_ACCURACY_COLUMN = Value(f"max by ({_ONE}) ({_bench_metric('accuracy_ratio')})", "percentunit")
_POINT: dict[str, str | Value] = {
    "Model": "model",
    "Variant": "variant",
    "Runtime": "runtime",
    "Provenance": "provenance",
}

TABLE = Row(
    "Variants",
    (
        table(
            "Newest result of each variant",
            "One line for each model, variant, runtime and scenario. ± is the expanded uncertainty (95 %); provenance "
            "says whether the joules were counted, measured, estimated or simulated.",
            {
                "Instance": "instance",
                "Model": "model",
                "Variant": "variant",
                "Runtime": "runtime",
                "Scenario": "scenario",
                "Energy": _ENERGY_COLUMN,
                "±": _SURE_COLUMN,
                "Provenance": "provenance",
                "Latency p50": _LATENCY_COLUMN,
                "Rate": Value(f"sum by ({_ONE}) ({_bench_metric('throughput_per_second')})", "ops"),
                "Accuracy": _ACCURACY_COLUMN,
                "Size": Value(f"sum by ({_ONE}) ({_bench_metric('model_size_bytes')})", "bytes"),
                "Peak memory": Value(f"sum by ({_ONE}) ({_bench_metric('peak_memory_bytes')})", "bytes"),
                "May be quoted": Value(
                    f"min by ({_ONE}) ({_bench_metric('last_run_success')})", properties=answer(_QUOTED)
                ),
            },
            height=10,
        ),
        scatter(
            "Accuracy against joules",
            "Each point is a variant; to the left is cheaper, above is more accurate. What has no other point to its "
            "upper left is on the Pareto front. A point's other fields, the uncertainty too, are in its tooltip.",
            "Joules per inference",
            "Accuracy",
            {**_POINT, "Joules per inference": _ENERGY_COLUMN, "±": _SURE_COLUMN, "Accuracy": _ACCURACY_COLUMN},
            width=12,
            height=11,
        ),
        scatter(
            "Joules against latency",
            "Each point is a variant; to the lower left is better in both. Points on one line through the origin draw "
            "the same power.",
            "Latency p50",
            "Joules per inference",
            {**_POINT, "Latency p50": _LATENCY_COLUMN, "Joules per inference": _ENERGY_COLUMN, "±": _SURE_COLUMN},
            width=12,
            height=11,
        ),
    ),
)

_EACH = f"{_ONE}, workload, unit"
_WORKLOAD_ENERGY = _bench_metric("workload_energy_joules_per_unit", 'kind="$kind"')
WORKLOADS = Row(
    "Workloads",
    (
        table(
            "Each workload of each variant",
            "One line for each workload of a model that has several: a request, its prefill and its decode, or the "
            "stages of a pipeline. Energy and rate are per unit of the workload; the latency is the median of a call.",
            {
                "Instance": "instance",
                "Model": "model",
                "Variant": "variant",
                "Runtime": "runtime",
                "Scenario": "scenario",
                "Workload": "workload",
                "Unit": "unit",
                "Energy": Value(
                    f"sum by ({_EACH}, provenance) ({_WORKLOAD_ENERGY})",
                    "joule",
                ),
                "Provenance": "provenance",
                "Latency p50": Value(f"sum by ({_EACH}) ({_bench_metric('workload_latency_seconds')})", "s"),
                "Rate": Value(f"sum by ({_EACH}) ({_bench_metric('workload_units_per_second')})", "ops"),
            },
        ),
    ),
    collapsed=True,
)


def _token_energy(phase: str) -> Value:
    joules = _bench_metric("energy_joules_per_token", f'phase="{phase}"', 'kind="$kind"')
    return Value(f"sum by ({_ONE}) ({joules})", "joule")


def _token_rate(phase: str) -> Value:
    rate = _bench_metric("tokens_per_second", f'phase="{phase}"')
    return Value(f"sum by ({_ONE}) ({rate})", "short")


def _memory(kind: str) -> Value:
    size = _bench_metric("memory_bytes", f'kind="{kind}"')
    return Value(f"sum by ({_ONE}) ({size})", "bytes")


_FIRST_TOKEN = _bench_metric("time_to_first_token_seconds", 'quantile="0.5"')
#: Restricts a query to language models: the metric in question exists for every kind of variant.
_OF_LANGUAGE = f"and on ({_ONE}) {_bench_metric('language_info')}"

LANGUAGE = Row(
    "Language models",
    (
        table(
            "Joules per token, speed and memory",
            "One line for each language model. A prompt token is read (prefill), an output token is generated "
            "(decode). Unmapped memory is what the kernel cannot drop; the KV cache is a part of it. Perplexity says "
            "how well a text is foreseen: less is better. What a model with random weights says means nothing.",
            {
                "Instance": "instance",
                "Model": "model",
                "Variant": "variant",
                "Runtime": "runtime",
                "Prompt": "prompt",
                "Depth": "depth",
                "Batch": "batch",
                "Random weights": "random_weights",
                "J / prompt token": _token_energy("prefill"),
                "J / output token": _token_energy("decode"),
                "Prompt tokens / s": _token_rate("prefill"),
                "Output tokens / s": _token_rate("decode"),
                "First token": Value(f"sum by ({_ONE}) ({_FIRST_TOKEN})", "s"),
                "Unmapped": Value(f"{_memory('anonymous').expr} {_OF_LANGUAGE}", "bytes"),
                "KV cache": _memory("kv_cache"),
                "Perplexity": Value(f"max by ({_ONE}) ({_bench_metric('perplexity')})", "short"),
                "Measured": Value(
                    f"max by ({_ONE}, prompt, depth, batch, random_weights) ({_bench_metric('language_info')})", "short"
                ),
            },
            height=8,
        ),
        bars(
            "Joules per output token",
            "Of the decode alone, the reading of the prompt left out.",
            _bench_metric("energy_joules_per_token", 'phase="decode"', 'kind="$kind"'),
            _JOULES_WHO,
            unit="joule",
        ),
        bars(
            "Joules per prompt token",
            "Of the prefill alone.",
            _bench_metric("energy_joules_per_token", 'phase="prefill"', 'kind="$kind"'),
            _JOULES_WHO,
            unit="joule",
        ),
        bars(
            "Output tokens per second",
            "Of the decode alone, for all requests at once together.",
            _bench_metric("tokens_per_second", 'phase="decode"'),
            _WHO,
            unit="short",
        ),
    ),
    collapsed=True,
)

RATIOS = Row(
    "Against the baseline",
    (
        bars(
            "Energy, as a ratio to the baseline",
            "Below 1 is cheaper. Any two files are compared: each of the chosen models with the baseline, on the same "
            "device and in the same scenario. They were measured at different times; for an interval from windows "
            "paired in time use edgeprof compare.",
            _ratio_to_baseline("energy_joules_per_inference", ", provenance", 'kind="$kind"'),
            _JOULES_WHO,
            unit="percentunit",
            bounds=(0.0, None),
            thresholds=_LESS,
        ),
        bars(
            "Latency, as a ratio to the baseline",
            "Of the medians. Below 1 is faster.",
            _ratio_to_baseline("latency_seconds", "", 'quantile="0.5"'),
            _WHO,
            unit="percentunit",
            bounds=(0.0, None),
            thresholds=_LESS,
        ),
        bars(
            "Accuracy, difference to the baseline",
            "Below 0 is less accurate. Whether a drop is more than chance is in the result file (p_value).",
            f"{_bench_metric('accuracy_ratio')}"
            f" - on ({_PLACE}, metric) group_left () {_baseline_figure('accuracy_ratio')}",
            f"{_WHO} {{{{metric}}}}",
            unit="percentunit",
            decimals=1,
            thresholds=((None, RED), (-0.02, ORANGE), (-0.005, GREEN)),
        ),
    ),
)

SURE = Row(
    "Uncertainty and age",
    (
        bars(
            "Relative uncertainty",
            "Expanded uncertainty (95 %) over the value. Two variants that are closer than this are not told apart.",
            f"{_SURE} / ({_ENERGY} > 0)",
            _JOULES_WHO,
            unit="percentunit",
            bounds=(0.0, None),
            thresholds=((None, GREEN), (0.05, YELLOW), (0.2, RED)),
        ),
        bars(
            "Age of the newest run",
            "Time since the newest result of each variant was created.",
            f"time() - {_bench_metric('last_run_timestamp_seconds')}",
            _WHO,
            unit="dtdurations",
            thresholds=((None, GREEN), (14 * 86400.0, YELLOW), (60 * 86400.0, ORANGE)),
        ),
        states(
            "May it be quoted",
            "Whether the newest result is usable (ok or degraded), or invalid or failed. The reasons are in the "
            "result file: edgeprof history.",
            _bench_metric("last_run_success"),
            _WHO,
            mappings=_QUOTED,
        ),
    ),
    collapsed=True,
)

TIME = Row(
    "From run to run",
    (
        Panel(
            "Joules per inference, with uncertainty",
            "The newest result at each time, and the two ends of its 95 % interval.",
            (
                Query(_ENERGY, _JOULES_WHO),
                Query(f"{_ENERGY} + {_SURE}", f"{_JOULES_WHO} upper"),
                Query(f"{_ENERGY} - {_SURE}", f"{_JOULES_WHO} lower"),
            ),
            unit="joule",
            height=10,
            fill=0,
            line="stepAfter",
            overrides=(Override("/(upper|lower)$/", _FAINT, by_regexp=True),),
        ),
        Panel(
            "Latency",
            "The median and the 99th percentile of the requests; the latter is missing where there were fewer "
            "than 100.",
            (Query(_bench_metric("latency_seconds", 'quantile=~"0.5|0.99"'), f"{_WHO} p{{{{quantile}}}}"),),
            unit="s",
            height=10,
            fill=0,
            line="stepAfter",
            overrides=(Override("/ p0.99$/", {"custom.lineStyle": DASHED}, by_regexp=True),),
        ),
        Panel(
            "Throughput",
            "Inferences per second.",
            (Query(_bench_metric("throughput_per_second"), _WHO),),
            unit="ops",
            width=8,
            fill=0,
            line="stepAfter",
        ),
        bars(
            "Size of the model's file",
            "What has to be stored and sent.",
            _bench_metric("model_size_bytes"),
            _WHO,
            unit="bytes",
        ),
        bars(
            "Peak memory",
            "Most resident memory of the worker, runtime included.",
            _bench_metric("peak_memory_bytes"),
            _WHO,
            unit="bytes",
        ),
    ),
    collapsed=True,
)

DASHBOARD = Dashboard(
    uid="edgeprof-benchmark",
    title="edgeprof / Benchmark",
    description="Variants compared by their newest benchmark: table, Pareto scatter, workloads, ratio to a baseline, "
    "uncertainty, and how it went from run to run.",
    rows=(TABLE, RATIOS, WORKLOADS, LANGUAGE, SURE, TIME),
    variables=(
        Variable("model", "Model", f"label_values({of('edgeprof_bench_last_run_success')}, model)"),
        Variable(
            "scenario", "Scenario", f"label_values({of('edgeprof_bench_last_run_success', _CHOSEN[0])}, scenario)"
        ),
        Variable(
            "baseline_model",
            "Compare with model",
            f"label_values({of(_COMPARABLE)}, model)",
            multi=False,
            about="the file that the others are compared with",
        ),
        Variable(
            "baseline",
            "its variant",
            f"label_values({of(_COMPARABLE, _BASELINE[0])}, variant)",
            multi=False,
            first="baseline",
        ),
        Variable(
            "baseline_runtime",
            "its runtime",
            f"label_values({of(_COMPARABLE, *_BASELINE[:2])}, runtime)",
            multi=False,
        ),
        Variable("kind", "Energy", "gross, net", kind="custom", about="net takes off what the board draws idle"),
    ),
    span="now-30d",
    shows="edgeprof_bench_last_run_success",
    refresh="5m",
)
