"""A workload in its own process, like edgeprof's worker: it reports how long each inference took, block by block.

Protocol on stdin and stdout: when it is ready, it writes ``{"model": …, "latency_s": …}``; then it answers each line
``<seconds>`` with one line of JSON, the latencies (s) of a block of that length. Nothing is written, logged or
allocated inside a block.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.worker import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

telemetry.turn_off()  # before ONNX Runtime is first imported, because its telemetry would run in another thread
#: The most inferences in one block.
_MOST = 200_000


def onnx_model(layers: int) -> Callable[[], Any]:
    """Return a call of a chain of 3×3 convolutions (16 channels, 32×32) in ONNX Runtime on one thread."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(layers):
        weights.append(numpy_helper.from_array(rng.normal(0, 0.05, (16, 16, 3, 3)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"]))
    shape = [1, 16, 32, 32]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x0": rng.normal(size=shape).astype(np.float32)}
    return lambda: session.run(None, feeds)


def numpy_model(layers: int) -> Callable[[], Any]:
    """Return a call of a chain of matrix products (96×96), for use without ONNX Runtime."""
    import numpy as np

    weights = np.random.default_rng(0).normal(0, 0.1, (96, 96)).astype(np.float32)

    def run() -> Any:
        x = weights
        for _ in range(layers):
            x = np.maximum(x @ weights, 0)
        return x

    return run


def build(target_s: float) -> tuple[str, Callable[[], Any]]:
    """Return a model's name and its call, sized for about the given latency (s) on this machine."""
    try:
        import onnx  # noqa: F401 - is it there?
        import onnxruntime  # noqa: F401 - is it there?

        name, make = "onnxruntime", onnx_model
    except ImportError:
        name, make = "numpy", numpy_model
    layers = 4
    for _ in range(4):
        layers = max(1, round(layers * target_s / quick_latency(make(layers))))
    return f"{name}, {layers} layers", make(layers)


def quick_latency(run: Callable[[], Any]) -> float:
    times = []
    end = time.perf_counter() + 0.15
    while time.perf_counter() < end or len(times) < 5:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]


def block(run: Callable[[], Any], seconds: float, latencies: array[float]) -> int:
    clock = time.perf_counter
    count, before = 0, clock()
    end = before + seconds
    while before < end and count < len(latencies):
        run()
        after = clock()
        latencies[count] = after - before
        before = after
        count += 1
    return count


def serve(target_s: float) -> None:
    name, run = build(target_s)
    latencies = array("d", bytes(8 * _MOST))
    print(json.dumps({"model": name, "latency_s": quick_latency(run)}), flush=True)
    for line in sys.stdin:
        count = block(run, float(line), latencies)
        print(json.dumps(latencies[:count].tolist()), flush=True)


class Load:
    """The benchmark's side of the workload process.

    Args:
        target_s: About how long one inference should take (s).
    """

    def __init__(self, target_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).resolve(), str(target_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        self.model: str = ready["model"]
        self.latency_s: float = ready["latency_s"]

    def run(self, seconds: float) -> list[float]:
        """Run one block of the given length and return its latencies (s)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the workload ended with exit code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
