"""Many devices: the sum, the worst, and the outliers.

Everything except the state of the scrape and the results of benchmarks comes from the recording rules
(``edgeprof.rules.yml``). They give a handful of series for each device, however many it exposes, so that the dashboard
is as fast for a thousand devices as for ten. The rows of the results are collapsed; Grafana queries them when they are
opened.
"""

from __future__ import annotations

from edgeprof_boards.dashboard import Dashboard, Panel, Row, Variable
from edgeprof_boards.queries import CHOSEN
from edgeprof_boards.shapes import Value, answer, bars, coloured, stat, table
from edgeprof_boards.style import DASHED, GREEN, HEAT_LEVELS, ORANGE, RED, YELLOW
from edgeprof_dashboards.preview.panels import Override, Query

_SITE = 'site=~"$site"'


def _of(metric: str, *matchers: str) -> str:
    return f"{metric}{{{','.join((CHOSEN, _SITE, *matchers))}}}"


_POWER = _of("instance:edgeprof_device_power_watts:rate5m")
_HOT = _of("instance:edgeprof_temperature_celsius:max")
_HELD = _of("instance:edgeprof_throttle_events:increase1h")
_STALE = _of("instance:edgeprof_sampler_age_seconds:max")
_INFERENCES = _of("instance:edgeprof_inferences:rate5m")
_SPENT = _of("instance:edgeprof_inference_power_watts:rate5m")
_LIKE = _of("instance:edgeprof_device_power_deviation:mad")
_MODEL = _of("instance_model:edgeprof_inference_joules:per_inference1h")
_UP = _of("up")

#: A link to the device's dashboard: Grafana inserts the cell's text and keeps the time range.
_ITS_DASHBOARD = {
    "title": "Its own dashboard",
    "url": "/d/edgeprof-device?var-instance=${__value.raw:percentencode}&${__url_time_range}",
}

NOW = Row(
    "Now",
    (
        stat(
            "Devices up",
            "Devices whose daemon answered the last scrape.",
            f"sum ({_UP})",
            "devices",
            width=3,
            decimals=0,
            thresholds=((None, GREEN),),
            instant=True,
        ),
        stat(
            "Devices down",
            "Devices in the inventory whose daemon did not answer the last scrape.",
            f"count ({_UP}) - sum ({_UP})",
            "devices",
            width=3,
            decimals=0,
            thresholds=((None, GREEN), (1.0, RED)),
            instant=True,
        ),
        stat(
            "Power of all",
            "Sum over the devices, by how it was measured: joules of different provenance are not added.",
            f"sum by (provenance) ({_POWER})",
            "{{provenance}}",
            unit="watt",
        ),
        stat(
            "Energy of all",
            "Mean power in the time shown, times that time, of all devices together. A device that was silent for some "
            "of it counts with its mean.",
            f"sum by (provenance) (avg_over_time({_POWER}[$__range])) * $__range_s / 3600",
            "{{provenance}}",
            unit="watth",
            instant=True,
        ),
        stat(
            "Hottest device",
            "The highest temperature of any device.",
            f"topk(1, {_HOT})",
            "{{instance}}",
            unit="celsius",
            decimals=1,
            text_mode="value_and_name",
            thresholds=HEAT_LEVELS,
            instant=True,
        ),
        stat(
            "Throttled (1 h)",
            "Devices that heat, current or voltage throttled in the last hour.",
            f"count ({_HELD} > 0) or 0 * count ({_HELD})",
            "devices",
            width=3,
            decimals=0,
            thresholds=((None, GREEN), (1.0, ORANGE)),
            instant=True,
        ),
        stat(
            "Sampler stuck",
            "Devices whose daemon answers although a sensor was not read for a minute.",
            f"count ({_STALE} > 60) or 0 * count ({_STALE})",
            "devices",
            width=3,
            decimals=0,
            thresholds=((None, GREEN), (1.0, RED)),
            instant=True,
        ),
    ),
)

