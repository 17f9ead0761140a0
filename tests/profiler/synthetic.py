"""Synthetic runs with a known result: idle, K windows of work, idle, as a sensor would have read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprof.energy.integrate import ChannelSeries
from edgeprof.results import schema
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import WINDOW, Span, idle_span

RAIL = Channel("ina3221", "VDD_IN", "power", role="total", gain_limit=0.01, offset_limit=0.02, resolution=0.04)


@dataclass
class Run:
    """A synthetic run; times are in seconds from 0, powers in watts."""

    series: ChannelSeries
    windows: list[Span]
    idles: list[Span]


def run(
    *,
    busy: float = 8.0,
    idle: float = 3.0,
    windows: int = 5,
    window_s: float = 2.0,
    idle_s: float = 3.0,
    inferences: int = 100,
    channel: Channel = RAIL,
    noise: float = 0.02,
    spread: float = 0.0,
    idle_after: float | None = None,
    seed: int = 0,
) -> Run:
    """Return a run of evenly spaced windows; ``spread`` is the relative standard deviation of their mean power."""
    rng = np.random.default_rng(seed)
    t = np.arange(0, 2 * idle_s + windows * (window_s + 0.5) + 2, 0.01)
    t = t + rng.uniform(0, 0.002, t.size)
    end_of_work = 0.5 + idle_s + windows * (window_s + 0.5)
    last = idle if idle_after is None else idle_after
    power = np.where(t < end_of_work, idle, last)
    spans = []
    for k in range(windows):
        start = 0.5 + idle_s + 0.5 + k * (window_s + 0.5)
        power[(t >= start) & (t <= start + window_s)] = busy * (1 + spread * rng.normal())
        spans.append(Span(WINDOW, start, start + window_s, inferences))
    values = power + rng.normal(0, noise, t.size)
    if channel.resolution and channel.quantity == "power":
        values = np.round(values / channel.resolution) * channel.resolution
    idles = [idle_span(0.2, 0.2 + idle_s), idle_span(end_of_work + 0.2, end_of_work + 0.2 + idle_s)]
    return Run(ChannelSeries(channel, t, values), spans, idles)


def counter(made: Run, **changes: object) -> ChannelSeries:
    """Return the same run as an energy counter would have shown it."""
    t, v = np.asarray(made.series.times), np.asarray(made.series.values)
    channel = Channel("rapl", "package-0", "energy", kind="counter", provenance="counter", update_interval_s=0.001)
    joules = np.concatenate(([0.0], np.cumsum(np.diff(t) * (v[1:] + v[:-1]) / 2)))
    return ChannelSeries(replace(channel, **changes), t, 50 + joules)


def exponential(tau: float) -> Channel:
    return replace(RAIL, filter=Filter("exponential", tau_s=tau), update_interval_s=0.00084)


def variant(
    name: str,
    joules: list[float] | None = None,
    latencies: list[float] | None = None,
    *,
    accuracy: tuple[float, int] | None = None,
    provenance: str = "measured",
    rail: str | None = "VDD_IN",
    status: str = "ok",
    budget: schema.Budget | None = None,
) -> schema.Variant:
    """Return a measured variant with these joules and median latencies of its windows (one inference each)."""
    from edgeprof.energy.figures import make_figure
    from edgeprof.evaluation.metric import wilson

    count = max(len(joules or []), len(latencies or []))
    made = schema.Variant(
        name=name,
        recipe=[],
        status=status,
        reasons=[],
        model=schema.Model(path="m.onnx", format="onnx", sha256=None, size_bytes=None),
        runtime=None,
        windows=[
            schema.Window(
                start_s=k,
                end_s=k + 1,
                inferences=1,
                order=k,
                energy_j=joules[k] if joules else None,
                latency_median_s=latencies[k] if latencies else None,
            )
            for k in range(count)
        ],
    )
    if joules:
        gross = make_figure(joules, []).figure
        if budget is not None:
            gross.budget = budget
        unknown = schema.EnergyFigure(value=None, expanded_uncertainty=None, ci95=None)
        made.energy_j_per_inference = schema.Energy(
            provenance=provenance, rail=rail, covers="module", gross=gross, net=unknown
        )
    if accuracy is not None:
        value, samples = accuracy
        made.accuracy = schema.Accuracy(
            metric="top1", value=value, ci95=wilson(round(value * samples), samples), samples=samples
        )
    return made
