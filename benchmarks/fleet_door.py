"""What a fleet costs a device while it measures, and what it costs a desk that asks many devices at once.

Device: one benchmark over a real SSH connection to this machine. The door has replaced itself by the benchmark, so the
fleet adds only the SSH server's processes of that connection. Their memory (PSS), CPU time and context switches during
the benchmark are measured. Targets: 5 MB, 0.01 % of a core.

Desk: ``status`` of N devices compared with N times a bare ``ssh true``, all at once, interleaved; each round gives one
ratio. Desk while it waits: CPU time and context switches per second of the thread that waits for a board. Between
commands, no process of a fleet runs at the desk either.

Empty jobs: a job that the board has already measured is requested repeatedly. Each request needs a connection, the
door, the files' hashes, the result and its check. The number of such requests in a minute is the most jobs that the
fleet itself allows.

All N devices are this one machine. "answers at once" is a device whose door costs nothing, as if it had its own
processors; it shows what the desk itself costs; target 1.5. "real doors" adds N starts of Python on the desk's cores.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import shlex
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from paired import about, machine, median_interval, parser, ratio_text, table, write

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import models
from tests.profiler.fleet.boards import Boards
from tests.profiler.fleet.sshd import SSHD, serve

from edgeprof import __version__
from edgeprof.fleet import framing, task
from edgeprof.fleet.engine import Threads
from edgeprof.fleet.inventory import Device
from edgeprof.fleet.link import OPTIONS

BOARD = Device("board", "board", ssh="board")
PSS_TARGET, CPU_TARGET, RATIO_TARGET = 5e6, 1e-4, 1.5


def make_lab(folder: Path, stack: contextlib.ExitStack) -> Path:
    """Set up three destinations on one SSH server: a board, one that answers at once, and one that runs ``true``."""
    boards = Boards(folder / "boards")
    boards.add("board", "jetson-orin-nano", stack)
    described = {
        "board": "b",
        "machine": None,
        "power_mode": None,
        "time_s": 0.0,
        "allow_code": False,
        "simulated": True,
    }
    state = {"measuring": None, "running": None, "temperature_c": None, "free_bytes": None, "jobs": []}
    answer = json.dumps({"protocol": framing.VERSION, "edgeprof": __version__, **described, **state}).encode()
    (folder / "answer").write_bytes(struct.pack(">I", len(answer)) + answer)
    for name, text in (("canned", f"cat {shlex.quote(str(folder / 'answer'))}"), ("bare", "true")):
        (folder / "boards" / name).mkdir()
        script = folder / "boards" / name / "door.sh"
        script.write_text(f"#!/bin/sh\nexec {text}\n")
        script.chmod(0o755)
    place = folder / "sshd"
    place.mkdir()
    names = ["board", "canned", "bare"]
    return stack.enter_context(serve(place, boards, "MaxSessions 100", "MaxStartups 200", names=names))


# --- the device -------------------------------------------------------------------------------------------------------


def device_cost(folder: Path, seconds: float) -> dict[str, float]:
    """Measure memory, CPU share and context switches per second of the SSH server's processes during a measurement."""
    model = models.onnx_affine(folder / "affine.onnx")
    flags = {"windows": ["2"], "window": [f"{seconds:g}"], "idle": ["0.2"], "warmup": ["0.1"]}
    job = task.Job.of([str(model)], flags)
    cost: dict[str, float] = {}
    watcher = threading.Thread(target=lambda: cost.update(_watch(folder, seconds)))
    watcher.start()
    task.measure(BOARD, job, task.Watch())
    watcher.join()
    cost["jobs_per_minute"] = _empty_jobs(job, seconds)
    return cost


def _empty_jobs(job: task.Job, seconds: float) -> float:
    """Return how many jobs per minute are answered if the board has already measured them."""
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        assert task.measure(BOARD, job, task.Watch()).was_there
        done += 1
    return 60 * done / (time.monotonic() - began)


def _watch(folder: Path, seconds: float) -> dict[str, float]:
    running = folder / "boards/board/data/door/running.json"
    while not running.exists():
        time.sleep(0.01)
    bench = psutil.Process(json.loads(running.read_text())["pid"])
    while "bench" not in bench.cmdline():  # until the door has replaced itself by the benchmark
        time.sleep(0.01)
    time.sleep(1.0)  # after that, the connection is quiet
    session = [parent for parent in bench.parents() if parent.name().startswith("sshd")][:-1]  # not the listener
    desk = psutil.Process()
    before, began = [(_cpu_s(process), _switches(process)) for process in [*session, desk]], time.monotonic()
    memory = sum(process.memory_full_info().pss for process in session)
    time.sleep(seconds)
    length = time.monotonic() - began
    after = [(_cpu_s(process), _switches(process)) for process in [*session, desk]]
    *pairs, (desk_before, desk_after) = zip(before, after, strict=True)
    return {
        "processes": float(len(session)),
        "pss_bytes": float(memory),
        "cpu_share": sum(new[0] - old[0] for old, new in pairs) / length,
        "switches_per_s": sum(new[1] - old[1] for old, new in pairs) / length,
        "desk_cpu_share": (desk_after[0] - desk_before[0]) / length,
        "desk_switches_per_s": (desk_after[1] - desk_before[1]) / length,
        "doors": float(sum("door" in process.cmdline() for process in bench.parents())),
    }