TOGETHER = Row(
    "All devices",
    (
        Panel(
            "Power by site",
            "Sum over the devices of each site; sites come from the inventory.",
            (Query(f"sum by (site, provenance) ({_POWER})", "{{site}} ({{provenance}})"),),
            unit="watt",
            stack=True,
        ),
        Panel(
            "Inferences per second by site",
            "Sum over the devices of each site, as reported by the applications.",
            (Query(f"sum by (site) ({_INFERENCES})", "{{site}}"),),
            unit="ops",
            stack=True,
        ),
        Panel(
            "Joules per inference of each model: cheapest, middle and dearest device",
            "The same model on many devices, over an hour each. A wide spread is worth a look at the dearest device.",
            (
                Query(f"min by (model, variant, provenance) ({_MODEL})", "{{model}} {{variant}} lowest"),
                Query(f"quantile by (model, variant, provenance) (0.5, {_MODEL})", "{{model}} {{variant}} median"),
                Query(f"max by (model, variant, provenance) ({_MODEL})", "{{model}} {{variant}} highest"),
            ),
            unit="joule",
            fill=0,
            overrides=(Override("/ (lowest|highest)$/", {"custom.lineStyle": DASHED}, by_regexp=True),),
        ),
        Panel(
            "Share of the power spent in inferences",
            "Power of the reported inferences over the power of the devices, by site.",
            (Query(f"sum by (site) ({_SPENT}) / sum by (site) ({_POWER})", "{{site}}"),),
            unit="percentunit",
            bounds=(0.0, 1.0),
            fill=0,
        ),
    ),
)

WORST = Row(
    "Worst devices and outliers",
    (
        bars(
            "Most power",
            "The ten devices that draw most.",
            f"topk(10, {_POWER})",
            "{{instance}} ({{provenance}})",
            unit="watt",
            height=9,
        ),
        bars(
            "Hottest",
            "The ten hottest devices.",
            f"topk(10, {_HOT})",
            "{{instance}}",
            unit="celsius",
            height=9,
            decimals=1,
            thresholds=HEAT_LEVELS,
        ),
        bars(
            "Not like the others",
            "How far a device's power is from the median of its board type, in standard deviations estimated from the "
            "median absolute deviation, so that outliers do not hide themselves. Beyond 5 is worth a visit.",
            f"topk(10, abs({_LIKE}))",
            "{{instance}} {{board}}",
            unit="none",
            height=9,
            decimals=1,
            thresholds=((None, GREEN), (3.5, YELLOW), (5.0, RED)),
        ),
        table(
            "Every device",
            "The last values of each. Sort by a heading; an instance's name leads to its own dashboard.",
            {
                "Instance": "instance",
                "Site": "site",
                "Answers": Value(
                    f"max by (instance, site) ({_UP})", properties=answer({"0": ("no", RED), "1": ("yes", GREEN)})
                ),
                "Power": Value(f"sum by (instance, site, provenance) ({_POWER})", "watt"),
                "Provenance": "provenance",
                "Hottest": Value(f"max by (instance, site) ({_HOT})", "celsius", coloured(HEAT_LEVELS)),
                "Throttled (1 h)": Value(
                    f"max by (instance, site) ({_HELD})", properties=coloured(((None, GREEN), (1.0, ORANGE)))
                ),
                "Oldest sample": Value(
                    f"max by (instance, site) ({_STALE})", "s", coloured(((None, GREEN), (60.0, RED)))
                ),
                "Inferences": Value(f"sum by (instance, site) ({_INFERENCES})", "ops"),
                "Series": Value(f"max by (instance, site) ({_of('scrape_samples_post_metric_relabeling')})"),
            },
            height=10,
            overrides=(Override("Instance", {"links": [_ITS_DASHBOARD]}),),
        ),
    ),
    collapsed=True,
)

#: The labels that identify one result of one device.
_ONE = "job, instance, model, runtime, scenario, variant"
_MEASURED, _NOT_MEASURED = 'provenance=~"counter|measured"', 'provenance!~"counter|measured"'
_GROSS, _MEDIAN = 'kind="gross"', 'quantile="0.5"'
#: The labels that the results of two devices must share before their joules are compared.
_ALIKE = "model, scenario, variant, batch, covers"
_CIRCUMSTANCES = "board, power_mode, runtime_version, threads, batch, covers"


def _bench(what: str, *matchers: str) -> str:
    return _of(f"edgeprof_bench_{what}", *matchers)


def _joules(*matchers: str) -> str:
    return f"sum by ({_ONE}, provenance) ({_bench('energy_joules_per_inference', _GROSS, *matchers)})"


