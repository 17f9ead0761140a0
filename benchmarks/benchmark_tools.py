"""Does edgeprof measure the latency that each runtime's own benchmark tool measures on the same model?

The tools are LiteRT's litert-benchmark, OpenVINO's benchmark_app and llama.cpp's llama-bench (``--llama-bench``). ONNX
Runtime has none in its wheel, and a machine may lack llama-bench: a bare loop of the library's own calls takes its
place. Each round runs the tool, the tool again (the null control) and a window of edgeprof's worker, in order and in
reverse order, all on one thread, and gives ratios of medians. Target: within 1 %.

    python benchmarks/benchmark_tools.py --onnx model.onnx --tflite model.tflite --openvino model.onnx --gguf model.gguf
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from paired import about, machine, median_interval, parser, ratio_text, table, write

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.worker import telemetry
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

telemetry.turn_off()  # for the bare loop of ONNX Runtime too, as in edgeprof's worker
TARGET = (0.99, 1.01)
#: Lengths of the language model's windows: a call decodes GENERATED − 1 tokens behind PROMPT tokens.
PROMPT, GENERATED = 32, 33

#: argv: model, number of calls. Prints the median seconds of a call.
ONNX_LOOP = """
import statistics, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
binding = session.io_binding()
for item in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in item.shape]
    binding.bind_cpu_input(item.name, np.random.default_rng(0).random(shape, np.float32))
for item in session.get_outputs():
    binding.bind_output(item.name)
for _ in range(10):
    session.run_with_iobinding(binding)
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    session.run_with_iobinding(binding)
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""
#: argv: model, number of calls, tokens of the prompt, tokens that a call decodes. Prints the median seconds of a call.
LLAMA_LOOPS = {
    "llama_cpp": """
import ctypes, statistics, sys, time
import llama_cpp as lib
lib.llama_log_set(lib.llama_log_callback(lambda *_: None), ctypes.c_void_p(0))
path, calls, prompt, steps = sys.argv[1], *map(int, sys.argv[2:])
model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
params = lib.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch = prompt + steps, 1, 1
context = lib.llama_init_from_model(model, params)
tokens = (lib.llama_token * (prompt + steps))(*range(1, prompt + steps + 1))
at = lambda first, count: lib.llama_batch_get_one((lib.llama_token * count)(*tokens[first:first + count]), count)
lib.llama_decode(context, at(0, prompt))
times = []
for call in range(calls + 1):
    start = time.perf_counter()
    for step in range(steps):
        lib.llama_decode(context, at(prompt + step, 1))
        lib.llama_synchronize(context)
    times.append(time.perf_counter() - start)
    lib.llama_memory_seq_rm(lib.llama_get_memory(context), 0, prompt, -1)
print(statistics.median(times[1:]), flush=True)
""",
    "cyllama": """
import os, statistics, sys, time
from cyllama.llama import llama_cpp as lib
lib.disable_logging()
path, calls, prompt, steps = sys.argv[1], *map(int, sys.argv[2:])
model = lib.LlamaModel(path, lib.LlamaModelParams())
params = lib.LlamaContextParams()
params.n_ctx, params.n_threads, params.n_threads_batch = prompt + steps, 1, 1
context = lib.LlamaContext(model, params)
def batch(first, count):
    made = lib.LlamaBatch(n_tokens=count, embd=0, n_seq_max=1)
    for position in range(first, first + count):
        made.add(position + 1, position, [0], position == first + count - 1)
    return made
context.decode(batch(0, prompt))
batches = [batch(prompt + step, 1) for step in range(steps)]
times = []
for call in range(calls + 1):
    start = time.perf_counter()
    for one in batches:
        context.decode(one)
        context.synchronize()
    times.append(time.perf_counter() - start)
    context.memory_seq_rm(0, prompt, -1)
print(statistics.median(times[1:]), flush=True)
os._exit(0)
""",
}


@dataclass(frozen=True)
class Case:
    """One model, a runtime of edgeprof, and what it is compared with.

    Attributes:
        runtime: The name of the runtime.
        tool: The name of the tool.
        model: The model file.
        time_calls: Runs the tool for a number of calls and returns the median seconds of a call.
        options: Options of edgeprof's runtime.
        workload: The workload of the windows; None: the main one.
    """

    runtime: str
    tool: str
    model: Path
    time_calls: Callable[[int], float]
    options: dict[str, str]
    workload: str | None = None


class ToolError(Exception):
    """Raised if a tool does not run a model; its text is a sentence."""


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().rpartition("\n")[2][-200:]
        raise ToolError(f"{Path(command[0]).name} ended with status {done.returncode}: {words}")
    return done.stdout


def beside_python(name: str) -> str:
    """The path of a program that belongs to the environment of this interpreter."""
    path = Path(sys.executable).with_name(name)
    program = str(path) if path.exists() else shutil.which(name)
    if program is None:
        raise SystemExit(f"{name} is not installed in the environment of {sys.executable}")
    return program


def onnxruntime_case(model: Path) -> Case:
    def time_calls(count: int) -> float:
        return float(run(sys.executable, "-c", ONNX_LOOP, model, str(count)))

    return Case("onnxruntime", "a bare loop", model, time_calls, {})


