"""The newest benchmark of every variant: what is gained, how sure it is, and what it costs in accuracy."""

from __future__ import annotations

from edgeprof_dashboards.model import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Dashboard,
    Override,
    Panel,
    Query,
    Row,
    Variable,
    of,
)

_CHOSEN = ('model=~"$model"', 'scenario=~"$scenario"')
_KEY = "job, instance, model, runtime, scenario"
_WHO = "{{model}} {{variant}} {{runtime}} {{scenario}}"
_JOULES_WHO = f"{_WHO} ({{{{provenance}}}})"
_ONE = f"{_KEY}, variant"


def _bench(what: str, *matchers: str) -> str:
    return of(f"edgeprof_bench_{what}", *_CHOSEN, *matchers)


_ENERGY = _bench("energy_joules_per_inference", 'kind="$kind"')
_SURE = _bench("energy_uncertainty_joules", 'kind="$kind"')
_MEDIAN = _bench("latency_seconds", 'quantile="0.5"')


def _ratio(what: str, extra: str, *matchers: str) -> str:
    """To the variant that was chosen as the baseline, on the same device, model, runtime and scenario."""
    return f"{_bench(what, *matchers)} / on ({_KEY}{extra}) group_left () {_bench(what, *matchers, _BASELINE)}"


_BASELINE = 'variant="$baseline"'
_FAINT = {
    "custom.lineStyle": {"fill": "dash", "dash": [4, 4]},
    "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
    "color": {"mode": "fixed", "fixedColor": "gray"},
}
_LESS = ((None, GREEN), (1.0, YELLOW), (1.1, ORANGE))

TABLE = Row(
    "Variants",
    (
        Panel(
            "Newest result of each variant",
            "One line for each model, variant, runtime and scenario. ± is the expanded uncertainty (95 %); provenance "
            "says whether the joules were counted, measured, estimated or simulated.",
            (
                Query(f"sum by ({_ONE}, provenance) ({_ENERGY})", instant=True),
                Query(f"sum by ({_ONE}, provenance) ({_SURE})", instant=True),
                Query(f"sum by ({_ONE}) ({_MEDIAN})", instant=True),
                Query(f"sum by ({_ONE}) ({_bench('throughput_per_second')})", instant=True),
                Query(f"max by ({_ONE}) ({_bench('accuracy_ratio')})", instant=True),
                Query(f"sum by ({_ONE}) ({_bench('model_size_bytes')})", instant=True),
                Query(f"sum by ({_ONE}) ({_bench('peak_memory_bytes')})", instant=True),
            ),
            kind="table",
            width=24,
            height=10,
            columns={
                "instance": "Instance",
                "model": "Model",
                "variant": "Variant",
                "runtime": "Runtime",
                "scenario": "Scenario",
                "Value #A": "Energy",
                "Value #B": "±",
                "provenance": "Provenance",
                "Value #C": "Latency p50",
                "Value #D": "Rate",
                "Value #E": "Accuracy",
                "Value #F": "Size",
                "Value #G": "Peak memory",
            },
            column_units={
                "Energy": "joule",
                "±": "joule",
                "Latency p50": "s",
                "Rate": "ops",
                "Accuracy": "percentunit",
                "Size": "bytes",
                "Peak memory": "bytes",
            },
        ),
        Panel(
            "Accuracy against joules",
            "Each point is a variant; to the left is cheaper, above is more accurate. What has no other point to its "
            "upper left is on the Pareto front. A point's other fields are in its tooltip.",
            (
                Query(f"sum by ({_ONE}, provenance) ({_ENERGY})", instant=True),
                Query(f"max by ({_ONE}) ({_bench('accuracy_ratio')})", instant=True),
            ),
            kind="xychart",
            width=12,
            height=11,
            columns={
                "model": "Model",
                "variant": "Variant",
                "runtime": "Runtime",
                "provenance": "Provenance",
                "Value #A": "Joules per inference",
                "Value #B": "Accuracy",
            },
            column_units={"Joules per inference": "joule", "Accuracy": "percentunit"},
            points=("Value #A", "Value #B"),
        ),
        Panel(
            "Joules against latency",
            "Each point is a variant; to the lower left is better in both. Points on one line through the origin draw "
            "the same power.",
            (
                Query(f"sum by ({_ONE}) ({_MEDIAN})", instant=True),
                Query(f"sum by ({_ONE}, provenance) ({_ENERGY})", instant=True),
            ),
            kind="xychart",
            width=12,
            height=11,
            columns={
                "model": "Model",
                "variant": "Variant",
                "runtime": "Runtime",
                "provenance": "Provenance",
                "Value #A": "Latency p50",
                "Value #B": "Joules per inference",
            },
            column_units={"Joules per inference": "joule", "Latency p50": "s"},
            points=("Value #A", "Value #B"),
        ),
    ),
)

