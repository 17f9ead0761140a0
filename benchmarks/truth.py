"""Coverage of known truths: bias and coverage of gross and net joules and of ratios, by sensor, load and protocol.

Models of real sensors, whose gain, offset and clock are drawn within the limits of their data sheets, measure a load
whose energy is known exactly. They are read with jitter, lost deadlines and stalls, and edgeprof's analysis computes
figures from the readings. No real time passes, and no other part of edgeprof is called.

`--before FILE` shows another run's numbers (its `--json`) beside these. `--groups` and `--only` choose conditions.
The truth is the energy that really flowed in the windows. Where inferences vary by nature, an interval is meant for the
expected value of the process and not for these windows: *process* is the coverage of that value, where it is known.
"""

# ruff: noqa: SLF001, ARG005 - parts that are not judged here are replaced, to save time
from __future__ import annotations

import json
import math
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from paired import about, machine, parser, table, write
from scipy.stats import t as student
from truth_conditions import GROUPS
from truth_plant import Bench, Played, Power, play, read_times
from truth_sensors import Ina3221

from edgeprof.benchmark.plan import pause_s, settle_s
from edgeprof.energy import figures, filters, idle, quote, uncertainty
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.sag import sag_of
from edgeprof.sensing.reader import read_interval
from edgeprof.sensing.trace import Series, deduplicate
from edgeprof.verdicts import compare

NOTHING = Power(np.arange(2.0), np.zeros(1), np.zeros(1, int))
FIGURES = ("gross", "net", "ratio")
SMOKE = ("orin 5.10 burst100", "ina238 inf700")


def use_fast_quantile() -> None:
    """Use scipy's quantile of Student's t to save time; it agrees with edgeprof's own to nine digits."""
    for nu in (1.0, 2.0, 3.7, 9.0, 41.3, 1e4):
        assert abs(uncertainty.t_quantile(0.975, nu) / student.ppf(0.975, nu) - 1) < 1e-9
    fast = lru_cache(4096)(lambda p, nu: float(student.ppf(p, nu)) if math.isfinite(nu) else 1.959963984540054)
    uncertainty.t_quantile = fast
    quote._rail_energies = lambda *given: {}  # not judged here
    quote.highest_power = lambda *given: None
    idle_of, known = idle.measure_idle, {}

    def measure_idle(headline, span):
        """Measure each idle only once, because both variants of a run share it."""
        key = (tuple(id(series.values) for series in headline), span)
        if key not in known:
            if len(known) > 8:
                known.clear()
            known[key] = (idle_of(headline, span), headline)
        return known[key][0]

    idle.measure_idle = measure_idle


def sampled(sensors, powers, rng) -> list[ChannelSeries]:
    """Return what the sampler's trace would contain for each sensor."""
    series = []
    for sensor, power in zip(sensors, powers, strict=True):
        sensor.draw(rng)
        period = read_interval(sensor.channel)
        times, values = sensor.series(power, read_times(rng, power.end, period), rng)
        kept = deduplicate(Series(times.tolist(), values.tolist()), sensor.channel, period)
        sag = sag_of(*sensor.seen) if isinstance(sensor, Ina3221) else None
        series.append(ChannelSeries(sensor.channel, np.asarray(kept.times), np.asarray(kept.values), sag))
    return series


def analysed(series: list[ChannelSeries], played: Played) -> list[figures.Measured]:
    """Return edgeprof's figures for each variant."""
    series, _, reasons = filters.fit_filters(series, filters.rests(played.busy, played.power.end, 0.3))
    measured = [
        quote.measure_spans(series, [], windows, played.idles, covers="module", rail="it", busy=played.busy)
        for windows in played.windows
    ]
    measured[0].reasons.extend(reasons)
    return measured


def evidence(figure) -> tuple[float, float, bool] | None:
    """Return value, expanded uncertainty, and whether it is quoted; a withheld figure still has its evidence."""
    if not figure.windows or figure.expanded_uncertainty is None:
        return None
    value = figure.value if figure.value is not None else float(np.mean(figure.windows))
    return value, figure.expanded_uncertainty, figure.value is not None


def run(make, bench: Bench, rng) -> dict[str, list[tuple]]:
    """Run one bench; return for each figure (relative error, holds, relative U, quoted, holds the process's mean)."""
    channels = [sensor.channel for sensor in make(rng, NOTHING)[0]]
    played = play(bench, rng, settle_s(channels), pause_s(channels))
    sensors, powers = make(rng, played.power)
    measured = analysed(sampled(sensors, powers, rng), played)
    idle_w = np.mean([np.diff(played.power.energy(span[1:3]))[0] / span.seconds for span in played.idles])
    rows: dict[str, list[tuple]] = {name: [] for name in (*FIGURES, "reasons")}
    gross = []
    for variant, (result, windows) in enumerate(zip(measured, played.windows, strict=True)):
        rows["reasons"] += [reason.code for reason in result.reasons]
        joules = [float(np.diff(played.power.energy(w[1:3]))[0]) / w.count for w in windows]
        seconds = [w.seconds / w.count for w in windows]
        gross.append(np.mean(joules))
        truths = (gross[-1], np.mean(joules) - idle_w * np.mean(seconds))
        process = bench.process_joules(variant)
        expected = (process, process - bench.idle_w * bench.process_seconds(variant))
        for name, figure, truth, mean in zip(
            FIGURES, (result.energy.gross, result.energy.net), truths, expected, strict=False
        ):
            told = evidence(figure)
            if told is not None:
                value, u, quoted = told
                holds_process = abs(value - mean) <= u if bench.has_process_mean else None
                rows[name].append((value / truth - 1, abs(value - truth) <= u, u / truth, quoted, holds_process))
            if figure.value is None and figure.windows:
                figure.value = float(np.mean(figure.windows))  # so that a ratio can be computed from a withheld figure
    if len(measured) == 2:
        a, b = (m.energy.gross for m in measured)
        pairs = [(y, x) for x, y in zip(a.windows, b.windows, strict=True) if x > 0 and y > 0]
        ratio = compare._paired_ratio(pairs, compare._uncancelled_uncertainties(b, a))
        truth = gross[1] / gross[0]
        if ratio is not None:
            low, high = ratio.ci95
            process = bench.process_joules(1) / bench.process_joules(0)
            holds_process = low <= process <= high if bench.has_process_mean else None
            rows["ratio"].append(
                (ratio.value / truth - 1, low <= truth <= high, (high - low) / 2 / truth, True, holds_process)
            )
    return rows