def _cpu_s(process: psutil.Process) -> float:
    """Return CPU seconds, in nanosecond steps from /proc/PID/schedstat if it exists, else in cpu_times' 10 ms ticks."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        times = process.cpu_times()
        return float(times.user + times.system)


def _switches(process: psutil.Process) -> int:
    switches = process.num_ctx_switches()
    return int(switches.voluntary + switches.involuntary)


# --- the desk ---------------------------------------------------------------------------------------------------------


def ask_all(name: str, count: int) -> float:
    """Return how many seconds ``status`` of ``count`` devices takes."""

    tasks = [task.AskState(Device(f"{name}-{number}", name, ssh=name)) for number in range(count)]
    began = time.monotonic()
    answers = [answer for _, answer in Threads().run(tasks)]
    assert all(isinstance(answer, tuple) for answer in answers), answers
    return time.monotonic() - began


def bare_all(config: Path, count: int) -> float:
    """Return how many seconds ``count`` times a bare ``ssh true`` takes."""
    argv = ["ssh", "-F", str(config), *OPTIONS, "--", "bare", "true"]
    # Each runs in its own session, as a link does: the kernel divides a busy machine among sessions (sched_autogroup).
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        done = pool.map(
            lambda _: subprocess.run(argv, stdin=subprocess.DEVNULL, start_new_session=True, check=True), range(count)
        )
        assert len(list(done)) == count
    return time.monotonic() - began


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--devices", type=int, default=50, help="how many are asked at once")
    options.add_argument("--rounds", type=int, default=8)
    arguments = options.parse_args()
    if not Path(SSHD).exists():
        print("no sshd here: apt-get install openssh-server")
        return 0
    facts = machine()
    count, rounds, seconds = (4, 1, 0.5) if arguments.smoke else (arguments.devices, arguments.rounds, 20.0)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        config = make_lab(folder, stack)
        with _environment(EDGEPROF_SSH=f"ssh -F {config}"):
            cost = device_cost(folder, seconds)
            walls: dict[str, list[float]] = {
                "ssh true": [],
                "null control": [],
                "answers at once": [],
                "real doors": [],
            }
            for number in range(rounds):
                walls["ssh true"].append(bare_all(config, count))
                walls["answers at once"].append(ask_all("canned", count))
                walls["null control"].append(bare_all(config, count))
                walls["real doors"].append(ask_all("board", count))
                print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    ratios = {
        name: [wall / bare for wall, bare in zip(values, walls["ssh true"], strict=True)]
        for name, values in walls.items()
    }
    print(about(facts))
    print(table(["of the SSH session while a device measures", "value", "target"], _device_rows(cost)))
    print()
    print(table(["of the desk while a device measures", "value"], _desk_rows(cost)))
    print()
    rows = [[name, f"{median_interval(walls[name])[0]:.2f} s", ratio_text(values)] for name, values in ratios.items()]
    print(table([f"{count} at once", "wall", "ratio to ssh true"], rows))
    write(arguments.json, {**facts, "devices": count, "device": cost, "wall_s": walls})
    middle, low, _ = median_interval(ratios["answers at once"])
    print(f"target ≤ {RATIO_TARGET} of what the desk pays: {'met' if middle <= RATIO_TARGET else 'missed'}")
    is_met = low <= RATIO_TARGET and cost["pss_bytes"] <= PSS_TARGET and cost["doors"] == 0
    return 0 if arguments.smoke or is_met else 1


def _device_rows(cost: dict[str, float]) -> list[list[str]]:
    return [
        ["memory (PSS)", f"{cost['pss_bytes'] / 1e6:.1f} MB", f"≤ {PSS_TARGET / 1e6:g} MB"],
        ["processor", f"{100 * cost['cpu_share']:.4f} %", f"≤ {100 * CPU_TARGET:g} %"],
        ["context switches", f"{cost['switches_per_s']:.2f} /s", ""],
        ["processes", f"{cost['processes']:.0f}", ""],
        ["doors beside the benchmark", f"{cost['doors']:.0f}", "0"],
    ]


def _desk_rows(cost: dict[str, float]) -> list[list[str]]:
    return [
        ["processor of the thread that waits for a device", f"{100 * cost['desk_cpu_share']:.4f} %"],
        ["its context switches", f"{cost['desk_switches_per_s']:.2f} /s"],
        ["empty jobs, one after another", f"{cost['jobs_per_minute']:.0f} a minute"],
    ]


@contextlib.contextmanager
def _environment(**variables: str) -> Any:
    import os

    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    sys.exit(main())
