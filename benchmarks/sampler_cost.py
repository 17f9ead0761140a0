"""What sampling costs: CPU share, lateness and missed deadlines at 10, 100 and 1000 Hz.

The sampler reads nine files on a core of its own, or shares one core with a program that never sleeps. Every round
plays all cases once, in another order, and an idle one beside them: the process with no sampler at all (null control).
Target: at most 1 % of a core at 100 Hz.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ninefiles import nine_files, sensor
from paired import about, machine, median_interval, parser, table, write

from edgeprof.sensing.sampler import Sampler

if TYPE_CHECKING:
    from pathlib import Path

CPU = max(os.sched_getaffinity(0))
CASES = [(rate, shared) for rate in (10.0, 100.0, 1000.0) for shared in (False, True)]
TARGET = 0.01
_SPIN = "import os\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"


def one(directory: Path, rate: float | None, shared: bool, seconds: float) -> dict[str, float]:
    """The process's and the sampling threads' CPU share (1 is a core), deadlines missed and lateness (s)."""
    hog = None
    if shared:
        hog = subprocess.Popen([sys.executable, "-c", _SPIN % CPU], stdout=subprocess.PIPE)
        assert hog.stdout is not None
        hog.stdout.readline()
    try:
        sampler = Sampler([sensor(directory)] if rate else [], rate or 1.0, cpu=CPU)
        with sampler:
            cpu, wall = time.process_time(), time.monotonic()
            time.sleep(seconds)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    finally:
        if hog is not None:
            hog.kill()
            hog.wait()
            hog.stdout.close()
    if rate is None:
        return {"process": cpu / wall, "threads": 0.0}
    stats = sampler.stats()[0]
    gaps = [b - a for a, b in pairwise(sampler.trace.series(stats.key).times)]
    late = sorted(abs(gap - 1 / rate) for gap in gaps)
    return {
        "process": cpu / wall,
        "threads": sampler.cost().cpu_ratio or 0.0,
        "missed": stats.missed / (stats.samples + stats.missed),
        "jitter_p50_s": late[len(late) // 2],
        "jitter_p99_s": late[int(0.99 * (len(late) - 1))],
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, help="rounds (default 10)")
    arguments.add_argument("--seconds", type=float, help="seconds per case and round (default 3)")
    options = arguments.parse_args()
    rounds = options.rounds or (1 if options.smoke else 10)
    seconds = options.seconds or (0.4 if options.smoke else 3.0)
    facts = machine()
    cases: list[tuple[float | None, bool]] = [(None, False), *CASES]
    found: dict[tuple[float | None, bool], list[dict[str, float]]] = {case: [] for case in cases}
    with nine_files() as directory:
        for number in range(rounds):
            turn = number % len(cases)
            for case in cases[turn:] + cases[:turn]:
                found[case].append(one(directory, *case, seconds))
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    rows = []
    for (rate, shared), runs in found.items():
        share = [run["process"] for run in runs]
        median, low, high = median_interval(share)
        row = [f"{rate:g} Hz" if rate else "no sampler", "shared with a busy program" if shared else "its own"]
        row.append(f"{100 * median:.2f} % ({100 * low:.2f}–{100 * high:.2f})")
        if rate is None:
            row += ["–", "–", "–", "–"]
        else:
            row.append(f"{100 * statistics.median(run['threads'] for run in runs):.2f} %")
            row.append(f"{100 * statistics.median(run['missed'] for run in runs):.2f} %")
            row.append(
                " / ".join(f"{1e6 * statistics.median(r[f'jitter_{p}_s'] for r in runs):.0f}" for p in ("p50", "p99"))
            )
            row.append(("met" if high <= TARGET else "missed" if low > TARGET else "open") if rate == 100 else "")
        rows.append(row)
    print(f"{about(facts)}; {rounds} rounds of {seconds:g} s; nine files; median (95 % interval)\n")
    head = ["rate", "core", "process CPU", "sampling threads", "missed", "jitter p50 / p99 µs", "≤ 1 % at 100 Hz"]
    print(table(head, rows))
    kept: list[dict[str, Any]] = [{"rate_hz": r, "shared": s, "runs": runs} for (r, s), runs in found.items()]
    write(options.json, {"benchmark": "sampler_cost", "machine": facts, "results": kept})


if __name__ == "__main__":
    main()