def condition(name: str, group: str, runs: int, seed: int) -> dict[str, Any]:
    """Run a condition ``runs`` times and summarize; the same seed gives the same result on every machine."""
    use_fast_quantile() if uncertainty.t_quantile.__module__ == uncertainty.__name__ else None
    make, bench = next((make, bench) for n, make, bench in GROUPS[group]() if n == name)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows: dict[str, list] = {n: [] for n in (*FIGURES, "reasons")}
    begin = time.perf_counter()
    for _ in range(runs):
        drawn = bench
        if bench.idle_range_w:
            scale = rng.uniform(0.6, 1.4)
            drawn = replace(
                bench, idle_w=rng.uniform(*bench.idle_range_w), scales=tuple(scale * s for s in bench.scales)
            )
        for figure, found in run(make, drawn, rng).items():
            rows[figure] += found
    reasons = rows.pop("reasons")
    summary = {figure: summed(found) for figure, found in rows.items() if found}
    counts = {code: reasons.count(code) for code in sorted(set(reasons))}
    return {
        "name": name, "group": group, "runs": runs, "reasons": counts, "seconds": time.perf_counter() - begin,
        **summary,
    }  # fmt: skip


def summed(rows: list[tuple]) -> dict[str, float | None]:
    """Return the bias, its standard error, the half-width of an ideal interval, and the stated one (all relative)."""
    errors = np.array([row[0] for row in rows])
    process = [row[4] for row in rows if row[4] is not None]
    return {
        "n": len(rows),
        "bias": float(errors.mean()),
        "sem": float(errors.std(ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else None,
        "ideal": float(np.quantile(np.abs(errors), 0.95)),
        "u": float(np.median([row[2] for row in rows])),
        "cover": float(np.mean([row[1] for row in rows])),
        "process": float(np.mean(process)) if process else None,
        "quoted": float(np.mean([row[3] for row in rows])),
    }


def cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    share = f"{100 * figure['cover']:.0f}"
    if figure["process"] is not None:
        share += f" ({100 * figure['process']:.0f})"
    return f"{100 * figure['bias']:+.2f} / {100 * figure['ideal']:.2f} / {100 * figure['u']:.2f} · {share}"


def shown(results: list[dict[str, Any]], before: dict[str, dict[str, Any]]) -> str:
    """Return the table; with another run, each cell shows the other run's value before this one's."""
    head = ["condition", *(f"{f}{when}" for f in FIGURES for when in ((" before", " now") if before else ("",)))]
    rows = []
    for result in results:
        row = [result["name"]]
        for figure in FIGURES:
            if before:
                row.append(cell(before.get(result["name"], {}).get(figure)))
            row.append(cell(result.get(figure)))
        rows.append(row)
    return table(head, rows)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--runs", type=int, help="runs of each condition (default 200; 6 with --smoke)")
    command.add_argument("--seed", type=int, default=7)
    command.add_argument("--groups", default="", help=f"of {', '.join(GROUPS)}; separated by commas (default all)")
    command.add_argument("--only", default="", help="conditions whose name contains this")
    command.add_argument("--before", type=Path, help="an earlier run's --json, shown beside this one")
    command.add_argument("--jobs", type=int, default=2)
    flags = command.parse_args()
    runs = flags.runs or (6 if flags.smoke else 200)
    groups = [g for g in flags.groups.split(",") if g] or (["preset"] if flags.smoke else list(GROUPS))
    tasks = [(name, group) for group in groups for name, _, _ in GROUPS[group]() if flags.only in name]
    if flags.smoke:
        tasks = [task for task in tasks if task[0].startswith("quick") and task[0].endswith(SMOKE)]
    facts, before = machine(), {}
    if flags.before:
        before = {r["name"]: r for r in json.loads(flags.before.read_text(encoding="utf-8"))["results"]}
    with ProcessPoolExecutor(flags.jobs) as pool:
        results = []
        for result in pool.map(condition, *zip(*tasks, strict=True), [runs] * len(tasks), [flags.seed] * len(tasks)):
            results.append(result)
            print(f"  {len(results)} of {len(tasks)}: {result['name']}", file=sys.stderr)
    print(f"{runs} runs a condition; {about(facts)}\n")
    print("Each cell: bias / what an ideal interval would state / what is stated, %, · coverage (of the process), %\n")
    print(shown(results, before))
    write(flags.json, {"machine": facts, "runs": runs, "seed": flags.seed, "results": results})


if __name__ == "__main__":
    main()