RATIOS = Row(
    "Against the baseline",
    (
        Panel(
            "Energy, as a ratio to the baseline",
            "Below 1 is cheaper. Two results that were measured at different times are compared here; for an interval "
            "from windows paired in time use edgeprof compare.",
            (Query(_ratio("energy_joules_per_inference", ", provenance", 'kind="$kind"'), _JOULES_WHO, instant=True),),
            kind="bargauge",
            unit="percentunit",
            width=8,
            bounds=(0.0, None),
            thresholds=_LESS,
        ),
        Panel(
            "Latency, as a ratio to the baseline",
            "Of the medians. Below 1 is faster.",
            (Query(_ratio("latency_seconds", "", 'quantile="0.5"'), _WHO, instant=True),),
            kind="bargauge",
            unit="percentunit",
            width=8,
            bounds=(0.0, None),
            thresholds=_LESS,
        ),
        Panel(
            "Accuracy, difference to the baseline",
            "Below 0 is less accurate. Whether a drop is more than chance is in the result file (p_value).",
            (
                Query(
                    f"{_bench('accuracy_ratio')} - on ({_KEY}, metric) group_left () "
                    f"{_bench('accuracy_ratio', _BASELINE)}",
                    f"{_WHO} {{{{metric}}}}",
                    instant=True,
                ),
            ),
            kind="bargauge",
            unit="percentunit",
            width=8,
            decimals=1,
            thresholds=((None, RED), (-0.02, ORANGE), (-0.005, GREEN)),
        ),
    ),
)

SURE = Row(
    "How sure, how old",
    (
        Panel(
            "Relative uncertainty",
            "Expanded uncertainty (95 %) over the value. Two variants that are closer than this are not told apart.",
            (Query(f"{_SURE} / ({_ENERGY} > 0)", _JOULES_WHO, instant=True),),
            kind="bargauge",
            unit="percentunit",
            width=8,
            bounds=(0.0, None),
            thresholds=((None, GREEN), (0.05, YELLOW), (0.2, RED)),
        ),
        Panel(
            "Age of the newest run",
            "Time since the newest result of each variant was created.",
            (Query(f"time() - {_bench('last_run_timestamp_seconds')}", _WHO, instant=True),),
            kind="bargauge",
            unit="dtdurations",
            width=8,
            thresholds=((None, GREEN), (14 * 86400.0, YELLOW), (60 * 86400.0, ORANGE)),
        ),
        Panel(
            "May it be quoted",
            "Whether the newest result is usable (ok or degraded), or invalid or failed. The reasons are in the "
            "result file: edgeprof history.",
            (Query(_bench("last_run_success"), _WHO),),
            kind="state-timeline",
            width=8,
            mappings={"0": ("no", RED), "1": ("yes", GREEN)},
        ),
    ),
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
            fill=0,
            line="stepAfter",
            overrides=(Override("/(upper|lower)$/", _FAINT, by_regexp=True),),
        ),
        Panel(
            "Latency",
            "Median, and an upper bound of the 99th percentile with 99 % confidence, which is missing where the run "
            "was too short to bound it.",
            (Query(_bench("latency_seconds", 'quantile=~"0.5|0.99"'), f"{_WHO} p{{{{quantile}}}}"),),
            unit="s",
            fill=0,
            line="stepAfter",
        ),
        Panel(
            "Throughput",
            "Inferences per second.",
            (Query(_bench("throughput_per_second"), _WHO),),
            unit="ops",
            width=8,
            fill=0,
            line="stepAfter",
        ),
        Panel(
            "Size of the model's file",
            "What has to be stored and sent.",
            (Query(_bench("model_size_bytes"), _WHO, instant=True),),
            kind="bargauge",
            unit="bytes",
            width=8,
            thresholds=((None, BLUE),),
        ),
        Panel(
            "Peak memory",
            "Most resident memory of the worker, runtime included.",
            (Query(_bench("peak_memory_bytes"), _WHO, instant=True),),
            kind="bargauge",
            unit="bytes",
            width=8,
            thresholds=((None, BLUE),),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="edgeprof-benchmark",
    title="edgeprof / Benchmark",
    description="Variants compared by their newest benchmark: table, Pareto scatter, ratio to a baseline, uncertainty, "
    "and how it went from run to run.",
    rows=(TABLE, RATIOS, SURE, TIME),
    variables=(
        Variable("model", "Model", f"label_values({of('edgeprof_bench_last_run_success')}, model)"),
        Variable(
            "scenario", "Scenario", f"label_values({of('edgeprof_bench_last_run_success', _CHOSEN[0])}, scenario)"
        ),
        Variable(
            "baseline",
            "Baseline",
            f"label_values({of('edgeprof_bench_last_run_success', _CHOSEN[0])}, variant)",
            multi=False,
            first="baseline",
        ),
        Variable("kind", "Energy", "gross, net", kind="custom", about="net takes off what the board draws idle"),
    ),
    span="now-30d",
    refresh="5m",
)
