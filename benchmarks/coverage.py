"""Coverage: how often the 95 % interval of the joules per inference contains the truth, by windows and kind of sensor.

Each trial simulates a run: K windows of steady work between idles, whose mean power varies from window to window, read
by a sensor whose gain and offset are drawn once within their stated limits (rectangular). The share of trials whose
interval contains the true energy should be 95 % or a little more, because the interval always includes the whole limits
of the sensor (type B), even when the drawn errors are small.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from paired import about, machine, parser, table, write

from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.quote import measure_spans
from edgeprof.energy.uncertainty import t_quantile
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import WINDOW, Span, idle_span

GAIN, OFFSET, STEP, TAU = 0.0125, 0.02, 0.04, 0.43
IDLE, BUSY = 3.0, 8.0
CHANNEL = Channel("ina3221", "VDD_IN", "power", gain_limit=GAIN, offset_limit=OFFSET, resolution=STEP)
CASES = {
    "instantaneous": CHANNEL,
    "exponential, τ 0.43 s": replace(
        CHANNEL, filter=Filter("exponential", tau_s=TAU), update_interval_s=840e-6
    ),
    "counter": Channel(
        "rapl", "package-0", "energy", kind="counter", provenance="counter", gain_limit=GAIN, resolution=61e-6,
        update_interval_s=1e-3,
    ),
}  # fmt: skip


def trial(channel: Channel, windows: int, spread: float, rng) -> tuple[bool, bool, float]:
    """Return whether the gross and the net interval contain the truth, and the relative width of the gross one."""
    length, idle_s, pause = 1.0, 2.0, 0.2
    powers = BUSY * (1 + spread * rng.normal(size=windows))
    spans, segments, at = [], [(2.0 + idle_s, IDLE)], 2.0 + idle_s
    for power in powers:
        spans.append(Span(WINDOW, at, at + length, 50))
        segments += [(at + length, float(power)), (at + length + pause, IDLE)]
        at += length + pause
    segments.append((at + 2.5 + idle_s, IDLE))
    times = np.arange(0.5, at + 2.4 + idle_s, 0.01) + rng.uniform(0, 0.01)
    times = np.sort(times + rng.normal(0, 2e-4, times.size))
    gain, offset = 1 + rng.uniform(-GAIN, GAIN), rng.uniform(-OFFSET, OFFSET)
    fine = np.arange(0, at + 2.6 + idle_s, 1e-3)
    power = np.array([p for _, p in segments])[np.searchsorted([end for end, _ in segments[:-1]], fine, side="right")]
    if channel.kind == "counter":
        joules = np.concatenate(([0.0], np.cumsum(power[:-1]) * 1e-3)) * gain
        values = np.floor(np.interp(np.floor(times / 1e-3) * 1e-3, fine, joules) / 61e-6) * 61e-6
    else:
        if channel.filter.kind == "exponential":
            power = filtered(power, 1e-3, TAU)
        exact = power[np.minimum(np.round(times / 1e-3).astype(int), power.size - 1)] * gain + offset
        values = np.round((exact + rng.normal(0, 0.02, times.size)) / STEP) * STEP
    idles = [idle_span(2.0, 2.0 + idle_s), idle_span(at + 2.2, at + 2.2 + idle_s)]
    energy = measure_spans([ChannelSeries(channel, times, values)], [], spans, idles, covers=None, rail="it").energy
    gross, net = BUSY * length / 50, (BUSY - IDLE) * length / 50
    assert energy.gross.ci95 is not None
    low, high = energy.gross.ci95
    holds_net = energy.net.ci95 is not None and energy.net.ci95[0] <= net <= energy.net.ci95[1]
    return low <= gross <= high, holds_net, (high - low) / 2 / gross


def filtered(power: np.ndarray, step: float, tau: float) -> np.ndarray:
    keep = math.exp(-step / tau)
    out, value = np.empty_like(power), power[0]
    for i, x in enumerate(power):
        value = x + (value - x) * keep
        out[i] = value
    return out


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--trials", type=int, help="per cell (default 1000; 20 with --smoke)")
    command.add_argument("--seed", type=int, default=1)
    flags = command.parse_args()
    trials = flags.trials or (20 if flags.smoke else 1000)
    rng, facts = np.random.default_rng(flags.seed), machine()
    results: list[dict[str, Any]] = []
    for name, channel in CASES.items():
        for windows in (3, 5, 10):
            for spread in (0.0, 0.02):
                found = [trial(channel, windows, spread, rng) for _ in range(trials)]
                gross, net, width = (sum(column) / trials for column in zip(*found, strict=True))
                results.append(
                    {"sensor": name, "windows": windows, "spread": spread, "gross": gross, "net": net, "u": width}
                )
    half = t_quantile(0.975, math.inf) * math.sqrt(0.95 * 0.05 / trials)
    print(f"{trials} trials a cell, each share ± {half:.1%}; {about(facts)}\n")
    head = ["sensor", "windows", "spread of windows", "gross interval holds the truth", "net", "mean U/E"]
    rows = [
        [
            r["sensor"],
            str(r["windows"]),
            *(f"{r[k]:.{d}%}" for k, d in zip(("spread", "gross", "net", "u"), "0112", strict=True)),
        ]
        for r in results
    ]
    print(table(head, rows))
    write(flags.json, {"machine": facts, "trials": trials, "results": results})


if __name__ == "__main__":
    main()
