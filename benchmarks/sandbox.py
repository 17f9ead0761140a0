"""What ``--sandbox`` costs the model inside it.

The same model runs in two workers, one of them sandboxed. There is a model of a matrix product, and one that opens and
closes a file, so that it makes system calls. Each round runs short windows in order and in reverse order, and gives one
ratio of p50 and one of the CPU time of a call to the worker without a sandbox. Where there is no sensor, edgeprof's
joules are the CPU time times a constant power, so their ratio is that of the CPU times. A second worker without a
sandbox is the null control. The layout of a process's memory makes it some percent faster or slower for as long as it
lives, so each of many sessions starts new workers and counts as one value: the median of its rounds.
Target: 0.98 to 1.02 for the matrix product, in both quantities.
"""

from __future__ import annotations

import contextlib
import inspect
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from paired import about, machine, median_interval, parser, ratio_text, table, write

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker import sandbox
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof_plugins.runtimes.python import Python

TARGET = (0.98, 1.02)
PROGRAM = """
import numpy as np
a = np.random.default_rng(0).random((192, 192), dtype=np.float32)
def product():
    return a @ a
def files():
    with open("/dev/null", "rb") as file:
        file.read(1)
"""
QUANTITIES = ("p50", "CPU time")
CONDITIONS = {"not confined": False, "null control": False, "confined": True}


def cpu_s(pid: int) -> float:
    """The CPU time of a process with one thread (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure(target: str, sessions: int, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Return quantity → condition → the ratios to the worker without a sandbox, one for each session."""
    ratios: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in CONDITIONS} for kind in QUANTITIES}
    for number in range(sessions):
        compared = session(target, number, rounds, seconds)
        for kind in QUANTITIES:
            for name in CONDITIONS:
                ratios[kind][name].append(statistics.median(compared[kind][name]))
        print(f"  {target.rpartition(':')[2]}, session {number + 1} of {sessions}", file=sys.stderr)
    return ratios


def session(target: str, number: int, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Start a worker for each condition and compare them: quantity → condition → a ratio for each round."""
    ratios: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in CONDITIONS} for kind in QUANTITIES}
    options = LoadOptions("cpu", 1, 1, {}, {})
    spec = WorkerSpec(Path(inspect.getfile(Python)), Python.__name__, target, options)
    names = list(CONDITIONS)
    names = names[number % len(names) :] + names[: number % len(names)]
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            with sandbox.asked_for(CONDITIONS[name]):
                workers[name] = stack.enter_context(Worker(spec))
                workers[name].load()
            workers[name].warm_up(0.1, 1.0)
        for _ in range(rounds):
            latencies: dict[str, list[Any]] = {name: [] for name in names}
            spent_s = dict.fromkeys(names, 0.0)
            for name in names + names[::-1]:
                before_s = cpu_s(workers[name].pid)
                latencies[name].append(np.asarray(workers[name].window(Scenario(), seconds).latencies))
                spent_s[name] += cpu_s(workers[name].pid) - before_s
            calls = {name: np.concatenate(blocks) for name, blocks in latencies.items()}
            p50 = {name: float(np.median(calls[name])) for name in names}
            each_s = {name: spent_s[name] / len(calls[name]) for name in names}
            for kind, values in zip(QUANTITIES, (p50, each_s), strict=True):
                for name in names:
                    ratios[kind][name].append(values[name] / values["not confined"])
            names = names[1:] + names[:1]
    return ratios


def main() -> int:
    arguments = parser(__doc__).parse_args()
    reason = sandbox.why_not()
    if reason is not None:
        print(f"this machine cannot confine a process: {reason}")
        return 0
    sessions, rounds, seconds = (1, 2, 0.1) if arguments.smoke else (24, 6, 0.05)
    facts = machine()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "models.py"
        program.write_text(PROGRAM)
        for name in ("product", "files"):
            results[name] = measure(f"{program}:{name}", sessions, rounds, seconds)
    rows = [
        [name, worker, *(ratio_text(found[kind][worker]) for kind in found)]
        for name, found in results.items()
        for worker in CONDITIONS
    ]
    print(about(facts))
    print(table(["model", "worker", "p50 against the one that is not confined", "joules (CPU time) of a call"], rows))
    write(arguments.json, {**facts, "results": results})
    missed = False
    for kind in QUANTITIES:
        middle, low, high = median_interval(results["product"][kind]["confined"])
        print(f"target {TARGET[0]} to {TARGET[1]} for the {kind}: {middle:.4f} ({low:.4f} to {high:.4f})")
        missed |= low > TARGET[1] or high < TARGET[0]
    return 1 if missed and not arguments.smoke else 0


if __name__ == "__main__":
    sys.exit(main())
