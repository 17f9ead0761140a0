"""Is edgeprof's measurement of an NVIDIA GPU correct, and what does it cost?

It writes DIR/<gpu>.json and .md. The parts are: CUDA through each of its libraries; how often NVML's values change;
NVML's integrated power compared with its energy counter, under pulses of load, at several rates; how much sampling at
100 Hz slows a model (paired, with a null control); ``edgeprof bench`` of PyTorch, ONNX Runtime and TensorRT, timed by
CUDA events and by wall clock. Parts that a machine cannot run are left out with the reason. It takes about 5 minutes
and needs no network.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_models import write_onnx
from paired import about, machine, parser, ratio_text, table, write

import edgeprof_plugins.runtimes.pytorch.runtime as pytorch_runtime
from edgeprof.energy.integrate import window_energy
from edgeprof.errors import EdgeprofError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.roots import Roots
from edgeprof.sensing.sampler import Sampler
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof_plugins.runtimes.nvidia.cuda import BACKENDS, Cuda, CudaError, choose
from edgeprof_plugins.runtimes.nvidia.driver import ask_driver
from edgeprof_plugins.sensors import nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.sensing.sensor import Channel, Sensor
    from edgeprof_plugins.runtimes.nvidia.driver import Driver

MODELS = Path(__file__).with_name("gpu_models.py")
RATES_HZ = (5.0, 20.0, 100.0, 500.0)
#: Seconds with and without load in a pulse: neither is a multiple of the other, nor of NVML's refresh interval.
PULSE_S = (0.73, 0.41)
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-lean-cu13", "nvidia-ml-py", "numpy")


class LackingError(Exception):
    """Something that a part needs is missing on this machine."""


@dataclass
class Machine:
    """What the parts share; ``sensor`` is None if NVML cannot be used, and ``no_sensor`` gives the reason."""

    driver: Driver
    sensor: Sensor | None
    no_sensor: str
    seconds: float
    rounds: int
    copy_bytes: int
    folder: Path
    engine: Path | None

    def nvml(self) -> Sensor:
        if self.sensor is None:
            raise LackingError(self.no_sensor)
        return self.sensor

    def worker(self) -> Worker:
        """Return a worker process that has loaded and warmed up PyTorch's model on the GPU."""
        options = LoadOptions(device="cuda", threads=None, batch=1, shapes={}, options={})
        spec = WorkerSpec(Path(pytorch_runtime.__file__), "PyTorch", f"{MODELS}:torch_model", options)
        worker = Worker(spec)
        try:
            worker.load()
            worker.warm_up(0.5, 10.0)
        except EdgeprofError as error:
            worker.close()
            raise LackingError(error.message) from None
        return worker


@dataclass(frozen=True)
class Polled:
    """Readings of every channel: ``times[name]`` and ``values[name]`` of shape (n,), seconds and SI units."""

    channels: dict[str, Channel]
    times: dict[str, Any]
    values: dict[str, Any]


