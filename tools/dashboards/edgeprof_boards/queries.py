"""PromQL that is restricted to what the user of a dashboard chose, and explanations of empty answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof_dashboards.preview.panels import Query

#: Every selector of every dashboard is restricted to what the user chose (dashboard-linter: target-job-rule …).
CHOSEN = 'job=~"$job",instance=~"$instance"'


def of(metric: str, *matchers: str) -> str:
    """Select the chosen devices: ``of("up", 'x="y"')`` → ``up{job=~"$job",instance=~"$instance",x="y"}``."""
    return f"{metric}{{{','.join((CHOSEN, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """Return the rate of a counter, over the interval that Grafana derives from the scrape interval."""
    return f"rate({of(metric, *matchers)}[$__rate_interval])"


def increase(metric: str, *matchers: str) -> str:
    """Return the increase of a counter over the time that the dashboard shows."""
    return f"increase({of(metric, *matchers)}[$__range])"


#: Prefix of a metric's name → what the absence of the metric means. The first prefix that fits is used.
_ABSENCES = {
    "edgeprof_subrail": "This board measures no parts of rails.",
    "edgeprof_rail_voltage": "No sensor of this board tells volts.",
    "edgeprof_rail_current": "No sensor of this board tells amperes.",
    "edgeprof_rail": "This board measures no rail by itself.",
    "edgeprof_device_energy": "Nothing measures the whole device: see edgeprof doctor.",
    "edgeprof_device_power": "Nothing measures the whole device: see edgeprof doctor.",
    "instance:edgeprof_device": "Nothing measures these devices, or the recording rules are not loaded.",
    "instance": "Nothing to show, or the recording rules are not loaded.",
    "edgeprof_temperature": "This board has no temperature sensor.",
    "edgeprof_fan": "This board drives no fan.",
    "edgeprof_frequency": "This board tells no clocks.",
    "edgeprof_memory": "This board does not tell its memory.",
    "edgeprof_throttle": "This board does not tell what holds it back.",
    "edgeprof_inference": "No application has reported an inference (edgeprof.track).",
    "edgeprof_bench_workload": "No benchmarked model has several workloads (a request, a prefill, a stage …).",
    "edgeprof_bench_accuracy": "No stored result has an accuracy (edgeprof bench --dataset).",
    "edgeprof_bench_energy": "No stored result has joules.",
    "edgeprof_bench": "No benchmark is stored on this device (edgeprof bench).",
    "edgeprof_cpu": "This board does not tell its load.",
    "edgeprof_gpu": "This board does not tell the load of a GPU.",
    "edgeprof_sampler": "No sensor is sampled.",
    "up": "No device is scraped: see prometheus/targets.",
    "ALERTS": "No alert.",
}


def absence(queries: tuple[Query, ...]) -> str:
    """Return what the absence of a panel's first metric means."""
    match = re.search(r"\b(\w[\w:]*)\{", queries[0].expr) if queries else None
    name = match[1] if match else ""
    return next((text for start, text in _ABSENCES.items() if name.startswith(start)), "The daemon does not show it.")
