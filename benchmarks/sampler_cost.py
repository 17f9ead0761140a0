"""What sampling costs: CPU share and missed deadlines at 10, 100 and 1000 Hz, compared with a bare pread thread.

The sampler reads nine files on its own core, or shares one core with a program that never sleeps. Every round runs all
cases once, each time in another order, and two more for comparison: the process without a sampler (null control), and a
thread that only preads the nine files at the same random deadlines and keeps their numbers. ``filter 0.43 s`` is the
default rate for a sensor with such a filter (25 Hz). Targets: at most 1.2 × the bare thread at 100 Hz and 1 kHz; at
most 0.2 % of a core for the sensor with the filter.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any

from ninefiles import nine_files, sensor
from paired import about, machine, median_interval, parser, ratio_text, table, write

from edgeprof.sensing.lane import prepare_thread
from edgeprof.sensing.sampler import Sampler

if TYPE_CHECKING:
    from pathlib import Path

CPU = max(os.sched_getaffinity(0))
CASES = [(rate, shared) for rate in (10.0, 25.0, 100.0, 1000.0) for shared in (False, True)]
BARE = [25.0, 100.0, 1000.0]
TARGET, FILTER_TARGET = 1.2, 0.002
_SPIN = "import os\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"


def one(directory: Path, rate: float | None, shared: bool, seconds: float) -> dict[str, float]:
    """Return the CPU shares of process and sampling threads (1 is a core), missed deadlines and lateness (s)."""
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
    return {
        "process": cpu / wall,
        "threads": sampler.cost().cpu_ratio or 0.0,
        "missed": stats.missed / (stats.samples + stats.missed),
    }


def verdict(values: list[float], target: float) -> str:
    """Return whether the interval of the median lies within the target, as text."""
    _, low, high = median_interval(values)
    return "met" if high <= target else "missed" if low > target else "open"


def bare(directory: Path, rate: float, seconds: float) -> dict[str, float]:
    """Return the CPU share of a thread that preads the files at random deadlines and keeps their numbers."""
    files = [os.open(path, os.O_RDONLY) for path in sorted(directory.iterdir())]
    kept, spent = array("d"), [0.0]

    def read() -> None:
        prepare_thread(CPU)
        begin, number, last = time.monotonic(), 0, time.thread_time()
        while (left := begin + (number + random.random()) / rate - time.monotonic()) > -1 and number < rate * seconds:
            if left > 0:
                time.sleep(left)
            for file in files:
                kept.append(int(os.pread(file, 64, 0)) * 1e-3)
            kept.append(time.monotonic())
            number += 1
        spent[0] = time.thread_time() - last

    thread = threading.Thread(target=read)
    wall = time.monotonic()
    thread.start()
    thread.join()
    wall = time.monotonic() - wall
    for file in files:
        os.close(file)
    return {"threads": spent[0] / wall}


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
    beside: dict[float, list[float]] = {rate: [] for rate in BARE}
    with nine_files() as directory:
        for number in range(rounds):
            turn = number % len(cases)
            for case in cases[turn:] + cases[:turn]:
                found[case].append(one(directory, *case, seconds))
            for rate in BARE[number % 3 :] + BARE[: number % 3]:
                beside[rate].append(bare(directory, rate, seconds)["threads"])
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    rows = []
    for (rate, shared), runs in found.items():
        share = [run["process"] for run in runs]
        median, low, high = median_interval(share)
        row = [f"{rate:g} Hz" if rate else "no sampler", "shared with a busy program" if shared else "its own"]
        row.append(f"{100 * median:.2f} % ({100 * low:.2f}–{100 * high:.2f})")
        if rate is None:
            row += ["–", "–"]
        else:
            row.append(f"{100 * statistics.median(run['threads'] for run in runs):.2f} %")
            row.append(f"{100 * statistics.median(run['missed'] for run in runs):.2f} %")
        ratios = [] if shared or rate not in beside else [
            run["threads"] / other for run, other in zip(runs, beside[rate], strict=True)
        ]  # fmt: skip
        row.append(f"{ratio_text(ratios)} {verdict(ratios, TARGET) if rate != 25 else ''}".strip() if ratios else "")
        rows.append(row)
    behind = [run["threads"] for run in found[25.0, False]]
    print(f"{about(facts)}; {rounds} rounds of {seconds:g} s; nine files; median (95 % interval)\n")
    head = ["rate", "core", "process CPU", "sampling threads", "missed", "beside a bare thread"]
    print(table(head, rows))
    for rate, shares in beside.items():
        print(f"a bare pread thread at {rate:g} Hz: {100 * statistics.median(shares):.2f} %")
    print(f"behind a filter of 0.43 s (25 Hz): ≤ {100 * FILTER_TARGET:g} % of a core: {verdict(behind, FILTER_TARGET)}")
    kept: list[dict[str, Any]] = [{"rate_hz": r, "shared": s, "runs": runs} for (r, s), runs in found.items()]
    write(options.json, {"benchmark": "sampler_cost", "machine": facts, "results": kept})


if __name__ == "__main__":
    main()