def _to_the_lowest() -> str:
    """Return PromQL for joules relative to the lowest device with the same coverage; no value for a single device."""
    info = _bench("info", _MEASURED, 'covers!~"|unknown"')
    covered = f"({_joules(_MEASURED)} * on ({_ONE}, provenance) group_left (batch, covers) {info})"
    lowest = f"min by ({_ALIKE}) {covered} and on ({_ALIKE}) count by ({_ALIKE}) {covered} > 1"
    return f"{covered} / on ({_ALIKE}) group_left () ({lowest})"


def _results(title: str, description: str, provenance: str, **extra: str | Value) -> Panel:
    """Return a table with a row for each device and variant."""
    return table(
        title,
        description,
        {
            "Instance": "instance",
            "Board": "board",
            "Mode": "power_mode",
            "Model": "model",
            "Variant": "variant",
            "Energy": Value(_joules(provenance), "joule"),
            "±": Value(
                f"sum by ({_ONE}, provenance) ({_bench('energy_uncertainty_joules', _GROSS, provenance)})",
                "joule",
            ),
            "Provenance": "provenance",
            "Covers": "covers",
            **extra,
            "Latency p50": Value(f"sum by ({_ONE}) ({_with_joules('latency_seconds', provenance, _MEDIAN)})", "s"),
            "Rate": Value(f"sum by ({_ONE}) ({_with_joules('throughput_per_second', provenance)})", "ops"),
            "Accuracy": Value(f"max by ({_ONE}) ({_with_joules('accuracy_ratio', provenance)})", "percentunit"),
            "Scenario": "scenario",
            "Runtime": "runtime",
            "Version": "runtime_version",
            "Threads": "threads",
            "Batch": "batch",
        },
        queries=(Query(f"max by ({_ONE}, provenance, {_CIRCUMSTANCES}) ({_bench('info', provenance)})", instant=True),),
        height=10,
        overrides=(Override("Instance", {"links": [_ITS_DASHBOARD]}),),
    )


def _with_joules(what: str, provenance: str, *matchers: str) -> str:
    """Return PromQL for a figure, restricted to results whose joules have the given provenance."""
    return f"{_bench(what, *matchers)} and on ({_ONE}) {_bench('info', provenance)}"


RESULTS = Row(
    "What the fleet measured",
    (
        _results(
            "Measured joules of each device and variant",
            "The newest benchmark of each. Joules compare only where they cover the same: the ratio to the lowest "
            "is among the devices that measured the same model and variant with the same covers and batch. Sort by "
            "Covers, then by Energy. One wall meter for all devices makes them all comparable.",
            _MEASURED,
            **{"To the lowest of its kind": Value(_to_the_lowest(), "none")},
        ),
        _results(
            "Estimated, simulated and unknown joules",
            "They stand apart, since they order nothing: an estimate is a model of the device, and a virtual board is "
            "none. Latency and accuracy compare all the same where the board is real.",
            _NOT_MEASURED,
        ),
    ),
    collapsed=True,
)

WATCH = Row(
    "Monitoring itself",
    (
        Panel(
            "Oldest sample of any device",
            "The worst age of a sensor's newest sample, over the devices that answer.",
            (Query(f"max ({_STALE})", "worst"),),
            unit="s",
            width=8,
        ),
        Panel(
            "Duration of a scrape",
            "Median and slowest device.",
            (
                Query(f"quantile (0.5, {_of('scrape_duration_seconds')})", "median"),
                Query(f"max ({_of('scrape_duration_seconds')})", "slowest"),
            ),
            unit="s",
            width=8,
            fill=0,
        ),
        Panel(
            "Series of a device",
            "Median and largest. The scrape configuration refuses a device above its sample_limit.",
            (
                Query(f"quantile (0.5, {_of('scrape_samples_post_metric_relabeling')})", "median"),
                Query(f"max ({_of('scrape_samples_post_metric_relabeling')})", "most"),
            ),
            unit="short",
            width=8,
            fill=0,
        ),
    ),
    collapsed=True,
)

DASHBOARD = Dashboard(
    uid="edgeprof-fleet",
    title="edgeprof / Fleet",
    description="Many devices: the sum, the worst and the outliers. Needs the recording rules edgeprof.rules.yml.",
    rows=(NOW, TOGETHER, RESULTS, WORST, WATCH),
    is_for_one=False,
    variables=(
        Variable(
            "site",
            "Site",
            'label_values(up{job=~"$job"}, site)',
            every=".*",
            about="From the inventory; devices without one are in All",
        ),
    ),
)
