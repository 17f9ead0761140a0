"""How long edgeprof takes to start, and until a first result, relative to ``python -c pass``.

Each round starts every command once, each time in another order, and gives one ratio to the bare interpreter for each
command. A second ``python -c pass`` is the null control. Targets: ``edgeprof --help`` takes at most 3 × as long as
``python -c pass``, and imports neither numpy nor psutil nor a runtime; the first frame of ``edgeprof top`` is on the
terminal within 0.15 s on a quiet machine.
"""

from __future__ import annotations

import os
import pty
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from paired import about, machine, median_interval, parser, ratio_text, table, write

PYTHON = sys.executable
TARGET = 3.0
#: The last words of the first frame of ``edgeprof top``, and how long it may take (s).
TOP, LAST_WORDS, TOP_TARGET_S = "first frame of edgeprof top", b"q: quit", 0.15
#: Packages that the start of the command line must not import.
HEAVY = ("numpy", "psutil", "msgspec", "pluggy", "onnxruntime", "torch", "ai_edge_litert")


def edgeprof() -> str:
    """Return the path of the installed command, preferably from this interpreter's environment."""
    beside = Path(sysconfig.get_path("scripts")) / "edgeprof"
    found = str(beside) if beside.exists() else shutil.which("edgeprof")
    if found is None:
        raise SystemExit("edgeprof is not installed; run: pip install -e .")
    return found


def tiny_model(directory: Path) -> Path | None:
    """Write an ONNX model of one small matrix product; None without the onnx package."""
    try:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [weight],
    )
    path = directory / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def once(command: list[str], environ: dict[str, str]) -> tuple[float, float, int]:
    """Start a command once; return its wall seconds, CPU seconds and exit code."""
    with open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device, for a child
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=environ)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    return wall, usage.ru_utime + usage.ru_stime, process.returncode


def first_frame(command: list[str], environ: dict[str, str]) -> tuple[float, float, int]:
    """Start a command in a terminal of its own, and end it when it has drawn a frame; as ``once``."""
    master, slave = pty.openpty()
    try:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**environ, "TERM": "xterm"})
        os.close(slave)
        shown = b""
        while LAST_WORDS not in shown:
            shown += os.read(master, 65536)
        wall = time.perf_counter() - begin
        os.write(master, b"q")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        os.close(master)
    return wall, usage.ru_utime + usage.ru_stime, process.returncode


def heavy_imports(command: str, environ: dict[str, str]) -> list[str]:
    """Return which heavy packages ``edgeprof --help`` imports."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{command!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        f"print(','.join(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, env=environ, check=True)
    return [name for line in done.stderr.splitlines()[-1:] for name in line.split(",") if name]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, help="rounds (default 40; the bench in every fourth)")
    options = arguments.parse_args()
    rounds = options.rounds or (3 if options.smoke else 40)
    facts = machine()
    command = edgeprof()
    with tempfile.TemporaryDirectory(prefix="edgeprof-bench-") as name:
        environ = {**os.environ, "EDGEPROF_DATA_DIR": str(Path(name) / "data")}
        commands = {
            "python -c pass": [PYTHON, "-c", "pass"],
            "null control": [PYTHON, "-c", "pass"],
            "import argparse, json": [PYTHON, "-c", "import argparse, json"],
            "edgeprof --help": [command, "--help"],
            "edgeprof --version": [command, "--version"],
            "edgeprof bench --help": [command, "bench", "--help"],
            TOP: [command, "top"],
        }
        model = tiny_model(Path(name))
        quick = [command, "bench", str(model), "--window", "0.2", "--windows", "3", "--idle", "0.2", "--warmup", "0.1"]
        first = "first result: bench, 3 × 0.2 s"
        if model is not None:
            commands[first] = quick
        walls: dict[str, list[float]] = {label: [] for label in commands}
        cpus: dict[str, list[float]] = {label: [] for label in commands}
        failed: dict[str, int] = {}
        timers = {label: first_frame if label == TOP else once for label in commands}
        for label, started in commands.items():
            timers[label](started, environ)  # loads files into the page cache and writes byte code
        for number in range(rounds):
            labels = list(commands)
            turn = number % len(labels)
            for label in labels[turn:] + labels[:turn]:
                if label == first and number % 4:
                    continue
                wall, cpu, code = timers[label](commands[label], environ)
                walls[label].append(wall)
                cpus[label].append(cpu)
                if code:
                    failed[label] = code
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
        imported = heavy_imports(command, environ)
    print(f"{about(facts)}; {rounds} rounds; median of paired ratios to python -c pass (95 % interval)\n")
    rows = []
    for label in commands:
        if label in failed:
            rows.append([label, f"failed with exit code {failed[label]}", "", "", "", ""])
            continue
        every = 4 if label == first else 1
        base = {"wall": walls["python -c pass"][::every], "cpu": cpus["python -c pass"][::every]}
        ratios = [w / b for w, b in zip(walls[label], base["wall"], strict=True)]
        cpu_ratios = [w / b for w, b in zip(cpus[label], base["cpu"], strict=True)]
        mark = ""
        if label == "edgeprof --help":
            _, low, high = median_interval(ratios)
            mark = "met" if high <= TARGET else "missed" if low > TARGET else "open"
        if label == TOP:
            _, low, high = median_interval(walls[label])
            mark = "met" if high <= TOP_TARGET_S else "missed" if low > TOP_TARGET_S else "open"
        rows.append(
            [
                label,
                f"{1e3 * statistics.median(walls[label]):.1f} ms",
                f"{1e3 * statistics.median(cpus[label]):.1f} ms",
                ratio_text(ratios),
                ratio_text(cpu_ratios),
                mark,
            ]
        )
    print(table(["command", "wall", "CPU", "wall ratio", "CPU ratio", "≤ 3 ×, ≤ 0.15 s"], rows))
    print(f"\nimported by edgeprof --help of {', '.join(HEAVY)}: {', '.join(imported) or 'none'}")
    content: dict[str, Any] = {"benchmark": "startup", "machine": facts, "wall_s": walls, "cpu_s": cpus}
    write(options.json, {**content, "failed": failed, "imported": imported})


if __name__ == "__main__":
    main()
