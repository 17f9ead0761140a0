"""How much edgeprof's sampling slows the model that it watches.

A workload runs in its own process while this process samples nine files at 100 Hz, at 1 kHz, at 1 kHz from one CPU, or
not at all. A second run without sampling is the null control, which shows the machine's own noise. Each round plays the
conditions in order and in reverse order, so that drift cancels, and gives one ratio of p50 and one of p99 to the run
without sampling. Targets at 100 Hz: p50 within 0.995–1.005, p99 within 0.98–1.02.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from load import Load
from ninefiles import nine_files, sensor
from paired import about, machine, median_interval, parser, ratio_text, table, write

from edgeprof.sensing.sampler import Sampler

if TYPE_CHECKING:
    from pathlib import Path

#: Name → (rate in Hz or None, CPU to stay on or None).
LAST_CPU = max(os.sched_getaffinity(0))
CONDITIONS: dict[str, tuple[float | None, int | None]] = {
    "bare loop": (None, None),
    "null control": (None, None),
    "100 Hz": (100.0, None),
    "1 kHz": (1000.0, None),
    f"1 kHz on CPU {LAST_CPU}": (1000.0, LAST_CPU),
}
TARGETS = {"p50": (0.995, 1.005), "p99": (0.98, 1.02)}


def one_block(load: Load, directory: Path, condition: str, seconds: float) -> tuple[list[float], float]:
    """Run a block; return its latencies (s) and the sampler's CPU share during it."""
    rate, cpu = CONDITIONS[condition]
    if rate is None:
        return load.run(seconds), 0.0
    with Sampler([sensor(directory)], rate, cpu=cpu) as sampler:
        latencies = load.run(seconds)
    return latencies, sampler.cost().cpu_ratio or 0.0


def measure(target_s: float, rounds: int, seconds: float, directory: Path) -> dict[str, Any]:
    names = list(CONDITIONS)
    ratios: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": []} for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    bare: dict[str, list[float]] = {"p50": [], "p99": []}
    with Load(target_s) as load:
        load.run(2 * seconds)  # warm
        for number in range(rounds):
            # Each round begins with another condition, because the ones at the turning point run twice in succession.
            order = names[number % len(names) :] + names[: number % len(names)]
            blocks: dict[str, list[float]] = {name: [] for name in names}
            for name in order + order[::-1]:
                latencies, cost = one_block(load, directory, name, seconds)
                blocks[name] += latencies
                costs[name].append(cost)
            figures = {
                n: dict(zip(("p50", "p99"), np.quantile(b, [0.5, 0.99]), strict=True)) for n, b in blocks.items()
            }
            for name in names:
                for figure in ("p50", "p99"):
                    ratios[name][figure].append(float(figures[name][figure] / figures["bare loop"][figure]))
            for figure in ("p50", "p99"):
                bare[figure].append(float(figures["bare loop"][figure]))
            print(f"  {target_s * 1e3:g} ms model, round {number + 1} of {rounds}", file=sys.stderr)
        return {"model": load.model, "target_s": target_s, "bare_s": bare, "ratios": ratios, "cpu_ratio": costs}


def verdict(figure: str, values: list[float]) -> str:
    low, high = TARGETS[figure]
    median, least, most = median_interval(values)
    if low <= least and most <= high:
        return "met"
    if most < low or least > high:
        return "missed"
    return "open: " + ("the interval is wider than the target" if low <= median <= high else "median outside")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, help="rounds per model (default 20)")
    arguments.add_argument("--block", type=float, help="seconds per block (default 1, for the 10 ms model 3)")
    options = arguments.parse_args()
    rounds = options.rounds or (2 if options.smoke else 20)
    facts = machine()
    results = []
    with nine_files() as directory:
        for target_s, usual in ((1e-3, 1.0), (1e-2, 3.0)):
            seconds = options.block or (0.2 if options.smoke else usual)
            results.append(measure(target_s, rounds, seconds, directory))
    print(f"{about(facts)}; {rounds} rounds; median of paired ratios to the bare loop (95 % interval)\n")
    rows = []
    for result in results:
        for name in list(CONDITIONS)[1:]:
            ratios, costs = result["ratios"][name], result["cpu_ratio"][name]
            bare = [f"{np.median(result['bare_s'][f]) * 1e3:.2f}" for f in ("p50", "p99")]
            marks = [verdict(f, ratios[f]) for f in ("p50", "p99")] if name == "100 Hz" else ["", ""]
            rows.append(
                [f"{bare[0]} / {bare[1]} ms", name]
                + [ratio_text(ratios[f]) + (f" {m}" if m else "") for f, m in zip(("p50", "p99"), marks, strict=True)]
                + [f"{100 * float(np.median(costs)):.2f} %" if CONDITIONS[name][0] else "–"]
            )
    print(table(["bare p50 / p99", "sampling 9 files", "p50 ratio", "p99 ratio", "sampler's CPU"], rows))
    write(options.json, {"benchmark": "perturbation", "machine": facts, "rounds": rounds, "results": results})


if __name__ == "__main__":
    main()