def litert_case(model: Path) -> Case:
    program = beside_python("litert-benchmark")

    def time_calls(count: int) -> float:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            run(program, f"--model={model}", f"--num_runs={count}", "--warmup_runs=10", f"--result_json={file.name}")
            return float(json.loads(Path(file.name).read_text())["latency"]["median_ms"]) / 1e3

    return Case("litert", "litert-benchmark", model, time_calls, {})


def openvino_case(model: Path) -> Case:
    program = beside_python("benchmark_app")

    def time_calls(count: int) -> float:
        said = run(
            program, "-m", model, "-d", "CPU", "-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", "1",
            "-niter", str(count), "-infer_precision", "f32",
        )  # fmt: skip
        return float(re.findall(r"Median:\s+([\d.]+) ms", said)[0]) / 1e3

    return Case("openvino", "benchmark_app", model, time_calls, {"precision": "f32"})


def llama_case(model: Path, program: Path | None) -> Case:
    options = {"prompt": str(PROMPT), "generate": str(GENERATED)}

    def time_bench(count: int) -> float:
        lengths = ["-p", "0", "-n", str(GENERATED - 1), "-d", str(PROMPT), "-t", "1", "-r", str(count), "-o", "json"]
        (test,) = json.loads(run(str(program), "-m", model, *lengths))
        return float(statistics.median(test["samples_ns"])) / 1e9

    if program is not None:
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not a program that can be run")
        return Case("llamacpp", "llama-bench", model, time_bench, options, "decode")
    import importlib.util

    library = next((name for name in LLAMA_LOOPS if importlib.util.find_spec(name)), None)
    if library is None:
        raise SystemExit("neither llama-cpp-python nor cyllama is installed")
    loop = LLAMA_LOOPS[library]

    def time_loop(count: int) -> float:
        return float(run(sys.executable, "-c", loop, model, str(count), str(PROMPT), str(GENERATED - 1)))

    return Case("llamacpp", f"a bare loop of {library}", model, time_loop, {**options, "library": library}, "decode")


def measure(case: Case, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the median seconds of a call, one value for each round: the tool, the tool again, edgeprof."""
    runtime = PluginHost.from_environment().of("runtimes")[case.runtime]()
    spec = WorkerSpec.of(runtime, str(case.model.resolve()), LoadOptions("cpu", 1, 1, {}, case.options), timeout_s=600)
    medians: dict[str, list[float]] = {"tool": [], "tool again": [], "edgeprof": []}
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(Worker(spec))
        worker.load()
        latency = worker.warm_up(min(seconds, 1.0), 20.0, workload=case.workload).latency_s
        count = max(3, round(seconds / latency))

        def by_edgeprof() -> float:
            return float(np.median(worker.window(Scenario(), seconds, case.workload).latencies))

        calls = dict.fromkeys(("tool", "tool again"), lambda: case.time_calls(count)) | {"edgeprof": by_edgeprof}
        names = list(medians)
        for number in range(rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            values: dict[str, list[float]] = {name: [] for name in names}
            for name in order + order[::-1]:
                values[name].append(calls[name]())
            for name in names:
                medians[name].append(statistics.mean(values[name]))
            print(f"  {case.runtime}, round {number + 1} of {rounds}", file=sys.stderr)
    return medians


def verdict(ratios: list[float]) -> str:
    _, low, high = median_interval(ratios)
    if low >= TARGET[0] and high <= TARGET[1]:
        return "met"
    return "missed" if high < TARGET[0] or low > TARGET[1] else "open"


def main() -> int:
    options = parser(__doc__)
    for name in ("onnx", "tflite", "openvino", "gguf"):
        options.add_argument(f"--{name}", type=Path, metavar="MODEL", help="leave out what is not to be compared")
    options.add_argument("--llama-bench", type=Path, metavar="PROGRAM")
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--seconds", type=float, default=1.0, help="of one window")
    given = options.parse_args()
    if not (given.onnx or given.tflite or given.openvino or given.gguf):
        given.onnx = Path(__file__).parents[1] / "examples/demo/digits.onnx"
    rounds, seconds = (1, 0.1) if given.smoke else (given.rounds, given.seconds)
    cases = [
        *([onnxruntime_case(given.onnx)] if given.onnx else []),
        *([litert_case(given.tflite)] if given.tflite else []),
        *([openvino_case(given.openvino)] if given.openvino else []),
        *([llama_case(given.gguf, given.llama_bench)] if given.gguf else []),
    ]
    facts = machine()
    rows, results, failed = [], {}, []
    for case in cases:
        try:
            medians = results[case.runtime] = measure(case, rounds, seconds)
        except ToolError as error:
            failed.append(f"{case.runtime}, {case.model.name}: {error}")
            continue
        base = medians["tool"]
        ratios = {name: [a / b for a, b in zip(medians[name], base, strict=True)] for name in medians}
        row = [case.runtime, case.model.name, case.tool, f"{statistics.median(base) * 1e3:.3f} ms"]
        rows.append(
            [*row, ratio_text(ratios["tool again"]), ratio_text(ratios["edgeprof"]), verdict(ratios["edgeprof"])]
        )
    print(f"{about(facts)}; {rounds} rounds of {seconds:g} s; median of ratios of medians (95 % interval)\n")
    print(table(["runtime", "model", "compared with", "its p50", "null control", "edgeprof", "within 1 %"], rows))
    write(given.json, {"machine": facts, "seconds": results})
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