def poll(
    sensor: Sensor,
    rate_hz: float,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Polled:
    """Read at the given rate, also faster than the source changes, which edgeprof's sampler avoids."""
    width = len(sensor.channels)
    rows: list[tuple[list[float], list[float]]] = []
    begin = clock()
    for number in range(max(2, int(seconds * rate_hz))):
        sleep(max(0.0, begin + number / rate_hz - clock()))
        values, times = array("d", [math.nan] * width), array("d", [0.0] * width)
        sensor.read(values, times)
        rows.append((list(values), list(times)))
    names = {channel.quantity: index for index, channel in reversed(list(enumerate(sensor.channels)))}
    return Polled(
        {name: sensor.channels[index] for name, index in names.items()},
        {name: np.array([times[index] for _, times in rows]) for name, index in names.items()},
        {name: np.array([values[index] for values, _ in rows]) for name, index in names.items()},
    )


def refresh_interval(times: Any, values: Any) -> dict[str, float | None]:
    """Return the seconds between changes of a polled value: median and 95th percentile; None for too few changes."""
    changed = times[1:][np.diff(values) != 0]
    gaps = np.diff(changed)
    if len(gaps) < 5:
        return {"median_s": None, "p95_s": None, "changes": len(changed)}
    return {"median_s": float(np.median(gaps)), "p95_s": float(np.quantile(gaps, 0.95)), "changes": len(changed)}


def power_over_counter(polled: Polled, start: float, end: float) -> dict[str, float | None]:
    """Return the joules of the integrated power and of the counter between two times (s), and their ratio."""
    joules: dict[str, float | None] = {}
    for name in ("power", "energy"):
        joules[name] = None
        if name in polled.channels:
            times, values = polled.times[name], polled.values[name]
            fresh = np.concatenate(([True], np.diff(values) != 0)) if name == "power" else np.full(len(values), True)
            found = window_energy(times[fresh], values[fresh], start, end, polled.channels[name], edges="interpolated")
            joules[name] = found.joules
    power, counter = joules["power"], joules["energy"]
    return {"power_j": power, "counter_j": counter, "ratio": power / counter if power and counter else None}


def pulses(worker: Worker, stop: threading.Event) -> None:
    while not stop.is_set():
        worker.window(Scenario(), PULSE_S[0])
        stop.wait(PULSE_S[1])


def under_load(box: Machine, look: Callable[[], Any]) -> Any:
    stop = threading.Event()
    with box.worker() as worker:
        thread = threading.Thread(target=pulses, args=(worker, stop))
        thread.start()
        try:
            return look()
        finally:
            stop.set()
            thread.join()


# ---- the parts ------------------------------------------------------------------------------------------------------


def cuda(box: Machine) -> dict[str, Any]:
    """Test each library: copy data to the GPU and back, time copies with events, and replay a captured graph."""

    def one(name: str) -> dict[str, Any]:
        return one_library(choose(name, 0, "auto", box.driver), box.copy_bytes)

    return {name: attempt(partial(one, name)) for name in BACKENDS}


def one_library(gpu: Cuda, size: int) -> dict[str, Any]:
    stream = gpu.stream()
    source, target, address = gpu.host(size), gpu.host(size), gpu.malloc(size)
    events = [gpu.event() for _ in range(3)]
    try:
        source[:] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        there, back = gpu.copy_in(address, source, stream), gpu.copy_out(target, address, stream)
        seconds: list[list[float]] = [[], []]
        for _ in range(10):
            gpu.record(events[0], stream)
            there()
            gpu.record(events[1], stream)
            back()
            gpu.record(events[2], stream)
            gpu.wait(stream)
            for direction in (0, 1):
                seconds[direction].append(gpu.elapsed_s(events[direction], events[direction + 1]))
        found: dict[str, Any] = {"cuda": gpu.runtime_version(), "data_came_back": bool((source == target).all())}
        found["h2d_bytes_per_s"], found["d2h_bytes_per_s"] = (size / float(np.median(s)) for s in seconds)
        try:
            target[:] = 0
            graph = gpu.capture(stream, back)
            gpu.launch(graph, stream)
            gpu.wait(stream)
            gpu.close_graph(graph)
            found["graph_ran"] = bool((source == target).all())
        except CudaError as error:
            found["graph"] = str(error)
        return found
    finally:
        gpu.wait(stream)
        for event in events:
            gpu.close_event(event)
        gpu.free(address)
        gpu.host_free(source)
        gpu.host_free(target)
        gpu.close_stream(stream)


def refresh(box: Machine) -> dict[str, Any]:
    """Measure how often NVML's energy counter and power change, polled every millisecond under pulses of load."""
    sensor = box.nvml()
    polled = under_load(box, lambda: poll(sensor, 1000.0, 2 * box.seconds))
    return {n: refresh_interval(polled.times[n], polled.values[n]) for n in ("energy", "power") if n in polled.times}


def counter(box: Machine) -> dict[str, Any]:
    """Measure the ratio of the integrated power to the counter's joules, at several rates."""
    sensor = box.nvml()

    def look() -> dict[str, Any]:
        found = {}
        for rate in RATES_HZ:
            polled = poll(sensor, rate, 4 * box.seconds)
            ends = [(times[0], times[-1]) for times in polled.times.values()]
            found[f"{rate:g} Hz"] = power_over_counter(polled, max(e[0] for e in ends), min(e[1] for e in ends))
        return found

    found: dict[str, Any] = under_load(box, look)
    return found


def overhead(box: Machine) -> dict[str, Any]:
    """Measure the model's latency with NVML sampled at 100 Hz relative to the latency without: one ratio per round."""
    sensor = box.nvml()
    ratios: dict[str, list[float]] = {"null control": [], "100 Hz": []}
    with box.worker() as worker:
        seen = sensor.process_memory_bytes(worker.pid) if worker.pid is not None else None
        for number in range(box.rounds):
            names = ["bare", *ratios][:: 1 if number % 2 else -1]
            blocks: dict[str, list[float]] = {name: [] for name in names}
            for name in names + names[::-1]:
                if name == "100 Hz":
                    with Sampler([sensor], 100.0):
                        run = worker.window(Scenario(), box.seconds / 2)
                else:
                    run = worker.window(Scenario(), box.seconds / 2)
                blocks[name] += run.latencies.tolist()
            for name, found in ratios.items():
                found.append(float(np.median(blocks[name]) / np.median(blocks["bare"])))
        memory = {"process_bytes_by_nvml": seen, "peak_bytes_by_pytorch": worker.memory().gpu_peak}
    return {"p50_ratio": ratios, "memory": memory}


def benches(box: Machine) -> dict[str, Any]:
    """Run ``edgeprof bench`` with each runtime; a missing runtime reports that itself."""
    torch = [f"{MODELS}:torch_model", "--runtime", "pytorch", "--device", "cuda"]
    build = ["--runtime", "tensorrt", "--timeout", "300"]
    cases: dict[str, Callable[[], list[str]]] = {
        "PyTorch": lambda: torch,
        "PyTorch, CUDA graph": lambda: [*torch, "--option", "cuda_graph=1"],
        "ONNX Runtime": lambda: [onnx(box), "--device", "cuda"],
        "ONNX Runtime, CUDA graph": lambda: [onnx(box), "--device", "cuda", "--option", "provider.enable_cuda_graph=1"],
        "ONNX Runtime, offline": lambda: [onnx(box), "--device", "cuda", "--scenario", "offline"],
        "ONNX Runtime, TensorRT": lambda: [onnx(box), "--device", "tensorrt"],
        "TensorRT": lambda: [onnx(box), *build],
        "TensorRT, CUDA graph": lambda: [onnx(box), *build, "--option", "cuda_graph=1"],
    }
    if box.engine is not None:
        engine = str(box.engine)
        cases["TensorRT, " + box.engine.name] = lambda: [engine]
    return {name: attempt(lambda make=make: bench(box, make())) for name, make in cases.items()}


def onnx(box: Machine) -> str:
    path = box.folder / "chain.onnx"
    if not path.exists():
        try:
            write_onnx(path)
        except ImportError as error:
            raise LackingError(f"{error.name} is not installed, to write the ONNX model with") from None
    return str(path)


def bench(box: Machine, arguments: Sequence[str]) -> dict[str, Any]:
    out = box.folder / "result.json"
    out.unlink(missing_ok=True)
    length = ["--windows", "4", "--window", f"{box.seconds / 2:g}", "--warmup", "1", "--idle", "1"]
    command = [sys.executable, "-m", "edgeprof", "bench", *arguments, *length, "-q", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    if not out.exists():
        raise LackingError(
            (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[0]
        )
    (variant,) = json.loads(out.read_text())["variants"]
    if variant["status"] == "failed":
        raise LackingError(variant["reasons"][0]["message"])
    return summary(variant)


def summary(variant: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a result's variant that the record keeps."""
    energy = variant["energy_j_per_inference"]
    return {
        "runtime": variant["runtime"],
        "latency_p50_s": variant["latency_s"]["p50"],
        "energy_j": energy["gross"]["value"] if energy else None,
        "energy_provenance": energy["provenance"] if energy else None,
        "gpu": variant["gpu"],
        "remarks": [reason["message"] for reason in variant["reasons"]],
    }


PARTS = {"cuda": cuda, "refresh": refresh, "counter": counter, "overhead": overhead, "benches": benches}


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a part's answer, or the reason why there is none, so that a part that fails does not stop the others."""
    try:
        return work()
    except (LackingError, LoadError, EdgeprofError, CudaError) as error:
        return {"skipped": str(error)}
    except Exception as error:  # noqa: BLE001 - a record is wanted of the rest
        return {"skipped": f"{type(error).__name__}: {error}"}


# ---- what is written ------------------------------------------------------------------------------------------------


def report(record: dict[str, Any]) -> str:
    """Return the record as Markdown."""
    parts = record["parts"]
    lines = [f"# {record['gpu']}", "", f"    {record['command']}", "", about(record["machine"]) + "; " + record["with"]]

    def section(title: str, part: str, head: list[str], row: Callable[[str, dict[str, Any]], list[str]]) -> None:
        found = parts[part]
        lines.extend(["", f"## {title}", ""])
        if "skipped" in found:
            lines.append(f"Not run: {found['skipped']}")
            return
        empty = [""] * (len(head) - 2)
        lines.append(
            table(
                head,
                [[n, "not run: " + v["skipped"], *empty] if "skipped" in v else row(n, v) for n, v in found.items()],
            )
        )

    section(
        "CUDA",
        "cuda",
        ["library", "data came back", "to the GPU", "from it", "graph"],
        lambda name, v: [
            name,
            "yes" if v["data_came_back"] else "NO",
            f"{v['h2d_bytes_per_s'] / 1e9:.1f} GB/s",
            f"{v['d2h_bytes_per_s'] / 1e9:.1f} GB/s",
            v.get("graph") or ("ran" if v["graph_ran"] else "WRONG"),
        ],
    )
    section(
        "How often NVML's values change",
        "refresh",
        ["value", "median", "95 %", "changes"],
        lambda name, v: [name, _ms(v["median_s"]), _ms(v["p95_s"]), str(v["changes"])],
    )
    section(
        "Integrated power over the energy counter",
        "counter",
        ["polled at", "power", "counter", "ratio"],
        lambda name, v: [name, _text(v["power_j"], "J"), _text(v["counter_j"], "J"), _text(v["ratio"], "", 4)],
    )
    lines.extend(["", "## Slow-down by sampling", ""])
    if "skipped" in parts["overhead"]:
        lines.append(f"Not run: {parts['overhead']['skipped']}")
    else:
        ratios, memory = parts["overhead"]["p50_ratio"], parts["overhead"]["memory"]
        lines.append(table(["NVML sampled", "p50 over bare (95 %)"], [[n, ratio_text(r)] for n, r in ratios.items()]))
        seen, peak = memory["process_bytes_by_nvml"], memory["peak_bytes_by_pytorch"]
        lines.extend(
            ["", f"Memory of the process: {_text(seen, 'bytes', 0)} by NVML, {_text(peak, 'bytes', 0)} by PyTorch."]
        )
    section(
        "edgeprof bench",
        "benches",
        ["runtime", "latency p50", "wall", "GPU time", "to the GPU", "from it", "enqueue", "queue", "energy"],
        lambda name, v: [
            name,
            _ms(v["latency_p50_s"]),
            *[_ms((v["gpu"] or {}).get(key)) for key in ("wall_s", "compute_s", "h2d_s", "d2h_s", "enqueue_s")],
            (v["gpu"] or {}).get("queue") or "–",
            "–" if v["energy_j"] is None else f"{v['energy_j'] * 1e3:.3g} mJ ({v['energy_provenance']})",
        ],
    )
    return "\n".join(lines) + "\n"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3f} ms"


def _text(value: float | None, unit: str, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f} {unit}".strip()


def installed() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # noqa: PERF203 - looking is the point
            continue
    return ", ".join(found)


def nvml_sensor() -> tuple[Sensor | None, str]:
    try:
        sensors = nvml.find(Roots())
    except EdgeprofError as error:
        return None, f"{error.message} ({error.remedy})"
    return (sensors[0], "") if sensors else (None, "NVML finds no GPU")


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("records"), metavar="DIR")
    options.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated (default: all)")
    options.add_argument("--engine", type=Path, help="a TensorRT engine to bench besides")
    given = options.parse_args(arguments)
    try:
        driver = ask_driver()
    except LoadError as error:
        print(f"gpu.py: {error.message}. {error.remedy}", file=sys.stderr)
        return 2
    facts, name = machine(), driver.gpus[0].name
    sensor, reason = nvml_sensor()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        seconds, rounds, size = (0.5, 2, 1 << 20) if given.smoke else (2.0, 10, 64 << 20)
        box = Machine(driver, sensor, reason, seconds, rounds, size, Path(folder), given.engine)
        for part, work in PARTS.items():
            print(f"  {part}", file=sys.stderr)
            chosen = not given.only or part in given.only
            found[part] = attempt(lambda work=work: work(box)) if chosen else {"skipped": "not asked for"}
    given_here = sys.argv[1:] if arguments is None else arguments
    record = {
        "gpu": name,
        "compute": driver.gpus[0].compute,
        "driver_cuda": driver.version,
        "command": " ".join(["python benchmarks/gpu.py", *given_here]),
        "machine": facts,
        "with": installed(),
        "parts": found,
    }
    given.output.mkdir(parents=True, exist_ok=True)
    stem = given.output / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    write(stem.with_suffix(".json"), record)
    stem.with_suffix(".md").write_text(report(record), encoding="utf-8")
    write(given.json, record)
    print(report(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
